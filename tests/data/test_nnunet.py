"""nnU-Net's raw folder: what it means is read, what has no meaning here is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricate import write_nifti, write_png
from fabricate.layouts import decathlon, nnunet
from sampeft.data import open_dataset
from sampeft.data.check import read_labels
from sampeft.errors import DataError
from sampeft.io import read_volume
from sampeft.volume import IGNORE


def test_ignore_is_no_class(tmp_path: Path) -> None:
    copy = nnunet(tmp_path)
    dataset = open_dataset(tmp_path)
    assert (dataset.labels.names, dataset.labels.ignore) == (("background", "liver", "tumor"), 3)
    assert dataset.modality == "CT"
    file = dataset.split("test")[0].files[0]
    truth = read_labels(file, dataset, read_volume(file.image)).array
    assert (truth == IGNORE).sum() == (copy.truth["liver_131"] == 255).sum() > 0


def test_regions_are_refused_with_the_reason(tmp_path: Path) -> None:
    labels = {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    nnunet(tmp_path, {"labels": labels, "regions_class_order": [1, 2, 3]})
    with pytest.raises(DataError, match=r"regions \(whole tumor = \[1, 2, 3\], core = \[2, 3\]\), which overlap"):
        open_dataset(tmp_path)


def test_a_region_of_one_id_is_a_class(tmp_path: Path) -> None:
    nnunet(tmp_path, {"labels": {"background": 0, "liver": [1], "tumor": 2, "ignore": 3}})
    assert open_dataset(tmp_path).labels.ids == (0, 1, 2)


def two_channels(root: Path) -> None:
    nnunet(root, {"channel_names": {"0": "T2", "1": "ADC"}})
    for part, names in (("imagesTr", ("liver_2", "liver_10")), ("imagesTs", ("liver_131",))):
        for name in names:
            write_nifti(root / part / f"{name}_0001.nii.gz", np.full((20, 12, 3), 7, np.int16))


def test_several_channels_are_refused_and_the_advice_works(tmp_path: Path) -> None:
    two_channels(tmp_path)
    with pytest.raises(DataError, match=r'2 channels \(T2, ADC\).*"images": "imagesTr", "masks": "labelsTr"') as told:
        open_dataset(tmp_path)
    assert "liver_2_0001" in str(told.value)
    content = json.loads((tmp_path / "dataset.json").read_text())
    labels = {"background": 0, "liver": 1, "tumor": 2, "edge": 3}
    content |= {"images": "imagesTr", "masks": "labelsTr", "image_suffix": "_0001", "labels": labels}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    files = [case.files[0] for case in open_dataset(tmp_path).cases]
    assert [file.image.name for file in files] == ["liver_2_0001.nii.gz", "liver_10_0001.nii.gz"]
    assert (read_volume(files[0].image).array == 7).all()


def test_one_colour_image_may_have_three_channel_names(tmp_path: Path) -> None:
    nnunet(tmp_path, {"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"})
    for part in ("imagesTr", "imagesTs", "labelsTr", "labelsTs"):
        for path in (tmp_path / part).iterdir():
            path.unlink()
    write_png(tmp_path / "imagesTr" / "road_1_0000.png", np.zeros((4, 5, 3), np.uint8))
    write_png(tmp_path / "imagesTs" / "road_2_0000.png", np.zeros((4, 5, 3), np.uint8))
    write_png(tmp_path / "labelsTr" / "road_1.png", np.zeros((4, 5), np.uint8))
    dataset = open_dataset(tmp_path)
    assert dataset.modality == "RGB"
    assert dataset.splits == {"train": ("road_1",), "unlabelled": ("road_2",)}


def test_patients_of_several_cases(tmp_path: Path) -> None:
    """D38: a pattern beside nnU-Net's own keys groups; a patient of both imagesTr and imagesTs is named."""
    nnunet(tmp_path, {"group_regex": "^(liver_1?)"})
    with pytest.raises(DataError, match="split 'train': names 1 of the 2 files of case liver_1;"):
        open_dataset(tmp_path)
    nnunet(tmp_path, {"group_regex": "^liver_([0-9]+)$"})
    assert open_dataset(tmp_path).splits == {"train": ("2", "10"), "test": ("131",)}


def test_a_case_in_both_parts_is_named(tmp_path: Path) -> None:
    nnunet(tmp_path)
    write_nifti(tmp_path / "imagesTs" / "liver_2_0000.nii.gz", np.zeros((4, 4, 2), np.int16))
    with pytest.raises(DataError, match="imagesTr and imagesTs both have liver_2;"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"file_ending": ".npy"}, "file_ending is '.npy'; readable are .nii.gz"),
        ({"file_ending": 3}, "file_ending is 3; expected a text"),
        ({"labels": ["liver"]}, r"labels is \['liver'\]; expected names and ids"),
        ({"labels": {"background": 0, "liver": "one"}}, "the id of 'liver' is 'one'"),
        ({"channel_names": "CT"}, "channel_names is 'CT'"),
        ({"labels": {"background": 0, "liver": 3, "ignore": 3}}, "ignore id 3 is also"),
    ],
)
def test_wrong_keys_are_named_with_the_file(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    nnunet(tmp_path, keys)
    with pytest.raises(DataError, match=rf"dataset\.json: .*{message}"):
        open_dataset(tmp_path)


def test_labels_of_version_1_go_from_id_to_name(tmp_path: Path) -> None:
    decathlon(tmp_path)
    labels = open_dataset(tmp_path).labels
    assert dict(zip(labels.names, labels.ids, strict=True)) == {"background": 0, "spleen": 1}
