"""Train a model with a method attached, with validations and checkpoints; metrics.jsonl and weights go to the run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from sampeft.console import bar
from sampeft.data.case import Case, Dataset
from sampeft.data.slice_cache import Preparation, Slices
from sampeft.errors import SampeftError, UsageError
from sampeft.model import SemanticSam
from sampeft.stopping import stop_noted
from sampeft.training.checkpoint import FILE, Checkpoint, CheckpointWriter, Progress
from sampeft.training.log import Log
from sampeft.training.processes import agree
from sampeft.training.settings import Training as Training
from sampeft.training.settings import validations_by
from sampeft.training.setup import Setup
from sampeft.training.validation import Validator, alarm_of


@dataclass(frozen=True)
class Result:
    """Outcome of a training run. stopped: by Ctrl-C or SIGTERM, the last validation included. early: ended by `patience`.

    start_dsc: of the held-out cases before training; alarm: why the model is of no use, if it is not better than that.
    least_share: of the best model. signal: the number of what stopped it, or 0.
    """

    steps: int
    minutes: float
    best_dsc: float | None
    best_step: int | None
    bad_steps: int
    stopped: bool
    early: bool = False
    start_dsc: float | None = None
    alarm: str | None = None
    least_share: float = 0.0
    signal: int = 0

    @classmethod
    def of(cls, at: Progress, signal: int = 0, early: bool = False) -> Result:
        alarm = None if at.best_dsc is None else alarm_of(at.best_dsc, at.start_dsc)
        minutes = round(at.seconds / 60, 2)
        best = at.best_dsc, at.best_step
        ends = signal > 0, early
        return cls(at.step, minutes, *best, at.bad_steps, *ends, at.start_dsc, alarm, at.best_share, signal)


def fit(
    model: SemanticSam,
    slices: Slices,
    config: Training,
    out: Path,
    description: dict[str, Any],
    dataset: Dataset,
    held_out: Sequence[Case] = (),
    preparation: Preparation | None = None,
    settings: Mapping[str, Any] | None = None,
    resumed: Checkpoint | None = None,
) -> Result:
    """Train what the attached method freed; write metrics.jsonl, the best model into `out`, the last into `out/last`, the
    state to go on from into `out/checkpoint.safetensors`.

    description: content of adapter.json, to which step and score are added. held_out: cases scored during training by
    the mean foreground DSC; the best is kept by it, and without any the last is. Ctrl-C or SIGTERM saves and returns.
    settings: kept in the checkpoint, for who goes on. resumed: state of a training with equal arguments; on the CPU, with
    equal processes and an end by steps, all then is bit-equal to a training that was never interrupted.
    """
    _check(model, config, held_out)
    run = Setup.of(model, slices, config, out, settings or {}, resumed)
    accelerator, state = run.accelerator, run.state
    writer = CheckpointWriter(out, state, settings or {}, run.circumstances, accelerator.is_main_process)
    writer.prepare(resumed)
    at = resumed.progress if resumed else Progress()
    before = config.progress(at.step, at.seconds)
    with (
        Log.open(out, accelerator, at.step or None) as log,
        stop_noted() as stop,
        bar("training", before=before) as shown,
    ):
        validator = Validator(out, state, log, description, dataset, held_out, preparation, accelerator)
        if not at.step:  # whoever was stopped within this begins it anew
            validator.score_start(at)
            model.standardise(takewhile(lambda _: not stop, run.batches.examples()))
            writer.write(at)
        start = time.monotonic() - at.seconds
        while True:
            at.seconds = time.monotonic() - start
            progress, signal = agree(accelerator, config.progress(at.step, at.seconds), stop)
            if signal or progress >= 1 or validations_by(progress, config.validations) > at.validations:
                if not signal:  # one that goes on must not miss the validation that is due now
                    at.validations = validations_by(progress, config.validations)
                    if progress >= 1 and not at.learned:
                        raise _nothing_learned(at, config)
                validator.save(at, score=at.learned and not signal)
                early = 0 < config.patience <= at.waited and progress < 1
                at.finished = (early or progress >= 1) and not signal
                writer.write(at)
                if at.finished or signal:
                    # What follows a training must not begin when a signal has come since.
                    return Result.of(at, signal or max(stop, default=0), early)
            elif writer.is_due(config.checkpoint_minutes):
                writer.write(at)

            loss = run.step.backward(run.batches.batch(at.step, progress < run.head_first))
            at.count(loss, run.step.update(state, progress, loss))
            if at.bad_in_row >= config.max_bad_steps:
                raise SampeftError(
                    f"training stopped at step {at.step}: {at.bad_in_row} steps in a row were not finite; the state of "
                    f"step {writer.step} is kept in {out / FILE} and the models saved before, if any, in {out}; lower "
                    f"--training.lr (now {config.lr}) or use fp32, in another --out, from there with --start_from {out}"
                )
            if len(at.running) >= 10 or (at.running and at.step == config.steps):
                total, ce, dice = np.mean(at.running, axis=0).tolist()
                at.running.clear()
                minutes = (time.monotonic() - start) / 60
                log.record(at.step, minutes, loss=total, ce=ce, dice=dice, lr=config.rate(progress))
                score = f"  best held-out DSC {at.best_dsc:.3f}" if at.best_dsc is not None else ""
                shown.update(progress, f"step {at.step}  loss {total:.3f}{score}")


def _check(model: SemanticSam, config: Training, held_out: Sequence[Case]) -> None:
    """Raises UsageError for settings that do not go with these classes or cases."""
    if config.patience and not held_out:
        raise UsageError(
            "training.patience waits for held-out cases to get better, and there are none; give --held_out"
        )
    if config.class_weights and len(config.class_weights) != len(model.labels):
        raise UsageError(
            f"training.class_weights are {len(config.class_weights)}, one for each of the {len(model.labels)} classes "
            f"{', '.join(model.labels.names)} is wanted"
        )


def _nothing_learned(at: Progress, config: Training) -> SampeftError:
    if at.step:
        reason = f"none of the {at.step} steps was finite; lower --training.lr (now {config.lr:g})"
    else:
        reason = f"training's time was over before its first step; give more than {config.minutes:g} minutes"
    return SampeftError(f"nothing was learned: {reason}")
