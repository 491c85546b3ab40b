"""The training loop: what it promises about steps, files, signals and bad numbers, on a model small enough for a test."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fabricate import folder_dataset
from fabricate.backbones import make_tiny, tiny
from fabricate.runs import description_of
from sampeft import losses
from sampeft.backbones import BACKBONES, load_backbone
from sampeft.data import open_dataset
from sampeft.data.intensity import PRESETS
from sampeft.data.slice_cache import Preparation, Slices
from sampeft.errors import SampeftError, UsageError
from sampeft.labels import LabelSet
from sampeft.losses import segmentation_loss
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.run_files import read_description
from sampeft.peft.state import trained_state
from sampeft.prediction.loading import load
from sampeft.training import batches, validation
from sampeft.training import loop as training
from sampeft.training.batches import draw_probabilities
from sampeft.training.checkpoint import Checkpoint, read_checkpoint
from sampeft.training.loop import Training, fit
from sampeft.training.settings import validations_by
from sampeft.training.setup import precision_for

Make = Callable[..., SemanticSam]
NO_DATASET: Any = None
SPEC = tiny(BACKBONES["sam-vit-b"])


@pytest.fixture
def make_small(monkeypatch: pytest.MonkeyPatch, labels: LabelSet) -> Make:
    """Equal models of a tiny SAM with LoRA."""
    monkeypatch.setitem(BACKBONES, SPEC.name, SPEC)

    def make() -> SemanticSam:
        model = make_tiny(SPEC.name, labels)
        attach(model, "lora")
        return model

    return make


def discs(count: int, side: int = 56) -> Slices:
    """Two equal discs, class 1 at the left and class 2 at the right of the picture: only the place tells them apart."""
    y, x = np.mgrid[:side, :side]
    truth = np.zeros((side, side), dtype=np.int16)
    truth[(x - 16) ** 2 + (y - 28) ** 2 < 64] = 1
    truth[(x - 40) ** 2 + (y - 28) ** 2 < 64] = 2
    image = np.where(truth > 0, 200, 40).astype(np.uint8)
    return Slices(
        np.repeat(image[None, None], count, 0), np.repeat(truth[None], count, 0), np.zeros(count, dtype=np.int32)
    )


def run(model: SemanticSam, out: Path, **settings: Any) -> training.Result:
    settings = {"batch": 2, "validations": 2, "head_first": 0.0, **settings}
    return fit(model, discs(4, model.side), Training(**settings), out, description_of(model, "lora"), NO_DATASET)


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    config = Training(steps=100, lr=1.0, warmup=0.1, power=0.9)
    assert config.rate(config.progress(0, 0)) == pytest.approx(0.01)
    assert config.rate(config.progress(5, 0)) == pytest.approx(0.5)
    assert config.rate(config.progress(10, 0)) == pytest.approx(1.0)
    assert config.rate(config.progress(55, 0)) == pytest.approx(0.5**0.9)
    assert config.rate(config.progress(100, 0)) == 0.0


def test_validations_are_due_at_equal_shares() -> None:
    """At every step where there are as many of both, whatever the division rounds to; with two in seven steps after four
    and seven."""
    for steps in range(1, 200):
        assert [validations_by(step / steps, steps) for step in range(steps + 1)] == list(range(steps + 1))
    assert [validations_by(step / 7, 2) for step in range(8)] == [0, 0, 0, 0, 1, 1, 1, 2]


def test_parts_are_equal_in_all_processes_and_hold_a_slice_each() -> None:
    config = Training(batch=6, accumulate=4)
    assert [config.parts(6, processes) for processes in (1, 2, 3, 8)] == [4, 3, 2, 1]


def test_the_end_is_by_steps_or_minutes_whichever_comes_first() -> None:
    config = Training(steps=100, minutes=10)
    assert config.progress(50, 60) == 0.5
    assert config.progress(10, 450) == 0.75
    assert config.progress(10, 10_000) == 1.0
    assert Training(steps=100).minutes is None  # steps alone are the end, however long they take
    assert Training().progress(10**6, 60 * 15) == 0.5  # without either: half an hour


def test_slices_of_rare_classes_are_drawn_as_often_as_those_of_common_ones() -> None:
    presence = np.zeros((10, 3), dtype=bool)
    presence[:, 0] = True
    presence[:9, 1] = True  # common
    presence[9, 2] = True  # rare: one slice in ten
    p = draw_probabilities(presence, [1, 2], balance=1.0)
    assert float(p.sum()) == pytest.approx(1.0)
    assert float(p[9]) == pytest.approx(0.5)
    assert float(draw_probabilities(presence, [1, 2], balance=0.0)[9]) == pytest.approx(0.1)
    assert float(draw_probabilities(presence[:, :1], [], balance=1.0)[0]) == pytest.approx(0.1)


def test_two_runs_of_one_seed_are_equal_and_leave_the_files_promised(make_small: Make, tmp_path: Path) -> None:
    states = []
    for name in ("a", "b"):
        model = make_small()
        result = run(model, tmp_path / name, steps=12, seed=3, head_first=0.4)
        states.append(trained_state(model))
        assert result.steps == 12
        assert not result.stopped
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    records = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert records
    assert set(records[0]) == {"step", "minutes", "loss", "ce", "dice", "lr"}
    for folder in (tmp_path / "a", tmp_path / "a/last"):
        assert read_description(folder)["trained"]["step"] == 12
        assert (folder / "adapter.safetensors").stat().st_size == pytest.approx(
            sum(t.numel() * 4 for t in states[0].values()), rel=0.02
        )  # only what was trained
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.real_weights
def test_two_equal_discs_are_told_apart_by_their_place(real_weights: Path, labels: LabelSet, tmp_path: Path) -> None:
    """Case D23: with mirrored training images the two would end at a Dice of one half."""
    model = SemanticSam(load_backbone("lite-medsam", str(real_weights)), labels, 56)
    attach(model, "decoder")
    settings = {"head_first": 1.0, "head_bank": 24, "head_batch": 2, "lr": 2e-3, "validations": 1}
    fit(model, discs(4), Training(steps=260, **settings), tmp_path, {}, NO_DATASET)  # type: ignore[arg-type]
    images, truth = discs(1).batch([0])
    with torch.no_grad():
        logits = model.eval()(images)
    assert segmentation_loss(logits, truth).total.item() < 0.05
    found = logits.argmax(1)
    for k in (1, 2):
        overlap = ((found == k) & (truth == k)).sum()
        assert 2 * overlap / ((found == k).sum() + (truth == k).sum()) >= 0.95


def terminated() -> None:
    """SIGTERM, where somebody catches it: else it would end the process of the tests."""
    assert callable(signal.getsignal(signal.SIGTERM))
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_leaves_a_usable_model(
    make_small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real, calls = losses.segmentation_loss, []

    def signals_in_the_third_step(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            terminated()
        return real(*arguments, **named)

    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals are taken in the main thread alone, which these tests do not run in")
    monkeypatch.setattr(losses, "segmentation_loss", signals_in_the_third_step)
    before = signal.getsignal(signal.SIGTERM)
    result = run(make_small(), tmp_path, minutes=10)
    assert (result.stopped, result.signal) == (True, signal.SIGTERM)
    assert result.steps >= 2
    assert "stopping after this step" in capfd.readouterr().err
    assert read_description(tmp_path)["trained"]["step"] == result.steps
    assert signal.getsignal(signal.SIGTERM) is before


def test_steps_that_are_not_finite_are_skipped_counted_and_end_a_hopeless_run(
    make_small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = losses.segmentation_loss, []

    def sometimes(logits: torch.Tensor, truth: torch.Tensor, **named: Any) -> Any:
        calls.append(1)
        loss = real(logits, truth, **named)
        return loss._replace(total=loss.total * math.inf) if len(calls) in bad else loss

    monkeypatch.setattr(losses, "segmentation_loss", sometimes)
    model = make_small()
    bad = {2, 4}
    result = run(model, tmp_path / "some", steps=6)
    assert result.bad_steps == 2
    assert all(bool(torch.isfinite(t).all()) for t in trained_state(model).values())
    bad = set(range(1, 1000))
    with pytest.raises(SampeftError, match=r"3 steps in a row were not finite; .* lower --training.lr"):
        run(model, tmp_path / "all", steps=50, max_bad_steps=3)


def test_a_hopeless_run_names_the_state_that_is_kept(
    make_small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case D22: good steps, then only bad ones: what was kept is that of before, and it can be read."""
    real, calls = losses.segmentation_loss, []

    def spoilt(logits: torch.Tensor, truth: torch.Tensor, **named: Any) -> Any:
        calls.append(1)
        loss = real(logits, truth, **named)
        return loss._replace(total=loss.total * math.nan) if len(calls) > 6 else loss

    monkeypatch.setattr(losses, "segmentation_loss", spoilt)
    model = make_small()
    named = r"step 9: 3 steps in a row were not finite; the state of step 5 is kept in .*checkpoint.safetensors"
    with pytest.raises(SampeftError, match=named):
        run(model, tmp_path, steps=20, validations=4, max_bad_steps=3)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert (found.progress.step, found.progress.bad_steps) == (5, 0)
    assert all(bool(torch.isfinite(t).all()) for t in found.tensors.values())
    assert read_description(tmp_path)["trained"]["step"] == 5


def scripted(
    model: SemanticSam,
    out: Path,
    scores: list[float],
    monkeypatch: pytest.MonkeyPatch,
    resumed: Checkpoint | None = None,
    **settings: Any,
) -> training.Result:
    """A training with a validation every second step, whose scores are given; another one is an error."""
    given = iter(scores)
    monkeypatch.setattr(validation.Validator, "_score", lambda self, at: (next(given), 0.0))
    config = Training(**{"steps": 8, "validations": 4, "head_first": 0.0, **settings})
    held_out: Any = ["a case"]
    preparation = Preparation(PRESETS["percentile"], 64)
    slices = discs(4, model.side)
    described = description_of(model, "lora")
    return fit(model, slices, config, out, described, NO_DATASET, held_out, preparation, resumed=resumed)


def test_a_run_stopped_where_a_score_is_due_takes_it_when_it_goes_on(
    make_small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = batches.Batches.generator

    def stopping(self: batches.Batches, step: int) -> torch.Generator:
        if step == 3:
            terminated()
        return generator(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(batches.Batches, "generator", stopping)
        stopped = scripted(make_small(), tmp_path, [0.5], monkeypatch)
    assert (stopped.stopped, stopped.steps, stopped.best_step) == (True, 4, 2)
    result = scripted(make_small(), tmp_path, [0.9, 0.6, 0.7], monkeypatch, resumed=read_checkpoint(tmp_path))
    assert (result.stopped, result.steps, result.best_step, result.best_dsc) == (False, 8, 4, 0.9)
    assert read_description(tmp_path)["trained"]["step"] == 4


def test_patience_ends_a_run_that_gets_no_better(
    make_small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = scripted(make_small(), tmp_path, [0.5, 0.6, 0.6, 0.55], monkeypatch, steps=16, validations=8, patience=2)
    assert (result.steps, result.best_step, result.best_dsc) == (8, 4, 0.6)
    assert result.early
    assert not result.stopped
    assert [read_description(folder)["trained"]["step"] for folder in (tmp_path, tmp_path / "last")] == [4, 8]
    patient = scripted(make_small(), tmp_path / "off", [0.5, 0.4, 0.3, 0.2], monkeypatch)
    assert (patient.steps, patient.early) == (8, False)
    with pytest.raises(UsageError, match="give --held_out"):
        run(make_small(), tmp_path / "none", steps=2, patience=1)


def test_a_model_that_is_not_better_than_before_training_says_so(
    make_small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained head scores 0 without being scored; one that was trained before is scored first."""
    none = scripted(make_small(), tmp_path / "none", 4 * [0.0], monkeypatch)
    assert none.start_dsc == 0.0
    assert none.alarm is not None
    assert "0.000 is not better than the 0.000 before training" in none.alarm
    assert read_description(tmp_path / "none")["trained"]["alarm"] == none.alarm
    good = scripted(make_small(), tmp_path / "good", 4 * [0.1], monkeypatch)
    assert good.alarm is None
    assert "alarm" not in read_description(tmp_path / "good")["trained"]
    model = make_small()
    with torch.no_grad():
        model.head.tokens[1] += 0.1
    worse = scripted(model, tmp_path / "worse", [0.7, *4 * [0.6]], monkeypatch)
    assert worse.alarm is not None
    assert "0.600 is not better than the 0.700 before training" in worse.alarm


def test_an_untrained_head_finds_no_foreground(make_small: Make, tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path, cases=2, files_per_case=1, classes=4))
    preparation = Preparation(PRESETS["percentile"], SPEC.family.TINY_SIDE)
    by_share = validation.validate(make_small(), dataset, dataset.cases, preparation)
    assert {share: found.headline().mean for share, found in by_share.items()} == {0.0: 0.0}


def test_the_average_is_what_is_saved(make_small: Make, tmp_path: Path) -> None:
    """One step: the file holds 1/10 of the start and 9/10 of the weights after the step."""
    model = make_small()
    before = {name: value.clone() for name, value in trained_state(model).items()}
    run(model, tmp_path, steps=1, validations=1, ema=0.999, lr=1e-2)
    after, saved = trained_state(model), load_file(tmp_path / "adapter.safetensors")
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) > len(before) / 2
    assert all(torch.allclose(saved[n], 0.1 * before[n] + 0.9 * after[n], atol=1e-7) for n in before)
    assert not any(torch.equal(saved[name], after[name]) for name in moved)


def test_metrics_go_to_tensorboard_as_well(make_small: Make, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(make_small(), tmp_path, steps=20, trackers=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "logs/sampeft"))
    events.Reload()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [10, 20]
    for key in ("loss", "ce", "dice", "lr"):
        shown = [(event.step, event.value) for event in events.Scalars(key)]
        assert shown == [(record["step"], pytest.approx(record[key], rel=1e-6)) for record in records]


def test_a_tracker_that_is_not_there_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(UsageError, match="tracker 'comet_ml' is not installed; pip install comet-ml"):
        Training(trackers=("comet_ml",))
    with pytest.raises(UsageError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        Training(trackers=("tensorbord",))


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for features, wanted in (({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "no")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features, raising=False)
        assert precision_for(cpu, "auto") == wanted
    assert precision_for(cpu, "fp32") == "no"


def test_two_processes_write_once_and_score_uneven_cases_as_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case D29: three held-out cases on two processes; padding to four would change the mean."""
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = folder_dataset(tmp_path / "data", cases=6, files_per_case=1)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "sampeft",
        "train",
    ]
    options = [
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--weights",
        "random",
        "--side",
        "56",
        "--held_out",
        "3",
    ]
    settings = ["--training.steps", "4", "--training.validations", "1", "--training.head_first", "0.5"]
    done = subprocess.run([*command, *options, *settings], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    (scored,) = [record for record in records if "val_dsc" in record]
    held_out = json.loads((tmp_path / "run/config.json").read_text())["held_out_cases"]
    assert len(held_out) == 3
    dataset, segmenter = open_dataset(data), load(tmp_path / "run", merged=False)
    cases = [case for case in dataset.cases if case.id in held_out]
    alone = validation.validate(segmenter.model, dataset, cases, segmenter.preparation)
    assert scored["val_dsc"] == pytest.approx(alone[0.0].headline().mean, abs=1e-6)
