"""`sampeft sweep`: every run once whoever does it, failures beside the others, nothing of two plans mixed, tests left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import SoftFileLease

from fabricate import folder_dataset
from fabricate.backbones import tiny_sam
from fabricate.evaluations import evaluation_of
from sampeft.cli import main
from sampeft.commands.sweep import Config
from sampeft.data.case import Dataset
from sampeft.errors import UsageError
from sampeft.experiments import sweep_runs
from sampeft.experiments.sweep import planned
from sampeft.metrics.scores import Evaluation

SIDE = 64
TRAINING = ["--backbone", "tiny", "--weights", "random", "--side", str(SIDE), "--held_out", "1",
            "--training.steps", "2", "--training.batch", "1", "--training.validations", "1",
            "--training.head_first", "0"]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with tiny_sam(SIDE, tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six cases P01..P06, of which P06 is listed as a test case."""
    folder = folder_dataset(tmp_path / "data")
    for part in ("images", "labels"):
        for path in list((folder / part).iterdir()):
            if path.name.startswith(("P01", "P02")):
                path.with_name(path.name.replace("P01", "P05").replace("P02", "P06")).write_bytes(path.read_bytes())
    (folder / "train.txt").write_text("\n".join(f"P{c:02d}_{p}" for c in range(1, 6) for p in (1, 2)))
    (folder / "test.txt").write_text("P06_1\nP06_2")
    return folder


def without_report(out: Path, evaluations: dict[str, Evaluation], *_: Any) -> None:
    next(iter(evaluations.values())).write(out)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings and scores at once and without a model: a case's DSC is the rank in hundredths, more with the seed and with
    the case; a rank of 66 fails and one of 99 is stopped. Returns what was trained, in order."""
    trained: list[str] = []

    def train(config: Any, dataset: Dataset) -> SimpleNamespace:
        trained.append("/".join(config.out.parts[-3:-1]))
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "rank").write_text(f"{config.options.get('rank', 4)} {config.training.seed}")
        if config.options.get("rank") == 66:
            raise UsageError("rank 66 is unlucky")
        if config.options.get("rank") == 67:
            raise RuntimeError("out of memory\nof the GPU")
        return SimpleNamespace(stopped=config.options.get("rank") == 99, signal=signal.SIGINT, steps=2, minutes=0.5)

    def load(run: Path, **_: Any) -> SimpleNamespace:
        rank, seed = map(int, (run / "rank").read_text().split())
        return SimpleNamespace(name=f"rank {rank}", rank=rank, seed=seed, description={"trainable": 1000 * rank})

    def evaluate(segmenter: Any, dataset: Dataset, cases: Any, part: str, *_: Any) -> tuple[Evaluation, list[Any]]:
        scores = [[(10 * segmenter.rank + segmenter.seed + int(case.id[1:])) / 1000] * 2 for case in cases]
        return evaluation_of(scores, [case.id for case in cases], split=part, data=dataset.name), []

    monkeypatch.setattr(sweep_runs, "train", train)
    monkeypatch.setattr(sweep_runs, "load", load)
    monkeypatch.setattr(sweep_runs, "checked_cases", lambda dataset, split: dataset.split(split))
    monkeypatch.setattr(sweep_runs, "evaluate_segmenter", evaluate)
    monkeypatch.setattr(sweep_runs, "_free_memory", lambda: None)
    monkeypatch.setattr(sweep_runs, "write_results", without_report)
    monkeypatch.setattr("sampeft.experiments.sweep_results.write_results", without_report)
    for name in ("figure_classes", "figure_ranks"):
        monkeypatch.setattr(f"sampeft.report.comparison_files.{name}", lambda _, path: None)
    monkeypatch.setattr(sweep_runs, "LOOK_AGAIN_SECONDS", 0.05)
    return trained


def sweep(data: Path, out: Path, *more: str) -> int:
    return main(["sweep", "--data", str(data), "--out", str(out), *TRAINING, *more])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def parts(data: Path, **more: Any) -> dict[str, dict[str, set[str]]]:
    """Part -> split -> case ids."""
    made = planned(Config(data, Path("out"), backbone="tiny", weights="random", side=SIDE, **{"held_out": 1, **more}))
    return {name: {split: set(ids) for split, ids in part.dataset.splits.items()} for name, part in made.parts.items()}


# --- which cases ------------------------------------------------------------------------------------------------------


def test_folds_score_every_case_once_and_no_test_case_ever(data: Path) -> None:
    found = parts(data, folds=5)
    assert list(found) == [f"fold{n}of5" for n in range(1, 6)]
    assert sorted(case for splits in found.values() for case in splits["test"]) == ["P01", "P02", "P03", "P04", "P05"]
    for splits in found.values():
        assert splits["train"] | splits["val"] | splits["test"] == {f"P0{n}" for n in range(1, 6)}
        assert sum(map(len, splits.values())) == 5  # so they are disjoint


def test_without_folds_the_held_out_cases_are_scored_and_tests_only_by_name(data: Path) -> None:
    held_out = parts(data)["held_out"]
    assert set(held_out) == {"train", "val"}
    assert "P06" not in held_out["train"] | held_out["val"]
    test = parts(data, split="test")["test"]
    assert test["test"] == {"P06"}
    assert (test["train"], test["val"]) == (held_out["train"], held_out["val"])


def test_a_set_without_a_training_list_keeps_its_tests_out(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "train.txt").unlink()
    content = json.loads((data / "dataset.json").read_text())
    content.get("splits", {}).pop("train", None)
    (data / "dataset.json").write_text(json.dumps(content))
    assert all("P06" not in ids for ids in parts(data)["held_out"].values())
    assert "warning" not in capsys.readouterr().err
    everything = parts(data, split="all", folds=6)
    assert any("P06" in splits["test"] for splits in everything.values())
    assert "1 of the scored cases are listed as test cases (P06)" in capsys.readouterr().err


def test_what_looks_at_the_images_is_the_same_for_all_runs(data: Path) -> None:
    common: dict[str, Any] = {"backbone": "tiny", "weights": "random", "side": SIDE, "held_out": 1}
    made = planned(Config(data, Path("out"), **common, folds=5, seeds=2, set="options.rank=1,4"))
    assert {made.config(run).intensity for run in made.plan.runs} == {"8bit"}  # and not `auto`, fold by fold
    assert {made.config(run).training.seed for run in made.plan.runs} == {0, 1}


def test_values_are_read_as_train_reads_them(data: Path) -> None:
    asked = ["options.rank=2", "options.targets=[q,v]", "training.lr=3e-4", "head=mask"]
    common: dict[str, Any] = {"backbone": "tiny", "weights": "random", "side": SIDE, "held_out": 1}
    made = planned(Config(data, Path("out"), **common, options={"whole_decoder": True}, set=asked))
    config = next(iter(made.configs.values()))
    assert config.options == {"whole_decoder": True, "rank": 2, "targets": ["q", "v"]}
    assert (config.training.lr, config.head) == (0.0003, "mask")


# --- what is done -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pretended")
def test_settings_are_in_order_over_all_cases_and_seeds_by_hand(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--set", "options.rank=2,20", "--set", "training.lr=1e-3", "--folds", "5", "--seeds", "3", "--json"]
    assert sweep(data, out, *arguments) == 0
    said = capsys.readouterr()
    content = json.loads(said.out)
    assert content == json.loads((out / "sweep.json").read_text())
    best, second = content["settings"]
    assert (best["setting"], best["options"]) == (
        "options.rank=20,training.lr=0.001", {"options.rank": "20", "training.lr": "0.001"})  # fmt: skip
    # Cases 1..5 and seeds 0..2: 3 thousandths of the cases and 1 of the seeds on average.
    assert best["headline"]["mean"] == pytest.approx(0.200 + 0.003 + 0.001)
    assert second["headline"]["mean"] == pytest.approx(0.020 + 0.003 + 0.001)
    assert best["each"] == pytest.approx([0.203, 0.204, 0.205])
    assert (best["headline"]["n"], best["trainable"], best["minutes"]) == (5, 20000, 0.5)
    assert "run 30 of 30" in said.err
    comparison = json.loads((out / "comparison" / "comparison.json").read_text())
    assert comparison["cases"] == ["P01", "P02", "P03", "P04", "P05"]
    assert comparison["methods"] == ["options.rank=2, training.lr=0.001", "options.rank=20, training.lr=0.001"]
    text = (out / "ranking.md").read_text()
    assert "| 1. `options.rank=20,training.lr=0.001` | 0.204 [0.202, 0.206] | 0.203, 0.204, 0.205 |" in text
    assert "Train it with `--options.rank=20 --training.lr=0.001`" in text
    assert "too high on average" in text
    assert len(Evaluation.read(out / "settings" / best["setting"] / "seed2").cases) == 5


def test_what_is_done_is_not_done_again_and_another_plan_is_refused_by_name(
    data: Path, tmp_path: Path, pretended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert sweep(data, out, "--set", "options.rank=1,4") == 0
    assert pretended == ["options.rank=1/held_out-seed0", "options.rank=4/held_out-seed0"]
    assert sweep(data, out, "--set", "options.rank=1,4") == 0
    assert len(pretended) == 2
    capsys.readouterr()
    assert sweep(data, out, "--set", "options.rank=1,8", "--training.steps", "3") == 2
    line = last_line(capsys)
    assert "plan.json: is another plan (" in line
    assert "training.training.steps was 2, is 3" in line
    assert "set.options.rank was 1, 4, is 1, 8" in line
    assert sweep(data, out) == 2
    assert "set.options.rank was 1, 4, is not given" in last_line(capsys)
    (data / "train.txt").write_text("P01_1\nP01_2\nP02_1\nP02_2\nP03_1\nP03_2")
    assert sweep(data, out, "--set", "options.rank=1,4") == 2
    assert "parts.held_out was 4 cases, 1 scored, is 2 cases, 1 scored" in last_line(capsys)
    assert len(pretended) == 2


def test_a_sweep_from_before_a_setting_goes_on_with_what_was_done_then(
    data: Path, tmp_path: Path, pretended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every view was changed before `unchanged` existed."""
    out, then = tmp_path / "out", ("--training.augmentation.unchanged", "0")
    assert sweep(data, out, "--set", "options.rank=1", *then) == 0
    for path in (out / "plan.json", *out.rglob("complete.json")):
        content = json.loads(path.read_text())
        settings = content["settings"] if "settings" in content else content["training"]
        del settings["training"]["augmentation"]["unchanged"]
        path.write_text(json.dumps(content))
    assert sweep(data, out, "--set", "options.rank=1", *then) == 0
    assert len(pretended) == 1
    capsys.readouterr()
    assert sweep(data, out, "--set", "options.rank=1") == 2
    assert "augmentation.unchanged was 0.0, is 0.25" in last_line(capsys)


def test_a_failed_run_is_told_at_the_end_the_others_go_on_and_it_is_tried_again(
    data: Path, tmp_path: Path, pretended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert sweep(data, out, "--set", "options.rank=66,1,67,4") == 1
    said = capsys.readouterr()
    tail = said.err[said.err.index("run 4 of 4") :]
    assert "failed    options.rank=66/held_out-seed0: rank 66 is unlucky\n" in tail
    assert "failed    options.rank=67/held_out-seed0: RuntimeError: out of memory\n" in tail
    content = json.loads((out / "sweep.json").read_text())
    assert [row["setting"] for row in content["settings"]] == ["options.rank=4", "options.rank=1"]
    assert set(content["failed"]) == {"options.rank=66/held_out-seed0", "options.rank=67/held_out-seed0"}
    assert "Left out, since runs are missing: `options.rank=66`, `options.rank=67`" in said.out
    record = json.loads((out / "runs/options.rank=67/held_out-seed0/failed.json").read_text())
    assert "Traceback" in record["traceback"]
    assert sweep(data, out, "--set", "options.rank=66,1,67,4") == 1
    assert pretended[4:] == ["options.rank=66/held_out-seed0", "options.rank=67/held_out-seed0"]


def test_stopping_keeps_what_is_done_and_gives_the_claim_back(
    data: Path, tmp_path: Path, pretended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert sweep(data, out, "--set", "options.rank=1,99,4") == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert pretended == ["options.rank=1/held_out-seed0", "options.rank=99/held_out-seed0"]
    assert not list(out.rglob("*.lock"))
    assert (out / "runs/options.rank=1/held_out-seed0/complete.json").is_file()


def test_shares_of_a_job_array_do_each_run_once_and_the_last_compares(
    data: Path, tmp_path: Path, pretended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for share in ("1/3", "3/3"):
        assert sweep(data, out, "--set", "options.rank=1,2,3,4", "--only", share) == 0
        assert "whoever does the last makes the comparison" in last_line(capsys)
        assert not (out / "ranking.md").exists()
    assert sweep(data, out, "--set", "options.rank=1,2,3,4", "--only", "2/3") == 0
    assert (out / "ranking.md").is_file()
    assert sorted(pretended) == [f"options.rank={n}/held_out-seed0" for n in (1, 2, 3, 4)]


OTHER = """
import sys, time
from filelock import SoftFileLease
lease = SoftFileLease(sys.argv[1], lease_duration=float(sys.argv[2]), heartbeat_interval=float(sys.argv[2]) / 10)
lease.acquire(blocking=False)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def owner(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the first of two runs."""
    monkeypatch.setattr(sweep_runs, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(sweep_runs, "RENEW_SECONDS", 0.2)
    path = tmp_path / "out/runs/options.rank=1/held_out-seed0/claim.lock"
    path.parent.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", OTHER, str(path), "2.0"], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        yield other
        other.kill()


def test_a_run_with_a_living_owner_is_left_to_it(
    data: Path, tmp_path: Path, pretended: list[str], owner: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(data, tmp_path / "out", "--set", "options.rank=1,4") == 0
    assert pretended == ["options.rank=4/held_out-seed0"]
    assert "1 runs are not done yet" in last_line(capsys)
    assert owner.poll() is None
    assert not (tmp_path / "out/ranking.md").exists()


def test_a_run_of_a_dead_owner_is_taken_over_at_once(
    data: Path, tmp_path: Path, pretended: list[str], owner: subprocess.Popen[str]
) -> None:
    owner.kill()
    owner.wait()
    started = time.monotonic()
    assert sweep(data, tmp_path / "out", "--set", "options.rank=1,4") == 0
    assert pretended[0] == "options.rank=1/held_out-seed0"
    assert (tmp_path / "out/ranking.md").is_file()
    assert time.monotonic() - started < 60


@pytest.mark.skipif(not hasattr(os, "kill") or sys.platform == "win32", reason="needs SIGSTOP")
def test_a_run_whose_owner_is_silent_for_a_lease_is_taken_over(
    data: Path, tmp_path: Path, pretended: list[str], owner: subprocess.Popen[str]
) -> None:
    """As one on another machine that lost its power: its process cannot be asked for."""
    import signal

    os.kill(owner.pid, signal.SIGSTOP)
    assert sweep(data, tmp_path / "out", "--set", "options.rank=1,4") == 0
    assert sorted(pretended) == ["options.rank=1/held_out-seed0", "options.rank=4/held_out-seed0"]


@pytest.mark.usefixtures("pretended")
def test_a_run_that_was_lost_is_not_marked_as_done(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SoftFileLease, "compromise", property(lambda _: "owner-changed"))
    monkeypatch.setattr(sweep_runs, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(sweep_runs, "RENEW_SECONDS", 0.1)
    calls: list[int] = []
    forgotten = sweep_runs._train_and_score

    def once(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise UsageError("enough")
        forgotten(*arguments)

    monkeypatch.setattr(sweep_runs, "_train_and_score", once)
    assert sweep(data, tmp_path / "out", "--set", "options.rank=4") == 1
    assert "another process took it over" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("complete.json"))


@pytest.mark.usefixtures("pretended")
def test_one_setting_needs_no_comparison(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(data, tmp_path / "out", "--folds", "5") == 0
    assert "# 1 settings on 5 cases" in capsys.readouterr().out
    assert not (tmp_path / "out/comparison").exists()


@pytest.mark.usefixtures("pretended")
def test_of_many_settings_the_best_are_tested_and_all_are_in_order(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sampeft.experiments.sweep_results.MOST_COMPARED", 2)
    assert sweep(data, tmp_path / "out", "--set", "options.rank=9,1,5", "--folds", "5") == 0
    ranked = json.loads((tmp_path / "out/sweep.json").read_text())["settings"]
    assert [row["setting"] for row in ranked] == ["options.rank=9", "options.rank=5", "options.rank=1"]
    compared = json.loads((tmp_path / "out/comparison/comparison.json").read_text())["methods"]
    assert compared == ["options.rank=9", "options.rank=5"]
    assert "Tested in pairs are the 2 best alone" in capsys.readouterr().out


def test_a_dry_run_is_a_table_and_nothing_else(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(data, tmp_path / "out", "--set", "options.rank=1,4", "--folds", "5", "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| 10 runs | cases to train on | cases scored |")
    assert lines[2] == "| options.rank=1/fold1of5-seed0 | 3 | 1 |  |"
    assert len(lines) == 12
    assert sweep(data, tmp_path / "out", "--set", "cases=1,3", "--folds", "5", "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"| cases=1/fold1of5-seed0 | 1 | 1 |  |", "| cases=3/fold1of5-seed0 | 3 | 1 |  |"} < set(lines)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "options.rnak=1,4"], "unknown option of lora 'rnak'; did you mean 'rank'?"),
        (["--set", "training.lrr=1,4"], "did you mean 'training.lr'?"),
        (["--set", "training.lr=low"], "--set training.lr=low: --training.lr is 'low'; give a number, above 0 to 10"),
        (["--set", "training.ema=2"], "training.ema is 2"),
        (["--set", "options.rank=0,4"], "rank is 0; give 1 to 4096"),
        (["--set", "side=64,65"], "65"),
        (["--set", "method=lora,lorra"], "did you mean 'lora'?"),
        (["--set", "backbone=tiny,lite_medsam"], "did you mean 'lite-medsam'?"),
        (["--folds", "9"], "cannot make 9 folds of 5 cases"),
        (["--folds", "1"], "--folds is 1; give 2 to 1000"),
        (["--folds", "5", "--split", "test"], "leave --split test out"),
        (["--split", "fold2of5"], "give --folds, such as --folds 5"),
        (["--held_out", "0"], "nothing is left to score: give --folds 5"),
        (["--seeds", "0"], "--seeds is 0; give 1 to 1000"),
        (["--only", "4/3"], "--only wants a share such as 3/8"),
        (["--protocol", "targts"], "did you mean 'targets'?"),
        (["--task", "denoise"], "a sweep trains segmenters"),
    ],
)
def test_mistakes_are_one_line_before_any_training_and_leave_nothing(
    data: Path,
    tmp_path: Path,
    pretended: list[str],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sweep(data, tmp_path / "out", *arguments) == 2
    assert message in last_line(capsys)
    assert pretended == []
    assert not (tmp_path / "out").exists()


def test_torchrun_is_sent_another_way(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sweep(data, tmp_path / "out") == 2
    assert "once for each GPU" in last_line(capsys)


# --- for real ---------------------------------------------------------------------------------------------------------


def test_real_trainings_of_two_precisions_in_one_process(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is a training that `sampeft train` would do, and is scored on the cases that it says it left out."""
    for module in ("sweep_runs", "sweep_results"):
        monkeypatch.setattr(f"sampeft.experiments.{module}.write_results", without_report)
    out = tmp_path / "out"
    assert sweep(data, out, "--set", "training.precision=fp32,bf16", "--method", "decoder") == 0
    evaluations = []
    for name in ("fp32", "bf16"):
        folder = out / f"runs/training.precision={name}/held_out-seed0"
        config = json.loads((folder / "run/config.json").read_text())
        assert config["training"]["precision"] == name
        assert "P06" not in config["training_cases"] + config["held_out_cases"]
        evaluations.append(Evaluation.read(folder / "eval"))
        assert list(evaluations[-1].cases) == config["held_out_cases"]
    setting = Evaluation.read(out / "settings/training.precision=fp32")
    np.testing.assert_array_equal(setting.matrix(), evaluations[0].matrix())
    assert (out / "comparison/per_class.png").is_file()
