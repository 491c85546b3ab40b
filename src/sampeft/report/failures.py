"""Failure analysis: classes missed or falsely found, and the worst cases of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sampeft.metrics import METRICS
from sampeft.metrics.scores import Evaluation
from sampeft.report.tables import distance_metric

MOST_ROWS = 25
_CASES_NAMED = 12


@dataclass(frozen=True)
class Failure:
    """Something that a mean hides: what went wrong with which class, and in which cases."""

    kind: str
    name: str
    text: str


def failures(evaluation: Evaluation) -> list[Failure]:
    """Classes that are never found, then missed or falsely found in some cases, then absent from the truth.

    Of one kind the class with the largest share of its cases comes first.
    """
    missed, false = evaluation.missed(), evaluation.false()
    cases, scores = len(evaluation.cases), evaluation.per_class()
    by_missed = sorted(scores, key=lambda c: -c.n_missed / max(c.n_truth, 1))
    by_false = sorted(scores, key=lambda c: -c.n_false / max(cases - c.n_truth, 1))
    return [
        *(
            Failure("never found", c.name, f"scores 0 in all {c.n_truth} cases that have it; check labels and training")
            for c in by_missed
            if c.never_found
        ),
        *(
            Failure("missed", c.name, f"in {c.n_missed} of {c.n_truth} cases that have it: {_names(missed[c.name])}")
            for c in by_missed
            if c.n_missed and not c.never_found
        ),
        *(
            Failure("false", c.name, f"in {c.n_false} of {cases - c.n_truth} cases without it: {_names(false[c.name])}")
            for c in by_false
            if c.n_false
        ),
        *(
            Failure("absent", c.name, "in the truth of no case, so nothing is known about how well it is found")
            for c in scores
            if c.n_truth == 0
        ),
    ]


@dataclass(frozen=True)
class Worst:
    """The lowest DSC and the farthest surface of a class among the cases in which it was found.

    distance: in `unit`; None where no surface was measured.
    """

    name: str
    dsc: float
    dsc_case: str
    distance: float | None
    distance_case: str
    unit: str


def worst_found(evaluation: Evaluation) -> list[Worst]:
    """A line per foreground class that was found in some case, the lowest DSC first."""
    scores, lines = evaluation.matrix("dsc"), []
    metric = distance_metric(evaluation)
    distances = evaluation.matrix(metric) if metric else None
    found = np.array([c.tp > 0 for c in evaluation.counts.values()], dtype=bool).reshape(scores.shape)
    for k in evaluation.labels.foreground:
        rows = np.flatnonzero(found[:, k] & np.isfinite(scores[:, k]))
        if not len(rows):
            continue
        lowest = rows[np.argmin(scores[rows, k])]
        far = None
        if distances is not None and len(measured := rows[np.isfinite(distances[rows, k])]):
            far = measured[np.argmax(distances[measured, k])]
        lines.append(
            Worst(
                evaluation.labels.names[k],
                float(scores[lowest, k]),
                evaluation.cases[lowest],
                None if far is None or distances is None else float(distances[far, k]),
                "" if far is None else evaluation.cases[far],
                METRICS[metric].unit if metric else "",
            )
        )
    return sorted(lines, key=lambda worst: worst.dsc)


def _names(cases: Sequence[str]) -> str:
    more = len(cases) - _CASES_NAMED
    return ", ".join(cases[:_CASES_NAMED]) + (f" and {more} more, all in scores.csv" if more > 0 else "")
