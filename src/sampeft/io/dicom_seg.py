"""Write class channels as a DICOM SEG that opens with its series, and read one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.io.dicom import INSTALL, Series
from sampeft.io.dicom_stack import reading
from sampeft.labels import LabelSet
from sampeft.volume import Volume

# What ties a SEG to its source. Anything else of the source, patient and study apart, stays behind.
_SOURCE = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "Modality", "Rows", "Columns", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient", "NumberOfFrames",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
_PATIENT_AND_STUDY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight",
    "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_SHARED = (0x00209116, 0x00289110)  # PlaneOrientationSequence, PixelMeasuresSequence
_LONGEST_NAME = 64  # of DICOM's type LO


_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_WHOLE = 0.5  # share of a voxel from which a fractional segment has it


@dataclass(frozen=True)
class SegmentNames:
    """What a SEG says of its voxels: the Volume's `header`. class_names: segment number -> label. is_part: frames without any
    segment may be missing, so that the grid is a part of the image's. frame_of_reference: what its positions are measured in."""

    class_names: dict[int, str]
    is_part: bool = True
    frame_of_reference: str = ""


def ids(content: bytes, path: Path) -> Volume:
    """Segment numbers, 0 where there is none, of a BINARY, FRACTIONAL (from a half on) or LABELMAP segmentation; (frames, rows,
    columns) from the first to the last frame that is there, each by its position. `SegmentNames` is the header.

    Raises DataError where it is no SEG or no even stack, where segments overlap, and without highdicom.
    """
    import pydicom

    with reading(path):
        dataset = pydicom.dcmread(BytesIO(content), force=True)
        kind = str(dataset.get("Modality") or "of no modality")
    if kind != "SEG":
        raise DataError(
            f"{path}: is {kind}, not a DICOM SEG; {_CONVERT.get(kind, 'give the labels as DICOM SEG, NIfTI, NRRD or PNG')}"
        )
    try:
        import highdicom as hd
    except ImportError:
        raise DataError(f"{path}: is a DICOM SEG, which needs highdicom; {INSTALL}") from None
    with reading(path):
        seg = hd.seg.segread(BytesIO(content))
        names = {n: str(seg.get_segment_description(n).segment_label) for n in seg.segment_numbers}
        numbers = sorted(names)
        if seg.get_volume_geometry(allow_missing_positions=True) is None:
            raise DataError(
                f"{path}: its frames are no even stack at right angles (a gantry tilt, or uneven steps), which are not placed; "
                "give the labels as NIfTI (predict writes it with --nifti)"
            )
        if seg.segmentation_type == hd.seg.SegmentationTypeValues.LABELMAP:
            volume = seg.get_volume(combine_segments=True)
            array = np.asarray(volume.array)
        else:
            volume, array = _joined(seg, numbers, names, path)
    frame_of_reference = str(dataset.get("FrameOfReferenceUID") or "")
    header = SegmentNames(names, frame_of_reference=frame_of_reference)
    return Volume(array, _LPS_TO_RAS @ volume.affine, path, header)


_CONVERT = {
    "RTSTRUCT": "draw its outlines into voxels, such as with 3D Slicer or dcmrtstruct2nii, and give NIfTI",
    "PR": "it holds a way to show images; give the labels as DICOM SEG or NIfTI",
}


def _joined(seg: Any, numbers: list[int], names: dict[int, str], path: Path) -> tuple[Any, npt.NDArray[np.uint16]]:
    """The segments as one map, and the volume of the last. One after another, since all together are large."""
    array: npt.NDArray[np.uint16] | None = None
    volume = None
    for number in numbers:
        volume = seg.get_volume(segment_numbers=[number])
        has_it = np.asarray(volume.array)[..., 0] >= _WHOLE
        array = np.zeros(has_it.shape, np.uint16) if array is None else array
        if (both := array[has_it]).any():
            other = int(both[both > 0][0])
            raise DataError(
                f"{path}: its segments {other} '{names[other]}' and {number} '{names[number]}' overlap in "
                f"{int((both == other).sum())} voxels, and here each voxel has one class; export it without overlaps, or as "
                "NIfTI with the order that you want"
            )
        array[has_it] = number
    assert array is not None, "a SEG has segments"
    return volume, array


def encode(channels_IJK: npt.NDArray[Any], labels: LabelSet, like: Volume) -> bytes:
    """A BINARY segmentation of the series `like`, which `dicom.image` has read.

    channels_IJK: (columns, rows, slices) of 0..K-1. Segments are numbered 1..n in the order of `labels.foreground` and
    carry the class names and colours; a class without a voxel keeps its number and has no frames. Names are the user's
    own, so no anatomy is guessed from them: category and type of every segment are the general code `Tissue`
    (SNOMED CT 85756007), and the name is the segment's label. Each frame has the position of its source slice and
    refers to it; study, series and frame of reference are the source's.
    Identifiers that an anonymised source lacks are made from what it has, always the same ones, with a warning.
    Raises DataError when no class has a voxel, a name is too long, or the source cannot be referred to; ValueError
    when channels do not fit labels or grid.
    """
    if not isinstance(like.header, Series) or channels_IJK.shape != like.grid:
        raise ValueError(
            f"channels {channels_IJK.shape} are not on the grid {like.grid} of a DICOM series ({like.path})"
        )
    if not 0 <= channels_IJK.min() <= channels_IJK.max() < len(labels):
        raise ValueError(f"channels {channels_IJK.min()}..{channels_IJK.max()} do not fit {len(labels)} classes")
    first = labels.foreground[0]
    segments = np.where(channels_IJK >= first, channels_IJK.astype(np.int32) - first + 1, 0)
    if not segments.any():
        raise DataError(
            f"{like.path}: no voxel belongs to a class, and a DICOM SEG without segments is not allowed; write NIfTI instead"
        )
    if long := [name for name in labels.names if len(name) > _LONGEST_NAME or "\\" in name]:
        raise DataError(
            f"class name '{long[0]}' does not fit DICOM (64 characters, no backslash); rename it in the label map"
        )
    sources = _sources(like)
    frames_KHW = segments.transpose(2, 1, 0).astype(np.uint8 if len(labels) < 256 else np.uint16)
    is_multi_frame = "PerFrameFunctionalGroupsSequence" in sources[0]
    if is_multi_frame and len(sources) > 1:
        raise DataError(
            f"{like.path}: a DICOM SEG refers to one multi-frame file, these are {len(sources)}; write NIfTI instead"
        )
    with reading(like.path):
        segmentation = _segmentation(frames_KHW, labels, sources)
        if is_multi_frame:
            _refer_to_frames(segmentation, like.header.frames)
        _copy_patient_and_study(like.header.datasets[0], segmentation)
        buffer = BytesIO()
        segmentation.save_as(buffer)
    return buffer.getvalue()


def _segmentation(frames_KHW: npt.NDArray[Any], labels: LabelSet, sources: list[Any]) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    import sampeft

    algorithm = hd.AlgorithmIdentificationSequence(
        name="sampeft", family=codes.cid7162.ArtificialIntelligence, version=sampeft.__version__
    )
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=labels.names[channel],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            display_color=hd.color.CIELabColor.from_rgb(*labels.colors[channel]),
        )
        for number, channel in enumerate(labels.foreground, start=1)
    ]
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=frames_KHW,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=1000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="sampeft",
        manufacturer_model_name="sampeft",
        software_versions=sampeft.__version__,
        device_serial_number="1",
        content_label="SEGMENTATION",
        series_description="sampeft segmentation",
        specific_character_set="ISO_IR 192",
    )


def _sources(like: Volume) -> list[Any]:
    """The source headers with nothing but what ties a SEG to them."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise DataError(f"{like.path}: its labels are written as DICOM SEG, which needs highdicom; {INSTALL}") from None
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    sources: list[Any] = []
    made: set[str] = set()
    for dataset in like.header.datasets:
        source = Dataset()
        for keyword in _SOURCE:
            if keyword in dataset and dataset[keyword].value not in (None, ""):
                source[keyword] = copy(dataset[keyword])  # whose value may be replaced
        if missing := [k for k in ("SOPClassUID", "SOPInstanceUID") if k not in source]:
            raise DataError(
                f"{like.path}: lacks {missing[0]}, so that no DICOM SEG can refer to it; write NIfTI instead"
            )
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            if keyword not in source:
                made.add(keyword)
                instance = like.header.datasets[0].SOPInstanceUID
                setattr(source, keyword, generate_uid(entropy_srcs=[keyword, instance]))
        if "PerFrameFunctionalGroupsSequence" in source:
            _keep_frames(source, like.header.frames)
        elif sources and "ImageOrientationPatient" in source:  # equal but for its last digits
            source.ImageOrientationPatient = sources[0].ImageOrientationPatient
        if "SliceThickness" not in source:
            source.SliceThickness = None  # unknown, which the standard allows
        for keyword in _PATIENT_AND_STUDY:
            setattr(source, keyword, None)  # copied afterwards as they are, valid or not
        sources.append(source)
    if made:
        warnings.warn(
            f"{like.path}: lacks {', '.join(sorted(made))}; the DICOM SEG has new ones, and refers to the images by their "
            "SOPInstanceUID",
            stacklevel=3,
        )
    return sources


def _keep_frames(source: Any, frames: Sequence[int]) -> None:
    """Leave only these frames of a multi-frame source, in this order: others, such as those of another echo or stack, lie at the
    same places or across. What these share is stated once, where highdicom looks for it."""
    from pydicom.dataset import Dataset

    shared, groups = Dataset(), source.PerFrameFunctionalGroupsSequence
    for group in source.get("SharedFunctionalGroupsSequence") or ():
        shared.update(group)
    shared.update({tag: groups[frames[0]][tag] for tag in _SHARED if tag in groups[frames[0]]})
    source.SharedFunctionalGroupsSequence = [shared]
    source.PerFrameFunctionalGroupsSequence = [groups[frame] for frame in frames]
    source.NumberOfFrames = len(frames)


def _refer_to_frames(segmentation: Any, frames: Sequence[int]) -> None:
    """Name the frames that a segmentation of `_keep_frames` refers to by their numbers in the file."""
    referring = {
        id(image): image  # those of several segments are one
        for group in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in group.get("DerivationImageSequence") or ()
        for image in derivation.SourceImageSequence
    }
    for image in referring.values():
        image.ReferencedFrameNumber = frames[int(image.ReferencedFrameNumber) - 1] + 1


def _copy_patient_and_study(source: Any, target: Any) -> None:
    for keyword in _PATIENT_AND_STUDY:
        if keyword in source:
            value = source[keyword].value
            setattr(target, keyword, str(value) if keyword.endswith("Name") else value)
