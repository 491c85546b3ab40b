"""Folder of a labelled data set in, every fault with its file and fix out, numbers to know, and a sheet of pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampeft.commands.train import parse_map, say
from sampeft.data import open_dataset
from sampeft.data.case import Dataset
from sampeft.data.check import CheckReport, Fault, check_dataset
from sampeft.data.intensity import PRESETS, Intensity, choose, preset, with_bands
from sampeft.errors import DataError, UsageError
from sampeft.io import read_volume, write_atomically
from sampeft.progress import bar

POSITIONAL = {"data": {"type": Path, "help": "folder of the data set"}}
_SHOWN = 10  # faults of one kind in the table for people; --json has all


@dataclass(frozen=True)
class Config:
    """What to check.

    Args:
        out: folder for check.json and contact.png, labels over a picture of up to 24 cases; nothing: neither is made.
        side: side in pixels of the network's input, to find structures that are lost at that size.
        layout: layout of the data set; nothing: found by looking.
        map: label ids to change on reading, such as 4:3,255:1.
        intensity: recipe by name, or 'auto'.
        bands: the one or three bands of multi-band images to look at, counted from 1, such as 3,2,1.
        json: print the findings as one JSON object on stdout.
    """

    data: Path
    out: Path | None = None
    side: int | None = None
    layout: str | None = None
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    json: bool = False


def run(config: Config) -> int:
    if config.side is not None and config.side < 1:
        raise UsageError(f"--side is {config.side}; give the side of the network's input in pixels, such as 256")
    named = None if config.intensity == "auto" else preset(config.intensity, config.bands)
    with_bands(PRESETS["percentile"], config.bands)  # a wrong list is told before any file is opened
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    with bar("checking", sum(len(case.files) for case in dataset.cases)) as shown:
        report = check_dataset(dataset, progress=shown, side=config.side, recipe=named, leaks=True)
    name, recipe = (config.intensity, named) if named else _fitting(dataset, config.bands)
    intensity = f"{name}: {recipe}" if recipe else None
    content = {"data": dataset.name, "intensity": intensity, **report.to_json()}
    written = []
    if config.out:
        config.out.mkdir(parents=True, exist_ok=True)
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
    counts = [f"{report.cases} cases in {report.files} files", *(f"{name} {n}" for name, n in report.splits.items())]
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


def _fitting(dataset: Dataset, bands: str | None) -> tuple[str, Intensity | None]:
    """The recipe that training would choose: the one that fits the first image that can be read, if one can."""
    for file in (file for case in dataset.cases for file in case.files):
        try:
            name, recipe = choose(read_volume(file.image), dataset.modality)
        except DataError:  # a fault that the report lists
            continue
        return name, with_bands(recipe, bands)
    return "none", None


def _write_sheet(dataset: Dataset, path: Path, name: str, recipe: Intensity, report: CheckReport) -> bool:
    """Write the contact sheet of the cases without errors, if there are any."""
    from sampeft.data.prepared import Preparation
    from sampeft.report.contact import chosen_cases, contact_sheet, tiles
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
