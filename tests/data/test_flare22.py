"""FLARE22's layout: `<case>_0000.nii.gz` with `<case>.nii.gz`, its own ids, cases as volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fabricate
from sampeft.data import open_dataset
from sampeft.data.check import check_dataset, read_labels
from sampeft.data.layouts.flare22 import FLARE22_LABELS
from sampeft.io import read_volume


def test_volumes_pair_with_their_labels(tmp_path: Path) -> None:
    dataset = open_dataset(fabricate.flare22_dataset(tmp_path))
    assert [(case.id, case.files[0].image.name, case.files[0].label) for case in dataset.cases] == [
        (f"case_0{i}", f"case_0{i}_0000.nii.gz", tmp_path / "labels" / f"case_0{i}.nii.gz") for i in (1, 2, 3)
    ]
    assert dataset.splits == {"train": ("case_01", "case_02"), "test": ("case_03",)}
    assert dataset.modality == "CT"
    report = check_dataset(dataset)
    assert report.faults == ()
    assert [count.cases for count in report.classes] == [3] * 14


def test_ids_are_the_challenges() -> None:
    wanted = {
        "liver": 1,
        "right kidney": 2,
        "spleen": 3,
        "pancreas": 4,
        "aorta": 5,
        "gallbladder": 9,
        "left kidney": 13,
    }
    known = dict(zip(FLARE22_LABELS.names, FLARE22_LABELS.ids, strict=True))
    assert wanted.items() <= known.items()


def test_channel_is_id_and_unlabelled_volumes_have_none(tmp_path: Path) -> None:
    fabricate.flare22_dataset(tmp_path)
    (tmp_path / "labels" / "case_02.nii.gz").unlink()
    (tmp_path / "test.txt").unlink()
    dataset = open_dataset(tmp_path, "flare22")
    one, two, _ = (case.files[0] for case in dataset.cases)
    assert two.label is None
    assert "test" not in dataset.splits
    image = read_volume(one.image)
    truth = read_labels(one, dataset, image)
    np.testing.assert_array_equal(image.array[truth.array == 3], 70)  # the fabricated spleen is 40 + 10 * 3 HU
    np.testing.assert_array_equal(truth.affine, image.affine)
