"""A predictor and labelled cases in, counts per case and class and the slices worth looking at out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.cache import Preparation, PreparedVolume
from sampeft.data.case import Case, Dataset
from sampeft.data.check import read_labels
from sampeft.io import label_suffix, read_volume, write_labels
from sampeft.metrics.counts import Counts, count
from sampeft.metrics.scores import Evaluation

Array = npt.NDArray[Any]
# Prepared file and its truth (S, H, W) -> (slice index, class channels (H, W)). Only an oracle looks at the truth.
Predictor = Callable[[PreparedVolume, Array], Iterator[tuple[int, Array]]]


@dataclass(frozen=True)
class Look:
    """The slice of a case that shows most classes: grey or colour levels in 0..1 and class channels, all (H, W)."""

    case: str
    file: str
    slice: int
    slices: int
    image: npt.NDArray[np.float32]
    truth: Array
    prediction: Array

    @property
    def place(self) -> str:
        """Where in the case: the file of a picture, the slice of a volume."""
        return f"slice {self.slice + 1} of {self.slices}" if self.slices > 1 else self.file


def score_case(
    predict: Predictor, dataset: Dataset, case: Case, preparation: Preparation, save: Path | None = None
) -> tuple[Counts, Look]:
    """Counts of a case pooled over its files and slices, on the files' own grids, and its telling slice.

    save: a folder that gets the predicted label maps.
    """
    classes = len(dataset.labels)
    total = Counts.zeros(classes)
    look: Look | None = None
    richest = -1.0
    for file in case.files:
        prepared = PreparedVolume.of(read_volume(file.image), preparation)
        truth = prepared.view.slices(read_labels(file, dataset, prepared.volume).array)
        result = np.zeros(truth.shape, dtype=np.uint8) if save else None
        for s, channels_HW in predict(prepared, truth):
            total = total + count(channels_HW, truth[s], classes)
            present = np.bincount(truth[s][truth[s] >= 0].ravel(), minlength=classes)[list(dataset.labels.foreground)]
            richness = (present > 0).sum() + present.sum() / (1 + truth[s].size)
            if richness > richest:
                richest = richness
                image = np.moveaxis(prepared.levels.apply(prepared.slices[s]), 0, -1)
                look = Look(case.id, file.id, s, len(prepared), image, truth[s].copy(), channels_HW)
            if result is not None:
                result[s] = channels_HW
        if save is not None and result is not None:
            target = save / f"{file.id}{label_suffix(prepared.volume)}"
            write_labels(target, prepared.view.restore(result), dataset.labels, prepared.volume)
    assert look is not None, "a case has at least one file with at least one slice"
    return total, look


def score_cases(
    predict: Predictor,
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    meta: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
    save: Path | None = None,
) -> tuple[Evaluation, list[Look]]:
    """Score every case. meta: what the evaluation's summary says of its origin (model, data, split, oracle)."""
    scored: dict[str, Counts] = {}
    looks: list[Look] = []
    for done, case in enumerate(cases):
        scored[case.id], look = score_case(predict, dataset, case, preparation, save)
        looks.append(look)
        if progress:
            progress(done + 1, len(cases))
    return Evaluation(scored, dataset.labels, {"protocol": "default", **meta}), looks
