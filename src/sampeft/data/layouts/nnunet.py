"""Layout of nnU-Net's raw folders (v2, v1) and of the Medical Segmentation Decathlon."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sampeft.data.case import Dataset, ImageFile
from sampeft.data.description import Description
from sampeft.data.folds import read_splits
from sampeft.data.pairing import group_cases, image_files, pair_files
from sampeft.errors import DataError, FormError
from sampeft.io import IMAGE_SUFFIXES, file_stem
from sampeft.labels import LabelSet

LOOKS_FOR = "dataset.json beside imagesTr/ and labelsTr/"
FIRST_CHANNEL = "_0000"


def matches(root: Path) -> bool:
    """A dataset.json that names its folders itself belongs to the folder layout."""
    if not ((root / "imagesTr").is_dir() and (root / "dataset.json").is_file()):
        return False
    return not {"images", "masks"} & Description.read(root / "dataset.json").content.keys()


def read(root: Path) -> Dataset:
    """Read the data set: imagesTr/<case>_0000.<ending> with labelsTr/<case>.<ending> are the split `train`, imagesTs
    with labelsTs `test`, imagesTs alone `unlabelled`. Keys of dataset.json: channel_names, labels (one may be named
    `ignore`), file_ending, and, beside nnU-Net's own, group_regex, whose first group is the patient.

    Raises FormError for several channels and for regions, with the reason, DataError for what does not fit together.
    """
    description = Description.read(root / "dataset.json")
    description.warn_of_misspelt(("channel_names", "modality", "labels", "file_ending", "group_regex"))
    files, splits = read_parts(root)
    channels = description.content.get("channel_names", description.content.get("modality")) or {}
    if not isinstance(channels, dict):
        raise FormError(f'{description.path}: channel_names is {channels!r}; expected {{"0": "CT"}}')
    stems = [file_stem(path) for path in image_files(root / "imagesTr")]
    others = [stem for stem in stems if not stem.endswith(FIRST_CHANNEL)]
    if 0 < len(others) < len(stems):
        raise FormError(
            f"{description.path}: has {len(channels)} channels ({', '.join(map(str, channels.values()))}) in files of "
            f"their own, such as {others[0]}, and a SAM sees one grey or colour image; to train on the first, add the "
            'keys "images": "imagesTr", "masks": "labelsTr", "image_suffix": "_0000" (or _0001 for the second) to it'
        )
    if (ending := description.text("file_ending", ".nii.gz")).lower() not in IMAGE_SUFFIXES:
        raise FormError(f"{description.path}: file_ending is '{ending}'; readable are {', '.join(IMAGE_SUFFIXES)}")
    cases = group_cases(files, description.text("group_regex") or None, description.path)
    first = str(next(iter(channels.values()), ""))
    modality = "RGB" if len(channels) == 3 and first.lower() in ("r", "red") else first
    return Dataset(
        root.resolve().name, root, _labels(description), cases, read_splits(splits, cases), modality=modality
    )


def read_parts(root: Path) -> tuple[list[ImageFile], dict[str, tuple[str, ...]]]:
    """Files of imagesTr and imagesTs with those of labelsTr and labelsTs, and the ids of each part by split."""
    files: list[ImageFile] = []
    splits: dict[str, tuple[str, ...]] = {}
    for part in ("Tr", "Ts"):
        images, labels = root / f"images{part}", root / f"labels{part}"
        if part == "Ts" and not images.is_dir():
            continue
        suffix = FIRST_CHANNEL if any(file_stem(p).endswith(FIRST_CHANNEL) for p in image_files(images)) else ""
        found = pair_files(images, labels, image_suffix=suffix, complete=False)
        split = "train" if part == "Tr" else "test" if any(file.label for file in found) else "unlabelled"
        files, splits[split] = files + found, tuple(file.id for file in found)
    if twice := sorted(id for id, count in Counter(file.id for file in files).items() if count > 1):
        raise DataError(
            f"{root}: imagesTr and imagesTs both have {', '.join(twice[:5])}; keep each case in one of them"
        )
    return files, splits


def _labels(description: Description) -> LabelSet:
    labels: Any = description.content.get("labels")
    if isinstance(labels, dict) and labels and all(str(key).isdecimal() for key in labels):  # v1 goes from id to name
        labels = {name: int(id) for id, name in labels.items()}
    if not isinstance(labels, dict):
        return LabelSet.from_json({"labels": labels}, description.path)
    labels = dict(labels)
    labels = {name: id[0] if isinstance(id, list) and len(id) == 1 else id for name, id in labels.items()}
    if regions := [f"{name} = {ids}" for name, ids in labels.items() if isinstance(ids, list)]:
        raise FormError(
            f"{description.path}: labels has regions ({', '.join(regions)}), which overlap, and here each pixel has one "
            "class; name each id instead, one class an id"
        )
    ignore = labels.pop("ignore", None)
    return LabelSet.from_json({"labels": labels, "ignore": ignore}, description.path)
