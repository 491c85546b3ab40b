"""Check a labelled data set: every fault with its file and fix, statistics, and a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sampeft.configs.check import Config
from sampeft.console import bar, say
from sampeft.data.case import Dataset
from sampeft.data.check import CheckReport, Fault
from sampeft.data.intensity import Intensity
from sampeft.errors import counted
from sampeft.io import write_atomically
from sampeft.io.dicom_series import series_chosen
from sampeft.one_writer import one_writer
from sampeft.options import check_paths
from sampeft.workflows.check import check_names, report_of

_SHOWN = 10  # faults of one kind in the table for people; --json has all


def run(config: Config) -> int:
    check_names(config)
    check_paths(config)
    dataset, name, recipe, report = report_of(config)
    intensity = f"{name}: {recipe}" if recipe else None
    content = {"data": dataset.name, "intensity": intensity, **report.to_json()}
    written = []
    if config.out:
        with one_writer(config.out), series_chosen(config.series):
            write_atomically(config.out / "check.json", json.dumps(content, indent=1) + "\n")
            written.append(config.out / "check.json")
            if recipe and _write_sheet(dataset, config.out / "contact.png", name, recipe, report):
                written.append(config.out / "contact.png")
    print(json.dumps(content) if config.json else text(dataset, report, intensity or "none"))
    for path in written:
        say(f"written   {path}")
    return 1 if report.errors else 0


def text(dataset: Dataset, report: CheckReport, intensity: str) -> str:
    """The findings for people."""
    found = report.summary
    counts = [
        f"{counted(report.cases, 'case')} in {counted(report.files, 'file')}",
        *(f"{name} {n}" for name, n in report.splits.items()),
    ]
    lines = [f"{dataset.name}  {dataset.root}", f"cases      {', '.join(counts)}"]
    if found:
        sizes = " x ".join(f"{_span(found['size'][axis])}" for axis in ("slices", "rows", "columns"))
        lines.append(f"size       {sizes} (slices x rows x columns)")
        if found["spacing_mm"]:
            lines.append(f"spacing    {' x '.join(_span(s) for s in found['spacing_mm'].values())} mm")
        levels = ", ".join(f"{name} {_span(span)}" for name, span in found["intensity"].items())
        types = ", ".join(f"{kind} ({n})" for kind, n in found["types"].items())
        lines += [f"values     {types}: {levels}", f"intensity  {intensity}"]
        lines.append("           a..b..c: lowest, median and highest of all files")
    lines += ["", report.table()]
    if report.ignored:
        lines.append(f"{report.ignored} pixels without a truth")
    for title, faults in (("errors", report.errors), ("warnings", report.warnings)):
        if faults:
            lines += ["", f"{len(faults)} {title if len(faults) > 1 else title[:-1]}", *_listed(faults)]
    lines += ["", "notes", *(f"  {note}" for note in report.notes)] if report.notes else []
    if not report.errors:
        lines += ["", "no errors" if report.warnings else "no faults"]
    return "\n".join(lines)


def _listed(faults: Sequence[Fault]) -> list[str]:
    lines = [f"  {fault}" for fault in faults[:_SHOWN]]
    return [*lines, f"  ... and {len(faults) - _SHOWN} more; --json lists all"] if len(faults) > _SHOWN else lines


def _span(values: Sequence[float]) -> str:
    low, middle, high = values
    return f"{low:g}" if low == high else f"{low:g}..{middle:g}..{high:g}"


def _write_sheet(dataset: Dataset, path: Path, name: str, recipe: Intensity, report: CheckReport) -> bool:
    """Write the contact sheet of the cases without errors, if there are any."""
    from sampeft.data.preprocessing import Preparation
    from sampeft.report.contact_sheet import chosen_cases, contact_sheet, tiles
    from sampeft.report.figures import encode

    broken = {fault.file for fault in report.errors}
    without = set(dataset.splits.get("unlabelled", ()))
    sound = [
        case
        for case in dataset.cases
        if case.id not in without and not any(broken & {file.image, file.label} for file in case.files)
    ]
    if not sound:
        return False
    chosen = chosen_cases(sound)
    with bar("drawing", len(chosen)) as shown:
        pictures = tiles(dataset, chosen, Preparation(recipe, side=256), shown)
    cut = ", dashed: the part that is looked at" if recipe.crop == "body" else ""
    one_of_many = any("/" in tile.name for tile in pictures) or any(len(case.files) > 1 for case in chosen)
    which = ", of each the slice with most classes" if one_of_many else ""
    title = f"{dataset.name}: {len(chosen)} of {len(dataset.cases)} cases{which}; intensity {name}{cut}"
    write_atomically(path, encode(contact_sheet(pictures, dataset.labels, title)))
    return True
