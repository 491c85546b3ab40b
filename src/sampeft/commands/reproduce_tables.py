"""A table or figure of the paper and a place in; the same table of ours beside the paper's numbers, or the figure, out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sampeft.commands.reproduction import Place, Row, SeedMean, looks, scored
from sampeft.commands.train import versions
from sampeft.io import write_atomically
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.targets import TargetCounts
from sampeft.report.figures import Example, figure_examples
from sampeft.report.paper import BACKGROUND, PAPER, PaperTable, our_name
from sampeft.report.tables import ORACLE, interval_text, markdown_table

SAM = Row("zero-shot, best automatic masks", "SAM", "oracle")
SAM2 = Row("SAM 2 zero-shot, best automatic masks", "SAM 2", "oracle", second=True)


def lora(rank: int, whole_decoder: bool) -> Row:
    options: dict[str, Any] = {"rank": rank, **({"whole_decoder": True} if whole_decoder else {})}
    heading = f"LoRA r={rank}{' and whole decoder' if whole_decoder else ''}"
    return Row(heading, f"SAM LoRA r={rank}", "trained", "lora", options)


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
    "table2": Plan("flare22", lambda whole: (SAM, ADAPTER, *(lora(rank, whole) for rank in (1, 4, 8)))),
    "table4": Plan("flare22", lambda whole: (SAM, SAM2)),
    "table5": Plan("gid5", lambda whole: (SAM, SAM2, lora(4, whole)), readings=(True, False)),
    "table6": Plan("sirst", lambda whole: (SAM, SAM2, lora(4, whole))),
    "figure5": Plan("flare22", lambda whole: (SAM, ADAPTER, lora(4, whole)), figure=3),
    "figure6": Plan("gid5", lambda whole: (SAM, SAM2, lora(4, whole)), readings=(True,), figure=4),
    "figure7": Plan("sirst", lambda whole: (SAM, SAM2, lora(4, whole)), figure=4),
}


def reproduce(what: str, place: Place, whole_decoder: bool) -> Path:
    """Make the table or figure of a plan; returns the file to look at first."""
    plan = PLANS[what]
    rows = plan.rows(whole_decoder)
    if plan.figure:
        return _figure(what, replace(place, undefined=plan.readings[0]), rows, plan.figure)
    several = len(plan.readings) > 1
    parts, numbers = [], {}
    for undefined in plan.readings:
        here = replace(place, undefined=undefined)
        if several:
            here = replace(here, out=place.out / ("undefined" if undefined else "defined"))
        found = {row: evaluations for row in rows if (evaluations := scored(here, row))}
        parts.append(_table(what, here, found, several))
        numbers["undefined as background" if undefined else "undefined left out"] = {
            row.heading: [e.summary()["headline"] for e in evaluations] for row, evaluations in found.items()
        }
    text = f"# {what.replace('table', 'Table ')}: {PAPER[what].title}\n\n" + "\n".join(parts)
    place.out.mkdir(parents=True, exist_ok=True)
    write_atomically(place.out / f"{what}.md", text.encode())
    record = {"what": what, "stamp": place.stamp, "versions": versions(), "numbers": numbers}
    write_atomically(place.out / f"{what}.json", (json.dumps(record, indent=1, default=str) + "\n").encode())
    return place.out / f"{what}.md"


def _table(what: str, place: Place, found: dict[Row, list[Evaluation]], several: bool) -> str:
    paper, ours = PAPER[what], {row: SeedMean.of(evaluations) for row, evaluations in found.items()}
    columns = [column for column in paper.columns if any(row.paper == column for row in ours)]
    header = ["class"]
    for row in ours:
        oracle = f", {ORACLE}" if row.kind == "oracle" else ""
        header += ([f"paper: {row.paper}{oracle}"] if row.paper in columns else []) + [f"ours: {row.heading}{oracle}"]
    names = dict.fromkeys(name for mean in ours.values() for name in mean.classes)
    lines = []

    def line(title: str, of_paper: Callable[[str], str], of_ours: Callable[[SeedMean], str]) -> None:
        cells = [title]
        for row, mean in ours.items():
            cells += ([of_paper(row.paper)] if row.paper in columns else []) + [of_ours(mean)]
        lines.append(cells)

    has_background = any(mean.background is not None for mean in ours.values())
    if has_background:
        line(BACKGROUND, partial(_printed, paper, name=BACKGROUND),
             lambda mean: "" if mean.background is None else f"{mean.background:.3f}")  # fmt: skip
    for name in names:
        line(name, partial(_printed, paper, name=our_name(name)), partial(_of_class, name=name))
    line("**foreground mean**", lambda c: f"**{paper.foreground_mean(c):.3f}**",
         lambda mean: f"**{interval_text(mean.headline)}**")  # fmt: skip
    line("with background, as the paper averages", lambda c: f"{paper.printed[paper.columns.index(c)]:.3f}",
         lambda mean: "" if mean.with_background is None else f"{mean.with_background:.3f}")  # fmt: skip
    line("foreground mean of each seed", lambda c: "", lambda mean: ", ".join(f"{value:.3f}" for value in mean.each))
    notes = [
        f"Ours: {place.stamp}.",
        "DSC per case, mean over seeds, then over cases; 95 % interval over cases. The paper tells neither split, cases nor "
        "spread, and averages with background; its foreground means are computed here from its rows.",
    ]
    missing = [our_name(name) for name in names if our_name(name) not in paper.rows]
    if missing:
        notes.append(f"Not a class of the paper's data: {', '.join(missing)}; the sets are not the same.")
    title = ("## Undefined pixels are a background class, as in the paper\n\n" if place.undefined
             else "## Undefined pixels are left out\n\n") if several else ""  # fmt: skip
    text = title + markdown_table(header, lines) + "\n" + "".join(f"- {note}\n" for note in notes)
    if place.data == "sirst":
        text += "\n" + _targets(found)
    if place.data == "gid5":
        text += "\n" + _land_cover(found)
    _write_csv(place.out / f"{what}.csv", ours)
    return text


def _of_class(mean: SeedMean, name: str) -> str:
    return interval_text(mean.classes[name])


def _printed(paper: PaperTable, column: str, name: str) -> str:
    return f"{paper.rows[name][paper.columns.index(column)]:.3f}" if name in paper.rows else "-"


def _targets(found: dict[Row, list[Evaluation]]) -> str:
    """IoU, nIoU, Pd, Fa and F1 as papers on small targets define them."""
    rows = []
    for row, evaluations in found.items():
        for seed, evaluation in enumerate(evaluations):
            counts = evaluation.pooled()
            target = evaluation.labels.foreground[0]
            tp, fp, fn = (int(part[target]) for part in (counts.tp, counts.fp, counts.fn))
            single: TargetCounts = next(iter(evaluation.targets().values()))
            precision, recall = tp / max(tp + fp, 1), tp / max(tp + fn, 1)
            niou = float(np.nanmean(evaluation.matrix("iou")[:, target]))
            rows.append([
                f"{row.heading}{f', {ORACLE}' if row.kind == 'oracle' else f', seed {seed}'}",
                f"{tp / max(tp + fp + fn, 1):.3f}", f"{niou:.3f}", f"{single.pd:.3f}", f"{1e6 * single.fa:.1f}",
                f"{2 * precision * recall / max(precision + recall, 1e-12):.3f}", f"{evaluation.headline().mean:.3f}",
            ])  # fmt: skip
    header = ["row", "IoU (all pixels)", "nIoU", "Pd", "Fa (1e-6)", "F1 (all pixels)", "DSC (mean over images)"]
    return markdown_table(header, rows)


def _land_cover(found: dict[Row, list[Evaluation]]) -> str:
    rows = []
    for row, evaluations in found.items():
        for seed, evaluation in enumerate(evaluations):
            every = evaluation.summary()["all_pixels"]
            name = f"{row.heading}{f', {ORACLE}' if row.kind == 'oracle' else f', seed {seed}'}"
            rows.append([name, *(f"{every[key]:.3f}" if every[key] is not None else "" for key in every)])
            header = ["row", *every]
    return markdown_table(header, rows) + "\nOf all pixels of all crops together.\n"


def _write_csv(path: Path, ours: dict[Row, SeedMean]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "oracle", "class", "mean", "low", "high", "n"])
    for row, mean in ours.items():
        for name, interval in [*mean.classes.items(), ("foreground mean", mean.headline)]:
            values = asdict(interval)
            writer.writerow(
                [row.heading, row.kind == "oracle", name, *(values[k] for k in ("mean", "low", "high", "n"))]
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue().encode())


def _figure(what: str, place: Place, rows: Sequence[Row], count: int) -> Path:
    """image | truth | each row for cases evenly spread over the test list, none of them chosen by its score."""
    spread = np.linspace(0, len(place.cases) - 1, min(count, len(place.cases)) + 2)[1:-1].round().astype(int)
    cases = [place.cases[i] for i in dict.fromkeys(spread.tolist())]
    shown: dict[str, Example] = {}
    for row in rows:
        heading = row.heading + (" (oracle)" if row.kind == "oracle" else "")
        for look in looks(place, row, cases):
            example = shown.get(look.case) or Example(
                look.case, f"{look.case}, {look.place}", look.image, look.truth, {}
            )
            shown[look.case] = replace(example, predictions={**example.predictions, heading: look.prediction})
    place.out.mkdir(parents=True, exist_ok=True)
    figure_examples(list(shown.values()), place.dataset.labels, place.out / f"{what}.png")
    return place.out / f"{what}.png"
