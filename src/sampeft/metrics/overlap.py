"""Overlap scores from counts: DSC, IoU, precision, sensitivity, each (K,) in 0..1 or NaN.

One policy for all of them: a class in neither truth nor prediction has no score (NaN, left out of means and shown
as a smaller n); a class in only one of the two scores 0, so that finding less never raises a mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sampeft.metrics.counts import Counts

Scores = npt.NDArray[np.float64]

POLICY = "a class in neither truth nor prediction of a case is not counted (n is smaller); a class in only one of them scores 0"


def dsc(counts: Counts) -> Scores:
    """Dice similarity coefficient, 2 tp / (2 tp + fp + fn)."""
    return _score(counts, 2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def iou(counts: Counts) -> Scores:
    """Intersection over union, tp / (tp + fp + fn)."""
    return _score(counts, counts.tp, counts.tp + counts.fp + counts.fn)


def precision(counts: Counts) -> Scores:
    """Share of the predicted pixels that are right, tp / (tp + fp)."""
    return _score(counts, counts.tp, counts.prediction)


def sensitivity(counts: Counts) -> Scores:
    """Share of the true pixels that are found, tp / (tp + fn)."""
    return _score(counts, counts.tp, counts.truth)


def _score(counts: Counts, numerator: npt.NDArray[np.int64], denominator: npt.NDArray[np.int64]) -> Scores:
    absent = counts.tp + counts.fp + counts.fn == 0
    return np.where(absent, np.nan, numerator / np.maximum(denominator, 1))
