"""NIfTI: geometry survives read -> write -> read; ids are those that were meant; damage is one clear sentence."""

from __future__ import annotations

import gzip
import warnings
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fabricate import CT_AFFINE, write_nifti
from sampeft.errors import DataError
from sampeft.io import label_suffix, read_label_ids, read_volume, write_labels
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE

LABELS = LabelSet(("background", "liver", "spleen"), (0, 1, 7))
AXIS_ORDERS = [
    (axes, signs) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)
]  # 6 orders x 8 directions = 48


def planes() -> np.ndarray:
    array = np.zeros((6, 6, 6), dtype=np.float64)
    array[1], array[2], array[3] = 1, 2, 3
    return array


def test_ids_that_a_stored_scale_moved_are_rounded(tmp_path: Path) -> None:
    """D01: read back as 0.99999999977, 1.99999999953, 2.99999999930; a cast would give 144/36/36/0."""
    path = write_nifti(tmp_path / "seg.nii.gz", planes(), np.eye(4), np.uint16)
    drifted = np.asanyarray(nib.load(path).dataobj)
    assert [f"{v:.11f}" for v in np.unique(drifted)[1:]] == ["0.99999999977", "1.99999999953", "2.99999999930"]
    assert np.bincount(drifted.astype(int).ravel(), minlength=4).tolist() == [144, 36, 36, 0]
    ids = read_label_ids(path).array
    assert ids.dtype.kind == "i"
    assert np.bincount(ids.ravel()).tolist() == [108, 36, 36, 36]


def test_ids_that_drifted_too_far_are_refused(tmp_path: Path) -> None:
    """D01: int8 header and ids 2, 7, 14 drift to 1.9765, 6.9725 and 14.0000001 after 6 saves."""
    array = np.zeros((6, 6, 6))
    array[1], array[2], array[3] = 2, 7, 14
    path = tmp_path / "seg.nii.gz"
    for _ in range(6):
        array = np.asanyarray(nib.load(write_nifti(path, array, np.eye(4), np.int8)).dataobj)
    with pytest.raises(DataError, match=r"seg\.nii\.gz: label values 1\.97647 \(36 voxels\), 6\.97255 \(36 voxels\)"):
        read_label_ids(path)


def test_fractions_are_refused_with_value_and_count(tmp_path: Path) -> None:
    """D02."""
    array = np.zeros((8, 8, 4), np.float32)
    array[2:6], array[6] = 2, 1.37
    with pytest.raises(DataError, match=r"half\.nii\.gz: label values 1\.37 \(32 voxels\) .*nearest-neighbour"):
        read_label_ids(write_nifti(tmp_path / "half.nii.gz", array))
    array[6] = np.nan
    with pytest.raises(DataError, match=r"32 label values are NaN"):
        read_label_ids(write_nifti(tmp_path / "nan.nii.gz", array))


@pytest.mark.parametrize(("axes", "signs"), AXIS_ORDERS)
def test_thresholded_image_comes_back_in_every_axis_order(
    axes: tuple[int, int, int], signs: tuple[int, int, int], tmp_path: Path
) -> None:
    """D08: shape, affine, both codes, spacing, every voxel; a blob at world x = +30 mm stays there."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for array_axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world, array_axis] = sign * (0.9984, 1.7, 5.0)[array_axis]
    affine[:3, 3] = (11.3, -7.7, 1000.1)
    hu = np.full((9, 7, 5), -1000, dtype=np.int16)
    hu[6:8, 2:4, 1:3] = 60
    centre = affine @ (6.5, 2.5, 1.5, 1)
    affine[0, 3] += 30 - centre[0]
    image = read_volume(write_nifti(tmp_path / "image.nii.gz", hu, affine))

    channels = (image.array > 0).astype(np.uint8)
    path = write_labels(tmp_path / f"out{label_suffix(image)}", channels, LABELS, image)

    written = nib.load(path)
    (sform, sform_code), (qform, qform_code) = (
        written.header.get_sform(coded=True),
        written.header.get_qform(coded=True),
    )
    assert written.shape == hu.shape
    assert sform_code == qform_code > 0
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    np.testing.assert_allclose(sform, nib.load(tmp_path / "image.nii.gz").affine, rtol=0, atol=0)
    np.testing.assert_allclose(qform, affine, atol=1e-4)
    np.testing.assert_allclose(written.header.get_zooms(), (0.9984, 1.7, 5.0), atol=1e-5)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj) == 1, hu > 0)
    centroid = written.affine @ (*np.argwhere(np.asanyarray(written.dataobj)).mean(axis=0), 1)
    assert centroid[0] == pytest.approx(30, abs=0.05)


def test_written_ids_are_unscaled_integers_of_the_smallest_type(tmp_path: Path) -> None:
    image = read_volume(write_nifti(tmp_path / "ct.nii.gz", np.zeros((3, 3, 1), np.int16)))
    channels = np.array([[[0], [1], [2]]] * 3)
    path = write_labels(tmp_path / "new" / "a.nii.gz", channels, LABELS, image)
    header = nib.load(path).header
    assert header.get_data_dtype() == np.uint8
    assert header.get_slope_inter() == (None, None)
    assert header.get_xyzt_units()[0] == "mm"
    assert np.unique(read_label_ids(path).array).tolist() == [0, 1, 7]
    assert list(path.parent.iterdir()) == [path]

    channels[0, 0, 0] = IGNORE
    with pytest.raises(ValueError, match="no ignore id"):
        write_labels(path, channels, LABELS, image)
    wide = LabelSet(("background", "liver", "spleen"), (0, 1, 300), ignore=65535)
    ids = read_label_ids(write_labels(path, channels, wide, image)).array
    assert ids.dtype == np.uint16
    assert ids[0, :, 0].tolist() == [65535, 1, 300]


def test_what_does_not_fit_is_never_written(tmp_path: Path) -> None:
    image = read_volume(write_nifti(tmp_path / "ct.nii.gz", np.zeros((3, 4, 2), np.int16)))
    for channels in (np.zeros((4, 3, 2), int), np.full((3, 4, 2), 3), np.full((3, 4, 2), -1)):
        with pytest.raises(ValueError):
            write_labels(tmp_path / "out.nii.gz", channels, LABELS, image)
    with pytest.raises(ValueError, match=r"written as \.nii\.gz"):
        write_labels(tmp_path / "out.png", np.zeros((3, 4, 2), int), LABELS, image)
    assert {p.name for p in tmp_path.iterdir()} == {"ct.nii.gz"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = read_volume(write_nifti(tmp_path / "ct.nii.gz", np.zeros((3, 4, 2), np.int16)))
    out = tmp_path / "out"
    path = write_labels(out / "a.nii.gz", np.zeros((3, 4, 2), int), LABELS, image)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_labels(path, np.ones((3, 4, 2), int), LABELS, image)
    assert path.read_bytes() == before
    assert list(out.iterdir()) == [path]


@pytest.mark.parametrize(
    ("shape", "grid"), [((64, 64, 1), (64, 64, 1)), ((64, 64, 8, 1), (64, 64, 8)), ((64, 48), (64, 48, 1))]
)
def test_singleton_axes(shape: tuple[int, ...], grid: tuple[int, int, int], tmp_path: Path) -> None:
    """D19: same shape out, but for a trailing axis of a 4-D file."""
    path = write_nifti(tmp_path / "a.nii.gz", np.arange(np.prod(shape), dtype=np.int16).reshape(shape))
    image = read_volume(path)
    assert image.grid == grid
    np.testing.assert_array_equal(image.array.ravel(), np.arange(np.prod(shape)))
    out = write_labels(tmp_path / "out.nii.gz", np.zeros(grid, np.uint8), LABELS, image)
    assert nib.load(out).shape == (grid if len(shape) == 4 else shape)


def test_a_series_is_refused_with_its_shape(tmp_path: Path) -> None:
    """D19: (64, 64, 8, 3)."""
    path = write_nifti(tmp_path / "series.nii.gz", np.zeros((64, 64, 8, 3), np.int16))
    for read, way in (
        (read_volume, "save each volume"),
        (read_label_ids, "if each of the 3 holds the mask of one class"),
    ):
        with pytest.raises(DataError, match=rf"series\.nii\.gz: is 4-D with shape \(64, 64, 8, 3\).*; {way}"):
            read(path)


def test_stored_numbers_keep_type_or_become_float32(tmp_path: Path) -> None:
    """int16 HU as stored; a scale is applied: 3 * 0.5 - 1024 = -1022.5; unsigned 16 bits do not fit int16."""
    hu = np.array([[[-1024], [3071]]], dtype=np.int16)
    assert read_volume(write_nifti(tmp_path / "a.nii", hu)).array.dtype == np.int16
    scaled = nib.Nifti1Image(np.full((2, 2, 2), 3, np.int16), CT_AFFINE)
    scaled.header.set_slope_inter(0.5, -1024)
    content = bytearray(scaled.to_bytes())
    content[112:120] = np.array([0.5, -1024], "<f4").tobytes()
    (tmp_path / "b.nii").write_bytes(content)
    volume = read_volume(tmp_path / "b.nii")
    assert volume.array.dtype == np.float32
    assert np.unique(volume.array).tolist() == [3 * 0.5 - 1024]
    wide = read_volume(write_nifti(tmp_path / "c.nii", np.full((2, 2, 2), 65535, np.uint16)))
    assert np.unique(wide.array).tolist() == [65535.0]


def test_format_is_told_by_content(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", np.ones((3, 4, 5), np.int16))
    renamed = path.rename(tmp_path / "looks_like.png")
    assert read_volume(renamed).grid == (3, 4, 5)
    assert read_volume(renamed).spacing_mm == (2, 2, 5)
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress(renamed.read_bytes()))
    assert read_volume(tmp_path / "plain.nii.gz").grid == (3, 4, 5)


def test_nifti2_and_big_endian(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nib.save(nib.Nifti2Image(array, CT_AFFINE), tmp_path / "two.nii")
    big = nib.Nifti1Image(array, CT_AFFINE, nib.Nifti1Header(endianness=">"), dtype=np.int16)
    nib.save(big, tmp_path / "big.nii")
    for name in ("two.nii", "big.nii"):
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array, array)
        assert volume.array.dtype == np.dtype("=i2")
        assert read_label_ids(tmp_path / name).array.dtype.isnative
    out = write_labels(tmp_path / "out.nii.gz", np.zeros((2, 3, 4), int), LABELS, read_volume(tmp_path / "two.nii"))
    assert isinstance(nib.load(out), nib.Nifti2Image)


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    """Cut anywhere, with a flipped byte, empty, absent, a folder: DataError with the file, never another exception."""
    rng = np.random.default_rng(0)
    whole = write_nifti(tmp_path / "a.nii.gz", rng.integers(0, 99, (16, 16, 8)).astype(np.int16)).read_bytes()
    plain = gzip.decompress(whole)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    broken = [whole[:n] for n in (3, 11, 60, 400, len(whole) // 2, len(whole) - 1)]
    broken += [plain[:n] for n in (10, 347, 348, 352, 400, len(plain) - 2)]
    broken += [b"", bytes(flipped), gzip.compress(b"hello"), plain[:40] + b"\xff" * 30 + plain[70:]]
    path = tmp_path / "broken.nii.gz"
    for content in broken:
        path.write_bytes(content)
        for read in (read_volume, read_label_ids):
            with pytest.raises(DataError, match=r"broken\.nii\.gz: .*; ") as caught:
                read(path)
            assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_volume(tmp_path / "nowhere.nii.gz")
    with pytest.raises(DataError, match="cannot be read"):
        read_label_ids(tmp_path)
    with pytest.raises(DataError, match="holds no DICOM image"):  # a folder is one DICOM series, or no image
        read_volume(tmp_path)


def test_colour_complex_and_flat_affine_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, CT_AFFINE), tmp_path / "rgb.nii")
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.complex64), CT_AFFINE), tmp_path / "complex.nii")
    for name in ("rgb.nii", "complex.nii"):
        with pytest.raises(DataError, match="plain numbers"):
            read_volume(tmp_path / name)
    content = bytearray(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), CT_AFFINE).to_bytes())
    content[312:328] = bytes(16)  # srow_z
    (tmp_path / "flat.nii").write_bytes(content)
    with pytest.raises(DataError, match=r"flat\.nii: its affine .* spans no volume"):
        read_volume(tmp_path / "flat.nii")


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_two_files_are_one_volume(kind: type, ending: str, tmp_path: Path) -> None:
    """Header and voxels in .hdr and .img, either of them named; without the .img the header says what it misses."""
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nib.save(kind(array, CT_AFFINE), tmp_path / f"pair.img{ending}")
    for name in ("pair.hdr", "pair.img"):
        volume = read_volume(tmp_path / f"{name}{ending}")
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_array_equal(volume.affine, CT_AFFINE)
        np.testing.assert_array_equal(read_label_ids(tmp_path / f"{name}{ending}").array, array)
    (tmp_path / f"pair.img{ending}").unlink()
    with pytest.raises(DataError, match=r"two-file NIfTI, but pair\.img is missing"):
        read_volume(tmp_path / f"pair.hdr{ending}")


def test_analyze_is_refused_because_it_has_no_left_and_right(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(np.zeros((2, 3, 4), np.int16), np.eye(4)), tmp_path / "old.img")
    with pytest.raises(DataError, match=r"old\.hdr: is an Analyze 7\.5 header"):
        read_volume(tmp_path / "old.img")


def test_shear_is_kept_and_said_once_with_its_angle(tmp_path: Path) -> None:
    """D10: 15 degrees; spacing is the length of the columns, (1, 1, 1.0353); the affine comes out as it went in."""
    affine = np.array([[1, 0, 0, 0], [0, 1, 0.2679, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    path = write_nifti(tmp_path / "tilt.nii.gz", np.zeros((4, 5, 6), np.int16), affine)
    with pytest.warns(UserWarning, match=r"tilt\.nii\.gz: its axes miss the right angle by 15\.0 degrees") as caught:
        image = read_volume(path)
    assert len(caught) == 1
    assert image.spacing_mm == pytest.approx((1, 1, 1.0353), abs=5e-5)
    out = nib.load(write_labels(tmp_path / "out.nii.gz", np.zeros((4, 5, 6), int), LABELS, image))
    np.testing.assert_allclose(out.affine, affine, atol=1e-6)


def test_sform_wins_and_a_contradicting_qform_is_said(tmp_path: Path) -> None:
    """D10: a qform 3 mm away along an axis of 2 mm voxels is 1.5 voxels; 0.1 mm (0.05 voxel) is rounding."""
    moved = CT_AFFINE.copy()
    for shift_mm, said in ((3.0, True), (0.1, False)):
        moved[0, 3] = CT_AFFINE[0, 3] + shift_mm
        file = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), CT_AFFINE)
        file.set_sform(CT_AFFINE, 1)
        file.set_qform(moved, 1)
        nib.save(file, tmp_path / "two.nii")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            image = read_volume(tmp_path / "two.nii")
        assert [("up to 1.5 voxels apart" in str(w.message)) for w in caught] == [True] * said
        np.testing.assert_array_equal(image.affine, CT_AFFINE)


def test_qform_alone_is_the_position_and_none_at_all_is_said(tmp_path: Path) -> None:
    """D10: sform code 0."""
    file = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    file.set_qform(CT_AFFINE, 1)
    file.set_sform(None, 0)
    nib.save(file, tmp_path / "q.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "q.nii").affine, CT_AFFINE, atol=1e-5)
    file.header["qform_code"] = 0
    (tmp_path / "none.nii").write_bytes(nib.Nifti1Image(file.dataobj, None, file.header).to_bytes())
    content = bytearray((tmp_path / "q.nii").read_bytes())
    content[252:256] = bytes(4)  # both codes
    (tmp_path / "none.nii").write_bytes(content)
    with pytest.warns(UserWarning, match=r"none\.nii: its header states no position"):
        assert read_volume(tmp_path / "none.nii").affine[0, 0] == -2


def test_metres_and_micrometres_become_millimetres_and_go_back(tmp_path: Path) -> None:
    """0.002 m and 2000 um are 2 mm; the label file has the image's own unit and numbers."""
    for unit, factor in (("meter", 0.001), ("micron", 1000.0)):
        affine = CT_AFFINE.copy()
        affine[:3] *= factor
        file = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
        file.header.set_xyzt_units(unit)
        nib.save(file, tmp_path / "a.nii")
        with pytest.warns(UserWarning, match="sizes are turned into mm"):
            image = read_volume(tmp_path / "a.nii")
        np.testing.assert_allclose(image.affine, CT_AFFINE, rtol=1e-6)
        out = nib.load(write_labels(tmp_path / "out.nii.gz", np.zeros((4, 5, 6), int), LABELS, image))
        np.testing.assert_allclose(out.affine, affine, rtol=1e-6)
        assert out.header.get_xyzt_units()[0] == unit


@pytest.mark.real_data
def test_real_awkward_files(real_data: Path, tmp_path: Path) -> None:
    """Values and affine as nibabel gives them; 4-D files refused; geometry survives writing."""
    names = [p.name for p in (real_data / "nifti_awkward").iterdir() if p.name.endswith((".nii", ".nii.gz"))]
    assert len(names) == 9
    refused = set()
    for name in names:
        path = real_data / "nifti_awkward" / name
        known = nib.load(path)
        if len(known.shape) == 4:
            with pytest.raises(DataError, match="4-D"):
                read_volume(path)
            refused.add(name)
            continue
        volume = read_volume(path)
        np.testing.assert_allclose(volume.array, known.get_fdata(), rtol=1e-6)
        np.testing.assert_array_equal(volume.affine, known.affine)
        out = nib.load(write_labels(tmp_path / "o.nii.gz", np.zeros(volume.grid, np.uint8), LABELS, volume))
        np.testing.assert_allclose(out.affine, known.affine, atol=1e-4)
        np.testing.assert_allclose(out.header.get_qform(), known.affine, atol=1e-3)
        assert out.header["sform_code"] == out.header["qform_code"] > 0
    assert refused == {"functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz"}


@pytest.mark.real_data
def test_real_ct(real_data: Path) -> None:
    """Sizes and counts from the set's README; float64 labels are whole numbers."""
    case = real_data / "totalsegmentator_ct" / "case_a"
    ct = read_volume(case / "ct.nii.gz")
    assert (ct.grid, ct.array.min(), ct.array.max()) == ((122, 101, 112), -1207, 3382)
    assert ct.spacing_mm == pytest.approx((3, 3, 3), abs=1e-4)
    ids = read_label_ids(case / "labels_flare22.nii.gz").array
    counts = np.bincount(ids.ravel(), minlength=14)[1:].tolist()
    assert counts == [41602, 6993, 9677, 818, 1786, 2131, 174, 223, 1300, 0, 4977, 2450, 5144]
    v1 = read_label_ids(case / "labels_totalseg_v1_104.nii.gz").array
    assert v1.dtype == np.int32
    assert v1.max() <= 104


def test_simpleitk_sees_the_same_geometry(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag((0.8, 0.9, 4.0)), (5, 6, 7))
    image = read_volume(write_nifti(tmp_path / "image.nii.gz", np.zeros((5, 6, 7), np.int16), affine))
    path = write_labels(tmp_path / "out.nii.gz", np.zeros((5, 6, 7), np.uint8), LABELS, image)
    there = sitk.ReadImage(str(path)).TransformContinuousIndexToPhysicalPoint((4.0, 5.0, 6.0))
    np.testing.assert_allclose(np.array(there) * (-1, -1, 1), (affine @ (4, 5, 6, 1))[:3], atol=1e-4)


def test_masks_of_one_class_each_and_nan_in_labels_are_told_with_the_way_out(tmp_path: Path) -> None:
    """N09: two masks along the last axis; NaN, or infinity, outside the field of view, in 24 of 60 voxels."""
    masks = np.zeros((5, 4, 3, 2), np.uint8)
    nib.save(nib.Nifti1Image(masks, np.eye(4)), tmp_path / "onehot.nii.gz")
    with pytest.raises(
        DataError, match=r"is 4-D with shape \(5, 4, 3, 2\).*each of the 2 holds the mask of one class, join"
    ):
        read_label_ids(tmp_path / "onehot.nii.gz")
    nib.save(nib.Nifti1Image(np.moveaxis(masks, -1, 0), np.eye(4)), tmp_path / "first.nii.gz")
    with pytest.raises(DataError, match=r"\(2, 5, 4, 3\).*each of the 2 holds .*masks\.any\(0\), masks\.argmax\(0\)"):
        read_label_ids(tmp_path / "first.nii.gz")
    ids = np.ones((5, 4, 3))
    ids[:2] = np.nan
    ids[0, 0] = np.inf
    nib.save(nib.Nifti1Image(ids, np.eye(4)), tmp_path / "nan.nii.gz")
    with pytest.raises(
        DataError, match=r"24 label values are NaN or infinite, as outside a field of view; .*\"ignore\": 255"
    ):
        read_label_ids(tmp_path / "nan.nii.gz")
