"""Truth on the image's grid, and every fault that a user's data can have named with file, values and what to do."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

import fabricate
from fabricate import CT_AFFINE, write_nifti, write_png
from sampeft.data import open_dataset
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.check import check_dataset, read_labels
from sampeft.errors import DataError
from sampeft.io import read_volume
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE

FOUR = LabelSet(("background", "a", "b", "c"), (0, 1, 2, 3))
ONE = LabelSet(("background", "target"), (0, 1))


def one_file(
    root: Path, label: np.ndarray, labels: LabelSet, values: dict[int, int] | None = None, **png: object
) -> tuple[ImageFile, Dataset]:
    """A data set of one grey PNG and its mask."""
    image = write_png(root / "images" / "a.png", np.zeros(label.shape[:2], np.uint8))
    file = ImageFile("a", image, write_png(root / "labels" / "a.png", label, **png))  # type: ignore[arg-type]
    return file, Dataset("one", root, labels, (Case("a", (file,)),), label_values=values or {})


def truth(file: ImageFile, dataset: Dataset) -> np.ndarray:
    return read_labels(file, dataset, read_volume(file.image)).array[..., 0]


# --- ids and classes


def test_255_is_the_only_class(tmp_path: Path) -> None:
    """D03: {0, 255} with one foreground class; said once."""
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:6] = 1
    file, dataset = one_file(tmp_path, mask * 255, ONE)
    assert truth(file, dataset).sum() == mask.sum() == 6
    report = check_dataset(dataset)
    assert [fault.severity for fault in report.faults] == ["warning"]
    assert "1 masks hold 255" in report.faults[0].problem
    assert report.classes[1].pixels == 6


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 254), (1, 255)])
def test_other_grey_values_are_no_class(values: tuple[int, ...], tmp_path: Path) -> None:
    """D03: a mask with any other grey value is refused with file and values."""
    mask = np.resize(np.array(values, np.uint8), (4, 6))
    with pytest.raises(DataError, match=rf"labels.a\.png: label ids? .*{max(values)} \(\d+ pixels\)"):
        truth(*one_file(tmp_path, mask, ONE))


def test_255_is_never_the_class_when_it_is_declared_otherwise_or_classes_are_many(tmp_path: Path) -> None:
    """D03."""
    mask = np.array([[0, 255, 255, 0]], np.uint8)
    ignoring = LabelSet(("background", "target"), (0, 1), ignore=255)
    assert truth(*one_file(tmp_path, mask, ignoring)).tolist() == [[0, IGNORE, IGNORE, 0]]
    with pytest.raises(DataError, match=r"255 \(2 pixels\) is not in the label map \{0\.\.3\}"):
        truth(*one_file(tmp_path, mask, FOUR))
    assert truth(*one_file(tmp_path, mask, FOUR, {255: 2})).tolist() == [[0, 2, 2, 0]]


def test_id_outside_the_map_and_the_suggested_mapping(tmp_path: Path) -> None:
    """D04: ids {0, 1, 2, 4} with a map of 0..3; 4:3 suggested; with it count(3) = former count(4)."""
    ids = np.repeat(np.array([0, 1, 2, 4], np.uint8), [50, 20, 18, 112]).reshape(10, 20)
    file, dataset = one_file(tmp_path, ids, FOUR)
    wanted = r"a\.png: label id 4 \(112 pixels\) is not in the label map \{0\.\.3\}; map it with --map 4:3 or add it"
    with pytest.raises(DataError, match=wanted):
        truth(file, dataset)
    with pytest.raises(DataError, match=wanted):
        check_dataset(dataset).raise_on_errors()
    channels = truth(*one_file(tmp_path, ids, FOUR, {4: 3}))
    assert np.bincount(channels.ravel()).tolist() == [50, 20, 18, 112]


def test_ids_are_channels_in_the_order_of_the_map_and_mappings_apply_once(tmp_path: Path) -> None:
    """Ids 0, 7, 300 are channels 0, 1, 2; a mapping that swaps 7 and 300 swaps, it does not chain."""
    labels = LabelSet(("background", "x", "y"), (0, 7, 300))
    ids = np.array([[0, 7], [300, 7]], np.uint16)
    assert truth(*one_file(tmp_path, ids, labels)).tolist() == [[0, 1], [2, 1]]
    assert truth(*one_file(tmp_path, ids, labels, {7: 300, 300: 7})).tolist() == [[0, 2], [1, 2]]


def test_palette_masks_go_by_index(tmp_path: Path) -> None:
    """D06."""
    indices = np.array([[0, 1, 2, 3]], np.uint8)
    assert truth(*one_file(tmp_path, indices, FOUR, mode="P")).tolist() == [[0, 1, 2, 3]]


def test_negative_ids_can_be_mapped(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "i.nii.gz", np.zeros((2, 2, 1), np.int16))
    label = write_nifti(tmp_path / "l.nii.gz", np.array([[[-1], [0]], [[1], [3]]], np.int16))
    file = ImageFile("i", image, label)
    with pytest.raises(DataError, match=r"label id -1 \(1 voxels\)"):
        read_labels(file, Dataset("d", tmp_path, FOUR, ()), read_volume(image))
    mapped = read_labels(file, Dataset("d", tmp_path, FOUR, (), label_values={-1: 2}), read_volume(image))
    assert mapped.array.ravel().tolist() == [2, 0, 1, 3]


# --- geometry


def volume_pair(root: Path, label: np.ndarray, affine: np.ndarray) -> tuple[ImageFile, Dataset]:
    image = write_nifti(root / "images" / "a.nii.gz", np.zeros((6, 8, 4), np.int16), CT_AFFINE)
    file = ImageFile("a", image, write_nifti(root / "labels" / "a.nii.gz", label, affine))
    return file, Dataset("pair", root, FOUR, (Case("a", (file,)),))


@pytest.fixture
def blobs() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 4, (6, 8, 4)).astype(np.uint8)


def test_every_axis_order_of_the_label_is_aligned_exactly(blobs: np.ndarray, tmp_path: Path) -> None:
    """D07: a label that is stored flipped or with swapped axes, its affine saying so, is the same label."""
    for axes, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        turn = np.array(list(zip(axes, signs, strict=True)), dtype=float)
        stored = apply_orientation(blobs, turn)
        file, dataset = volume_pair(tmp_path, stored, CT_AFFINE @ inv_ornt_aff(turn, blobs.shape))
        image = read_volume(file.image)
        aligned = read_labels(file, dataset, image)
        np.testing.assert_array_equal(aligned.array, blobs)
        np.testing.assert_array_equal(aligned.affine, image.affine)


def test_rounding_of_the_header_is_accepted_quietly(blobs: np.ndarray, tmp_path: Path) -> None:
    """D07: A + 2e-8; and corners off by less than 0.1 voxel (0.15 mm of 2 mm)."""
    near = CT_AFFINE.copy()
    near[0, 3] += 0.15
    for affine in (CT_AFFINE + 2e-8, near):
        file, dataset = volume_pair(tmp_path, blobs, affine)
        np.testing.assert_array_equal(read_labels(file, dataset, read_volume(file.image)).array, blobs)
        assert not check_dataset(dataset).faults


def test_a_shifted_or_turned_label_is_refused_with_the_distance(blobs: np.ndarray, tmp_path: Path) -> None:
    """D07: origin + 5 mm is refused and the 5 mm are printed; a flip without the origin moving along is no flip."""
    shifted = CT_AFFINE.copy()
    shifted[1, 3] += 5
    file, dataset = volume_pair(tmp_path, blobs, shifted)
    with pytest.raises(DataError, match=r"labels.a\.nii\.gz: its grid is up to 5\.00 mm away from that of a\.nii\.gz"):
        read_labels(file, dataset, read_volume(file.image))
    wrong_flip = CT_AFFINE @ np.diag([1, -1, 1, 1])  # index 0 stays at y = -40, index 7 lands at -54 instead of -26
    file, dataset = volume_pair(tmp_path, blobs, wrong_flip)
    with pytest.raises(DataError, match=r"up to 14\.00 mm away"):
        read_labels(file, dataset, read_volume(file.image))
    oblique = CT_AFFINE @ nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3))
    file, dataset = volume_pair(tmp_path, blobs, oblique)
    with pytest.raises(DataError, match="mm away"):
        read_labels(file, dataset, read_volume(file.image))


def test_sizes_that_differ_are_refused(blobs: np.ndarray, tmp_path: Path) -> None:
    file, dataset = volume_pair(tmp_path, blobs[:5], CT_AFFINE)
    with pytest.raises(DataError, match=r"size 5 x 8 x 4 voxels, its image a\.nii\.gz a NIfTI of 6 x 8 x 4 voxels"):
        read_labels(file, dataset, read_volume(file.image))
    tile = write_png(tmp_path / "tile.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(DataError, match=r"is a NIfTI .*tile\.png a raster image of 6 x 8 \(rows x columns\)"):
        read_labels(ImageFile("t", tile, file.label), dataset, read_volume(tile))


# --- the whole set


def test_a_sound_set_has_no_faults_and_its_table_counts(tmp_path: Path) -> None:
    dataset = open_dataset(fabricate.folder_dataset(tmp_path))
    steps: list[tuple[int, int]] = []
    report = check_dataset(dataset, progress=lambda done, total: steps.append((done, total)))
    report.raise_on_errors()
    assert report.faults == ()
    assert steps == [(n, 8) for n in range(1, 9)]
    masks = [read_volume(p).array for p in sorted((tmp_path / "labels").iterdir())]
    assert [c.pixels for c in report.classes] == [sum(int((m == c).sum()) for m in masks) for c in range(3)]
    assert [c.cases for c in report.classes] == [4, 4, 4]
    assert "| 2 | c2 |" in report.table()
    json.dumps(report.to_json())
    assert len(check_dataset(dataset, dataset.split("test")).classes) == 3
    assert check_dataset(dataset, dataset.split("test")).files == 2


def test_every_fault_is_listed_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    """Truncated, renamed text, wrong size, missing label, wrong id: five files, five faults, in order, no crash."""
    root = fabricate.folder_dataset(tmp_path, cases=7, files_per_case=1)
    images, labels = root / "images", root / "labels"
    (images / "P01_1.png").write_bytes((images / "P01_1.png").read_bytes()[:200])
    (labels / "P02_1.png").write_text("hello")
    write_png(labels / "P03_1.png", np.zeros((5, 5), np.uint8))
    (labels / "P04_1.png").unlink()
    write_png(labels / "P05_1.png", np.full((24, 32), 9, np.uint8))
    write_png(labels / "P99_1.png", np.zeros((24, 32), np.uint8))
    report = check_dataset(open_dataset(root))
    assert [(fault.file.parent.name, fault.file.stem) for fault in report.errors] == [
        ("images", "P01_1"),
        ("labels", "P02_1"),
        ("labels", "P03_1"),
        ("images", "P04_1"),
        ("labels", "P05_1"),
    ]
    assert all(fault.problem and fault.fix for fault in report.faults)
    assert "damaged or truncated" in report.errors[0].problem
    assert report.errors[0].fix == "copy or download it again"
    assert [fault.file.stem for fault in report.faults if fault.severity == "warning"] == ["P99_1"]
    assert report.classes[1].cases == 2
    with pytest.raises(DataError, match=r"5 faults: .*P01_1.* \| .*P02_1.* \| .*P03_1.* \| and 2 more") as caught:
        report.raise_on_errors()
    assert "\n" not in str(caught.value)


def test_absent_class_is_a_warning(tmp_path: Path) -> None:
    """D24: a map with a class that no case has."""
    labels = {"background": 0, "c1": 1, "c2": 2, "spare": 9}
    report = check_dataset(open_dataset(fabricate.folder_dataset(tmp_path, described={"labels": labels})))
    assert [fault.severity for fault in report.faults] == ["warning"]
    assert report.faults[0].problem == "class 'spare' is in none of 4 cases"
    assert report.classes[3].pixels == 0
    report.raise_on_errors()


def test_class_that_only_the_test_cases_have_is_a_warning(tmp_path: Path) -> None:
    """D24."""
    fabricate.folder_dataset(tmp_path)
    for path in (tmp_path / "labels").glob("P0[123]*.png"):
        label = read_volume(path).array[..., 0]
        write_png(path, np.where(label == 2, 0, label).astype(np.uint8))
    report = check_dataset(open_dataset(tmp_path))
    assert [fault.problem for fault in report.faults] == ["class 'c2' is in the test cases but in no training case"]


def test_values_that_are_no_numbers_are_a_fault(tmp_path: Path) -> None:
    """D14's file: one NaN and one infinity."""
    array = np.zeros((6, 8, 4), np.float32)
    array[3, 4, 3], array[0, 0, 0] = np.nan, np.inf
    file, dataset = volume_pair(tmp_path, np.ones((6, 8, 4), np.uint8), CT_AFFINE)
    write_nifti(file.image, array, CT_AFFINE)
    assert [fault.problem for fault in check_dataset(dataset).errors] == ["2 values are NaN or infinite"]


@pytest.mark.real_data
def test_real_sets_check_in_seconds(real_data: Path) -> None:
    """btcv_slices and gid_mtl5 are sound; sirst has its known fault, Misc_111, and nothing else."""
    btcv = check_dataset(open_dataset(real_data / "btcv_slices"))
    assert btcv.faults == ()
    assert (btcv.files, sum(c.pixels for c in btcv.classes)) == (162, 162 * 512 * 512)
    gid = check_dataset(open_dataset(real_data / "gid_mtl5"))
    assert gid.faults == ()
    assert 0.16 < gid.ignored / (200 * 224 * 224) < 0.19
    sirst = check_dataset(open_dataset(real_data / "sirst"))
    assert [fault.file.name for fault in sirst.faults] == ["Misc_111_pixels0.png"]
    assert "400 x 592" in sirst.faults[0].problem


@pytest.mark.real_data
def test_real_ct_label_of_another_grid_is_refused(real_data: Path) -> None:
    """The 30-slice crop's label against the whole CT; the whole label fits."""
    case = real_data / "totalsegmentator_ct" / "case_a"
    labels = LabelSet(("background", *map(str, range(1, 14))), tuple(range(14)))
    dataset = Dataset("ct", case, labels, ())
    image = read_volume(case / "ct.nii.gz")
    whole = read_labels(ImageFile("a", image.path, case / "labels_flare22.nii.gz"), dataset, image)
    assert int((whole.array == 1).sum()) == 41602
    with pytest.raises(DataError, match="122 x 101 x 30"):
        read_labels(ImageFile("a", image.path, case / "labels_totalseg_v2_117_sm.nii.gz"), dataset, image)
