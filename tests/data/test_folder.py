"""The `folder` layout: images find their own labels, whatever a directory listing says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fabricate
from fabricate import write_png
from sampeft.data import DATASETS, open_dataset
from sampeft.data.check import check_dataset
from sampeft.data.pairing import pair_files
from sampeft.errors import DataError, UsageError

GREY = np.zeros((4, 5), np.uint8)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        write_png(folder / name, GREY)


def described(root: Path, **keys: object) -> Path:
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "target": 1}, **keys}))
    return root


def test_pairs_by_stem_and_declared_suffix(tmp_path: Path) -> None:
    """D20: images img_2, img_10; masks img_10_gt, img_2_gt, img_7_gt; zip() of two listings would pair them wrongly."""
    touch(tmp_path / "images", "img_2.png", "img_10.png", ".hidden.png")
    touch(tmp_path / "masks", "img_10_gt.png", "img_2_gt.png", "img_7_gt.png", "._img_2_gt.png")
    (tmp_path / "masks" / "notes.xml").write_text("<a/>")
    dataset = open_dataset(described(tmp_path, masks="masks", mask_suffix="_gt"))
    files = [file for case in dataset.cases for file in case.files]
    assert [(f.id, f.image.name, f.label.name if f.label else None) for f in files] == [
        ("img_2", "img_2.png", "img_2_gt.png"),
        ("img_10", "img_10.png", "img_10_gt.png"),
    ]
    orphans = [fault for fault in check_dataset(dataset).faults if "no image" in fault.problem]
    assert [(fault.file.name, fault.severity) for fault in orphans] == [("img_7_gt.png", "warning")]


def test_zero_pairs_is_an_error_that_knows_the_suffix(tmp_path: Path) -> None:
    """D20."""
    touch(tmp_path / "images", "img_2.png", "img_10.png")
    touch(tmp_path / "labels", "img_10_gt.png", "img_2_gt.png")
    with pytest.raises(DataError, match=r'none of 2 label files .* 2 images .*"mask_suffix": "_gt"'):
        open_dataset(described(tmp_path))
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="images: no image here"):
        open_dataset(described(tmp_path))


@pytest.mark.parametrize(("folder", "suffix"), [("images", ""), ("labels", "_gt")])
def test_two_files_of_one_stem_is_an_error(folder: str, suffix: str, tmp_path: Path) -> None:
    """D20: a.png and a.tif."""
    touch(tmp_path / "images", "a.png")
    touch(tmp_path / "labels", "a_gt.png")
    touch(tmp_path / folder, f"a{suffix}.tif")
    with pytest.raises(DataError, match=rf"a{suffix}\.png and a{suffix}\.tif are two files of one name"):
        open_dataset(described(tmp_path, mask_suffix="_gt"))


def test_strict_pairing_lists_what_has_no_partner(tmp_path: Path) -> None:
    """A truth without a prediction must not raise a score by being left out."""
    touch(tmp_path / "pred", "a.png")
    touch(tmp_path / "truth", "a.png", "b.png")
    with pytest.raises(DataError, match=r"1 file without a partner, such as .*truth.b\.png"):
        pair_files(tmp_path / "pred", tmp_path / "truth")
    touch(tmp_path / "pred", "b.png")
    assert [file.id for file in pair_files(tmp_path / "pred", tmp_path / "truth")] == ["a", "b"]


def test_images_and_masks_may_share_a_folder(tmp_path: Path) -> None:
    touch(tmp_path / "all", "a.png", "a_m.png", "b.png", "b_m.png")
    dataset = open_dataset(described(tmp_path, images="all", masks="all", mask_suffix="_m"))
    assert [(c.id, c.files[0].label.name) for c in dataset.cases if c.files[0].label] == [
        ("a", "a_m.png"),
        ("b", "b_m.png"),
    ]


def test_cases_splits_and_description(tmp_path: Path) -> None:
    dataset = open_dataset(fabricate.folder_dataset(tmp_path, cases=11, files_per_case=2))
    assert [case.id for case in dataset.cases] == [f"P{i:02d}" for i in range(1, 12)]
    assert [[file.id for file in case.files] for case in dataset.split("test")] == [["P11_1", "P11_2"]]
    assert len(dataset.split("train")) == 10
    assert (dataset.name, dataset.modality, dataset.labels.names) == ("fabricated", "grey", ("background", "c1", "c2"))
    with pytest.raises(UsageError, match="did you mean 'train'"):
        dataset.split("trian")


def test_labels_json_alone_with_lists_in_the_root(tmp_path: Path) -> None:
    fabricate.folder_dataset(tmp_path)
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "labels.json").write_text('{"background": 0, "c1": 1, "c2": 2}')
    dataset = open_dataset(tmp_path)
    assert len(dataset.cases) == 8
    assert dataset.splits["test"] == ("P04_1", "P04_2")
    assert dataset.name == tmp_path.name


def test_images_without_labels_are_for_prediction(tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.png", "b.png")
    dataset = open_dataset(described(tmp_path))
    assert [file.label for case in dataset.cases for file in case.files] == [None, None]
    with pytest.raises(DataError, match=r"2 faults: .*a\.png: has no label; add its label file"):
        check_dataset(dataset).raise_on_errors()


def test_a_leak_in_the_shipped_lists_is_refused(tmp_path: Path) -> None:
    """D38."""
    fabricate.folder_dataset(tmp_path)
    (tmp_path / "test.txt").write_text("P03_1\nP03_2\nP04_1\nP04_2\n")
    with pytest.raises(DataError, match=r"'train' and 'test' share 1 case \(P03\)"):
        open_dataset(tmp_path)


def test_excluded_names_are_left_out_on_purpose_only(tmp_path: Path) -> None:
    fabricate.folder_dataset(tmp_path, files_per_case=1, described={"exclude": ["P02_1"]})
    dataset = open_dataset(tmp_path)
    assert [case.id for case in dataset.cases] == ["P01", "P03", "P04"]
    assert dataset.splits["train"] == ("P01", "P03")
    assert [(fault.file.name, fault.severity) for fault in check_dataset(dataset).faults] == [("P02_1.png", "warning")]
    fabricate.folder_dataset(tmp_path, described={"exclude": ["P99"]})
    with pytest.raises(DataError, match="'exclude' names P99"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"splits": ["train.txt"]}, "splits is"),
        ({"splits": {"train": "no.txt"}}, r"no\.txt: the list of a split cannot be read"),
        ({"splits": {"train": 3}}, "split 'train' is 3; expected a list"),
        ({"mask_values": [255]}, "mask_values is"),
        ({"images": 5}, "images is 5"),
        ({"images": "pictures"}, "images is 'pictures', and there is no such folder"),
        ({"group_regex": "("}, "no regular expression"),
        ({"labels": None}, r"labels\.json: cannot be read"),
    ],
)
def test_wrong_keys_are_named(keys: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(fabricate.folder_dataset(tmp_path, described=keys))


def test_open_dataset_says_what_it_looked_for_and_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: is not there"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "readme.md").write_text("")
    (tmp_path / "scans").mkdir()
    with pytest.raises(DataError, match=r"looked for dataset\.json .*_0000\.nii\.gz.*; here are: readme\.md, scans/"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="is a file"):
        open_dataset(tmp_path / "readme.md")
    with pytest.raises(UsageError, match="did you mean 'flare22'"):
        open_dataset(tmp_path, layout="flare2")
    assert set(DATASETS) == {"folder", "flare22", "nnunet", "gid", "sirst"}


def test_a_map_must_lead_to_a_class(tmp_path: Path) -> None:
    fabricate.folder_dataset(tmp_path, described={"mask_values": {"9": 1}})
    assert open_dataset(tmp_path, label_map={4: 2}).label_values == {9: 1, 4: 2}
    with pytest.raises(UsageError, match=r"no class .4:8."):
        open_dataset(tmp_path, label_map={4: 8})


@pytest.mark.real_data
def test_real_sets_are_read_as_they_are(real_data: Path) -> None:
    """Counts from the READMEs of the sets."""
    btcv = open_dataset(real_data / "btcv_slices")
    assert (len(btcv.cases), sum(len(case.files) for case in btcv.cases), len(btcv.labels)) == (23, 162, 14)
    assert (len(btcv.split("train")), len(btcv.split("test"))) == (18, 5)
    assert sum(len(case.files) for case in btcv.split("train")) == 124
    gid = open_dataset(real_data / "gid_mtl5")
    assert (len(gid.split("train")), len(gid.split("test")), gid.labels.has_background) == (140, 60, False)
    sirst = open_dataset(real_data / "sirst")
    assert [len(sirst.split(name)) for name in ("train", "val", "test")] == [256, 85, 86]
    assert sirst.cases[1].id == "Misc_2"
