"""NRRD and MetaImage: the same voxels at the same place as in NIfTI, whatever the axes; SimpleITK as the writer."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fabricate import CT_AFFINE, write_nifti
from sampeft.errors import DataError
from sampeft.io import file_stem, label_suffix, read_label_ids, read_volume, write_labels
from sampeft.labels import LabelSet

sitk = pytest.importorskip("SimpleITK", reason="needs the extra itk")

LABELS = LabelSet(("background", "liver"), (0, 3))
OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag((-0.8, 0.9, 4.0)), (5, -6, 7))
ENDINGS = ("nrrd", "nhdr", "mha", "mhd")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("affine", [CT_AFFINE, OBLIQUE], ids=["las", "oblique"])
def test_same_voxels_and_place_as_nifti(ending: str, compressed: bool, affine: np.ndarray, tmp_path: Path) -> None:
    """ITK's world is LPS, NIfTI's RAS; a blob keeps its place in millimetres, and labels come on the same grid."""
    hu = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    source = write_nifti(tmp_path / "a.nii.gz", hu, affine)
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.ReadImage(str(source)), str(path), compressed)
    image = read_volume(path)
    assert image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array, hu)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(read_label_ids(path).array, hu)
    assert file_stem(path) == "a"

    assert label_suffix(image) == ".nii.gz"
    out = nib.load(write_labels(tmp_path / "out.nii.gz", (hu > 0).astype(int), LABELS, image))
    np.testing.assert_allclose(out.affine, affine, atol=1e-5)
    assert out.header["sform_code"] == out.header["qform_code"] > 0
    np.testing.assert_array_equal(np.asanyarray(out.dataobj) == 3, hu > 0)


def test_numbers_keep_type_or_become_float32(tmp_path: Path) -> None:
    for kind, expected in (("uint8", np.int16), ("uint16", np.float32), ("float64", np.float32)):
        array = np.full((2, 3, 4), 7, dtype=kind)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.mha"))
        volume = read_volume(tmp_path / "a.mha")
        assert volume.array.dtype == expected
        assert (volume.grid, volume.array.max()) == ((4, 3, 2), 7)


def test_fractions_are_no_ids(tmp_path: Path) -> None:
    """D01 and D02 hold for every format."""
    array = np.zeros((2, 3, 4), np.float32)
    array[0] = 0.9999
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.nrrd"))
    assert np.bincount(read_label_ids(tmp_path / "a.nrrd").array.ravel()).tolist() == [12, 12]
    array[0] = 1.37
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.nrrd"))
    with pytest.raises(DataError, match=r"a\.nrrd: label values 1\.37 \(12 voxels\)"):
        read_label_ids(tmp_path / "a.nrrd")


def test_flat_and_singleton_axes(tmp_path: Path) -> None:
    """D19: a 2-D file has one slice; a fourth axis of 1 goes, a longer one is refused."""
    flat = np.arange(12, dtype=np.uint8).reshape(3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(flat), str(tmp_path / "flat.mha"))
    np.testing.assert_array_equal(read_volume(tmp_path / "flat.mha").array[..., 0], flat.T)
    for times, name in ((1, "one.nrrd"), (3, "three.nrrd")):
        volumes = [sitk.GetImageFromArray(np.full((2, 3, 4), t + 1, np.int16)) for t in range(times)]
        sitk.WriteImage(sitk.JoinSeries(volumes), str(tmp_path / name))
    assert read_volume(tmp_path / "one.nrrd").grid == (4, 3, 2)
    with pytest.raises(DataError, match=r"three\.nrrd: is 4-D with size \(4, 3, 2, 3\)"):
        read_volume(tmp_path / "three.nrrd")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4, 3), np.uint8), isVector=True), str(tmp_path / "c.nrrd"))
    with pytest.raises(DataError, match=r"c\.nrrd: holds 3 numbers per voxel"):
        read_volume(tmp_path / "c.nrrd")


def test_a_header_cannot_reach_out_of_its_folder(tmp_path: Path) -> None:
    """A shared data set must not be able to read another file of the user's disk as if it were voxels."""
    (tmp_path / "secret").write_bytes(bytes(range(24)))
    folder = tmp_path / "set"
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), str(folder / "a.mhd"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), str(folder / "b.nhdr"))
    for name, data in (("a.mhd", "a.raw"), ("b.nhdr", "b.raw")):
        whole = (folder / name).read_text()
        for target in ("../secret", str(tmp_path / "secret")):
            (folder / name).write_text(whole.replace(data, target))
            with pytest.raises(DataError, match="outside of its folder"):
                read_volume(folder / name)
        (folder / name).write_text(whole.replace(data, "gone.raw"))
        with pytest.raises(DataError, match=r"its data file gone\.raw is missing"):
            read_volume(folder / name)
        (folder / name).write_text(whole.replace(data, "LIST"))
        with pytest.raises(DataError, match="over several files"):
            read_volume(folder / name)


def test_content_tells_the_format_and_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for ending in ("mha", "nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a.{ending}"))
        renamed = (tmp_path / f"a.{ending}").rename(tmp_path / f"{ending}.png")
        np.testing.assert_array_equal(read_volume(renamed).array, array.T)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(DataError, match=r"need SimpleITK; pip install 'sampeft\[itk\]'"):
        read_volume(tmp_path / "mha.png")
