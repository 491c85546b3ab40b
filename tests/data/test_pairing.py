"""Pairs by name, tables of pairs, colours of masks, series in sub-folders; no path leads out of the data set."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fabricate import write_nifti, write_png
from sampeft.data import open_dataset
from sampeft.data.case import Dataset, ImageFile
from sampeft.data.check import check_dataset, read_labels
from sampeft.data.pairing import inside, pair_files, series_folders
from sampeft.errors import DataError, UsageError
from sampeft.io import read_volume
from sampeft.volume import IGNORE

GREY = np.zeros((4, 5), np.uint8)
COLORS = {"red": [255, 0, 0], "green": [0, 255, 0], "ignore": [0, 0, 0]}


def described(root: Path, **keys: object) -> Path:
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "target": 1}, **keys}))
    return root


def table(root: Path, *lines: str, head: str = "image,label,case,split") -> Path:
    (root / "labels.json").write_text('{"background": 0, "target": 1}')
    (root / "pairs.csv").write_text("\n".join([head, *lines]))
    return root


def only_file(dataset: Dataset) -> ImageFile:
    (case,) = dataset.cases
    (file,) = case.files
    return file


def counts(dataset: Dataset) -> dict[int, int]:
    file = only_file(dataset)
    values, n = np.unique(read_labels(file, dataset, read_volume(file.image)).array, return_counts=True)
    return dict(zip(values.tolist(), n.tolist(), strict=True))


def color_mask(fringe: int) -> np.ndarray:
    """D05: 50 red, 30 green, 20 black and some pixels of a fringe."""
    colors = [(255, 0, 0)] * 50 + [(0, 255, 0)] * 30 + [(0, 0, 0)] * 20 + [(250, 3, 1)] * fringe
    return np.array(colors, np.uint8).reshape(-1, 4, 3)


def test_id_outside_the_label_map_and_its_mapping(tmp_path: Path) -> None:
    """D04: ids {0, 1, 2, 4} with a map of 0..3: named with its count, and accepted as 4:3."""
    label = np.repeat(np.array([0, 1, 2, 4], np.uint8), [70, 10, 12, 8]).reshape(10, 10)
    write_png(tmp_path / "images" / "a.png", label)
    write_png(tmp_path / "labels" / "a.png", label)
    described(tmp_path, labels={"background": 0, "a": 1, "b": 2, "c": 3})
    with pytest.raises(DataError, match=r"a\.png: label id 4 \(8 pixels\) is not in the label map.*--map=4:3"):
        check_dataset(open_dataset(tmp_path)).raise_on_errors()
    assert counts(open_dataset(tmp_path, label_map={4: 3})) == {0: 70, 1: 10, 2: 12, 3: 8}
    with pytest.raises(UsageError, match="4:9"):
        open_dataset(tmp_path, label_map={4: 9})


def test_colour_coded_masks_are_read_exactly(tmp_path: Path) -> None:
    """D05: counts 50 and 30, 20 ignored; 4 pixels of a colour of no class are reported with colour and file."""
    described(tmp_path, labels={"red": 1, "green": 2}, ignore=255, colors=COLORS)
    for fringe in (0, 4):
        mask = color_mask(fringe)
        write_png(tmp_path / "images" / "a.png", mask)
        write_png(tmp_path / "labels" / "a.png", mask)
        dataset = open_dataset(tmp_path)
        assert dataset.label_colors == {(255, 0, 0): 1, (0, 255, 0): 2, (0, 0, 0): 255}
        if not fringe:
            assert counts(dataset) == {0: 50, 1: 30, IGNORE: 20}
        else:
            with pytest.raises(DataError, match=r"labels.a\.png: colour \(250, 3, 1\) \(4 pixels\)") as told:
                counts(dataset)
            assert "(0, 0, 0)" not in str(told.value)


def test_palette_masks_hold_ids_whatever_their_colours(tmp_path: Path) -> None:
    """D06: the index is the class, also where the set has other colours; grey levels would be 0, 38, 75, 113."""
    index = np.repeat(np.arange(4, dtype=np.uint8), [40, 30, 20, 10]).reshape(10, 10)
    voc = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    write_png(tmp_path / "images" / "a.png", index)
    write_png(tmp_path / "labels" / "a.png", index, "P", voc)
    names = {"background": 0, "a": 1, "b": 2, "c": 3}
    other = {"background": [9, 9, 9], "a": [128, 128, 1], "b": [0, 0, 1], "c": [2, 0, 0]}
    for keys in ({}, {"colors": other}):
        assert counts(open_dataset(described(tmp_path, labels=names, **keys))) == {0: 40, 1: 30, 2: 20, 3: 10}


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        ({**COLORS, "blue": [0, 0, 255]}, "colors has 'blue', but no class has this name"),
        ({**COLORS, "green": [255, 0, 0]}, "for 'green'; expected three numbers of 0..255 that no other class has"),
        ({**COLORS, "ignore": [0, 0, 256]}, r"colors has \[0, 0, 256\] for 'ignore'"),
        ({"red": [1, 2], "green": [0, 0, 0]}, "colors has .1, 2. for 'red'; expected three numbers"),
        ({"red": [1, 2, 3]}, "colors has none for 'green'; give each class its own"),
    ],
)
def test_a_wrong_table_of_colours(colors: object, message: str, tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a.png", GREY)
    with pytest.raises(DataError, match=message):
        open_dataset(described(tmp_path, labels={"red": 1, "green": 2}, ignore=255, colors=colors))
    with pytest.raises(DataError, match="no id for it under the key 'ignore'"):
        open_dataset(described(tmp_path, labels={"red": 1, "green": 2}, colors=COLORS))


def test_table_pairs_what_it_says_and_keeps_its_order(tmp_path: Path) -> None:
    """D20: the table pairs, not the names; an image may have no label. Ids are stems, or paths where stems repeat."""
    for name in ("a/1.png", "b/1.png", "a/2.png", "truth/x.png", "truth/y.png"):
        write_png(tmp_path / name, GREY)
    table(tmp_path, "b/1.png , truth/x.png", "a/1.png,truth/y.png", "", r"a\2.png,", head="Image,Label")
    dataset = open_dataset(tmp_path)
    pairs = {f.id: f.label and f.label.name for case in dataset.cases for f in case.files}
    assert pairs == {"a_1": "y.png", "b_1": "x.png", "2": None}
    assert [case.id for case in dataset.cases] == ["b_1", "a_1", "2"]
    assert dataset.splits == {}


def test_table_gives_cases_and_splits(tmp_path: Path) -> None:
    """D38: the column of patients groups, and a patient on both sides is named."""
    for n in range(6):
        write_png(tmp_path / f"s{n}.png", GREY)
    rows = [f"s{n}.png;s{n}.png;p{n // 2};{'Train' if n < 4 else 'test'}" for n in range(6)]
    dataset = open_dataset(table(tmp_path, *rows, head="image;label;case;split"))
    assert [(case.id, len(case.files)) for case in dataset.cases] == [("p0", 2), ("p1", 2), ("p2", 2)]
    assert dataset.splits == {"train": ("p0", "p1"), "test": ("p2",)}
    with pytest.raises(DataError, match="names 1 of the 2 files of case p1"):
        open_dataset(table(tmp_path, *rows[:3], rows[3].replace("Train", "test"), head="image;label;case;split"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["../../etc/passwd,"], r"pairs\.csv: line 2: the path '../../etc/passwd' leads out of"),
        (["a.png,a.png", "/etc/passwd,"], "line 3: the path '/etc/passwd' leads out of"),
        (["a.png,sub/../../b.png"], "line 2: the path 'sub/../../b.png' leads out of"),
        ([r"..\a.png,"], "line 2: the path .* leads out of"),
        (["a.png,no.png"], "line 2: there is no file 'no.png' below"),
        (["a.png,a.png", "./a.png,a.png"], "line 3: the image './a.png' has the name of that in line 2"),
        (["a.png"], "line 2: 1 values for the columns"),
        ([",a.png"], "line 2: 2 values"),
        ([], "names no image"),
        (["a\0.png,"], "line 2: "),
    ],
)
def test_a_wrong_table_is_an_error_with_its_line(lines: list[str], message: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_png(root / "a.png", GREY)
    write_png(tmp_path / "b.png", GREY)
    with pytest.raises(DataError, match=message):
        open_dataset(table(root, *lines, head="image,label"))


def test_a_table_beside_described_folders_or_without_its_columns_or_a_case(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", GREY)
    write_png(tmp_path / "b.png", GREY)
    with pytest.raises(DataError, match=r"line 1: has the columns \['picture', 'label'\]; expected image, label"):
        open_dataset(table(tmp_path, "a.png,a.png", head="picture,label"))
    with pytest.raises(DataError, match="line 3: has no case, while other lines have one"):
        open_dataset(table(tmp_path, "a.png,a.png,p1,", "b.png,b.png,,"))
    described(table(tmp_path, "a.png,a.png", head="image,label"), images="scans")
    with pytest.raises(DataError, match=r"dataset\.json: has images, but pairs\.csv lists the pairs"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("key", ["images", "masks"])
@pytest.mark.parametrize("path", ["..", "../other", "/etc", "labels/../.."])
def test_a_described_path_stays_in_the_data_set(key: str, path: str, tmp_path: Path) -> None:
    write_png(tmp_path / "set" / "images" / "a.png", GREY)
    with pytest.raises(DataError, match=rf"dataset\.json: {key}: the path '{path}' leads out of"):
        open_dataset(described(tmp_path / "set", **{key: path}))


def test_a_list_of_a_split_stays_in_the_data_set(tmp_path: Path) -> None:
    write_png(tmp_path / "set" / "images" / "a.png", GREY)
    with pytest.raises(DataError, match=r"split 'train': the path '\.\./train\.txt' leads out of"):
        open_dataset(described(tmp_path / "set", splits={"train": "../train.txt"}))


def test_inside_is_by_name_so_that_linked_folders_work(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    root = tmp_path / "set"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "disk")
    assert inside(root, "images/../images/a.png", "x") == root / "images" / "a.png"
    assert inside(root, str(root / "b.png"), "x") == root / "b.png"
    assert inside(root, ".", "x") == root


def test_a_series_in_a_sub_folder_is_one_image(tmp_path: Path) -> None:
    """images/p1/*.dcm pairs with labels/p1.nii.gz; a folder without DICOM files is none."""
    part_10 = bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0" + bytes(64)
    for name in ("p10/1.dcm", "p2/IM0001", "p2/IM0002"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(part_10)
    write_png(tmp_path / "images" / "thumbnails" / "p2.png", GREY)
    (tmp_path / "images" / ".cache").mkdir()
    (tmp_path / "images" / ".cache" / "1.dcm").write_bytes(part_10)
    (tmp_path / "labels").mkdir()
    for name in ("p2.nii.gz", "p10.nii.gz"):
        (tmp_path / "labels" / name).write_bytes(b"")
    assert [path.name for path in series_folders(tmp_path / "images")] == ["p2", "p10"]
    dataset = open_dataset(described(tmp_path))
    assert [(f.id, f.image.name, f.label and f.label.name) for case in dataset.cases for f in case.files] == [
        ("p2", "p2", "p2.nii.gz"),
        ("p10", "p10", "p10.nii.gz"),
    ]


@pytest.mark.real_data
def test_a_real_series_by_folder_and_by_table(real_data: Path, tmp_path: Path) -> None:
    """JPEG 2000 slices in images/b/, FLARE22's ids in labels/b.nii.gz: 366708 voxels of liver, 130634 of spleen."""
    pytest.importorskip("pydicom")
    source = real_data / "totalsegmentator_ct" / "case_b_dicom"
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images" / "b").symlink_to(source / "dicom")
    (tmp_path / "labels" / "b.nii.gz").symlink_to(source / "labels_flare22.nii.gz")
    names = {
        "background": 0,
        "liver": 1,
        "spleen": 3,
        "pancreas": 4,
        "aorta": 5,
        "cava": 6,
        "adrenal": 7,
        "stomach": 11,
    }
    (tmp_path / "labels.json").write_text(json.dumps(names))
    by_folder = open_dataset(tmp_path)
    (tmp_path / "pairs.csv").write_text("image,label\nimages/b,labels/b.nii.gz")
    assert open_dataset(tmp_path).cases == by_folder.cases
    found = counts(by_folder)
    assert (found[1], found[2]) == (366708, 130634)


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def test_accents_composed_and_decomposed_are_one_name(tmp_path: Path) -> None:
    """N10: labels, lists and the table were written by a Mac, the images were not, or the other way round."""
    names = ("Müller", "Peña", "Schmidt")
    mask = np.zeros((9, 8), np.uint8)
    mask[2:4, 3:6] = 1
    for folder, form, other in (("images", nfc, nfd), ("Bilder_ä", nfd, nfc)):
        root = tmp_path / folder
        for name in names:
            write_png(root / nfc(folder) / f"{form(name)}.png", mask * 9 + 1)
            write_png(root / "labels" / f"{other(name)}.png", mask)
        described = {"labels": {"background": 0, "a": 1}, "images": nfd(folder), "exclude": [other("Peña")]}
        described["splits"] = {"train": [other("Müller")], "test": ["Schmidt"]}
        (root / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
        dataset = open_dataset(root)
        assert [(file.id, file.label is not None) for case in dataset.cases for file in case.files] == [
            (nfc("Müller"), True),
            ("Schmidt", True),
        ]
        assert dataset.splits["train"] == (nfc("Müller"),)
        assert [file.id for file in pair_files(root / nfc(folder), root / "labels")] == [nfc(name) for name in names]
    root = tmp_path / "images"
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1}}))
    row = f"images/{nfd('Müller')}.png,labels/{nfc('Müller')}.png,{nfd('Jörg')}"
    (root / "pairs.csv").write_text(f"image,label,case\n{row}\n", encoding="utf-8")
    (case,) = open_dataset(root).cases
    assert (case.id, case.files[0].id) == (nfc("Jörg"), nfc("Müller"))
    assert case.files[0].image.is_file()
    (root / "images" / f"{nfd('Müller')}.png").write_bytes((root / "images" / f"{nfc('Müller')}.png").read_bytes())
    with pytest.raises(DataError, match="are two files of one name"):
        pair_files(root / "images", root / "labels")


def test_labels_as_other_programs_write_them_are_told_with_the_way_out(tmp_path: Path) -> None:
    """N09: drawings in JSON, and a folder of one file per class for each image."""
    write_png(tmp_path / "images/p1.png", np.ones((4, 5), np.uint8))
    (tmp_path / "labels").mkdir()
    assert [file.label for file in pair_files(tmp_path / "images", tmp_path / "labels", complete=False)] == [None]
    (tmp_path / "labels/p1.json").write_text("{}")
    with pytest.raises(DataError, match=r"labels: holds drawings \(p1\.json\).*one PNG per image"):
        pair_files(tmp_path / "images", tmp_path / "labels", complete=False)
    (tmp_path / "labels/p1.json").unlink()
    for name, said in (
        ("p1.txt", r"holds text \(p1\.txt\), as YOLO writes boxes"),
        ("p1.npy", r"holds arrays \(p1\.npy\), which say neither spacing nor place"),
        ("roads.shp", r"holds drawings \(roads\.shp\)"),
    ):
        (tmp_path / "labels" / name).write_text("")
        with pytest.raises(DataError, match=said):
            pair_files(tmp_path / "images", tmp_path / "labels", complete=False)
        (tmp_path / "labels" / name).unlink()
    (tmp_path / "labels/readme.txt").write_text("to be drawn")
    assert [file.label for file in pair_files(tmp_path / "images", tmp_path / "labels", complete=False)] == [None]
    write_png(tmp_path / "labels/liver/p1.png", np.ones((4, 5), np.uint8))
    with pytest.raises(
        DataError, match=r"a folder per class with one file per image \(liver/p1\.png, 1 file\).*to p1\.png"
    ):
        pair_files(tmp_path / "images", tmp_path / "labels", complete=False)
    shutil.rmtree(tmp_path / "labels/liver")
    for name in ("liver", "spleen"):
        write_nifti(tmp_path / f"labels/p1/{name}.nii.gz", np.ones((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match=r"one file per class \(p1/liver\.nii\.gz, 2 files\).*join them to p1\.nii\.gz"):
        pair_files(tmp_path / "images", tmp_path / "labels", complete=False)
