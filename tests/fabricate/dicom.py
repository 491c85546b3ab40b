"""DICOM files as scanners write them, by pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="needs pip install 'sampeft[dicom]'")

from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402

AXIAL = (1, 0, 0, 0, 1, 0)


STUDY, SERIES, FRAME_OF_REFERENCE = "1.2.3.1", "1.2.3.2", "1.2.3.3"


PATIENT = "Geheim^Anna"


def slice_dataset(stored: Any, position: Sequence[float] | None = (0, 0, 0), **attributes: Any) -> Dataset:
    """One image as a scanner writes it. stored: (rows, columns[, 3]); attributes replace the header's, None removes."""
    stored = np.asarray(stored)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.CTImageStorage, uid.generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = FRAME_OF_REFERENCE, ""
    dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber = "CT", "portal venous", 4
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = PATIENT, "P-4711", "", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20240102", "101112", "7", ""
    dataset.ImageType, dataset.InstanceNumber, dataset.Manufacturer = ["ORIGINAL", "PRIMARY", "AXIAL"], 1, "Scanner"
    if position is not None:
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [*map(float, position)], list(AXIAL)
        dataset.PixelSpacing, dataset.SliceThickness = [1.0, 1.0], 2.0
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(stored.dtype.kind == "i")
    dataset.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    content = stored.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path, syntax: uid.UID | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, positions: Sequence[float | Sequence[float]], **attributes: Any) -> Path:
    """A series of 3 x 4 pixels (rows x columns); slice k holds 100 k + 10 row + column. Names are in no order."""
    for k, position in enumerate(positions):
        place = position if isinstance(position, Sequence) else (0, 0, position)
        own = {
            key: value[k] if isinstance(value, list) and key != "ImageType" else value
            for key, value in attributes.items()
        }
        save(slice_dataset(slice_values(k), place, **own), folder / f"{(7 * k + 3) % 11:02}_{k}.dcm")
    return folder


def slice_values(k: int) -> np.ndarray:
    return (100 * k + 10 * np.arange(3)[:, None] + np.arange(4)).astype(np.int16)


def write_enhanced(folder: Path, path: Path) -> Path:
    """The series of a folder as one multi-frame file."""
    hd = pytest.importorskip("highdicom", reason="needs pip install 'sampeft[dicom]'")
    sources = [pydicom.dcmread(p) for p in sorted(folder.iterdir())]
    converted = hd.legacy.LegacyConvertedEnhancedCTImage(
        sources, series_instance_uid="1.2.3.9", series_number=9, sop_instance_uid="1.2.3.10", instance_number=1
    )
    converted.save_as(path)
    return path


def multi_frame(path: Path, frames: Sequence[tuple[Sequence[float], Sequence[float], float, str]]) -> Path:
    """Frames of (position, orientation, echo time, stack)."""

    def item(**values: Any) -> Dataset:
        made = Dataset()
        for keyword, value in values.items():
            setattr(made, keyword, value)
        return made

    dataset = slice_dataset(np.zeros((4, 3), np.uint16), None, Modality="MR")
    dataset.NumberOfFrames = len(frames)
    measures = item(PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=4)])
    dataset.SharedFunctionalGroupsSequence = [measures]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=list(position))],
            PlaneOrientationSequence=[item(ImageOrientationPatient=list(orientation))],
            MREchoSequence=[item(EffectiveEchoTime=echo)],
            FrameContentSequence=[item(StackID=stack)],
        )
        for position, orientation, echo, stack in frames
    ]
    dataset.PixelData = np.arange(12 * len(frames), dtype=np.uint16).tobytes()
    return save(dataset, path)
