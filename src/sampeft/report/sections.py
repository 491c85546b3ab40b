"""Numbers and sentences of the report's sections."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sampeft.metrics import METRICS
from sampeft.metrics.calibration import Calibration
from sampeft.metrics.landcover import land_cover
from sampeft.metrics.scores import ClassScore, Evaluation
from sampeft.metrics.statistics import Interval
from sampeft.report import tables
from sampeft.report.size_strata import Sized, size_bins

_EQUAL = 0.01  # probability and share of right pixels that differ by less are about the same


@dataclass(frozen=True)
class Headline:
    """*The* number of an evaluation and what is shown beside it, as text; empty where there is none.

    others: a line for each second metric and for the figures of the field, such as Pd and Fa of targets.
    """

    name: str
    oracle: str
    over: str
    mean: str
    interval: str
    span: str
    n: int
    missed: int
    false: int
    background: str
    seconds: list[str]
    others: list[str]


def headline(name: str, evaluation: Evaluation, metrics: list[str]) -> Headline:
    """metrics: second ones, shown in the table's columns and, where measured, beside the mean."""
    mean = evaluation.headline()
    known = {metric: evaluation.headline(metric) for metric in metrics if metric in evaluation.metrics}
    return Headline(
        name=name,
        oracle=tables.ORACLE if evaluation.is_oracle else "",
        over=evaluation.headline_name,
        mean=tables.NOT_SCORED if math.isnan(mean.mean) else f"{mean.mean:.3f}",
        interval=tables.interval_text(mean),
        span="" if math.isnan(mean.low) else f"{mean.low:.3f} to {mean.high:.3f}",
        n=mean.n,
        missed=sum(map(len, evaluation.missed().values())),
        false=sum(map(len, evaluation.false().values())),
        background=f"{evaluation.with_background_mean():.3f}" if evaluation.labels.has_background else "",
        seconds=[tables.short_text(known[metric], metric) if metric in known else "" for metric in metrics],
        others=[*(_second(metric, i) for metric, i in known.items() if i.n), *_of_the_field(evaluation)],
    )


def _second(metric: str, interval: Interval) -> str:
    """`NSD 0.912 [0.890, 0.931]`, `HD95 4.2 mm [3.1, 5.9]`, or of a mean with infinite cases what is finite."""
    measure = METRICS[metric]
    unit = f" {measure.unit}" if measure.unit else ""
    digits = 1 if measure.unit else 3
    if interval.n_infinite:
        finite = "" if interval.finite_mean is None else f"{interval.finite_mean:.{digits}f}{unit} where there is one; "
        return (
            f"{measure.title} {finite}no distance (inf) for some class in {interval.n_infinite} of {interval.n} cases"
        )
    text = f"{measure.title} {interval.mean:.{digits}f}{unit}"
    return text if math.isnan(interval.low) else f"{text} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _of_the_field(evaluation: Evaluation) -> list[str]:
    """Figures over all cases together: of targets where they are counted, of land cover where every pixel has a class."""
    lines = [
        f"{name}: Pd {t.pd:.3f} ({t.found} of {t.targets} targets found), Fa {t.fa:.3g}"
        for name, t in evaluation.targets().items()
    ]
    if not evaluation.labels.has_background:
        cover = land_cover(evaluation.pooled(), evaluation.labels.foreground)
        if not math.isnan(cover.overall_accuracy):
            lines.append(
                f"all pixels together: overall accuracy {cover.overall_accuracy:.3f}, mean IoU {cover.mean_iou:.3f}, "
                f"kappa {cover.kappa:.3f}"
            )
    return lines


@dataclass(frozen=True)
class ClassRow:
    """A class by one evaluation. score: None where the evaluation does not know the class."""

    method: str
    score: ClassScore | None
    text: str
    seconds: list[str]


def class_table(evaluations: dict[str, Evaluation], metrics: list[str]) -> dict[str, list[ClassRow]]:
    """Class name -> a row per evaluation: DSC with interval, and the second metrics."""
    others = {
        metric: {
            name: {c.name: c for c in e.per_class(metric)} for name, e in evaluations.items() if metric in e.metrics
        }
        for metric in metrics
    }
    return {
        class_name: [
            ClassRow(
                method,
                score,
                tables.interval_text(score.interval) if score else tables.NOT_SCORED,
                [
                    tables.short_text(found.interval, metric)
                    if (found := others[metric].get(method, {}).get(class_name))
                    else ""
                    for metric in metrics
                ],
            )
            for method, score in zip(evaluations, scores, strict=True)
        ]
        for class_name, scores in tables.class_rows(evaluations).items()
    }


@dataclass(frozen=True)
class SizeRow:
    """A bin of sizes by one evaluation, as text and counts."""

    method: str
    text: str
    cases: int
    pairs: int
    missed: int


def size_table(evaluations: dict[str, Evaluation]) -> dict[str, list[SizeRow]]:
    """Bin of sizes -> a row per evaluation whose sizes are in the same unit; empty when there are too few pairs."""
    sized = {name: Sized.of(evaluation) for name, evaluation in evaluations.items()}
    first = next(iter(sized.values()))
    edges = first.edges()
    rows: dict[str, list[SizeRow]] = {}
    for name, pairs in sized.items():
        for found in size_bins(pairs, edges) if pairs.unit == first.unit else ():
            text = tables.interval_text(found.interval)
            rows.setdefault(found.name, []).append(SizeRow(name, text, found.interval.n, found.pairs, found.missed))
    return rows


def calibration_sentences(readings: dict[str, Calibration]) -> list[str]:
    """What each reading of the probabilities means, in a sentence."""
    return [_sentence(name, found) for name, found in readings.items() if found.top_n.sum()]


def _sentence(name: str, found: Calibration) -> str:
    pixels = found.top_n.sum()
    confidence, right = found.top_confidence.sum() / pixels, found.top_hits.sum() / pixels
    verdict = "neither over- nor underconfident on average"
    if abs(confidence - right) >= _EQUAL:
        verdict = "overconfident" if confidence > right else "underconfident"
    return (
        f"{name}: its most probable class has a probability of {confidence:.3f} on average and is right in {right:.3f} of the "
        f"pixels, so it is {verdict}; expected calibration error (ECE) {found.ece:.3f}."
    )


def calibration_table(evaluation: Evaluation) -> dict[str, list[tuple[str, str]]]:
    """Class name -> (ECE, Brier score) of each reading."""
    return {
        name: [(_number(found.ece_K[k]), _number(found.brier_K[k])) for found in evaluation.calibration.values()]
        for k, name in enumerate(evaluation.labels.names)
    }


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
