"""Layout `folder`: images/, labels/ and dataset.json or labels.json; any modality and file format."""

from __future__ import annotations

from pathlib import Path

from sampeft.data.case import Dataset
from sampeft.data.description import Description
from sampeft.data.folds import list_files, read_splits
from sampeft.data.layouts.pairs_csv import NAME as PAIRS
from sampeft.data.layouts.pairs_csv import read_pairs
from sampeft.data.pairing import cases_of, group_cases, pair_files
from sampeft.errors import FormError
from sampeft.io import composed
from sampeft.labels import LabelSet

LOOKS_FOR = f"dataset.json or labels.json beside images/ and labels/, or beside {PAIRS}"
_LISTING = ("images", "masks", "image_suffix", "mask_suffix")
_OF_LABELS = ("labels", "ignore", "pairs", "colors")
_KEYS = (*_LISTING, *_OF_LABELS, "name", "modality", "mask_values", "group_regex", "splits", "exclude")


def matches(root: Path) -> bool:
    return any((root / name).is_file() for name in ("dataset.json", "labels.json", PAIRS))


def read(root: Path) -> Dataset:
    """Read the data set; labels may be missing where only predictions are wanted. An image may be a sub-folder of
    images/ with one DICOM series.

    Keys of dataset.json, all optional but `labels` (which labels.json may hold instead): name, modality, labels,
    ignore, pairs, colors (by class and for "ignore": those of reports and of masks that are stored as colours), images
    and masks (folder names), image_suffix and mask_suffix (what follows the common name), mask_values ({"255": 1}:
    value in files to id), group_regex (its first group is the case), splits (name to list file, or to names), exclude
    (names left out on purpose).
    A file pairs.csv (image,label[,case][,split], paths below the root) lists the pairs instead of two folders.
    Raises FormError or NoDataError for a missing folder, an unpaired name, a wrong key, a path that leads out of the root, or
    a split that shares cases.
    """
    described = root / "dataset.json"
    description = Description.read(described) if described.is_file() else Description(described, {})
    source = description if "labels" in description.content else Description(root / "labels.json", {})
    labels = LabelSet.read(source.path)
    if source is not description:
        source = Description.read(source.path)
        if "labels" in source.content:
            source.warn_of_misspelt(_OF_LABELS)
    description.warn_of_misspelt(_KEYS)
    groups: dict[str, str] = {}
    lists: dict[str, Path | tuple[str, ...]] = dict(description.splits(root))
    by_table = (root / PAIRS).is_file()
    if by_table:
        if doubled := [key for key in (*_LISTING, "splits") if key in description.content]:
            raise FormError(
                f"{described}: has {', '.join(doubled)}, but {PAIRS} lists the pairs; remove one of the two"
            )
        files, groups, given = read_pairs(root / PAIRS, root)
        lists.update(given)
    else:
        files = pair_files(
            description.folder(root, "images", "images"),
            description.folder(root, "masks", "labels"),
            image_suffix=description.text("image_suffix"),
            label_suffix=description.text("mask_suffix"),
            complete=False,
        )
    left_out = description.content.get("exclude")
    excluded = frozenset(map(composed, description.names("exclude", () if left_out is None else left_out)))
    if unknown := sorted(excluded - {file.id for file in files}):
        raise FormError(f"{described}: 'exclude' names {', '.join(unknown[:5])}, of which there is no image; remove it")
    files = [file for file in files if file.id not in excluded]
    if not files:
        raise FormError(f"{described}: 'exclude' names every image; leave one in")
    pattern = description.text("group_regex") or None
    cases = cases_of(files, groups) if groups else group_cases(files, pattern, described)
    return Dataset(
        name=description.text("name") or root.resolve().name,
        root=root,
        labels=labels,
        cases=cases,
        splits=read_splits(lists or list_files(root), cases, excluded, root / PAIRS if by_table else described),
        label_values=description.values("mask_values"),
        modality=description.text("modality"),
        label_colors=source.colors(labels),
    )
