"""Tables of predicted cases: cases.csv, those to review first at the top, classes.csv and volumes.csv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sampeft.io import write_atomically
from sampeft.labels import LabelSet
from sampeft.prediction.manifest import BEGUN, DONE
from sampeft.provenance import csv_text


def write_cases(folder: Path, cases: Mapping[str, Mapping[str, Any]]) -> Path:
    """cases.csv: failed cases first, then those without any foreground, then by rising confidence."""

    def order(item: tuple[str, Mapping[str, Any]]) -> tuple[bool, bool, float, str]:
        name, case = item
        confidence = case.get("confidence")
        return case["status"] == DONE, confidence is not None, confidence or 0.0, name

    rows = [
        [
            name,
            case["status"],
            _text(case.get("confidence")),
            case["image"],
            case.get("map", ""),
            case.get("message") or "; ".join(case.get("warnings", ())),
        ]
        for name, case in sorted(cases.items(), key=order)
        if case["status"] != BEGUN
    ]
    return _write(folder / "cases.csv", ["case", "status", "confidence", "image", "map", "message"], rows)


def write_volumes(folder: Path, cases: Mapping[str, Mapping[str, Any]], labels: LabelSet) -> Path:
    """volumes.csv: a row per finished case and class; ml is empty where the image states no spacing in mm."""
    rows = [
        [name, label, id, case["pixels"].get(label, 0), _text(case["ml"].get(label, 0.0)) if "ml" in case else ""]
        for name, case in cases.items()
        if case["status"] == DONE
        for label, id in zip(labels.names, labels.ids, strict=True)
    ]
    return _write(folder / "volumes.csv", ["case", "class", "id", "pixels", "ml"], rows)


def write_classes(folder: Path, labels: LabelSet) -> Path:
    """classes.csv: id, name and colour (0..255) of each class, and of the ignore id, which no NIfTI or 16-bit PNG can hold."""
    rows: list[list[Any]] = [
        [id, name, *color] for id, name, color in zip(labels.ids, labels.names, labels.colors, strict=True)
    ]
    if labels.ignore is not None:
        rows.append([labels.ignore, "ignore", 255, 255, 255])
    return _write(folder / "classes.csv", ["id", "class", "red", "green", "blue"], rows)


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    write_atomically(path, csv_text(head, rows))
    return path


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
