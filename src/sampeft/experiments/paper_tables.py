"""The paper's tables and figures, ours beside the paper's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sampeft.errors import counted
from sampeft.experiments.memo import write_json
from sampeft.experiments.paper import Place, Row, looks, scored
from sampeft.io import write_atomically
from sampeft.metrics import METRICS
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Interval, Scores, bootstrap_interval, bootstrap_per_class, mean_of_means
from sampeft.provenance import csv_text, versions
from sampeft.report.figures import Example, figure_examples
from sampeft.report.paper import BACKGROUND, PAPER, PaperTable, our_name
from sampeft.report.tables import ORACLE, interval_text, land_cover_table, markdown_table, targets_table

SAM = Row("zero-shot, best automatic masks", "SAM", "oracle")
SAM2 = Row("SAM 2 zero-shot, best automatic masks", "SAM 2", "oracle", second=True)


def lora(rank: int, whole_decoder: bool) -> Row:
    options: dict[str, Any] = {"rank": rank, **({"whole_decoder": True} if whole_decoder else {})}
    heading = f"LoRA r={rank}{' and whole decoder' if whole_decoder else ''}"
    return Row(heading, f"SAM LoRA r={rank}", "trained", "lora", options)


PIXEL = Row("LoRA r=4, head pixel", "", "trained", "lora", {"rank": 4, "whole_decoder": True}, head="pixel")
CONTROL = replace(PIXEL, heading="head pixel without SAM", control=True)
PROBE = Row("linear probe of the frozen encoder", "", "trained", "decoder", head="probe")
MAJORITY = Row("one class a picture: the true majority", "", "baseline", "majority")
RIDGE = Row("one class a picture: ridge on colour statistics", "", "baseline", "ridge")
ADAPTER = Row("Adapter", "SAM Adapter", "trained", "adapter")


@dataclass(frozen=True)
class Plan:
    """data: what the paper calls it. rows: by whether LoRA trains the whole decoder. readings: of pixels without a truth.

    figure: for a figure instead of a table, how many cases it shows."""

    data: str
    rows: Callable[[bool], tuple[Row, ...]]
    readings: tuple[bool, ...] = (False,)
    figure: int = 0


PLANS: dict[str, Plan] = {
    "table1": Plan("flare22", lambda whole: (SAM,)),
    "table2": Plan("flare22", lambda whole: (SAM, ADAPTER, *(lora(rank, whole) for rank in (1, 4, 8)), PIXEL, CONTROL)),
    "table4": Plan("flare22", lambda whole: (SAM, SAM2)),
    "table5": Plan(
        "gid5",
        lambda whole: (SAM, SAM2, lora(4, whole), PIXEL, CONTROL, PROBE, MAJORITY, RIDGE),
        readings=(True, False),
    ),
    "table6": Plan("sirst", lambda whole: (SAM, SAM2, lora(4, whole), PIXEL, CONTROL)),
    "figure5": Plan("flare22", lambda whole: (SAM, ADAPTER, lora(4, whole)), figure=3),
    "figure6": Plan("gid5", lambda whole: (SAM, SAM2, lora(4, whole)), readings=(True,), figure=4),
    "figure7": Plan("sirst", lambda whole: (SAM, SAM2, lora(4, whole)), figure=4),
}


@dataclass(frozen=True)
class SeedMean:
    """Several trainings of one method on the same cases: scores are averaged over seeds first, then over cases.

    classes: foreground class -> interval over cases. headline: foreground mean; each: that of every seed.
    with_background: mean with background, as the paper averages; None without a background class.
    """

    classes: dict[str, Interval]
    headline: Interval
    each: tuple[float, ...]
    with_background: float | None
    background: float | None

    @classmethod
    def of(cls, evaluations: Sequence[Evaluation], metric: str = "dsc") -> SeedMean:
        first = evaluations[0]
        by_id = np.argsort(np.array(first.cases, dtype=object), kind="stable")  # as Evaluation draws its intervals
        stack = np.stack([evaluation.matrix(metric)[by_id] for evaluation in evaluations])
        known = np.maximum((~np.isnan(stack)).sum(axis=0), 1)
        matrix: Scores = np.where(np.isnan(stack).all(axis=0), np.nan, np.nansum(stack, axis=0) / known)
        channels = list(first.labels.foreground)
        intervals = bootstrap_per_class(matrix[:, channels], bounds=METRICS[metric].bounds)
        has = first.labels.has_background
        return cls(
            {first.labels.names[k]: interval for k, interval in zip(channels, intervals, strict=True)},
            bootstrap_interval(matrix[:, channels], bounds=METRICS[metric].bounds),
            tuple(e.headline(metric).mean for e in evaluations),
            mean_of_means(matrix) if has else None,
            mean_of_means(matrix[:, :1]) if has else None,
        )


def reproduce(what: str, place: Place, whole_decoder: bool) -> Path:
    """Make the table or figure of a plan; returns the file to look at first."""
    plan = PLANS[what]
    rows = plan.rows(whole_decoder)
    if plan.figure:
        return _figure(what, replace(place, undefined=plan.readings[0]), rows, plan.figure)
    parts, stamps, numbers = [], [], {}
    for undefined in plan.readings:
        here = replace(place, undefined=undefined)
        found = {row: evaluations for row in rows if (evaluations := scored(here, row))}
        parts.append(_table(what, here, found, titled=len(plan.readings) > 1))
        stamps.append(here.stamp(tuple(found)))
        numbers["undefined as background" if undefined else "undefined left out"] = {
            row.heading: [e.summary()["headline"] for e in evaluations] for row, evaluations in found.items()
        }
    text = f"# {what.replace('table', 'Table ')}: {PAPER[what].title}\n\n" + "\n".join(parts)
    place.out.mkdir(parents=True, exist_ok=True)
    write_atomically(place.out / f"{what}.md", text)
    record = {"what": what, "stamps": stamps, "versions": versions(), "numbers": numbers}
    write_json(place.out / f"{what}.json", record)
    return place.out / f"{what}.md"


def _table(what: str, place: Place, found: dict[Row, list[Evaluation]], titled: bool) -> str:
    paper, ours = PAPER[what], {row: SeedMean.of(evaluations) for row, evaluations in found.items()}
    columns = [column for column in paper.columns if any(row.paper == column for row in ours)]
    header = ["class"]
    for row in ours:
        oracle = f", {ORACLE}" if row.is_oracle else ""
        header += ([f"paper: {row.paper}{oracle}"] if row.paper in columns else []) + [f"ours: {row.heading}{oracle}"]
    names = dict.fromkeys(name for mean in ours.values() for name in mean.classes)
    lines: list[list[str]] = []

    def line(title: str, of_paper: Callable[[str], str], of_ours: Callable[[SeedMean], str]) -> None:
        cells = [title]
        for row, mean in ours.items():
            cells += ([of_paper(row.paper)] if row.paper in columns else []) + [of_ours(mean)]
        lines.append(cells)

    if any(mean.background is not None for mean in ours.values()):
        line(BACKGROUND, partial(_printed, paper, name=BACKGROUND),
             lambda mean: _number(mean.background))  # fmt: skip
    for name in names:
        line(name, partial(_printed, paper, name=our_name(name)), partial(_of_class, name=name))
    line("**foreground mean**", lambda c: f"**{paper.foreground_mean(c):.3f}**",
         lambda mean: f"**{interval_text(mean.headline)}**")  # fmt: skip
    line("with background, as the paper averages", lambda c: f"{paper.printed[paper.columns.index(c)]:.3f}",
         lambda mean: _number(mean.with_background))  # fmt: skip
    if any(len(mean.each) > 1 for mean in ours.values()):
        line("foreground mean of each seed", lambda c: "",
             lambda mean: ", ".join(f"{v:.3f}" for v in mean.each) if len(mean.each) > 1 else "")  # fmt: skip
    notes = [
        f"Ours: {place.stamp(tuple(found))}.",
        "DSC per case, mean over seeds, then over cases; 95 % interval over cases. The paper tells neither split, cases nor "
        "spread, and averages with background; its foreground means are computed here from its rows.",
    ]
    missing = [our_name(name) for name in names if our_name(name) not in paper.rows]
    if missing:
        notes.append(f"Not a class of the paper's data: {', '.join(missing)}; the sets are not the same.")
    title = ("## Undefined pixels are a background class, as in the paper\n\n" if place.undefined
             else "## Undefined pixels are left out\n\n") if titled else ""  # fmt: skip
    text = title + markdown_table(header, lines) + "\n" + "".join(f"- {note}\n" for note in notes)
    if place.data == "sirst":
        text += "\n" + targets_table(_evaluation_names(found))
    if place.data == "gid5":
        text += "\n" + land_cover_table(_evaluation_names(found))
    _write_csv(place.runs / f"{what}.csv", ours)
    return text


def _of_class(mean: SeedMean, name: str) -> str:
    return interval_text(mean.classes[name])


def _printed(paper: PaperTable, column: str, name: str) -> str:
    return f"{paper.rows[name][paper.columns.index(column)]:.3f}" if name in paper.rows else "-"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _evaluation_names(found: dict[Row, list[Evaluation]]) -> list[tuple[str, Evaluation]]:
    """Each evaluation with its row and seed; an oracle, which has no seed, labelled as one."""

    def named(row: Row, seed: int) -> str:
        seeded = f", seed {seed}" if row.kind == "trained" else ""
        return f"{row.heading}{f', {ORACLE}' if row.is_oracle else seeded}"

    return [
        (named(row, seed), evaluation)
        for row, evaluations in found.items()
        for seed, evaluation in enumerate(evaluations)
    ]


def _write_csv(path: Path, ours: dict[Row, SeedMean]) -> None:
    rows = [
        (row.heading, row.is_oracle, name, i.mean, i.low, i.high, i.n)
        for row, mean in ours.items()
        for name, i in [*mean.classes.items(), ("foreground mean", mean.headline)]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, csv_text(["row", "oracle", "class", "mean", "low", "high", "n"], rows))


def _figure(what: str, place: Place, rows: Sequence[Row], count: int) -> Path:
    """image | truth | each row for cases evenly spread over the test list, none of them chosen by its score."""
    total = len(place.cases)
    cases = [place.cases[int((i + 0.5) * total / count)] for i in range(count)] if total > count else place.cases
    shown: dict[str, Example] = {}
    seen: list[Row] = []
    for row in rows:
        heading = row.heading + (" (oracle)" if row.kind == "oracle" else "")
        found = looks(place, row, cases)
        seen += [row] if found else []
        for look in found:
            title = ", ".join(dict.fromkeys((look.case, look.place)))  # a lone picture is named as its case
            example = shown.get(look.case) or Example(look.case, title, look.image, look.truth, {})
            shown[look.case] = replace(example, predictions={**example.predictions, heading: look.prediction})
    place.out.mkdir(parents=True, exist_ok=True)
    figure_examples(list(shown.values()), place.dataset.labels, place.out / f"{what}.png")
    caption = (
        f"![image, truth and results]({what}.png)\n\n"
        f"{counted(len(cases), 'case')}, evenly spread over the test list and not chosen by score; of a case the slice whose "
        f"truth shows most classes. Oracles use the truth. {replace(place, oracle_subset=None).stamp(seen)}.\n"
    )
    write_atomically(place.out / f"{what}.md", caption)
    return place.out / f"{what}.png"
