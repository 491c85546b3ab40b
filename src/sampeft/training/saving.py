"""A model in training in; scores, metrics.jsonl, the saved models and the state to go on from out."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sampeft.data.cache import Preparation, PreparedVolume
from sampeft.data.case import Case, Dataset
from sampeft.evaluation import score_case
from sampeft.io import write_atomically
from sampeft.metrics.scores import Evaluation
from sampeft.model import SemanticSam
from sampeft.peft.state import save_trained
from sampeft.prediction.inference import predict_slices
from sampeft.training.checkpoint import Checkpoint, Learner, Position, remove_leftovers


def validate(
    model: SemanticSam, dataset: Dataset, cases: Sequence[Case], preparation: Preparation, accelerator: Any = None
) -> Evaluation:
    """Score a model on whole cases, on the files' own grids; processes share the cases."""
    from accelerate.utils import gather_object

    def predict(prepared: PreparedVolume, _: Any) -> Iterator[tuple[int, Any]]:
        return predict_slices(model.eval(), prepared)

    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    mine = [(case.id, score_case(predict, dataset, case, preparation)[0]) for case in cases[rank::processes]]
    scored = gather_object(mine) if processes > 1 else mine
    return Evaluation(dict(scored), dataset.labels, {"protocol": "default"})


@dataclass
class Log:
    """metrics.jsonl, one JSON object a line, and accelerate's trackers; written by the main process only."""

    path: Path
    accelerator: Any

    @classmethod
    @contextmanager
    def open(cls, out: Path, accelerator: Any, last_step: int | None) -> Iterator[Log]:
        """An empty log, or the one that is there up to the step where a training goes on: what a killed one wrote after it
        is taken away."""
        log = cls(out / "metrics.jsonl", accelerator)
        if accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            kept = ""
            if last_step is not None and log.path.is_file():
                lines = log.path.read_text(encoding="utf-8").splitlines(keepends=True)
                kept = "".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last_step)
            write_atomically(log.path, kept.encode())
        purged = {} if last_step is None else {"tensorboard": {"purge_step": last_step + 1}}
        accelerator.init_trackers("sampeft", init_kwargs=purged)
        try:
            yield log
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()

    def record(self, step: int, minutes: float, **values: Any) -> None:
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "minutes": round(minutes, 3), **values}) + "\n")
            shown = {key: value for key, value in values.items() if not isinstance(value, dict)}
            inner = {
                f"{key}/{k}": v for key, value in values.items() if isinstance(value, dict) for k, v in value.items()
            }
            self.accelerator.log({k: v for k, v in {**shown, **inner}.items() if v is not None}, step=step)


@dataclass
class Keeper:
    """Writes the state for `--resume`, of the main process, which is that of all."""

    out: Path
    learner: Learner
    settings: Mapping[str, Any]
    circumstances: dict[str, Any]
    main: bool
    kept: float = field(default_factory=time.monotonic)
    step: int = 0

    def prepare(self, resumed: Checkpoint | None) -> None:
        """Clear what a killed process left; say what is no longer as it was."""
        if not self.main:
            return
        remove_leftovers(self.out)
        if resumed:
            self.step = resumed.position.step
            for name, then in resumed.circumstances.items():
                if (now := self.circumstances.get(name)) != then:
                    warnings.warn(
                        f"{name} was {then} and is {now}: the training goes on, but not bit-equal", stacklevel=2
                    )

    def keep(self, at: Position) -> None:
        if self.main:
            self.learner.write(self.out, at, self.settings, self.circumstances)
        self.kept, self.step = time.monotonic(), at.step


@dataclass
class Saver:
    """Scores held-out cases and saves the model: the last one, and the best one as the run's own."""

    out: Path
    learner: Learner
    log: Log
    description: dict[str, Any]
    dataset: Dataset
    held_out: Sequence[Case]
    preparation: Preparation | None
    accelerator: Any

    def score_start(self, at: Position) -> None:
        """The score to beat. An untrained head gives all classes the same logits, so that the first is chosen everywhere:
        with a background that is no foreground at all."""
        if not self.held_out or self.preparation is None:
            return
        model = self.learner.model
        known = _is_untrained(model) and model.labels.has_background
        at.start_dsc = 0.0 if known else self._score(at)

    def save(self, at: Position, score: bool) -> None:
        state: dict[str, Any] = {"step": at.step, "minutes": round(at.seconds / 60, 3)}
        is_best = not self.held_out
        with self.learner.average.in_use():
            if self.held_out and self.preparation and score:
                dsc = self._score(at)
                at.waited += 1
                is_best = dsc is not None and (at.best_dsc is None or dsc > at.best_dsc)
                if is_best:
                    at.best_dsc, at.best_step, at.waited = dsc, at.step, 0
                state |= {"val_dsc": dsc, "start_dsc": at.start_dsc}
                if dsc is not None and (alarm := alarm_of(dsc, at.start_dsc)):
                    state["alarm"] = alarm
            if self.accelerator.is_main_process:
                content = {**self.description, "trained": state}
                save_trained(self.out / "last", self.learner.model, content)
                if is_best or at.best_dsc is None:
                    save_trained(self.out, self.learner.model, content)

    def _score(self, at: Position) -> float | None:
        """Mean foreground DSC of the held-out cases, None without any foreground; logged with that of each class."""
        assert self.preparation is not None
        evaluation = validate(self.learner.model, self.dataset, self.held_out, self.preparation, self.accelerator)
        per_class = {c.name: _number(c.interval.mean) for c in evaluation.per_class()}
        dsc = _number(evaluation.headline().mean)
        self.log.record(at.step, at.seconds / 60, val_dsc=dsc, val_per_class=per_class)
        return dsc


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _is_untrained(model: SemanticSam) -> bool:
    """Whether the head is as it was made: all classes are copies of one."""
    first, *others = (list(network.parameters()) for network in model.head.hypernetworks)
    equal = all(torch.equal(p, q) for other in others for p, q in zip(first, other, strict=True))
    return equal and bool((model.head.tokens == model.head.tokens[:1]).all())


def alarm_of(dsc: float, start_dsc: float | None) -> str | None:
    if start_dsc is None or dsc > start_dsc:
        return None
    return (
        f"held-out foreground DSC {dsc:.3f} is not better than the {start_dsc:.3f} before training; look at the labels with "
        "`sampeft check`, train longer or lower --training.lr"
    )
