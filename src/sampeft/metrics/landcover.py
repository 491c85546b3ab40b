"""Land cover's figures from pooled counts: OA, mIoU, mean F1 and Cohen's kappa."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sampeft.metrics.counts import Counts
from sampeft.metrics.overlap import dsc, iou


@dataclass(frozen=True)
class LandCover:
    """All pixels of all cases in one confusion matrix.

    overall_accuracy: share of the pixels whose class is right, 0..1. mean_iou, mean_f1: mean over the classes that occur
    in truth or prediction. kappa: (OA - chance) / (1 - chance), chance being the sum over classes of true share x
    predicted share (Cohen 1960). All NaN without a pixel.
    """

    overall_accuracy: float
    mean_iou: float
    mean_f1: float
    kappa: float


def land_cover(counts: Counts, channels: Sequence[int] | None = None) -> LandCover:
    """The figures of pooled counts. channels: the classes that mean_iou and mean_f1 are over; nothing: all.

    The accuracy and kappa are over all classes: they need tp, fp and fn of each and no more of the matrix. A pixel that
    was given no class at all is wrong.
    """
    pixels = int(counts.truth.sum())
    chosen = list(range(len(counts.tp))) if channels is None else list(channels)
    if not pixels:
        return LandCover(*[float("nan")] * 4)
    accuracy = int(counts.tp.sum()) / pixels
    chance = float((counts.truth / pixels) @ (counts.prediction / pixels))
    kappa = (accuracy - chance) / (1 - chance) if chance < 1 else 1.0
    ious, f1s = iou(counts)[chosen], dsc(counts)[chosen]
    known = ~np.isnan(ious)
    return LandCover(accuracy, _mean(ious[known]), _mean(f1s[known]), float(kappa))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
