"""A folder in the shape of the FLARE22 challenge (13 abdominal organs in CT) in, Dataset out."""

from __future__ import annotations

from pathlib import Path

from sampeft.data.case import Dataset
from sampeft.data.folds import list_files, read_splits
from sampeft.data.pairing import group_cases, image_files, pair_files
from sampeft.io import file_stem
from sampeft.labels import LabelSet

LOOKS_FOR = "images/<case>_0000.nii.gz and labels/<case>.nii.gz"
IMAGE_SUFFIX = "_0000"

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
    images = root / "images"
    return images.is_dir() and any(
        file_stem(path).endswith(IMAGE_SUFFIX) and path.name.endswith((".nii", ".nii.gz"))
        for path in image_files(images)
    )


def read(root: Path) -> Dataset:
    """Read the data set: each volume is a case; train.txt, val.txt and test.txt, if there, list case ids.

    Images without a label have none (FLARE22's unlabelled part). Raises DataError as `pair_files` does.
    """
    files = pair_files(root / "images", root / "labels", image_suffix=IMAGE_SUFFIX, complete=False)
    cases = group_cases(files, None, root)
    return Dataset(
        root.resolve().name, root, FLARE22_LABELS, cases, read_splits(list_files(root), cases), modality="CT"
    )
