"""DICOM: values and positions are those that the scanner meant, or the sentence says why the series is no volume."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricate.dicom import AXIAL, multi_frame, save, slice_dataset, slice_values, write_enhanced, write_series
from sampeft.data.intensity import PRESETS, Intensity
from sampeft.data.preprocessing import Preparation, PreparedVolume
from sampeft.errors import DataError
from sampeft.io import dicom, label_suffix
from sampeft.volume import Volume

pydicom = pytest.importorskip("pydicom", reason="needs pip install 'sampeft[dicom]'")

from pydicom import uid  # noqa: E402


def read_quietly(path: Path) -> Volume:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return dicom.image(path)


def test_array_and_affine_by_hand(tmp_path: Path) -> None:
    """Columns run to the patient's left (-x in RAS), rows to posterior (-y), 4 columns 0.5 mm, 3 rows 2 mm apart."""
    for k, z in enumerate((30, 32.5)):
        dataset = slice_dataset(slice_values(k), (10, 20, z))
        dataset.PixelSpacing = [2.0, 0.5]  # between rows first
        save(dataset, tmp_path / f"{9 - k}.dcm")
    volume = read_quietly(tmp_path)
    assert volume.array.dtype == np.int16
    assert volume.grid == (4, 3, 2)
    assert volume.spacing_mm == (0.5, 2.0, 2.5)
    assert volume.array[3, 2, 1] == 123
    np.testing.assert_array_equal(volume.affine @ (3, 2, 1, 1), (-11.5, -24, 32.5, 1))
    np.testing.assert_array_equal(volume.array, np.stack([slice_values(0), slice_values(1)]).transpose(2, 1, 0))


def test_oblique_series_lies_where_simpleitk_puts_it(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    row, column = turn[:, 0].round(6), turn[:, 1].round(6)
    normal = np.cross(row, column)
    positions = [tuple((np.array([5.0, -60, 700]) + 3 * k * normal).round(5)) for k in range(4)]
    write_series(tmp_path, positions)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [*row, *column], [0.7, 0.9]
        dataset.save_as(path)
    volume = read_quietly(tmp_path)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    oracle = sitk.ReadImage(names)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(oracle), volume.array.transpose(2, 1, 0))
    lps = oracle.TransformContinuousIndexToPhysicalPoint((2.0, 1.0, 3.0))
    np.testing.assert_allclose((volume.affine @ (2, 1, 3, 1))[:3], np.array([-1, -1, 1]) * lps, atol=1e-4)


def test_stored_values_become_what_they_mean(tmp_path: Path) -> None:
    """D13: 0, 1024, 4095 are -1024, 0, 3071 HU; without the tags the values are as stored, signed or not."""
    stored = np.array([[0, 1024, 4095, 0]], np.uint16)
    ct = save(slice_dataset(stored, RescaleSlope=1, RescaleIntercept=-1024), tmp_path / "ct.dcm")
    array = dicom.image(ct).array
    assert (array.dtype, array.ravel().tolist()) == (np.int16, [-1024, 0, 3071, -1024])
    mr = save(slice_dataset(stored, Modality="MR"), tmp_path / "mr.dcm")
    assert dicom.image(mr).array.ravel().tolist() == [0, 1024, 4095, 0]
    signed = save(slice_dataset(np.array([[-2000, 30000]], np.int16)), tmp_path / "signed.dcm")
    assert dicom.image(signed).array.ravel().tolist() == [-2000, 30000]
    high = dicom.image(save(slice_dataset(np.array([[0, 65535]], np.uint16)), tmp_path / "high.dcm")).array
    assert (high.dtype, high.ravel().tolist()) == (np.float32, [0, 65535])


def test_every_file_has_its_own_decimal_rescale(tmp_path: Path) -> None:
    write_series(tmp_path, (0, 2, 4), RescaleSlope=[0.5, 0.25, 2], RescaleIntercept=[0, 0.125, -7])
    array = read_quietly(tmp_path).array
    assert array.dtype == np.float32
    assert array[3, 2].tolist() == [11.5, 123 / 4 + 0.125, 439]


@pytest.mark.parametrize("slope", [0, "nan", "1e400"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_rescale_that_destroys_the_values_is_refused(slope: Any, tmp_path: Path) -> None:
    """D14: no NaN or Inf comes out of a header."""
    path = save(slice_dataset(slice_values(0), RescaleSlope=slope, RescaleIntercept=0), tmp_path / "ct.dcm")
    with pytest.raises(DataError, match=r"ct\.dcm: .*rescale slope"):
        dicom.image(path)


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_padding_has_a_value_of_its_own_just_below_the_others(padding: int, tmp_path: Path) -> None:
    """D13: -2000 (also written as the unsigned 63536) outside the field of view does not widen the range of values."""
    stored = np.array([[-2000, 24, 1024, 1084]], np.int16)
    dataset = slice_dataset(stored, RescaleSlope=1, RescaleIntercept=-1024)
    dataset.add_new("PixelPaddingValue", "US" if padding > 0 else "SS", padding)
    volume = dicom.image(save(dataset, tmp_path / "ct.dcm"))
    assert (volume.array.ravel().tolist(), volume.header.nodata) == ([-1001, -1000, 0, 60], -1001)
    dataset.add_new("PixelPaddingRangeLimit", "SS", 24)
    if padding < 0:
        assert dicom.image(save(dataset, tmp_path / "ct.dcm")).array.ravel().tolist() == [-1, -1, 0, 60]


def padded(path: Path, stored: Any, padding: int, **attributes: Any) -> Volume:
    dataset = slice_dataset(stored, **attributes)
    dataset.add_new("PixelPaddingValue", "US" if np.asarray(stored).dtype.kind == "u" else "SS", padding)
    return dicom.image(save(dataset, path))


def test_padding_is_the_windows_floor_and_in_no_statistics(tmp_path: Path) -> None:
    """D13: tissue of 40 to 60 HU is grey 0.5 to 0.55 of -160..240, its padding 0. The 99.5 % of an MR with the values 0 to
    425 are 422.9 beside any number of padded pixels; with these they would be less."""
    tissue = np.array([[-2000, 40, 60, -2000]], np.int16)
    volume = padded(tmp_path / "ct.dcm", tissue, -2000, RescaleSlope=1, RescaleIntercept=0)
    whole = Preparation(Intensity("window", -160, 240), 4)
    levels = PreparedVolume.of(volume, whole).box_levels(0)[0].ravel().tolist()
    assert levels == pytest.approx([0, 0.5, 0.55, 0])
    mr = np.concatenate([np.arange(426), np.full(426, 9000)]).reshape(2, 426).astype(np.uint16)
    prepared = PreparedVolume.of(padded(tmp_path / "mr.dcm", mr, 9000, Modality="MR"), Preparation(PRESETS["mr"], 8))
    assert prepared.levels.high == pytest.approx(np.percentile(np.arange(426), 99.5), abs=0.1)
    assert prepared.slices[0].max() == 425
    with pytest.raises(DataError, match="no pixel has a value"):
        PreparedVolume.of(padded(tmp_path / "none.dcm", np.full((2, 2), 7, np.uint16), 7), whole)


def test_padding_of_an_8_bit_picture_keeps_its_type(tmp_path: Path) -> None:
    stored = np.array([[255, 0, 1, 3]], np.uint8)
    volume = padded(tmp_path / "xray.dcm", stored, 255, position=None, Modality="CR")
    assert (volume.array.dtype, volume.array.ravel().tolist(), volume.header.nodata) == (np.uint8, [2, 0, 1, 3], 2)
    assert label_suffix(volume) == ".png"


def test_monochrome1_is_inverted_except_for_ct(tmp_path: Path) -> None:
    attributes = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    stored = np.array([[0, 5, 4095, 0]], np.uint16)
    xray = save(slice_dataset(stored, None, Modality="CR", **attributes), tmp_path / "cr.dcm")
    assert dicom.image(xray).array.ravel().tolist() == [4095, 4090, 0, 4095]
    ct = save(slice_dataset(stored, RescaleSlope=1, RescaleIntercept=-1024, **attributes), tmp_path / "ct.dcm")
    assert dicom.image(ct).array.ravel().tolist() == [-1024, -1019, 3071, -1024]


def test_image_without_position_is_a_raster(tmp_path: Path) -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    volume = dicom.image(save(slice_dataset(grey, None), tmp_path / "us.dcm"))
    assert volume.is_raster
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array[:, :, 0], grey)
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    volume = dicom.image(save(slice_dataset(colour, None), tmp_path / "photo.dcm"))
    np.testing.assert_array_equal(volume.array[:, :, 0], colour)
    ybr = np.array([[[76, 85, 255], [150, 44, 21]]], np.uint8)  # red and green
    path = save(slice_dataset(ybr, None, PhotometricInterpretation="YBR_FULL"), tmp_path / "ybr.dcm")
    np.testing.assert_allclose(dicom.image(path).array[0, :, 0].astype(int), [[255, 0, 0], [0, 255, 0]], atol=2)
    with pytest.raises(DataError, match=r"its 2 images have no ImagePositionPatient"):
        dicom.image(write_two_without_position(tmp_path / "two"))
    path = save(slice_dataset(np.zeros((4, 3), np.uint8), None, NumberOfFrames=2, Rows=2), tmp_path / "film.dcm")
    with pytest.raises(DataError, match=r"film\.dcm: holds 2 frames without position"):
        dicom.image(path)


def write_two_without_position(folder: Path) -> Path:
    for k in range(2):
        save(slice_dataset(slice_values(k), None), folder / f"{k}.dcm")
    return folder


def test_order_is_position_not_name_or_number(tmp_path: Path) -> None:
    write_series(tmp_path, (5, -2.5, 2.5, 0), InstanceNumber=[1, 4, 3, 2])
    volume = read_quietly(tmp_path)
    assert (volume.array[0, 0] // 100).tolist() == [1, 3, 2, 0]
    np.testing.assert_array_equal(volume.affine @ (0, 0, 0, 1), (0, 0, -2.5, 1))
    assert [float(d.ImagePositionPatient[2]) for d in volume.header.datasets] == [-2.5, 0, 2.5, 5]
    assert all("PixelData" not in d for d in volume.header.datasets)


def test_missing_slice_is_named(tmp_path: Path) -> None:
    """D11: 7.5 is missing; never a uniform 2.5 mm over 5 slices."""
    with pytest.raises(
        DataError, match=r"1 slice missing at z = 7\.5 mm \(5 slices from 0 to 12\.5 mm, step 2\.5 mm\)"
    ):
        dicom.image(write_series(tmp_path / "gap", (0, 2.5, 5, 10, 12.5)))
    with pytest.raises(DataError, match=r"2 slices missing at z = 2\.5, 10 mm"):
        dicom.image(write_series(tmp_path / "gaps", (0, 5, 7.5, 12.5, 15, 17.5)))
    with pytest.raises(DataError, match=r"unevenly spaced \(steps of 2\.000, 5\.000 mm\)"):
        dicom.image(write_series(tmp_path / "uneven", (0, 2, 4, 9, 14)))
    with pytest.raises(DataError, match="shifted sideways"):
        dicom.image(write_series(tmp_path / "shifted", [(0, 0, 0), (9, 0, 2), (0, 0, 4)]))


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    """D11: 0, 2.4999, 5.0001, 7.5 are 2.5 mm apart; so are the 0.6 and 0.7 of a scanner that rounds 0.625."""
    assert read_quietly(write_series(tmp_path / "a", (0, 2.4999, 5.0001, 7.5))).spacing_mm == (1, 1, 2.5)
    volume = read_quietly(write_series(tmp_path / "b", (0, 0.6, 1.3, 1.9, 2.5)))
    assert volume.spacing_mm[2] == pytest.approx(0.625)


def test_duplicates_are_dropped_with_a_count(tmp_path: Path) -> None:
    """D11."""
    write_series(tmp_path, (0, 2, 4))
    for k, path in enumerate(sorted(tmp_path.iterdir())[:2]):
        (tmp_path / f"copy{k}.dcm").write_bytes(path.read_bytes())
    with pytest.warns(UserWarning, match="dropped 2 slices that repeat another, 3 are left") as caught:
        volume = dicom.image(tmp_path)
    assert len(caught) == 1
    assert (volume.array[0, 0] // 100).tolist() == [0, 1, 2]


def test_two_acquisitions_at_the_same_positions_are_listed(tmp_path: Path) -> None:
    write_series(tmp_path, (0, 2, 4, 0, 2, 4), AcquisitionNumber=[1, 1, 1, 2, 2, 2])
    with pytest.raises(
        DataError, match=r"holds 2 series or stacks: .*3 slices of 4x3, AcquisitionNumber 1, as .*Number 2"
    ):
        dicom.image(tmp_path)
    write_series(tmp_path / "same", (0, 2, 4, 0, 2, 4))
    with pytest.raises(DataError, match=r"6 slices, several with different pixels at one position"):
        dicom.image(tmp_path / "same")


def test_mixed_series_are_listed_without_the_patient(tmp_path: Path) -> None:
    """D12: a scout, an axial series and a text file."""
    write_series(tmp_path, (0, 2, 4))
    scout = slice_dataset(np.zeros((6, 8), np.int16), SeriesInstanceUID="1.2.3.77", SeriesDescription="scout")
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    path = save(scout, tmp_path / "00_scout.dcm")
    (tmp_path / "readme.txt").write_text("export of the scanner, in no particular order, with some text to read" * 4)
    with pytest.warns(UserWarning, match="skipped 1 file"), pytest.raises(DataError) as caught:
        dicom.image(tmp_path)
    assert (
        "holds 2 series or stacks: series 4 'scout' 1 slice of 8x6, as 00_scout.dcm; series 4 'portal venous' 3 slices"
        in str(caught.value)
    )
    assert "Geheim" not in str(caught.value)
    assert "4711" not in str(caught.value)
    assert dicom.image(path).grid == (8, 6, 1)  # a file alone is that slice
    path.unlink()
    with pytest.warns(UserWarning, match="skipped 1 file that"):
        assert dicom.image(tmp_path).grid == (4, 3, 3)


def test_one_series_with_two_orientations_is_listed(tmp_path: Path) -> None:
    write_series(tmp_path, (0, 2, 4))
    other = slice_dataset(slice_values(0), (0, 0, 6), ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    save(other, tmp_path / "x.dcm")
    with pytest.raises(DataError, match="holds 2 series or stacks"):
        dicom.image(tmp_path)


def test_gantry_tilt_stays_in_the_affine(tmp_path: Path) -> None:
    """D10: a shear of tan 15 degrees = 0.2679; spacing is the column norm 1.0353; one warning says 15.0."""
    write_series(tmp_path, [(0, -0.2679 * k, 1.0 * k) for k in range(4)])
    with pytest.warns(UserWarning, match=r"sheared by 15\.0 degrees") as caught:
        volume = dicom.image(tmp_path)
    assert len(caught) == 1
    np.testing.assert_allclose(volume.affine[:3, 2], (0, 0.2679, 1), atol=1e-9)
    np.testing.assert_allclose(volume.spacing_mm, (1, 1, 1.0353), atol=1e-4)
    np.testing.assert_array_equal(volume.array[..., 2].T, slice_values(2))


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless],
)
def test_transfer_syntaxes_give_the_same_volume(syntax: uid.UID, tmp_path: Path) -> None:
    """D40: the compressed copy equals the raw series."""
    raw = read_quietly(write_series(tmp_path / "raw", (0, 2, 4)))
    for path in sorted((tmp_path / "raw").iterdir()):
        k = int(path.stem[-1])
        dataset = slice_dataset(slice_values(k), (0, 0, 2 * k))
        if syntax == uid.RLELossless:
            dataset.compress(syntax)
        elif syntax == uid.ExplicitVRBigEndian:
            dataset.PixelData = slice_values(k).astype(">i2").tobytes()
        save(dataset, tmp_path / "copy" / path.name, syntax)
    copy = read_quietly(tmp_path / "copy")
    np.testing.assert_array_equal(copy.array, raw.array)
    np.testing.assert_array_equal(copy.affine, raw.affine)


def test_old_file_without_preamble_is_read(tmp_path: Path) -> None:
    dataset = slice_dataset(slice_values(1), RescaleSlope=1, RescaleIntercept=-5)
    del dataset.file_meta
    for implicit, little in ((True, True), (False, True)):
        path = tmp_path / f"{implicit}.dcm"
        pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
        content = path.read_bytes()
        assert content[:2] == b"\x08\x00"
        assert dicom.recognises(content[:144])
        np.testing.assert_array_equal(dicom.image(path).array[..., 0].T, slice_values(1) - 5)


def test_other_formats_are_not_taken_for_dicom() -> None:
    nifti = b"\x5c\x01\x00\x00" + b"\0" * 400
    for content in (
        b"",
        nifti,
        b"\x89PNG\r\n\x1a\n" * 40,
        b"II*\0" * 99,
        b"plain text " * 30,
        b"\x08\x00",
        b"\x1f\x8b" * 90,
    ):
        assert not dicom.recognises(content)
    assert dicom.recognises(b"\0" * 128 + b"DICM")


def test_missing_codec_names_syntax_and_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D40: never zeros."""
    dataset = slice_dataset(slice_values(0))
    dataset.compress(uid.RLELossless)
    path = save(dataset, tmp_path / "ct.dcm")
    monkeypatch.setattr(pydicom.pixels.decoders.base.Decoder, "is_available", property(lambda self: False))
    with pytest.raises(DataError, match=r"ct\.dcm: is compressed with RLE Lossless.* pip install 'sampeft\[dicom\]'"):
        dicom.image(path)
    path = save(dataset, tmp_path / "film.dcm", uid.MPEG2MPML)
    with pytest.raises(DataError, match=r"film\.dcm: its compression MPEG2 .* is not read; convert it"):
        dicom.image(path)


def test_jpeg_2000_with_the_wrong_sign_bit() -> None:
    """D40: the codestream says unsigned, the header signed 13-bit: 6192 is -2000."""
    from PIL import Image
    from pydicom.encaps import generate_frames

    if not pydicom.pixels.get_decoder(uid.JPEG2000Lossless).is_available:
        pytest.skip("needs a JPEG 2000 decoder")
    path = Path(pydicom.data.get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False))
    dataset = pydicom.dcmread(path)
    codestream = BytesIO(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    unsigned = np.asarray(Image.open(codestream)).astype(int) // 8  # Pillow moves 13 bits to the top of 16
    assert (dataset.BitsStored, unsigned[0, 0], dataset.RescaleSlope, dataset.RescaleIntercept) == (13, 6192, 1, 0)
    expected = np.where(unsigned >= 4096, unsigned - 8192, unsigned)
    array = dicom.image(path).array[..., 0].T
    assert array[0, 0] == -2000
    np.testing.assert_array_equal(array, expected)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    """Cut anywhere, raw or compressed: a sentence with the file, never zeros, never the patient."""
    raw = slice_dataset(np.random.default_rng(0).integers(0, 4000, (16, 16)).astype(np.int16))
    compressed = slice_dataset(np.random.default_rng(0).integers(0, 4000, (16, 16)).astype(np.int16))
    compressed.compress(uid.RLELossless)
    for dataset in (raw, compressed):
        content = save(dataset, tmp_path / "whole.dcm").read_bytes()
        for cut in range(132, len(content) - 16, 37):
            path = tmp_path / "cut.dcm"
            path.write_bytes(content[:cut])
            with pytest.raises(DataError, match=r"cut\.dcm: ") as caught:
                dicom.image(path)
            assert "Geheim" not in str(caught.value)
    huge = save(slice_dataset(slice_values(0), Rows=65535, Columns=65535), tmp_path / "huge.dcm")
    with pytest.raises(DataError, match=r"huge\.dcm: .*8589672450 bytes"):
        dicom.image(huge)


def test_truncated_slice_of_a_series_is_not_skipped(tmp_path: Path) -> None:
    write_series(tmp_path, (0, 2, 4, 6))
    last = next(tmp_path.glob("*_3.dcm"))
    last.write_bytes(last.read_bytes()[:400])
    with pytest.raises(DataError, match=rf"{last.name}: "):
        dicom.image(tmp_path)


def test_folder_and_file_without_image(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"holds no DICOM image \(1 other files, 1 sub-folders\)"):
        dicom.image(tmp_path)
    with pytest.raises(DataError, match=r"a\.txt: holds no DICOM image"):
        dicom.image(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"none\.dcm: cannot be read"):
        dicom.image(tmp_path / "none.dcm")


def test_enhanced_multi_frame_equals_its_series(tmp_path: Path) -> None:
    series = read_quietly(write_series(tmp_path / "series", (4, 0, 6, 2), RescaleSlope=2, RescaleIntercept=-1024))
    enhanced = read_quietly(write_enhanced(tmp_path / "series", tmp_path / "enhanced.dcm"))
    np.testing.assert_array_equal(enhanced.array, series.array)
    np.testing.assert_allclose(enhanced.affine, series.affine)
    assert sorted(enhanced.header.frames) == [0, 1, 2, 3]
    assert len(enhanced.header.datasets) == 1


@pytest.mark.real_data
def test_real_compressed_series_equals_simpleitk(real_data: Path) -> None:
    """JPEG 2000 CT of 20 slices."""
    sitk = pytest.importorskip("SimpleITK")
    folder = real_data / "totalsegmentator_ct/case_b_dicom/dicom"
    volume = read_quietly(folder)
    by_position = sorted(
        folder.iterdir(), key=lambda p: float(pydicom.dcmread(p, stop_before_pixels=True).SliceLocation)
    )
    oracle = sitk.ReadImage([str(p) for p in by_position])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(oracle), volume.array.transpose(2, 1, 0))
    corner = oracle.TransformContinuousIndexToPhysicalPoint((511.0, 511.0, 19.0))
    np.testing.assert_allclose((volume.affine @ (511, 511, 19, 1))[:3], np.array([-1, -1, 1]) * corner, atol=1e-6)
    assert (volume.array.dtype, volume.array.min(), volume.array.max()) == (np.int16, -1024, 1839)


@pytest.mark.real_data
def test_real_series_without_a_slice(real_data: Path, tmp_path: Path) -> None:
    for path in sorted((real_data / "totalsegmentator_ct/case_b_dicom/dicom").iterdir()):
        if not path.name.endswith("16580"):
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(DataError, match=r"1 slice missing at z = -780\.5 mm \(19 slices"):
        dicom.image(tmp_path)


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_odd_files_are_right_or_refused_with_the_reason(real_data: Path) -> None:
    odd = real_data / "dicom_odd"
    liver = dicom.image(odd / "ct_liver_3slice")
    stored = pydicom.dcmread(odd / "ct_liver_3slice/01.dcm").pixel_array  # the topmost
    inside = stored != -2000
    assert liver.affine[2, 3] == pytest.approx(-128.690002)
    np.testing.assert_array_equal(liver.array[..., 2].T[inside], stored[inside] - 1024)
    assert (liver.array[..., 2].T[~inside] == liver.array.min()).all()

    with pytest.warns(UserWarning, match=r"14\.0 degrees"):
        tilted = dicom.image(odd / "ct_gantry_tilt")
    np.testing.assert_allclose(tilted.affine[:3, 2], (0, 0, 5), atol=1e-9)
    assert tilted.affine[2, 1] == pytest.approx(0.41796875 * -0.2419218955997)

    with pytest.raises(DataError, match=r"unevenly spaced \(steps of 1\.140, 4\.220 mm\)"):
        dicom.image(odd / "ct_ge_tilt_uneven")
    assert dicom.image(odd / "ct_ge_tilt_uneven/15.dcm").grid == (512, 512, 1)
    with pytest.raises(DataError, match=r"liver_SEG\.dcm: holds no DICOM image of its own"):
        dicom.image(odd / "ct_liver_3slice/liver_SEG.dcm")
    assert np.unique(dicom.image(odd / "decimal_rescale.dcm").array).tolist() == [-4096]  # stored 0, slope 2.0

    raw = dicom.image(odd / "mr_compressed_rle")
    assert raw.grid == (256, 256, 4)
    np.testing.assert_allclose(raw.affine @ (0, 0, 0, 1), (100.794158, 161.074673, 130.051254, 1), atol=1e-5)
    for name in ("j2k", "jpeg", "jpegls"):
        syntax = {"j2k": uid.JPEG2000Lossless, "jpeg": uid.JPEGLosslessSV1, "jpegls": uid.JPEGLSLossless}[name]
        if pydicom.pixels.get_decoder(syntax).is_available:
            copy = dicom.image(odd / f"mr_compressed_{name}")
            np.testing.assert_array_equal(copy.array, raw.array)
            np.testing.assert_array_equal(copy.affine, raw.affine)
        else:
            with pytest.raises(DataError, match="no decoder is installed; pip install"):
                dicom.image(odd / f"mr_compressed_{name}")


def test_what_tells_frames_apart_is_named_with_a_way_out(tmp_path: Path) -> None:
    """N12: two echoes at each place, and two stacks, of one file."""
    coronal = (1, 0, 0, 0, 0, -1)
    echoes = [((0, 0, 4 * k), AXIAL, echo, "1") for echo in (5.0, 30.0) for k in range(3)]
    path = multi_frame(tmp_path / "echoes.dcm", echoes)
    with pytest.raises(DataError, match=r"EffectiveEchoTime 5\.0, .*EffectiveEchoTime 30\.0, .*--series Eff") as error:
        dicom.image(path)
    assert "copy the files" not in str(error.value)
    stacks = [((0, 0, 4 * k), AXIAL, 5.0, "1") for k in range(3)] + [
        ((0, 4 * k, 0), coronal, 5.0, "2") for k in range(3)
    ]
    with pytest.raises(DataError, match=r"2 series or stacks: .*StackID 1, .*StackID 2, .*--series StackID=1 "):
        dicom.image(multi_frame(tmp_path / "stacks.dcm", stacks))
