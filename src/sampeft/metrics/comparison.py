"""Compare methods on the same cases: means, paired tests, the best methods and their ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TypeVar

import numpy as np

from sampeft.labels import LabelSet
from sampeft.metrics import METRICS, Metric
from sampeft.metrics.comparable import common_cases, comparable
from sampeft.metrics.paired import (
    PairedTest,
    Ranking,
    groups_not_told_apart,
    mean_ranks,
    misses_as_worst,
    paired_tests,
    ranking,
)
from sampeft.metrics.protocols import Protocol
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import (
    Interval,
    Scores,
    bootstrap_interval,
    bootstrap_per_class,
    mean_over_classes,
    means,
)

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Pair:
    """Method a against method b in one row of the table.

    difference: mean over the pairs of a - b with its interval; NaN when a score among them is infinite. In the row of
    the mean it is of each case's own mean over classes, as the test is.
    n_family: tests that Holm's correction went over. with_oracle: whether a or b is an oracle.
    """

    row: str
    a: str
    b: str
    test: PairedTest
    difference: Interval
    n_family: int
    with_oracle: bool


@dataclass(frozen=True)
class Row:
    """A foreground class, or the mean over classes: the interval of every evaluation, and who is best.

    best: methods with the best mean, several when equal; a finite mean goes before an infinite one.
    not_worse: other methods that no test shows to be worse. worse: the rest. Oracles are in none of them.
    too_few: so few cases cannot show any difference, so nobody is best.
    """

    name: str
    intervals: dict[str, Interval]
    best: tuple[str, ...] = ()
    not_worse: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    too_few: bool = False

    @property
    def n(self) -> str:
        """Cases with a score: `12`, or `12/11` when the methods differ."""
        counts = [str(interval.n) for interval in self.intervals.values()]
        return counts[0] if len(set(counts)) == 1 else "/".join(counts)

    def standing(self, name: str) -> str:
        """`best`, `not shown to be worse`, `worse`, or nothing where nothing can be said."""
        named = {"best": self.best, "not shown to be worse": self.not_worse, "worse": self.worse}
        return next((standing for standing, names in named.items() if name in names), "")


@dataclass(frozen=True, eq=False)
class MetricComparison:
    """All that is said by one metric.

    rows: foreground classes in channel order, the mean last. pairs: every pair of evaluations in every row.
    values_NK: name -> (cases, foreground classes) scores. case_means_N: name -> (cases,) mean over classes of a case.
    ranking, mean_rank, groups: of the methods without oracles, by case_means_N; None and empty for fewer than two.
        groups: the largest sets of methods of which no two were told apart in the row of the mean.
    """

    metric: str
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    values_NK: dict[str, Scores]
    case_means_N: dict[str, Scores]
    ranking: Ranking | None = None
    mean_rank: dict[str, float] = field(default_factory=dict)
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def measure(self) -> Metric:
        return compared(self.metric)

    @property
    def mean(self) -> Row:
        return self.rows[-1]

    def of_row(self, row: str, with_oracle: bool | None = None) -> list[Pair]:
        """Pairs of a row; only those with, or without, an oracle when asked for."""
        return [p for p in self.pairs if p.row == row and with_oracle in (None, p.with_oracle)]

    @property
    def has_infinite(self) -> bool:
        return any(bool(np.isinf(values).any()) for values in self.values_NK.values())


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Several evaluations on the cases that all of them have.

    names: all of them, in the order given. oracles: those that used the truth. cases: sorted ids that all have.
    left_out: name -> ids that it has and another lacks. splits: name -> what was scored, where known.
    """

    names: tuple[str, ...]
    oracles: tuple[str, ...]
    labels: LabelSet
    protocol: Protocol
    cases: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]
    splits: dict[str, str]
    metrics: tuple[MetricComparison, ...]

    def __repr__(self) -> str:
        metrics = ", ".join(one.metric for one in self.metrics)
        return f"Comparison({'; '.join(self.names)}\n           {len(self.cases)} cases, by {metrics})"

    @property
    def methods(self) -> tuple[str, ...]:
        """Names without the oracles."""
        return tuple(name for name in self.names if name not in self.oracles)

    @property
    def n_left_out(self) -> int:
        return len({case for cases in self.left_out.values() for case in cases})

    @property
    def notes(self) -> list[str]:
        """What a reader must know before the numbers."""
        notes = []
        if self.n_left_out:
            lost = "; ".join(
                f"{len(cases)} of {', '.join(names)} ({', '.join(cases[:10])}{', ...' if len(cases) > 10 else ''})"
                for cases, names in _by_value(self.left_out).items()
                if cases
            )
            notes.append(f"Only the cases that all have are compared ({len(self.cases)}); left out: {lost}.")
        if len(splits := _by_value(self.splits)) > 1:
            said = "; ".join(f"'{split}' of {', '.join(names)}" for split, names in splits.items())
            notes.append(f"The evaluations are of different splits: {said}.")
        if len(self.methods) < 2:
            notes.append(
                "Fewer than two of the evaluations are methods without the truth, so none is best and none is ranked."
            )
        return notes


def _by_value(by_name: Mapping[str, _Value]) -> dict[_Value, list[str]]:
    """Value -> the names that have it."""
    names: dict[_Value, list[str]] = {}
    for name, value in by_name.items():
        names.setdefault(value, []).append(name)
    return names


def compared(metric: str) -> Metric:
    """What is compared by: the metric, or the size of a signed error, since opposite errors must not cancel."""
    measure = METRICS[metric]
    if measure.better != "zero":
        return measure
    return replace(measure, title=f"absolute {measure.title}", better="lower", bounds=(0.0, np.inf))


def compare(evaluations: Mapping[str, Evaluation], metrics: Sequence[str] = ()) -> Comparison:
    """Compare two or more evaluations, oracles among them if wanted, on the cases that all have.

    metrics: names of METRICS; none: DSC, and NSD where all have it. Raises UsageError as `comparable` does.

    Holm's families, for each metric by itself:
      1. the mean: all pairs of methods; one test each, over cases, of the case's own mean over classes.
      2. the classes: all pairs of methods in all classes.
      3. and 4. the same two of the pairs with an oracle, so that adding one changes nothing between the methods.
    All pairs and not just those with the best: who is best was read off the same scores, and only a correction that
    covers every pair holds whichever it turned out to be. Metrics are not corrected for one another.
    """
    chosen = comparable(evaluations, metrics)
    cases = tuple(sorted(common_cases(evaluations)))
    first = next(iter(evaluations.values()))
    oracles = tuple(name for name, evaluation in evaluations.items() if evaluation.is_oracle)
    return Comparison(
        tuple(evaluations),
        oracles,
        first.labels,
        first.protocol,
        cases,
        {name: tuple(sorted(set(e.cases) - set(cases))) for name, e in evaluations.items()},
        {name: str(e.meta["split"]) for name, e in evaluations.items() if "split" in e.meta},
        tuple(_by_metric(evaluations, metric, cases, oracles) for metric in chosen),
    )


def _by_metric(
    evaluations: Mapping[str, Evaluation], metric: str, cases: Sequence[str], oracles: Sequence[str]
) -> MetricComparison:
    first = next(iter(evaluations.values()))
    measure, foreground, averaged = compared(metric), list(first.labels.foreground), list(first.averaged)
    rows = (*(first.labels.names[k] for k in foreground), first.headline_name)
    all_NK = {name: _matrix(evaluation, metric, cases) for name, evaluation in evaluations.items()}
    methods_NK = _misses_as_worst({name: values for name, values in all_NK.items() if name not in oracles})
    classes_NK = {name: values[:, foreground] for name, values in all_NK.items()}
    case_means = _case_means(all_NK, averaged)
    methods_means = _case_means(methods_NK, averaged)
    spans = (measure.bounds[0] - measure.bounds[1], measure.bounds[1] - measure.bounds[0])

    pairs = []
    every = list(combinations(evaluations, 2))
    for with_oracle in (False, True):
        used = [pair for pair in every if with_oracle is not set(pair).isdisjoint(oracles)]
        tested = _case_means(_misses_as_worst(all_NK), averaged) if with_oracle else methods_means
        pairs += _family(used, classes_NK, classes_NK, rows[:-1], spans, with_oracle)
        pairs += _family(used, _columns(tested), _columns(case_means), rows[-1:], spans, with_oracle)
    pairs.sort(key=lambda pair: (rows.index(pair.row), every.index((pair.a, pair.b))))

    levels = {name: _levels(values, foreground, averaged) for name, values in methods_NK.items()}
    intervals = {name: _intervals(values, foreground, averaged, measure.bounds) for name, values in all_NK.items()}
    judged = tuple(
        _row(
            row,
            {name: found[r] for name, found in intervals.items()},
            {name: float(level[r]) for name, level in levels.items()},
            [pair for pair in pairs if pair.row == row and not pair.with_oracle],
            measure.better == "higher",
        )
        for r, row in enumerate(rows)
    )
    found = MetricComparison(metric, judged, tuple(pairs), classes_NK, case_means)
    if len(methods_NK) < 2:
        return found
    higher = measure.better == "higher"
    ranks = mean_ranks(np.stack(list(methods_means.values())), higher)
    return replace(
        found,
        ranking=ranking({name: values[:, averaged] for name, values in methods_NK.items()}, higher),
        mean_rank=dict(zip(methods_NK, ranks.tolist(), strict=True)),
        groups=_groups(list(methods_NK), found.of_row(rows[-1], with_oracle=False)),
    )


def _matrix(evaluation: Evaluation, metric: str, cases: Sequence[str]) -> Scores:
    """(cases, K) scores of these cases in this order; of a signed error its size."""
    matrix = evaluation.matrix(metric)[[evaluation.cases.index(case) for case in cases]]
    return matrix if compared(metric) == METRICS[metric] else np.abs(matrix)


def _misses_as_worst(scores_NK: Mapping[str, Scores]) -> dict[str, Scores]:
    if not scores_NK:
        return {}
    return dict(zip(scores_NK, misses_as_worst(np.stack(list(scores_NK.values()))), strict=True))


def _case_means(scores_NK: Mapping[str, Scores], averaged: Sequence[int]) -> dict[str, Scores]:
    """Name -> (cases,) mean over the classes that the case has a score for."""
    return {name: mean_over_classes(values[:, averaged]) for name, values in scores_NK.items()}


def _levels(values_NK: Scores, foreground: Sequence[int], averaged: Sequence[int]) -> Scores:
    """(rows,) what methods are put in order by: the mean over cases of each class, then the mean over classes."""
    mean_1K = means(np.ones((1, len(values_NK))), values_NK)
    return np.append(mean_1K[0, foreground], mean_over_classes(mean_1K[:, averaged]))


def _intervals(
    values_NK: Scores, foreground: Sequence[int], averaged: Sequence[int], bounds: tuple[float, float]
) -> list[Interval]:
    """Of each row, as `Evaluation.per_class` and `headline` give them."""
    return [
        *bootstrap_per_class(values_NK[:, foreground], bounds=bounds),
        bootstrap_interval(values_NK[:, averaged], bounds=bounds),
    ]


def _groups(methods: list[str], tests: Sequence[Pair]) -> tuple[tuple[str, ...], ...]:
    apart = [(methods.index(pair.a), methods.index(pair.b)) for pair in tests if pair.test.differs]
    return tuple(tuple(methods[i] for i in group) for group in groups_not_told_apart(len(methods), apart))


def _columns(values_N: Mapping[str, Scores]) -> dict[str, Scores]:
    return {name: values[:, None] for name, values in values_N.items()}


def _family(
    used: Sequence[tuple[str, str]],
    tested: Mapping[str, Scores],
    raw: Mapping[str, Scores],
    rows: Sequence[str],
    bounds: tuple[float, float],
    with_oracle: bool,
) -> list[Pair]:
    """One family: each pair in each row, side by side as columns of one matrix. raw: before misses were made finite."""
    if not used:
        return []
    a, b = (np.concatenate([tested[pair[i]] for pair in used], axis=1) for i in (0, 1))
    raw_a, raw_b = (np.concatenate([raw[pair[i]] for pair in used], axis=1) for i in (0, 1))
    tests = paired_tests(a, b)
    both = ~(np.isnan(raw_a) | np.isnan(raw_b))
    infinite = (both & (np.isinf(raw_a) | np.isinf(raw_b))).any(axis=0)
    with np.errstate(invalid="ignore"):
        differences = np.where(infinite | ~both, np.nan, raw_a - raw_b)
    intervals = bootstrap_per_class(differences, bounds=bounds)
    n_family = sum(test.n > 0 for test in tests)
    columns = [(pair, row) for pair in used for row in rows]
    return [
        Pair(row, *pair, test, interval, n_family, with_oracle)
        for (pair, row), test, interval in zip(columns, tests, intervals, strict=True)
    ]


def _row(
    name: str, intervals: dict[str, Interval], level: Mapping[str, float], tests: Sequence[Pair], higher: bool
) -> Row:
    """level: method -> mean. tests: of all pairs of methods. higher: whether higher scores are better."""
    known = {method: value for method, value in level.items() if not np.isnan(value)}
    finite = {method: value for method, value in known.items() if not intervals[method].n_infinite} or known
    if not tests or not known or any(pair.test.too_few for pair in tests):
        return Row(name, intervals, too_few=bool(tests))
    top_level = max(finite.values()) if higher else min(finite.values())
    best = tuple(method for method, value in finite.items() if np.isclose(value, top_level, rtol=1e-12, atol=0.0))
    worse_than = {
        (pair.b, pair.a) if (pair.test.effect > 0) is higher else (pair.a, pair.b)
        for pair in tests
        if pair.test.differs
    }
    worse = tuple(m for m in known if m not in best and all((m, top) in worse_than for top in best))
    not_worse = tuple(m for m in known if m not in best + worse)
    return Row(name, intervals, best, not_worse, worse)
