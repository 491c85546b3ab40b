"""Scores by size of the truth: are small objects found as well as large ones?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.metrics import METRICS
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Interval, bootstrap_interval

Array = npt.NDArray[Any]

PER_BIN = 12
"""Fewer class x case pairs than this in a bin tell nothing of it."""
MOST_BINS = 4


@dataclass(frozen=True)
class Sized:
    """Every class x case pair whose truth has the class and that has a score.

    case_P, channel_P: (P,) row and channel of each pair. size_P: (P,) size of its truth in `unit`. score_P: (P,).
    missed_P: (P,) whether not one pixel was found.
    """

    unit: str
    case_P: Array
    channel_P: Array
    size_P: Array
    score_P: Array
    missed_P: Array

    @classmethod
    def of(cls, evaluation: Evaluation, metric: str = "dsc") -> Sized:
        """Foreground classes only."""
        sizes, unit = evaluation.sizes()
        scores = evaluation.matrix(metric)
        missed = np.array([(c.fn > 0) & (c.tp == 0) for c in evaluation.counts.values()], dtype=bool).reshape(
            scores.shape
        )
        shown = np.zeros(scores.shape, dtype=bool)
        shown[:, list(evaluation.labels.foreground)] = True
        case_P, channel_P = np.nonzero(shown & (sizes > 0) & np.isfinite(scores))
        at = (case_P, channel_P)
        return cls(unit, case_P, channel_P, sizes[at], scores[at], missed[at])

    def edges(self) -> Array:
        """(B + 1,) sizes between which as many pairs lie in every bin, for up to four bins of at least 12 pairs; empty
        when there are too few pairs, or sizes too equal, for two."""
        bins = min(MOST_BINS, len(self.size_P) // PER_BIN)
        edges = np.unique(np.quantile(self.size_P, np.linspace(0, 1, bins + 1))) if bins > 1 else np.empty(0)
        return edges if len(edges) > 2 else np.empty(0)


@dataclass(frozen=True)
class SizeBin:
    """Pairs whose truth is at least `low` and below `high` large (the last bin includes its end).

    interval: mean over the cases that have such a pair of the case's mean over its pairs, so that several organs of one
    patient do not pass for several patients; its n counts cases. pairs, missed: counts of class x case pairs.
    """

    low: float
    high: float
    unit: str
    interval: Interval
    pairs: int
    missed: int

    @property
    def name(self) -> str:
        """`4.2 to 37 ml`, `7 to 14 px`."""
        low, high = (size_text(size) for size in (self.low, self.high))
        if self.unit == "px":  # are counted
            low, high = low.removesuffix(".0"), high.removesuffix(".0")
        return f"{low} to {high} {self.unit}"


def size_bins(sized: Sized, edges: Array, metric: str = "dsc") -> list[SizeBin]:
    """The pairs by the bins between the edges (those of the evaluation that others are compared with, or its own)."""
    if not len(edges):
        return []
    place_P = np.clip(np.searchsorted(edges, sized.size_P, side="right") - 1, 0, len(edges) - 2)
    cases = int(sized.case_P.max(initial=-1)) + 1
    bins = []
    for b, (low, high) in enumerate(pairwise(edges)):
        inside = place_P == b
        pairs_N = np.bincount(sized.case_P[inside], minlength=cases)
        sums_N = np.bincount(sized.case_P[inside], sized.score_P[inside], minlength=cases)
        means_N = np.where(pairs_N > 0, sums_N / np.maximum(pairs_N, 1), np.nan)
        interval = bootstrap_interval(means_N[:, None], bounds=METRICS[metric].bounds)
        missed = int(sized.missed_P[inside].sum())
        bins.append(SizeBin(float(low), float(high), sized.unit, interval, int(inside.sum()), missed))
    return bins


def size_text(size: float) -> str:
    """Two significant digits and no exponent: 0.053, 4.2, 37, 1,200."""
    if size <= 0 or not math.isfinite(size):
        return f"{size:g}"
    rounded = float(f"{size:.1e}")
    return f"{rounded:,.{max(1 - math.floor(math.log10(rounded)), 0)}f}"
