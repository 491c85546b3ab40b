"""Whether evaluations can be compared, by which metrics and on which cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sampeft.errors import UsageError, unknown_name
from sampeft.metrics import METRICS
from sampeft.metrics.places import PLACE_TOLERANCE, PLACES, Unit
from sampeft.metrics.scores import Evaluation

TOLERANCES = {"nsd": "nsd_tolerance_mm", "nsd_px": "nsd_tolerance_px"}
"""Metric -> where an evaluation's meta says by which tolerances it was scored."""


def comparable(evaluations: Mapping[str, Evaluation], metrics: Sequence[str] = ()) -> tuple[str, ...]:
    """The metrics to compare by. Raises UsageError, naming both and the values, for evaluations that cannot be compared.

    That is for fewer than two, other classes or ids, another protocol, other tolerances of a metric compared by, no case in
    common, a case whose truth is not the same by pixel counts and mean positions, and for a metric that is unknown or missing
    in one.
    """
    if len(evaluations) < 2:
        raise UsageError(f"a comparison needs at least two evaluations, got {len(evaluations)}")
    first, *others = evaluations
    for other in others:
        _same(first, other, evaluations[first], evaluations[other])
    cases = common_cases(evaluations)
    if not cases:
        held = "; ".join(f"{name}: {', '.join(sorted(e.cases)[:3])}, ..." for name, e in evaluations.items())
        raise UsageError(f"no case is in all evaluations ({held}); evaluate the same cases with each method")
    for other in others:
        _same_truth(first, other, evaluations[first], evaluations[other], sorted(cases))
    has = {name: evaluation.metrics for name, evaluation in evaluations.items()}
    chosen = tuple(dict.fromkeys(metrics))
    if not chosen:
        chosen = tuple(m for m in ("dsc", "nsd") if m == "dsc" or all(m in known for known in has.values()))
    for metric in chosen:
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
        if lacking := [name for name in has if metric not in has[name]]:
            shared = [m for m in has[first] if all(m in known for known in has.values())]
            raise UsageError(f"{lacking[0]} has no '{metric}'; all of them have: {', '.join(shared)}")
        for other in others if metric in TOLERANCES else ():
            _same_tolerances(metric, first, other, evaluations[first], evaluations[other])
    return chosen


def common_cases(evaluations: Mapping[str, Evaluation]) -> set[str]:
    return set.intersection(*(set(evaluation.cases) for evaluation in evaluations.values()))


def _same(a: str, b: str, first: Evaluation, second: Evaluation) -> None:
    if (first.labels.names, first.labels.ids) != (second.labels.names, second.labels.ids):
        ours, theirs = (dict(zip(e.labels.names, e.labels.ids, strict=True)) for e in (first, second))
        raise UsageError(f"{a} has the classes {ours}, {b} has {theirs}; only scores of the same classes compare")
    rules, others = (str(e.meta.get("protocol", "default")) for e in (first, second))
    if rules != others:
        raise UsageError(
            f"{a} was scored by protocol '{rules}', {b} by '{others}'; scores by different rules do not compare: "
            f"evaluate one of them again with the other's --protocol"
        )


def _same_truth(a: str, b: str, first: Evaluation, second: Evaluation, cases: Sequence[str]) -> None:
    for case in cases:
        ours, theirs = first.counts[case].truth, second.counts[case].truth
        for k in first.labels.foreground:
            name = first.labels.names[k]
            if ours[k] != theirs[k]:
                raise UsageError(
                    f"case {case}: the truth has {ours[k]} pixels of '{name}' in {a} and {theirs[k]} in {b}; they were scored "
                    "against different truths, evaluate both on the same data"
                )
            for unit, tolerance in PLACE_TOLERANCE.items():
                one, other = (_place(e, case, k, unit) for e in (first, second))
                if np.abs(one - other).max() > tolerance:  # never where one of them is not known
                    raise UsageError(
                        f"case {case}: the truth's {ours[k]} pixels of '{name}' lie at {_in_words(one, unit)} in {a} and at "
                        f"{_in_words(other, unit)} in {b} (mean position); they were scored against different truths, such "
                        "as mirrored or shifted ones, evaluate both on the same data"
                    )


def _place(evaluation: Evaluation, case: str, k: int, unit: Unit) -> npt.NDArray[np.float64]:
    """(3,) mean position of the truth of class k; NaN where it is not known, as in evaluations of older versions."""
    values = evaluation.measures[case].values if case in evaluation.measures else {}
    return np.array([values[name][k] if name in values else np.nan for name in PLACES[unit]])


def _in_words(place: npt.NDArray[np.float64], unit: Unit) -> str:
    """`x 10.5, y -3, z 40 mm`"""
    axes = [name.split("_")[1] for name in PLACES[unit]]
    return f"{', '.join(f'{axis} {value:.7g}' for axis, value in zip(axes, place, strict=True))} {unit}"


def _same_tolerances(metric: str, a: str, b: str, first: Evaluation, second: Evaluation) -> None:
    ours, theirs = (dict(e.meta.get(TOLERANCES[metric]) or {}) for e in (first, second))
    for name in [name for name in first.labels.names if ours.get(name) != theirs.get(name)][:1]:
        raise UsageError(
            f"{metric}'s tolerance for '{name}' is {ours.get(name)} in {a} and {theirs.get(name)} in {b}; "
            f"evaluate both with the same --tolerances, or compare by other metrics, such as --metrics dsc"
        )
