"""Pool evaluations of one method: folds side by side, each case once; seeds averaged case by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.metrics.counts import Counts
from sampeft.metrics.measures import Measures
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Scores

AVERAGED = "averaged_over"
"""In an evaluation's meta: over how many trainings its scores are averages, which its counts do not give."""


def pooled(folds: Sequence[Evaluation], **meta: Any) -> Evaluation:
    """The cases of all folds as one evaluation, in the order of the folds. meta: of the whole, beside what all share.

    Raises DataError when a case is in two of them or their classes differ.
    """
    first = folds[0]
    counts: dict[str, Counts] = {}
    measures: dict[str, Measures] = {}
    for fold in folds:
        if (fold.labels.names, fold.labels.ids) != (first.labels.names, first.labels.ids):
            raise DataError(f"folds have other classes: {first.labels.names} and {fold.labels.names}; score them anew")
        if twice := sorted(counts.keys() & fold.counts.keys()):
            raise DataError(f"case {twice[0]} was scored in two folds; each case belongs to one, score them anew")
        counts |= fold.counts
        measures |= fold.measures
    return Evaluation(counts, first.labels, {**_shared(folds), **meta}, measures)


def mean_over_seeds(trainings: Sequence[Evaluation], **meta: Any) -> Evaluation:
    """Every score of a case and class averaged over trainings; where some give none, over those that do.

    Of counts the truth's stays as it is and the others are means, rounded up: a class counts as found where any training
    found a pixel of it, and as false where any predicted it. One evaluation alone is returned as it is, with meta.
    Raises DataError when cases or classes differ.
    """
    first, *others = trainings
    for other in others:
        if set(other.cases) != set(first.cases) or other.labels.names != first.labels.names:
            raise DataError("seeds were scored on other cases or classes; score them anew")
    if not others:
        return replace(first, meta={**first.meta, **meta})
    metrics = [name for name in first.metrics if all(name in other.metrics for other in others)]
    known = [set(m.values) for e in trainings for m in e.measures.values()]
    raw = set.intersection(*known) - set(metrics) if known else set()
    counts, measures = {}, {}
    rows = [{case: i for i, case in enumerate(e.cases)} for e in trainings]
    matrices = {name: [e.matrix(name) for e in trainings] for name in metrics}
    for case in first.cases:
        values = {name: _mean([m[row[case]] for m, row in zip(matrices[name], rows, strict=True)]) for name in metrics}
        values |= {name: _mean([e.measures[case].values[name] for e in trainings]) for name in sorted(raw)}
        measures[case] = Measures(values)
        truth = first.counts[case].truth
        tp, fp = (_up([getattr(e.counts[case], part) for e in trainings]) for part in ("tp", "fp"))
        counts[case] = Counts(tp, fp, truth - tp)
    return Evaluation(counts, first.labels, {**_shared(trainings), AVERAGED: len(trainings), **meta}, measures)


def _shared(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """What all say of where they come from."""
    first, *others = (e.meta for e in evaluations)
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _mean(rows_K: Sequence[Scores]) -> Scores:
    stack = np.stack(rows_K)
    known = (~np.isnan(stack)).sum(axis=0)
    return np.where(known > 0, np.nansum(stack, axis=0) / np.maximum(known, 1), np.nan)


def _up(rows_K: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    mean_K: npt.NDArray[np.int64] = -(-np.sum(rows_K, axis=0) // len(rows_K))
    return mean_K
