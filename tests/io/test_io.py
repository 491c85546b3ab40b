"""One door for every format: content decides, names only suggest; a folder is one DICOM series."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fabricate import write_nifti, write_png
from sampeft.errors import DataError
from sampeft.io import (
    FORMATS,
    IMAGE_SUFFIXES,
    dicom,
    file_stem,
    is_series,
    label_suffix,
    portable_name,
    read_label_ids,
    write_array,
    write_labels,
)
from sampeft.labels import LabelSet
from sampeft.prediction.outputs import output_stem
from sampeft.volume import Volume

LABELS = LabelSet(("background", "liver"), (0, 3))


def test_the_longest_ending_is_taken_off_once() -> None:
    """`a.nii.gz` is not `a.nii`; an ending within a name, or of no image, stays."""
    for name, stem in (("a.b.nii.gz", "a.b"), ("A.NII", "A"), ("s.mhd", "s"), ("x.IMA", "x"), ("png.txt", "png.txt")):
        assert file_stem(Path("folder") / name) == stem
    assert ".img" not in IMAGE_SUFFIXES  # or a .hdr/.img pair would be two images of one name
    assert ".raw" not in IMAGE_SUFFIXES


def test_no_two_formats_claim_the_same_bytes(tmp_path: Path) -> None:
    """GeoTIFF apart, which goes before other TIFFs, exactly one reader knows the first bytes of a file."""
    write_nifti(tmp_path / "a.nii.gz", np.zeros((2, 2, 2), np.int16))
    write_nifti(tmp_path / "a.nii", np.zeros((2, 2, 2), np.int16))
    for ending in ("png", "jpg", "tif"):
        write_png(tmp_path / f"a.{ending}", np.zeros((3, 4), np.uint8))
    contents = [path.read_bytes() for path in tmp_path.iterdir()]
    contents += [b"NRRD0004\ntype: short\n", b"ObjectType = Image\nNDims = 3\n", bytes(128) + b"DICM" + bytes(20)]
    for content in contents:
        assert sum([known.recognises(content) for known in FORMATS] + [dicom.recognises(content)]) == 1


def test_a_folder_of_dicom_is_one_image_and_a_folder_of_pictures_is_not(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (tmp_path / "series" / ".hidden").write_bytes(b"x")
    (tmp_path / "series" / "README").write_text("not an image")
    write_png(tmp_path / "pictures" / "a.png", np.zeros((3, 4), np.uint8))
    (tmp_path / "empty").mkdir()
    assert [is_series(tmp_path / name) for name in ("series", "pictures", "empty")] == [True, False, False]
    with pytest.raises(
        DataError, match="IM0001: is of no modality, not a DICOM SEG; give the labels as DICOM SEG, NIfTI"
    ):
        read_label_ids(tmp_path / "series" / "IM0001")


def test_labels_of_dicom_are_a_dicom_seg_or_nifti(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D34: SEG where highdicom is there; NIfTI on the same grid on wish, and always where it is not."""
    affine = np.diag((-2.0, -2.0, 5.0, 1.0))
    like = Volume(np.zeros((4, 3, 2), np.int16), affine, tmp_path / "series", dicom.Series((), ()))
    monkeypatch.setattr("sampeft.io.find_spec", lambda name: None)
    assert label_suffix(like) == ".nii.gz"
    with pytest.raises(ValueError, match=r"written as \.nii\.gz"):
        write_labels(tmp_path / "a.dcm", np.ones((4, 3, 2), int), LABELS, like)
    monkeypatch.setattr("sampeft.io.find_spec", lambda name: object())
    assert label_suffix(like) == ".dcm"
    seen = []
    monkeypatch.setattr("sampeft.io.dicom_seg.encode", lambda *given: seen.append(given) or b"SEG")
    channels = np.ones((4, 3, 2), int)
    assert write_labels(tmp_path / "a.dcm", channels, LABELS, like).read_bytes() == b"SEG"
    assert seen[0][0] is channels
    ids = read_label_ids(write_labels(tmp_path / "a.nii.gz", channels, LABELS, like))
    assert np.unique(ids.array).tolist() == [3]
    np.testing.assert_allclose(ids.affine, affine)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_array_is_written_as_numpy_does_and_a_full_disk_says_so(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for one in (array, np.asfortranarray(array), array[:, ::2], array[:, :0]):
        np.save(tmp_path / "numpy.npy", one)
        write_array(tmp_path / "ours.npy", one)
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    with pytest.raises(OSError, match="No space left") as told:
        write_array(Path("/dev/full"), array)
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, "/dev/full")


def test_reading_is_ready_without_heavy_libraries() -> None:
    """The command line imports this package before it knows what it is asked for."""
    heavy = "nibabel", "PIL", "pydicom", "highdicom", "rasterio", "SimpleITK", "torch"
    code = f"import sys, sampeft.io; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("con", "con_"),
        ("NUL.nii", "NUL_.nii"),
        ("Com1", "Com1_"),
        ("lpt9.a.b", "lpt9_.a.b"),
        ("aux .x", "aux_.x"),
        ("ends in dots..", "ends in dots_"),
        ("ends in a space ", "ends in a space_"),
        ("console", "console"),
        ("com10", "com10"),
        ("P01_1.5mm", "P01_1.5mm"),
        (".hidden", ".hidden"),
    ],
)
def test_names_that_windows_keeps_for_devices_are_changed(name: str, taken: str) -> None:
    assert portable_name(name) == taken
    assert portable_name(taken) == taken
    assert output_stem(Path("in") / f"{name}.png") == taken
