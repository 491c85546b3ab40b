"""Tables of scores per class as Markdown and CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sampeft.errors import counted
from sampeft.metrics import METRICS
from sampeft.metrics.landcover import land_cover
from sampeft.metrics.scores import ClassScore, Evaluation
from sampeft.metrics.statistics import FEW, METHOD, Interval, mean_of_means
from sampeft.provenance import csv_text

ORACLE = "oracle (uses the truth)"
WITH_BACKGROUND = "with background (as the paper averages)"
FOREGROUND = "foreground mean"
NOT_SCORED = "not scored"


def metric_name(metric: str) -> str:
    """The metric as a reader writes it, with its unit."""
    return METRICS[metric].heading if metric in METRICS else metric


def column_name(name: str, evaluation: Evaluation) -> str:
    """A method's heading; an oracle is always labelled as one."""
    return f"{name}, {ORACLE}" if evaluation.is_oracle else name


def distance_metric(evaluation: Evaluation) -> str | None:
    """The 95th percentile of surface distances in mm, or else in pixels; None where no surfaces were measured."""
    return next((metric for metric in ("hd95_mm", "hd95_px") if metric in evaluation.metrics), None)


def second_metrics(evaluations: dict[str, Evaluation]) -> list[str]:
    """What is shown beside DSC where any of the evaluations has it, such as NSD and HD95, in mm or in pixels."""
    known = {metric for evaluation in evaluations.values() for metric in evaluation.metrics}
    return [name for name, metric in METRICS.items() if metric.beside_dsc and name in known]


def short_heading(metric: str) -> tuple[str, str]:
    """(title, unit) of a second metric at the head of a narrow column."""
    return METRICS[metric].short or (METRICS[metric].title, METRICS[metric].unit)


def short_text(interval: Interval, metric: str) -> str:
    """The mean alone: `0.912`, `4.2`; of an infinite mean the finite one, marked: `4.2 + 3 inf` for three such cases."""
    if interval.n == 0 or math.isnan(interval.mean):
        return ""
    digits = 3 if METRICS[metric].bounds == (0.0, 1.0) else 1
    if not interval.n_infinite:
        return f"{interval.mean:.{digits}f}"
    infinite = f"{interval.n_infinite} inf"
    return infinite if interval.finite_mean is None else f"{interval.finite_mean:.{digits}f} + {infinite}"


def interval_text(interval: Interval) -> str:
    """`0.812 [0.790, 0.833]`; without an interval where fewer than two cases have a score; `inf` with the finite mean."""
    if math.isnan(interval.mean):
        return NOT_SCORED
    if interval.n_infinite:
        finite = interval.n - interval.n_infinite
        return "inf" if interval.finite_mean is None else f"inf (finite mean {interval.finite_mean:.3f} over {finite})"
    if math.isnan(interval.low):
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def class_rows(evaluations: dict[str, Evaluation], metric: str = "dsc") -> dict[str, list[ClassScore | None]]:
    """Class name -> its score in each evaluation, None where an evaluation does not know the class."""
    scores = [{c.name: c for c in evaluation.per_class(metric)} for evaluation in evaluations.values()]
    names = dict.fromkeys(name for by_name in scores for name in by_name)
    return {name: [by_name.get(name) for by_name in scores] for name in names}


def legend(evaluations: dict[str, Evaluation], metric: str = "dsc") -> list[str]:
    """What the numbers of a table mean, one sentence each."""
    cases = sorted({len(evaluation.cases) for evaluation in evaluations.values()})
    averaged = sorted({e.headline_name for e in evaluations.values()})
    lines = [
        f"{metric_name(metric)} per case, pooled over all slices of the case, then the mean over cases; "
        f"{' or '.join(map(str, [*cases[:-1], counted(cases[-1], 'case')]))}.",
        f"In brackets: {METHOD}.",
        f"{FOREGROUND}: mean over the foreground classes of the mean over cases; background is not in it."
        if averaged == [FOREGROUND]
        else f"Averages: {', '.join(averaged)}.",
        *rules(evaluations),
        "n: cases with a score; "
        "missed: cases with the class of which not one pixel was found; false: cases without it for which it was predicted.",
    ]
    if cases and cases[0] < FEW:
        lines.append(f"Fewer than {FEW} cases are too few to conclude; their intervals rest on Student's t.")
    return lines


def rules(evaluations: dict[str, Evaluation]) -> list[str]:
    """The rules of every protocol that was scored by, a sentence each."""
    protocols = {e.protocol.name: e.protocol.about for e in evaluations.values()}
    return [f"Protocol {name}: {about.rstrip('.')}." for name, about in protocols.items()]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are right-aligned. Raises ValueError for ragged rows."""
    if ragged := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"row {list(ragged[0])} does not have the {len(header)} columns {list(header)}")

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(header), line(["---", *["---:"] * (len(header) - 1)]), *map(line, rows)]) + "\n"


def table_md(evaluations: dict[str, Evaluation], metric: str = "dsc") -> str:
    """Scores per class, one group of columns per evaluation, the foreground mean last; what they mean is below. Above it the
    figures that the field of the protocol goes by."""
    header = ["class"]
    for name, evaluation in evaluations.items():
        header += [f"{column_name(name, evaluation)}: {metric_name(metric)}", "n", "missed", "false"]
    rows = []
    for name, scores in class_rows(evaluations, metric).items():
        row = [name]
        for c in scores:
            row += (
                [interval_text(c.interval), str(c.n), str(c.n_missed), str(c.n_false)]
                if c
                else [NOT_SCORED, "", "", ""]
            )
        rows.append(row)
    means = sorted({evaluation.headline_name for evaluation in evaluations.values()})
    last = [f"**{' / '.join(means)}**"]
    for evaluation in evaluations.values():
        mean = evaluation.headline(metric)
        last += [f"**{interval_text(mean)}**", str(mean.n), *_totals(evaluation)]
    beside = "; ".join(
        f"{column_name(name, evaluation)} {evaluation.with_background_mean(metric):.3f}"
        for name, evaluation in evaluations.items()
        if evaluation.labels.has_background
    )
    lines = [f"- {line}" for line in legend(evaluations, metric)]
    if beside:
        lines.insert(0, f"- {WITH_BACKGROUND}: {beside}. Shown for comparison only.")
    named = [(column_name(name, evaluation), evaluation) for name, evaluation in evaluations.items()]
    first = headline_table(named) if metric == "dsc" else ""
    return (first and first + "\n") + markdown_table(header, [*rows, last]) + "\n" + "\n".join(lines) + "\n"


def headline_table(evaluations: Sequence[tuple[str, Evaluation]]) -> str:
    """The figures over all cases together that a field goes by, of evaluations by its protocol; empty for others."""
    names = {evaluation.protocol.name for _, evaluation in evaluations}
    if names == {"land-cover"}:
        return land_cover_table(evaluations)
    if names and all(evaluation.targets() for _, evaluation in evaluations):
        return targets_table(evaluations)
    return ""


def targets_table(evaluations: Sequence[tuple[str, Evaluation]]) -> str:
    """IoU, nIoU, Pd, Fa and F1 of the first foreground class, as papers on small targets define them."""
    rows = []
    for name, evaluation in evaluations:
        target = evaluation.labels.foreground[0]
        pooled = land_cover(evaluation.pooled(), [target])
        single = next(iter(evaluation.targets().values()))
        niou = mean_of_means(evaluation.matrix("iou")[:, [target]])
        shares = [_number(value) for value in (pooled.mean_iou, niou, single.pd)]
        rest = [_number(pooled.mean_f1), _number(evaluation.headline().mean)]
        rows.append([name, *shares, _number(1e6 * single.fa, 1), *rest])
    header = ["method", "IoU (all pixels)", "nIoU", "Pd", "Fa (1e-6)", "F1 (all pixels)", "DSC (mean over images)"]
    return markdown_table(header, rows)


def land_cover_table(evaluations: Sequence[tuple[str, Evaluation]]) -> str:
    """F1, mIoU, overall accuracy and kappa over all pixels, then DSC per image, which classes that fill whole images make
    a matter of their presence."""
    rows = []
    for name, evaluation in evaluations:
        cover = land_cover(evaluation.pooled(), evaluation.labels.foreground)
        figures = (cover.mean_f1, cover.mean_iou, cover.overall_accuracy, cover.kappa, evaluation.headline().mean)
        rows.append([name, *map(_number, figures)])
    header = ["method", "F1 (all pixels)", "mIoU", "OA", "kappa", "DSC (mean over images)"]
    return markdown_table(header, rows) + (
        "\nF1 and mIoU: mean over the foreground classes of all pixels of all images together.\n"
    )


def _number(value: float, digits: int = 3) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def table_csv(evaluations: dict[str, Evaluation], metric: str = "dsc") -> str:
    """The same numbers unrounded, one row per method and class; the two means are rows of their own."""
    header = ["method", "oracle", "class", "metric", "mean", "low", "high", "n", "missed", "false"]
    rows: list[list[Any]] = []
    for name, evaluation in evaluations.items():
        start = [name, str(evaluation.is_oracle).lower()]
        for c in evaluation.per_class(metric):
            i = c.interval
            rows.append([*start, c.name, metric, i.mean, i.low, i.high, c.n, c.n_missed, c.n_false])
        i = evaluation.headline(metric)
        rows.append([*start, FOREGROUND, metric, i.mean, i.low, i.high, i.n, *_totals(evaluation)])
        if evaluation.labels.has_background:
            rows.append([*start, WITH_BACKGROUND, metric, evaluation.with_background_mean(metric), *[""] * 5])
    return csv_text(header, rows)


def _totals(evaluation: Evaluation) -> list[str]:
    return [str(sum(map(len, by_class.values()))) for by_class in (evaluation.missed(), evaluation.false())]
