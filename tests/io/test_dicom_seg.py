"""DICOM SEG: read back by the standard's own rules, every voxel lies in the patient where the class map had it."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricate.dicom import AXIAL, FRAME_OF_REFERENCE, SERIES, STUDY, multi_frame, write_enhanced, write_series
from sampeft.cli import main
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.ground_truth import read_labels, read_truth
from sampeft.errors import DataError
from sampeft.io import dicom, dicom_seg, read_volume, write_labels
from sampeft.io.dicom_series import series_chosen
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE, Volume

pydicom = pytest.importorskip("pydicom", reason="needs pip install 'sampeft[dicom]'")
hd = pytest.importorskip("highdicom", reason="needs pip install 'sampeft[dicom]'")

LABELS = LabelSet(("background", "Leber", "Milz", "Niere größer"), (0, 1, 7, 200))
LIVER = LabelSet(("background", "Leber"), (0, 1))
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


@pytest.mark.parametrize(
    ("series", "frames"),
    [("EffectiveEchoTime=30", (3, 4, 5)), ("StackID=1,EffectiveEchoTime=5", (0, 1, 2)), ("StackID=2", (6, 7))],
)
def test_one_of_several_echoes_or_stacks_of_a_file(series: str, frames: tuple[int, ...], tmp_path: Path) -> None:
    """Frames of the file state their orientation one by one; those of another stack lie across, in part at the same places."""
    coronal = (1, 0, 0, 0, 0, -1)
    echoes = [((0, 0, 4 * k), AXIAL, echo, "1") for echo in (5.0, 30.0) for k in range(3)]
    path = multi_frame(tmp_path / "a.dcm", [*echoes, *(((0, 4 * k, 0), coronal, 5.0, "2") for k in range(2))])
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = pydicom.uid.EnhancedMRImageStorage
    dataset.save_as(path)
    with series_chosen(series):
        volume = dicom.image(path)
    assert volume.header.frames == frames
    channels = np.zeros(volume.grid, np.uint8)
    channels[1, 2:, :] = 1
    channels[0, 0, -1] = 2
    content = dicom_seg.encode(channels, LABELS, volume)
    assert_same_places(content, channels, LABELS, volume)
    referred = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber - 1
        for group in pydicom.dcmread(BytesIO(content)).PerFrameFunctionalGroupsSequence
    ]
    assert sorted(referred) == sorted([*frames, frames[-1]])
    assert volume.header.datasets[0].NumberOfFrames == 8


def test_slices_whose_orientation_differs_in_the_last_digits(tmp_path: Path) -> None:
    for k, path in enumerate(sorted(write_series(tmp_path, POSITIONS).iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.ImageOrientationPatient = [1, 1e-7 * k, 0, 0, 1, 0]
        dataset.save_as(path)
    volume = dicom.image(tmp_path)
    channels = channel_map(volume)
    assert_same_places(dicom_seg.encode(channels, LABELS, volume), channels, LABELS, volume)


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


# --- as labels


def made(folder: Path, masks: dict[str, np.ndarray], kind: str = "BINARY", rows: slice = slice(None)) -> bytes:
    """A SEG of the series in a folder by highdicom itself. masks: name of each segment -> (slices, rows, columns), shares for
    FRACTIONAL; of the slices so many as they have."""
    sources = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda d: d.ImagePositionPatient[2])[rows]
    tissue = pydicom.sr.codedict.codes.SCT.Tissue
    described = [
        hd.seg.SegmentDescription(n, name, tissue, tissue, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for n, name in enumerate(masks, start=1)
    ]
    pixels = np.stack([*masks.values()], axis=-1).astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    if kind == "LABELMAP":
        pixels = (pixels * np.arange(1, len(masks) + 1, dtype=np.uint8)).max(axis=-1)
    kinds: dict[str, Any] = {"FRACTIONAL": {"fractional_type": "PROBABILITY"}}
    uids = {"series_instance_uid": "1.2.3.8", "sop_instance_uid": "1.2.3.9"}
    numbers = {"series_number": 9, "instance_number": 1, "device_serial_number": "1", "software_versions": "1"}
    maker = {"manufacturer": "made", "manufacturer_model_name": "made"}
    seg = hd.seg.Segmentation(sources, pixels, kind, described, **uids, **numbers, **maker, **kinds.get(kind, {}))
    buffer = BytesIO()
    seg.save_as(buffer)
    return buffer.getvalue()


def truth_of(folder: Path, content: bytes, names: dict[str, int], **known: Any) -> np.ndarray:
    label = folder.parent / "label.dcm"
    label.write_bytes(content)
    labels = LabelSet(tuple(names), tuple(names.values()))
    file = ImageFile("a", folder, label)
    dataset = Dataset("d", folder, labels, (Case("a", (file,)),), **known)
    return read_labels(file, dataset, read_volume(folder)).array


NAMES = {"background": 0, "Leber": 1, "Milz": 2, "Niere größer": 3}


@pytest.mark.parametrize("positions", [POSITIONS, (8,)])
def test_what_is_written_of_a_series_is_read_as_its_labels(positions: Any, tmp_path: Path) -> None:
    """Frames without a class are not in the file; numbers go by names, whatever ids the label map has."""
    folder = write_series(tmp_path / "a", positions)
    volume = dicom.image(folder)
    channels = np.zeros(volume.grid, np.uint8)
    channels[1:3, 2, -1] = 1
    channels[3, 0, 0] = 3
    content = dicom_seg.encode(channels, LABELS, volume)
    np.testing.assert_array_equal(truth_of(folder, content, NAMES), channels)
    gapped = {"background": 0, "Niere größer": 1, "Leber": 7, "Milz": 200}  # ids of the file in another order
    np.testing.assert_array_equal(truth_of(folder, content, gapped), np.array([0, 2, 3, 1])[channels])


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_of_every_kind_lie_by_their_position(kind: str, tmp_path: Path) -> None:
    """Of slices at 0, 2 ... 8 mm those from 2 to 6 are segmented, and in the middle one of them there is nothing. Slices,
    rows and columns are told apart by numbers that differ."""
    folder = write_series(tmp_path / "a", (0, 2, 4, 6, 8))
    masks = {name: np.zeros((3, 3, 4)) for name in ("Leber", "Milz")}
    masks["Leber"][0, 1, 2] = masks["Leber"][2, 0, 3] = masks["Milz"][2, 2, 0] = 1
    if kind == "FRACTIONAL":
        masks["Leber"][0, 1, 2], masks["Leber"][0, 2, 2] = 0.51, 0.49
    expected = np.zeros((4, 3, 5), np.int16)
    expected[2, 1, 1] = expected[3, 0, 3] = 1
    expected[0, 2, 3] = 2
    np.testing.assert_array_equal(truth_of(folder, made(folder, masks, kind, slice(1, 4)), NAMES), expected)


@pytest.mark.filterwarnings("ignore:.*gantry tilt")
def test_a_seg_of_another_examination_at_the_same_positions_is_told(tmp_path: Path) -> None:
    """Its frame of reference is another; a source that states none tells nothing."""
    volume = dicom.image(write_series(tmp_path / "series", POSITIONS))
    channels = np.zeros(volume.grid, np.uint8)
    channels[1:] = 1
    (tmp_path / "label.dcm").write_bytes(dicom_seg.encode(channels, LIVER, volume))
    file = ImageFile("a", tmp_path / "series", tmp_path / "label.dcm")
    dataset = Dataset("d", tmp_path, LIVER, (Case("a", (file,)),))

    def placed_by(stated: str) -> str:
        for path in (tmp_path / "series").iterdir():
            one = pydicom.dcmread(path)
            one.FrameOfReferenceUID = stated
            one.save_as(path)
        read = read_truth(file, dataset, read_volume(file.image))
        assert np.array_equal(read.label.array, channels)
        return read.placed_by

    assert [placed_by(stated)[:9] for stated in (FRAME_OF_REFERENCE, "1.2.3.99", "")] == ["", "positions", ""]


def test_frames_of_a_tilted_stack_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", [(0, -0.2679 * k, 1.0 * k) for k in range(4)])
    mask = np.zeros((4, 3, 4))
    mask[[0, 3], 1, 1] = 1
    with pytest.raises(DataError, match=r"label\.dcm: its frames are no even stack .*NIfTI"):
        truth_of(folder, made(folder, {"Leber": mask}), NAMES)
    mask[3] = 0  # one slice lies where it lies
    assert np.argwhere(truth_of(folder, made(folder, {"Leber": mask}), NAMES)).tolist() == [[1, 1, 0]]


def test_segments_that_overlap_or_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", (0, 2, 4))
    masks = {name: np.zeros((3, 3, 4)) for name in ("Leber", "Milz")}
    masks["Leber"][1, :, 2], masks["Milz"][1, 1:, 2] = 1, 1
    with pytest.raises(DataError, match=r"label\.dcm: its segments 1 'Leber' and 2 'Milz' overlap in 2 voxels"):
        truth_of(folder, made(folder, masks), NAMES)
    del masks["Milz"]
    for name, positions in (("beyond", (0, 2, 4, 6)), ("beside", [(50.0, 0.0, 2.0 * k) for k in range(3)])):
        other = write_series(tmp_path / name, positions)
        mask = {"Leber": np.ones((len(positions), 3, 4))}
        with pytest.raises(DataError, match=r"label\.dcm: is a volume of size|label\.dcm: its grid is up to"):
            truth_of(folder, made(other, mask), NAMES)
    shifted = write_series(tmp_path / "shifted", [(0.0, 0.5, 2.0 * k) for k in range(3)])
    with pytest.raises(DataError, match=r"its grid is up to 0\.50 mm away from that of a"):
        truth_of(folder, made(shifted, {"Leber": np.ones((3, 3, 4))}), NAMES)


def test_names_of_segments_are_checked_and_a_label_map_without_background_gives_no_class_to_the_rest(
    tmp_path: Path,
) -> None:
    folder = write_series(tmp_path / "a", (0, 2, 4))
    mask = np.zeros((3, 3, 4))
    mask[1, 1, 1] = 1
    with pytest.raises(DataError, match=r"the file names its ids \{1: Milz, 2: Darm\}, the label map"):
        truth_of(folder, made(folder, {"Milz": mask, "Darm": 1 - mask}), NAMES)
    with pytest.raises(DataError, match=r"label id 0 \(35 voxels\) is not in the label map"):
        truth_of(folder, made(folder, {"Leber": mask}), {"Milz": 0, "Leber": 1})


def test_other_dicom_is_no_label_and_says_what_to_do(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", (0, 2))
    with pytest.raises(DataError, match=r"is CT, not a DICOM SEG; give the labels as DICOM SEG, NIfTI"):
        truth_of(folder, next(folder.iterdir()).read_bytes(), NAMES)
    outlines = pydicom.dcmread(next(folder.iterdir()))
    outlines.Modality = "RTSTRUCT"
    buffer = BytesIO()
    outlines.save_as(buffer)
    with pytest.raises(DataError, match=r"is RTSTRUCT, not a DICOM SEG; draw its outlines into voxels"):
        truth_of(folder, buffer.getvalue(), NAMES)
    content = made(folder, {"Leber": np.ones((2, 3, 4))})
    with pytest.raises(DataError, match=r"label\.dcm: damaged or unusual DICOM"):
        truth_of(folder, content[: len(content) // 3], NAMES)


def test_a_folder_of_series_with_a_folder_of_segs_is_a_data_set_and_maps_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels as a file, and as a folder with the file; of 4 true voxels 3 are predicted, DSC 6 / 7, also as a SEG."""
    mask = np.zeros((3, 3, 4))
    mask[1, 1, :] = 1
    for name in ("a", "b"):
        folder = write_series(tmp_path / "images" / name, (0, 2, 4))
        label = tmp_path / "labels" / (f"{name}.dcm" if name == "a" else f"{name}/seg.dcm")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_bytes(made(folder, {"Leber": mask}))
        volume = dicom.image(folder)
        channels = np.zeros(volume.grid, np.uint8)
        channels[:3, 1, 1] = 1
        (tmp_path / "pred").mkdir(exist_ok=True)
        (tmp_path / f"pred/{name}.dcm").write_bytes(dicom_seg.encode(channels, LABELS, volume))
        write_labels(tmp_path / f"truth/{name}.nii.gz", (mask.transpose(2, 1, 0) > 0).astype(np.uint8), LIVER, volume)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "Leber": 1}}')
    assert main(["check", str(tmp_path)]) == 0
    assert "| 1 | Leber | 8 | 2 of 2 |" in capsys.readouterr().out
    words = ["--labels", str(tmp_path / "dataset.json"), "--out", str(tmp_path / "e")]
    assert main(["evaluate", "--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "truth"), *words]) == 0
    assert "| Leber | 0.857" in capsys.readouterr().out
    folders = ["--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "labels")]
    assert main(["evaluate", *folders, *words, "--force"]) == 0
    assert "| Leber | 0.857" in capsys.readouterr().out
