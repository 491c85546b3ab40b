"""Validation during training: scores of held-out cases, the last and the best model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sampeft.data.case import Case, Dataset
from sampeft.data.slice_cache import Preparation
from sampeft.evaluation.score import Array, read_case
from sampeft.heads.given import without_small
from sampeft.metrics.counts import Counts, count
from sampeft.metrics.scores import Evaluation
from sampeft.model import SemanticSam
from sampeft.peft.state import save_trained
from sampeft.prediction.network import InferenceOptions
from sampeft.prediction.pipeline import predict_scenes
from sampeft.prediction.scene import SliceScene, WindowLogits
from sampeft.prediction.sinks import Sink
from sampeft.training.checkpoint import Progress, TrainState
from sampeft.training.log import Log
from sampeft.training.settings import VALIDATION_BATCH

SHARES = (0.0, 0.05, 0.1)
"""Of a picture, that a class may have to fill to be drawn where classes fill pictures; which of them, held-out cases decide."""


def validate(
    model: SemanticSam,
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    accelerator: Any = None,
    shares: Sequence[float] | None = None,
) -> dict[float, Evaluation]:
    """Least share -> scores of whole cases, on the files' own grids; processes share the cases. shares: None: `SHARES`, but 0
    alone where there is a background, before which small things are what is looked for."""
    from accelerate.utils import gather_object

    if shares is None:
        shares = (0.0,) if dataset.labels.has_background else SHARES
    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    mine = [(case.id, _counts(model.eval(), dataset, case, preparation, shares)) for case in cases[rank::processes]]
    scored = dict(gather_object(mine) if processes > 1 else mine)
    meta = {"protocol": "default"}
    return {
        share: Evaluation({case: counts[i] for case, counts in scored.items()}, dataset.labels, meta)
        for i, share in enumerate(shares)
    }


def _counts(
    model: SemanticSam, dataset: Dataset, case: Case, preparation: Preparation, shares: Sequence[float]
) -> list[Counts]:
    """Of a case at each least share, pooled over its files and slices."""
    counted = _CountedShares(shares, len(dataset.labels))
    options = InferenceOptions(batch=VALIDATION_BATCH, least_share=0.0)
    for _, prepared, _, truth_SHW in read_case(dataset, case, preparation):
        counted.truth_SHW = truth_SHW
        for _ in predict_scenes(model, [(SliceScene(prepared), [counted])], len(dataset.labels), options):
            pass
    return counted.totals


class _CountedShares(Sink):
    """totals: of each least share, over all slices seen. truth_SHW: of the file that is looked at."""

    def __init__(self, shares: Sequence[float], classes: int) -> None:
        self.totals = [Counts.zeros(classes) for _ in shares]
        self.truth_SHW: Array = np.zeros((0, 0, 0))
        self._shares, self._classes = shares, classes

    def see_window(self, said: WindowLogits) -> None:
        assert said.logits_Khw is not None
        frame, truth_HW = said.window.scene.frame, self.truth_SHW[said.window.index]
        counted: list[tuple[torch.Tensor, Counts]] = []  # most shares leave out the same
        for i, share in enumerate(self._shares):
            logits_Khw = without_small(said.logits_Khw[None], share, [frame.filled])[0]
            found = next((counts for logits, counts in counted if torch.equal(logits, logits_Khw)), None)
            if found is None:
                found = count(frame.class_map(logits_Khw), truth_HW, self._classes)
                counted.append((logits_Khw, found))
            self.totals[i] = self.totals[i] + found


@dataclass
class Validator:
    """Scores held-out cases and saves the model: the last one, and the best one as the run's own."""

    out: Path
    state: TrainState
    log: Log
    description: dict[str, Any]
    dataset: Dataset
    held_out: Sequence[Case]
    preparation: Preparation | None
    accelerator: Any

    def score_start(self, at: Progress) -> None:
        """The score to beat. An untrained head gives all classes the same logits, so that the first is chosen everywhere:
        with a background that is no foreground at all."""
        if not self.held_out or self.preparation is None:
            return
        model = self.state.model
        known = model.head.is_untrained() and model.labels.has_background
        at.start_dsc = 0.0 if known else self._score(at)[0]

    def save(self, at: Progress, score: bool) -> None:
        trained: dict[str, Any] = {"step": at.step, "minutes": round(at.seconds / 60, 3)}
        is_best = not self.held_out
        with self.state.average.in_use():
            if self.held_out and self.preparation and score:
                dsc, at.least_share = self._score(at)
                at.waited += 1
                is_best = dsc is not None and (at.best_dsc is None or dsc > at.best_dsc)
                if is_best:
                    at.best_dsc, at.best_step, at.best_share, at.waited = dsc, at.step, at.least_share, 0
                trained |= {"val_dsc": dsc, "start_dsc": at.start_dsc}
                if dsc is not None and (alarm := alarm_of(dsc, at.start_dsc)):
                    trained["alarm"] = alarm
            if self.accelerator.is_main_process:
                content = {**self.description, "least_share": at.least_share, "trained": trained}
                save_trained(self.out / "last", self.state.model, content)
                if is_best or at.best_dsc is None:
                    save_trained(self.out, self.state.model, content)

    def _score(self, at: Progress) -> tuple[float | None, float]:
        """Mean foreground DSC of the held-out cases, None without any foreground, and the least share that is best for it; logged
        with that of each class."""
        assert self.preparation is not None
        by_share = validate(self.state.model, self.dataset, self.held_out, self.preparation, self.accelerator)
        scores = {share: _number(evaluation.headline().mean) for share, evaluation in by_share.items()}
        share = max(scores, key=lambda share: scores[share] or 0.0)
        per_class = {c.name: _number(c.interval.mean) for c in by_share[share].per_class()}
        chosen = {"least_share": share} if len(by_share) > 1 else {}
        self.log.record(at.step, at.seconds / 60, val_dsc=scores[share], **chosen, val_per_class=per_class)
        return scores[share], share


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def alarm_of(dsc: float, start_dsc: float | None) -> str | None:
    if start_dsc is None or dsc > start_dsc:
        return None
    return (
        f"held-out foreground DSC {dsc:.3f} is not better than the {start_dsc:.3f} before training; look at the labels with "
        "`sampeft check`, train longer or lower --training.lr"
    )
