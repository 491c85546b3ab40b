"""DICOM SEG: read back by the standard's own rules, every voxel lies in the patient where the class map had it."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_dicom import FRAME_OF_REFERENCE, SERIES, STUDY, write_enhanced, write_series

from sampeft.errors import DataError
from sampeft.io import dicom, dicom_seg
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE, Volume

pydicom = pytest.importorskip("pydicom", reason="needs pip install 'sampeft[dicom]'")
hd = pytest.importorskip("highdicom", reason="needs pip install 'sampeft[dicom]'")

LABELS = LabelSet(("background", "Leber", "Milz", "Niere größer"), (0, 1, 7, 200))
POSITIONS = (5, -2.5, 2.5, 0)


def channel_map(volume: Volume) -> np.ndarray:
    """(4, 3, 4): classes 1 and 3 in places that no mirror or turn maps onto themselves; class 2 is empty."""
    channels = np.zeros(volume.grid, np.uint8)
    channels[0, 1, 0] = channels[1, 1, 0] = channels[3, 2, 2] = 1
    channels[2, 0, 2] = channels[0, 0, 3] = 3
    return channels


def voxels_by_the_standard(content: bytes) -> dict[str, np.ndarray]:
    """Segment label -> positions (x, y, z mm, DICOM's LPS) of its voxels, from the frames' own functional groups."""
    seg = pydicom.dcmread(BytesIO(content))
    shared = seg.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: seg.NumberOfFrames * seg.Rows * seg.Columns].reshape(seg.NumberOfFrames, seg.Rows, seg.Columns)
    names = {segment.SegmentNumber: segment.SegmentLabel for segment in seg.SegmentSequence}
    places: dict[str, list[np.ndarray]] = {name: [] for name in names.values()}
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        start = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        name = names[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        r, c = np.nonzero(frame)
        places[name].append(start + np.outer(c * between_columns, row) + np.outer(r * between_rows, column))
    return {name: in_order(np.concatenate(found or [np.zeros((0, 3))])) for name, found in places.items()}


def voxels_of(channels: np.ndarray, labels: LabelSet, volume: Volume) -> dict[str, np.ndarray]:
    """The same from the class map and the affine."""
    found = {}
    for channel in labels.foreground:
        places = np.argwhere(channels == channel) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        found[labels.names[channel]] = in_order(places * (-1, -1, 1))
    return found


def in_order(places: np.ndarray) -> np.ndarray:
    places = places.round(2) + 0.0
    return places[np.lexsort(places.T)]


def assert_same_places(content: bytes, channels: np.ndarray, labels: LabelSet, volume: Volume) -> dict[str, int]:
    """Returns the number of voxels of each class that has any."""
    found, wanted = voxels_by_the_standard(content), voxels_of(channels, labels, volume)
    assert list(found) == list(wanted)
    for name, places in wanted.items():
        np.testing.assert_allclose(found[name], places, atol=0.011)
    return {name: len(places) for name, places in wanted.items() if len(places)}


def test_every_voxel_lies_where_the_class_map_had_it(tmp_path: Path) -> None:
    """D34: an empty class, slices in no order on disk, numbers 1..n, gapped ids."""
    volume = dicom.image(write_series(tmp_path, POSITIONS))
    channels = channel_map(volume)
    content = dicom_seg.encode(channels, LABELS, volume)
    assert assert_same_places(content, channels, LABELS, volume) == {"Leber": 3, "Niere größer": 2}
    assert voxels_by_the_standard(content)["Leber"].tolist() == [[0, 1, -2.5], [1, 1, -2.5], [3, 2, 2.5]]

    seg = pydicom.dcmread(BytesIO(content))
    assert (seg.Modality, seg.SegmentationType, seg.NumberOfFrames) == ("SEG", "BINARY", 4)
    listed = [(s.SegmentNumber, s.SegmentLabel, s.SegmentAlgorithmType) for s in seg.SegmentSequence]
    assert listed == [(1, "Leber", "AUTOMATIC"), (2, "Milz", "AUTOMATIC"), (3, "Niere größer", "AUTOMATIC")]
    codes = {
        (
            s.SegmentedPropertyTypeCodeSequence[0].CodeValue,
            s.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator,
        )
        for s in seg.SegmentSequence
    }
    assert codes == {("85756007", "SCT")}


def test_it_opens_with_its_source_series(tmp_path: Path) -> None:
    volume = dicom.image(write_series(tmp_path, POSITIONS))
    seg = pydicom.dcmread(BytesIO(dicom_seg.encode(channel_map(volume), LABELS, volume)))
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (STUDY, FRAME_OF_REFERENCE)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES != seg.SeriesInstanceUID
    assert (str(seg.PatientName), seg.PatientID, seg.StudyDate) == ("Geheim^Anna", "P-4711", "20240102")
    at = {d.SOPInstanceUID: float(d.ImagePositionPatient[2]) for d in map(pydicom.dcmread, tmp_path.iterdir())}
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced == set(at)
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert at[source] == group.PlanePositionSequence[0].ImagePositionPatient[2]


def test_highdicom_reads_the_same(tmp_path: Path) -> None:
    volume = dicom.image(write_series(tmp_path, POSITIONS))
    channels = channel_map(volume)
    seg = hd.seg.segread(BytesIO(dicom_seg.encode(channels, LABELS, volume)))
    uids = [d.SOPInstanceUID for d in volume.header.datasets]
    back_KHW = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(back_KHW.transpose(2, 1, 0), channels)


@pytest.mark.filterwarnings("ignore:.*gantry tilt")
def test_tilted_single_and_multi_frame_sources(tmp_path: Path) -> None:
    tilted = write_series(tmp_path / "tilted", [(0, -0.2679 * k, 1.0 * k) for k in range(4)])
    single = next(write_series(tmp_path / "single", (8,)).iterdir())
    enhanced = write_enhanced(write_series(tmp_path / "series", POSITIONS), tmp_path / "enhanced.dcm")
    for path in (tilted, single, enhanced):
        volume = dicom.image(path)
        channels = np.zeros(volume.grid, np.int64)
        channels[1:3, 2, -1] = 1
        channels[3, 0, 0] = 2
        content = dicom_seg.encode(channels, LABELS, volume)
        assert_same_places(content, channels, LABELS, volume)


def test_labels_without_background(tmp_path: Path) -> None:
    volume = dicom.image(write_series(tmp_path, POSITIONS))
    labels = LabelSet(("fat", "muscle"), (3, 9))
    channels = (volume.array % 2).astype(np.uint8)
    content = dicom_seg.encode(channels, labels, volume)
    assert assert_same_places(content, channels, labels, volume) == {"fat": 24, "muscle": 24}


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    volume = dicom.image(write_series(tmp_path, POSITIONS))
    channels = channel_map(volume)
    with pytest.raises(DataError, match="no voxel belongs to a class"):  # D34
        dicom_seg.encode(np.zeros_like(channels), LABELS, volume)
    with pytest.raises(DataError, match=r"class name 'x{65}' does not fit DICOM"):
        dicom_seg.encode(channels, LabelSet(("background", "a", "b", "x" * 65), (0, 1, 2, 3)), volume)
    with pytest.raises(ValueError, match="do not fit 4 classes"):
        dicom_seg.encode(np.where(channels == 3, IGNORE, channels.astype(np.int16)), LABELS, volume)
    with pytest.raises(ValueError, match="not on the grid"):
        dicom_seg.encode(channels[1:], LABELS, volume)


def test_anonymised_source_gets_steady_identifiers(tmp_path: Path) -> None:
    empty: Any = {
        "StudyInstanceUID": "",
        "FrameOfReferenceUID": None,
        "PatientSex": "unbekannt",
        "StudyDate": "2024.01",
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(Invalid value|Value exceeds|A value of type)")
        write_series(tmp_path, POSITIONS, **empty)
        instances = set()
        for path in tmp_path.iterdir():
            dataset = pydicom.dcmread(path)
            instances.add(dataset.SOPInstanceUID)
            dataset.SOPInstanceUID = dataset.SOPClassUID = ""  # stated in the file's meta header alone
            dataset.save_as(path)
        volume = dicom.image(tmp_path)
    made = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="lacks FrameOfReferenceUID, StudyInstanceUID; the DICOM SEG has new"):
            seg = pydicom.dcmread(BytesIO(dicom_seg.encode(channel_map(volume), LABELS, volume)))
        made.append((seg.StudyInstanceUID, seg.FrameOfReferenceUID))
        referenced = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert {item.ReferencedSOPInstanceUID for item in referenced} == instances
    assert made[0] == made[1]
    assert all(made[0])


def test_patient_name_keeps_its_letters_and_is_never_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Latin-1 in the source, UTF-8 in the SEG; `Müller` without ^ is what highdicom would log."""
    volume = dicom.image(write_series(tmp_path, POSITIONS, SpecificCharacterSet="ISO_IR 100", PatientName="Müller"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seg = pydicom.dcmread(BytesIO(dicom_seg.encode(channel_map(volume), LABELS, volume)))
    assert str(seg.PatientName) == "Müller"
    assert "ller" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore:.*lacks SeriesInstanceUID, StudyInstanceUID")
def test_real_labels_come_back_at_the_same_places(real_data: Path) -> None:
    """A JPEG 2000 CT and its organ labels, whose rows run the other way: same voxels, same positions."""
    import nibabel as nib

    case = real_data / "totalsegmentator_ct/case_b_dicom"
    volume = dicom.image(case / "dicom")
    label = nib.load(case / "labels_flare22.nii.gz")
    to_label = np.linalg.inv(label.affine) @ volume.affine
    np.testing.assert_allclose(to_label[:3, :3], np.diag([1, -1, 1]), atol=1e-6)
    channels = np.asanyarray(label.dataobj)[:, ::-1]
    labels = LabelSet(("background", *(f"organ {i}" for i in range(1, 14))), tuple(range(14)))
    content = dicom_seg.encode(channels, labels, volume)
    counts = assert_same_places(content, channels, labels, volume)
    assert counts == {
        "organ 1": 366708,
        "organ 3": 130634,
        "organ 4": 1327,
        "organ 5": 11723,
        "organ 6": 4772,
        "organ 7": 1254,
        "organ 11": 74102,
    }
