"""`sampeft plan`: the options of `train`, numbers for people and programs, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricate import folder_dataset, write_nifti, write_png
from fabricate.backbones import tiny
from sampeft import cli
from sampeft.backbones import BACKBONES
from sampeft.commands import plan as command
from sampeft.data import open_dataset
from sampeft.data.intensity import PRESETS
from sampeft.data.slice_cache import Preparation, fingerprint, prepare
from sampeft.data.unprepared import Unprepared, shapes_of
from sampeft.planning import trial_run as planning
from sampeft.workflows import train

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
    unprepared = Unprepared(dataset, shapes_of(cases), preparation)
    counted = planning.workload_of(dataset, shapes_of(cases[:1]), preparation, unprepared)
    known = planning.workload_of(dataset, shapes_of(cases[:1]), preparation, slices)
    assert all(np.array_equal(unprepared[i], slices.channels[i]) for i in range(8))
    assert (counted.slices, counted.slice_bytes) == (known.slices, known.slice_bytes) == (8, 3 * 64 * 64)
    assert counted.held_out_slices == 2
    assert counted.scoring_seconds > 0


def small_targets(root: Path) -> None:
    """Six pictures of 64 x 64 pixels, one case each, with two squares of 3 pixels."""
    random = np.random.default_rng(0)
    for case in range(6):
        label = np.zeros((64, 64), dtype=np.uint8)
        for row, column in random.integers(0, 60, (2, 2)):
            label[row : row + 3, column : column + 3] = 1
        write_png(root / "images" / f"{case}.png", (100 * label + random.integers(0, 60, label.shape)).astype(np.uint8))
        write_png(root / "labels" / f"{case}.png", label)


def thick_slices(root: Path) -> None:
    """Four volumes of 10 x 12 x 14 voxels: three in coronal slices of 5 mm, the first in axial ones."""
    for case, spacing in enumerate([(1, 1, 5), (1, 5, 1), (1, 5, 1), (1, 5, 1)]):
        label = np.zeros((10, 12, 14), dtype=np.uint8)
        label[2:8, 3:9, 4:10] = 1
        affine = np.diag([*spacing, 1.0])
        write_nifti(root / "images" / f"{case}.nii.gz", (100 * label).astype(np.int16), affine)
        write_nifti(root / "labels" / f"{case}.nii.gz", label, affine)


@pytest.mark.parametrize(
    ("make", "held_out", "slices", "patch", "chosen"),
    [
        (small_targets, 1, 5, 32, "patch     32 of 64 pixels a step"),
        (thick_slices, 1, 36, None, "plane     coronal slices, by the spacing of most volumes"),
    ],
)
def test_what_is_planned_is_what_is_trained(
    make: Callable[[Path], None],
    held_out: int,
    slices: int,
    patch: int | None,
    chosen: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Patch and plane are chosen by the data, and memory and time are those of the same settings and slices."""
    make(tmp_path / "other")
    classes = {"labels": {"background": 0, "target": 1}}
    (tmp_path / "other" / "dataset.json").write_text(json.dumps(classes))
    asked: list[tuple[Any, ...]] = []

    def plan_training(model: Any, training: Any, workload: Any, method: str) -> Any:
        asked.append((training, replace(workload, scoring_seconds=0.0), method))
        return planning.plan_training(model, training, workload, method)

    for module in (command, train):
        monkeypatch.setattr(module, "plan_training", plan_training)
    options = [*arguments[1:], "--data", str(tmp_path / "other"), "--held_out", str(held_out), "--training.steps", "2"]
    for name in ("plan", "train"):
        assert cli.main([name, *options]) == 0
        assert chosen in capsys.readouterr().err
    planned, trained = asked
    assert planned == trained
    assert (planned[0].patch, planned[1].slices) == (patch, slices)


def test_a_denoiser_has_no_plan(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*arguments, "--task", "denoise"]) == 2
    assert "--task segment" in capsys.readouterr().err
