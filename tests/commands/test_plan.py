"""`sampeft plan`: the options of `train`, numbers for people and programs, nothing written."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from fabricate import folder_dataset
from fabricate.backbones import tiny
from sampeft import cli
from sampeft.backbones import BACKBONES
from sampeft.commands import plan as command
from sampeft.commands import train
from sampeft.data import open_dataset
from sampeft.data.cache import Preparation, fingerprint, prepare
from sampeft.data.intensity import PRESETS
from sampeft.planning import trial_run as planning

SPEC = tiny(BACKBONES["sam-vit-b"])


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(BACKBONES, SPEC.name, SPEC)
    monkeypatch.setitem(cli.COMMANDS, "plan", "what a training will cost")
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "cache"))
    folder_dataset(tmp_path / "data", cases=4, files_per_case=2)
    chosen = ["--backbone", SPEC.name, "--weights", "random", "--side", str(SPEC.family.TINY_SIDE), "--held_out", "1"]
    return ["plan", "--data", str(tmp_path / "data"), *chosen, "--out", str(tmp_path / "run")]


def test_it_takes_every_option_of_train_with_its_default() -> None:
    own = {field.name: field for field in fields(command.Config)}
    assert [field.name for field in fields(train.Config)] == list(own)
    for field in fields(train.Config):
        if field.name != "out":
            assert (field.default, field.default_factory) == (own[field.name].default, own[field.name].default_factory)


def test_numbers_add_up_and_nothing_is_written(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert cli.main([*arguments, "--training.steps", "20", "--json"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    told = json.loads(capsys.readouterr().out)
    (memory,) = told["memory"] if told["device"] == "cpu" else told["memory"][:1]
    assert memory["peak"] == sum(memory["parts"].values())
    assert told["course"]["total_seconds"] == pytest.approx(sum(told["course"]["seconds"].values()))
    steps = told["course"]["steps"]
    assert steps["head on encoded slices"] + steps["all that is trained"] == 20
    assert steps["head on encoded slices"] == 6
    assert told["verdict"] == "fits"
    assert told["parameters"]["trained"] < told["parameters"]["total"]


def test_too_little_memory_is_told_with_what_to_change(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "room_bytes", lambda: 1 << 20)
    assert cli.main([*arguments, "--training.batch", "4"]) == 0
    told = capsys.readouterr().out
    assert "of 1 MiB: does not fit" in told
    changes = [line.split()[1] for line in told.splitlines() if line.startswith("change")]
    assert changes[:4] == ["--training.accumulate", "--training.batch", "--options.last", "--side"]


def test_slices_are_counted_as_they_are_prepared(arguments: list[str], tmp_path: Path) -> None:
    dataset = open_dataset(tmp_path / "data")
    preparation = Preparation(PRESETS["percentile"], SPEC.family.TINY_SIDE)
    cases = list(dataset.cases)
    slices = prepare(dataset, cases, preparation, fingerprint(cases), folder=tmp_path / "slices")
    counted = planning.workload_of(dataset, cases, cases[:1], preparation)
    known = planning.workload_of(dataset, cases, cases[:1], preparation, slices)
    assert (counted.slices, counted.slice_bytes) == (known.slices, known.slice_bytes) == (8, 3 * 64 * 64)
    assert counted.held_out_slices == 2
    assert counted.scoring_seconds > 0


def test_a_denoiser_has_no_plan(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*arguments, "--task", "denoise"]) == 2
    assert "--task segment" in capsys.readouterr().err
