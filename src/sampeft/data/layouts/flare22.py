"""Layout of the FLARE22 challenge: 13 abdominal organs in CT."""

from __future__ import annotations

from pathlib import Path

from sampeft.data.case import Dataset
from sampeft.data.folds import list_files, read_splits
from sampeft.data.layouts.nnunet import read_parts
from sampeft.data.pairing import group_cases, image_files, pair_files
from sampeft.labels import LabelSet

LOOKS_FOR = "images/<case>_0000.nii.gz and labels/<case>.nii.gz"
IMAGE_SUFFIX = "_0000"
LABELLED = "FLARE22_LabeledCase50"

FLARE22_LABELS = LabelSet(
    names=(
        "background",
        "liver",
        "right kidney",
        "spleen",
        "pancreas",
        "aorta",
        "inferior vena cava",
        "right adrenal gland",
        "left adrenal gland",
        "gallbladder",
        "esophagus",
        "stomach",
        "duodenum",
        "left kidney",
    ),
    ids=tuple(range(14)),
    pairs=(("right kidney", "left kidney"), ("right adrenal gland", "left adrenal gland")),
)


def matches(root: Path) -> bool:
    return _part(root) is not None


def read(root: Path) -> Dataset:
    """Read the data set: each volume is a case; train.txt, val.txt and test.txt, if there, list case ids.

    The labelled part is images/ with labels/, or imagesTr/ with labelsTr/ (and Ts), in the root or in its folder
    FLARE22_LabeledCase50 or Training/FLARE22_LabeledCase50. Images without a label have none (FLARE22's unlabelled
    part). Raises DataError as `pair_files` does.
    """
    part = _part(root) or root
    if (part / "imagesTr").is_dir():
        files, splits = read_parts(part)
    else:
        files, splits = pair_files(part / "images", part / "labels", image_suffix=IMAGE_SUFFIX, complete=False), {}
    cases = group_cases(files, None, root)
    lists = {**list_files(part), **list_files(root)} or splits
    return Dataset(root.resolve().name, root, FLARE22_LABELS, cases, read_splits(lists, cases), modality="CT")


def _part(root: Path) -> Path | None:
    """The folder of the labelled part. imagesTr/ may hold any challenge's volumes, so there the names must tell."""
    for folder in (root, root / LABELLED, root / "Training" / LABELLED):
        for images, start in ((folder / "images", ""), (folder / "imagesTr", "FLARE")):
            if images.is_dir() and any(
                path.name.startswith(start) and path.name.endswith((f"{IMAGE_SUFFIX}.nii", f"{IMAGE_SUFFIX}.nii.gz"))
                for path in image_files(images)
            ):
                return folder
    return None
