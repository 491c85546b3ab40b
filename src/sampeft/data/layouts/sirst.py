"""Layout of SIRST and its kin: infrared images with small targets."""

from __future__ import annotations

import re
from pathlib import Path

from sampeft.data.case import Dataset
from sampeft.data.folds import read_splits
from sampeft.data.pairing import group_cases, image_files, pair_files
from sampeft.errors import DataError
from sampeft.io import file_stem
from sampeft.labels import LabelSet
from sampeft.strict_json import text_of

LOOKS_FOR = "images/ and masks/ with lists in idx_427/, img_idx/ or 50_50/, IRSTD1k_Img/ and IRSTD1k_Label/"
SIRST_LABELS = LabelSet(("background", "target"), (0, 1))

_FOLDERS = (
    ("images", "masks"),  # SIRST v1, NUAA-SIRST, NUDT-SIRST, IRSTD-1K, SIRST-5K
    ("IRSTD1k_Img", "IRSTD1k_Label"),  # IRSTD-1k as first published
    ("mixed", "annotations/masks"),  # SIRST v2
    ("images/targets", "annotations/masks"),  # SIRST v2, later
)
_LISTS = ("idx_427", "img_idx", "idx_320", "splits", "50_50", "80_20", "10000_100", ".")
"""Folders of the lists; the first that has one of the test images is taken."""


def matches(root: Path) -> bool:
    """Folders and lists alone could be any binary masks, so a name must tell too."""
    folders, lists = _folders(root), _lists(root)
    if folders is None or not lists:
        return False
    names = (root.resolve().name, *(path.name for path in lists.values()), folders[0].name)
    told = any(re.search("sirst|irstd|nudt", name, re.IGNORECASE) for name in names)
    return told or any(file_stem(path).endswith("_pixels0") for path in image_files(folders[1]))


def read(root: Path) -> Dataset:
    """Read the data set; a mask of 255 is the target. Each image is a case, as the published lists have it.

    Images are cut from videos that their names do not tell reliably, and lists have put frames of one video on both
    sides: look at the near-duplicates that `check` reports. Raises DataError as `pair_files` does, and when the lists
    cannot be told.
    """
    folders = _folders(root)
    if folders is None:
        raise DataError(f"{root}: is no set of small targets; looked for {LOOKS_FOR}")
    images, masks = folders
    suffix = "_pixels0" if any(file_stem(path).endswith("_pixels0") for path in image_files(masks)) else ""
    files = pair_files(images, masks, label_suffix=suffix, complete=False)
    cases = group_cases(files, None, root)
    known = {file.id for file in files}
    splits = read_splits(
        {name: path for name, path in _lists(root).items() if "/" not in name or _fits(path, known)}, cases
    )
    return Dataset(
        root.resolve().name, root, SIRST_LABELS, cases, splits, label_values={255: 1}, modality="infrared, 8-bit"
    )


def _folders(root: Path) -> tuple[Path, Path] | None:
    for images, masks in _FOLDERS:
        if (root / images).is_dir() and (root / masks).is_dir() and image_files(root / images):
            return root / images, root / masks
    return None


def _lists(root: Path) -> dict[str, Path]:
    """Split -> list file: of the first folder that has a test list by the split's name, of others by the folder's, too, such as
    `idx_320/test`. `trainval` is `train` where there is no list of that name."""
    named: dict[str, Path] = {}
    first: dict[str, Path] = {}
    for name in _LISTS:
        try:
            found = {split: _list(root / name, split) for split in ("train", "val", "test", "trainval")}
        except DataError:
            if not first:
                raise
            continue
        if not found["test"]:
            continue
        found["train"] = found["train"] or found["trainval"]
        lists = {split: path for split, path in found.items() if path and split != "trainval"}
        if not first:
            first = lists
        elif name != ".":
            named |= {f"{name}/{split}": path for split, path in lists.items()}
    return {**first, **named}


def _fits(path: Path, known: set[str]) -> bool:
    """Whether a list names images that are there alone; a second one need not go with a copy of a part of the set."""
    return {file_stem(Path(line)) for line in text_of(path).split()} <= known


def _list(folder: Path, split: str) -> Path | None:
    """test.txt, test_full.txt (SIRST v2 has several) or the only test_<name>.txt of a folder."""
    for name in (f"{split}.txt", f"{split}_full.txt"):
        if (folder / name).is_file():
            return folder / name
    named = sorted(folder.glob(f"{split}_*.txt"))
    if len(named) > 1:
        raise DataError(f"{folder}: {' and '.join(p.name for p in named[:3])} both list {split} images; keep one")
    return named[0] if named else None
