"""A folder with images/, labels/ and dataset.json or labels.json in, Dataset out; for any modality and file format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sampeft.data.case import Dataset
from sampeft.data.folds import list_files, read_splits
from sampeft.data.pairing import group_cases
from sampeft.data.pairing import pair_files as pair_files
from sampeft.errors import DataError
from sampeft.labels import LabelSet

LOOKS_FOR = "dataset.json or labels.json beside images/ and labels/"


def matches(root: Path) -> bool:
    return (root / "dataset.json").is_file() or (root / "labels.json").is_file()


def read(root: Path) -> Dataset:
    """Read the data set; labels may be missing where only predictions are wanted.

    Keys of dataset.json, all optional but `labels` (which labels.json may hold instead): name, modality, labels,
    ignore, pairs, colors, images and masks (folder names), image_suffix and mask_suffix (what follows the common name),
    mask_values ({"255": 1}: value in files to id), group_regex (its first group is the case), splits (name to list
    file, or to names), exclude (names left out on purpose).
    Raises DataError for a missing folder, an unpaired name, a wrong key or a split that shares cases.
    """
    described = root / "dataset.json"
    settings = _object(described) if described.is_file() else {}
    source = described if "labels" in settings else root / "labels.json"
    labels = LabelSet.read(source)
    files = pair_files(
        root / _text(settings, "images", described, "images"),
        root / _text(settings, "masks", described, "labels"),
        image_suffix=_text(settings, "image_suffix", described),
        label_suffix=_text(settings, "mask_suffix", described),
        complete=False,
    )
    excluded = frozenset(_names(settings.get("exclude") or (), "exclude", described))
    if unknown := sorted(excluded - {file.id for file in files}):
        raise DataError(f"{described}: 'exclude' names {', '.join(unknown[:5])}, of which there is no image; remove it")
    pattern = _text(settings, "group_regex", described) or None
    cases = group_cases([file for file in files if file.id not in excluded], pattern, described)
    given = settings.get("splits") or {}
    if not isinstance(given, dict):
        raise DataError(f'{described}: splits is {given!r}; expected {{"train": "train.txt", "test": "test.txt"}}')
    lists: dict[str, Path | tuple[str, ...]] = {
        split: root / value if isinstance(value, str) else _names(value, f"split '{split}'", described)
        for split, value in given.items()
    }
    return Dataset(
        name=_text(settings, "name", described) or root.resolve().name,
        root=root,
        labels=labels,
        cases=cases,
        splits=read_splits(lists or list_files(root), cases, excluded),
        label_values=_values(settings.get("mask_values") or {}, described),
        modality=_text(settings, "modality", described),
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); correct the file") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found a {type(content).__name__}; see the `folder` layout")
    return content


def _text(settings: dict[str, Any], key: str, path: Path, default: str = "") -> str:
    value = settings.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{path}: {key} is {value!r}; expected a text")
    return value if value is not None else default


def _names(value: Any, key: str, path: Path) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise DataError(f"{path}: {key} is {value!r}; expected a list of names")
    return tuple(value)


def _values(content: Any, path: Path) -> dict[int, int]:
    try:
        return {int(value): int(id) for value, id in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise DataError(f'{path}: mask_values is {content!r}; expected a map of values to ids, {{"255": 1}}') from None
