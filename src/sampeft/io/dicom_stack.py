"""Sort the slices of a DICOM series, and find the affine of their stack."""

from __future__ import annotations

import shlex
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError, SampeftError, counted
from sampeft.io.dicom_series import NUMBER, VARIABLE, chosen_series

Vector = npt.NDArray[np.float64]

UNEVEN = 0.1
"""A slice may lie this share of the step off its place: scanners round positions, a missing slice is half a step."""

_SAME_PLACE = 0.01  # of a pixel
_APART = {
    NUMBER: "",
    "SeriesDescription": "",
    "StackID": "FrameContentSequence",
    "AcquisitionNumber": "",
    "EchoNumbers": "",
    "EchoTime": "",
    "EffectiveEchoTime": "MREchoSequence",
    "TemporalPositionIdentifier": "",
    "TemporalPositionIndex": "FrameContentSequence",
    "TriggerTime": "",
    "DiffusionBValue": "MRDiffusionSequence",
    "FlipAngle": "",
    "ImageType": "",
    "FrameType": "MRImageFrameTypeSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "SeriesInstanceUID": "",
}
"""Attributes that tell series, stacks or images at one place apart, and the functional group that has them in multi-frame
files."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever pydicom or a decoder raises becomes a DataError with the file; their warnings, which may quote what
    identifies a patient, are not shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SampeftError:
        raise
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the path or copy it again"
        ) from None
    except Exception as error:  # damaged bytes lead them anywhere, from KeyError to RecursionError
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{path}: damaged or unusual DICOM ({type(error).__name__}: {reason}); export or copy it again"
        ) from None


@dataclass(frozen=True)
class Plane:
    """One slice: a file, or one frame of a multi-frame file. dataset: the file's header. frame: 0-based."""

    path: Path
    dataset: Any
    frame: int = 0

    def value(self, keyword: str, sequence: str) -> Any:
        """An attribute of this frame: its own functional group, the shared one, or the file's header; None if absent."""
        own = self.dataset.get("PerFrameFunctionalGroupsSequence") or ()
        for group in (*own[self.frame : self.frame + 1], *(self.dataset.get("SharedFunctionalGroupsSequence") or ())):
            if (inner := group.get(sequence)) and (value := inner[0].get(keyword)) is not None:
                return value
        return self.dataset.get(keyword)

    @cached_property
    def frame_count(self) -> int:
        return int(self.dataset.get("NumberOfFrames") or 1)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(columns, rows)."""
        return int(self.dataset.Columns), int(self.dataset.Rows)

    @cached_property
    def position_mm(self) -> Vector:
        """(3,) centre of the first pixel, in DICOM's LPS+ world."""
        return self._numbers("ImagePositionPatient", "PlanePositionSequence", 3)

    @cached_property
    def axes(self) -> Vector:
        """(2, 3) directions in which the column and the row index grow."""
        axes = self._numbers("ImageOrientationPatient", "PlaneOrientationSequence", 6).reshape(2, 3)
        if not (np.abs(np.linalg.norm(axes, axis=1) - 1) < 0.01).all() or np.linalg.norm(np.cross(*axes)) < 0.99:
            raise DataError(
                f"{self.path}: its orientation {axes.round(3).tolist()} is no right angle; correct the header"
            )
        return axes

    @cached_property
    def spacing_mm(self) -> Vector:
        """(2,) distance between columns and between rows."""
        rows, columns = self._numbers("PixelSpacing", "PixelMeasuresSequence", 2)
        if not min(rows, columns) > 0:
            raise DataError(
                f"{self.path}: its pixel spacing {rows:g} x {columns:g} mm spans no area; correct the header"
            )
        return np.array([columns, rows])

    @cached_property
    def thickness_mm(self) -> float:
        """Distance to the next slice where there is none to measure it from; 1 when the file states none."""
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            stated = self.value(keyword, "PixelMeasuresSequence")
            if stated and np.isfinite(float(stated)) and float(stated) != 0:
                return abs(float(stated))
        return 1.0

    @cached_property
    def rescale(self) -> tuple[float, float]:
        """(slope, intercept); 1 and 0 where absent."""
        slope = self.value("RescaleSlope", "PixelValueTransformationSequence")
        intercept = self.value("RescaleIntercept", "PixelValueTransformationSequence")
        return (1.0 if slope in (None, "") else float(slope)), (0.0 if intercept in (None, "") else float(intercept))

    @cached_property
    def normal(self) -> Vector:
        normal: Vector = np.cross(*self.axes)
        return normal

    def _numbers(self, keyword: str, sequence: str, count: int) -> Vector:
        with reading(self.path):
            values = np.array([float(v) for v in self.value(keyword, sequence) or ()])
            if len(values) != count or not np.isfinite(values).all():
                raise DataError(
                    f"{self.path}: {keyword} holds {len(values)} of {count} finite numbers; correct the header"
                )
        return values


def has_position(dataset: Any) -> bool:
    """Whether the header places its image in the patient."""
    return bool(dataset.get("ImagePositionPatient") or dataset.get("PerFrameFunctionalGroupsSequence"))


def chosen_planes(found: Sequence[tuple[Path, Any]], source: Path) -> list[Plane]:
    """The slices of all files, or those of the series that the user chose.

    Raises DataError where that is not among them, UsageError as `chosen_series` does.
    """
    planes = []
    for path, dataset in found:
        with reading(path):
            frames, stored = int(dataset.get("NumberOfFrames") or 1), path.stat().st_size
        if frames > stored:  # each frame has a group in the header, or pixels
            raise DataError(
                f"{path}: its header promises {frames} frames, the file has {stored} bytes; it is damaged, copy it again"
            )
        planes += [Plane(path, dataset, frame) for frame in range(frames)]
    if (choice := chosen_series()) is None:
        return planes
    with reading(source):
        kept = [plane for plane in planes if choice.takes(partial(_apart, plane))]
    if not kept:
        groups = _groups(planes)
        listed = _listed(groups, _telling(groups))
        raise DataError(
            f"{source}: holds no image with --series {shlex.quote(choice.text)}, but {listed}; choose of these"
        )
    return kept


def one_series(planes: Sequence[Plane], source: Path) -> list[Plane]:
    """The slices of the only series: equal series, frame of reference, size, orientation and pixel spacing.

    Raises DataError that lists the candidates when there are several, and for images without position.
    """
    groups = _groups(planes)
    if len(groups) > 1:
        raise _several(groups, source)
    if not has_position(groups[0][0].dataset):
        raise DataError(
            f"{source}: its {len(groups[0])} images have no ImagePositionPatient, so they are no volume; give one file at a time"
        )
    return groups[0]


def _groups(planes: Sequence[Plane]) -> list[list[Plane]]:
    groups: list[list[Plane]] = []
    for plane in planes:
        with reading(plane.path):
            same = next((group for group in groups if _belong_together(group[0], plane)), None)
        if same is None:
            groups.append([plane])
        else:
            same.append(plane)
    return groups


def _belong_together(a: Plane, b: Plane) -> bool:
    def identity(plane: Plane) -> tuple[Any, ...]:
        get = plane.dataset.get
        colours = get("SamplesPerPixel") or 1
        return get("SeriesInstanceUID"), get("FrameOfReferenceUID"), plane.size, colours, has_position(plane.dataset)

    if identity(a) != identity(b):
        return False
    if not has_position(a.dataset):
        return True
    return np.allclose(a.axes, b.axes, atol=1e-3) and np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3)


def _several(groups: Sequence[Sequence[Plane]], source: Path, by: str = "") -> DataError:
    """The error that lists candidates and how to choose one; nothing that identifies a patient is in it. by: what tells them
    apart, if that is known."""
    by = by or _telling(groups)
    listed = _listed(groups, by)
    return DataError(f"{source}: holds {len(groups)} series or stacks: {listed}; {_way_out(groups, by)}")


def _listed(groups: Sequence[Sequence[Plane]], by: str) -> str:
    """Number, description and size of each, and its value of the attribute."""
    lines = []
    for group in groups:
        first = group[0]
        columns, rows = first.size
        apart = f", {by} {_apart(first, by)}" if by not in ("", NUMBER, "SeriesDescription") else ""
        named = f"series {_apart(first, NUMBER) or 'without number'} '{_apart(first, 'SeriesDescription')}'"
        lines.append(f"{named} {counted(len(group), 'slice')} of {columns}x{rows}{apart}, as {first.path.name}")
    return "; ".join(lines)


def _way_out(groups: Sequence[Sequence[Plane]], by: str) -> str:
    """How to get at one of several series or stacks."""
    if value := next((value for group in groups if (value := _apart(group[0], by))), "") if by else "":
        choice = chosen_series()
        wanted = f"{choice.text},{by}={value}" if choice else value if by == NUMBER else f"{by}={value}"
        return f"choose one, such as --series {shlex.quote(wanted)} (or {VARIABLE} in the environment)"
    if len({plane.path for group in groups for plane in group}) == 1:
        return "split it into NIfTI files with dcm2niix (dcm2niix -z y FILE), one for each, and give one of them"
    return "copy the files of one to a folder of its own and give that, or give one of its files for that slice alone"


def _apart(plane: Plane, keyword: str) -> str:
    """Text of an attribute; empty where there is none, several values with backslashes between them, as DICOM has them."""
    sequence = _APART.get(keyword)
    value = plane.value(keyword, sequence) if sequence else plane.dataset.get(keyword)
    if value is None:
        return ""
    return str(value) if isinstance(value, str) or not isinstance(value, Sequence) else "\\".join(map(str, value))


def _telling(groups: Sequence[Sequence[Plane]]) -> str:
    """The first attribute that tells them apart, empty without one."""
    return next((keyword for keyword in _APART if _tells_apart(keyword, groups)), "")


def _tells_apart(keyword: str, groups: Sequence[Sequence[Plane]]) -> bool:
    """Whether an attribute has one value in each group, and another in each."""
    found = [{_apart(plane, keyword) for plane in group} for group in groups]
    return all(len(values) == 1 for values in found) and len(set.union(*found)) == len(groups)


def sorted_along_normal(planes: Sequence[Plane]) -> list[Plane]:
    """In order of position along the normal of the first plane."""
    normal = planes[0].normal
    return sorted(planes, key=lambda plane: float(plane.position_mm @ normal))


def share_a_place(a: Plane, b: Plane) -> bool:
    """Whether two slices lie at one position, within a hundredth of a pixel."""
    return bool(np.linalg.norm(a.position_mm - b.position_mm) < _SAME_PLACE * a.spacing_mm.min())


def overlapping(planes: Sequence[Plane], source: Path) -> DataError:
    """The error for different images at one position: what tells them apart, if an attribute does."""
    for keyword in _APART:
        parts: dict[str, list[Plane]] = defaultdict(list)
        for plane in planes:
            parts[_apart(plane, keyword)].append(plane)
        groups = [parts[value] for value in sorted(parts, key=lambda v: (len(v), v))]
        if len(groups) > 1 and not any(share_a_place(a, b) for g in groups for a, b in pairwise(g)):
            return _several(groups, source, keyword)
    double = next(b for a, b in pairwise(planes) if share_a_place(a, b))
    return DataError(
        f"{source}: {len(planes)} slices, several with different pixels at one position (as {double.path.name} at "
        f"{double.position_mm.tolist()} mm); {_way_out([planes], '')}"
    )


def affine(planes: Sequence[Plane], source: Path) -> tuple[Vector, float]:
    """Index (column, row, slice) -> RAS+ millimetres, and the angle in degrees between slice steps and the normal.

    Raises DataError when a slice lies more than UNEVEN of a step off an even stack: one is missing, or steps differ.
    """
    first = planes[0]
    positions = np.stack([plane.position_mm for plane in planes])
    if len(planes) == 1:
        step = first.normal * first.thickness_mm
    else:
        step = (positions[-1] - positions[0]) / (len(planes) - 1)
        even = positions[0] + np.arange(len(planes))[:, None] * step
        size = float(np.linalg.norm(step))
        if np.linalg.norm(positions - even, axis=1).max() > UNEVEN * size:
            raise _uneven(planes, positions, source)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = first.axes[0] * first.spacing_mm[0], first.axes[1] * first.spacing_mm[1]
    lps[:3, 2], lps[:3, 3] = step, positions[0]
    cosine = float(step @ first.normal / np.linalg.norm(step))
    if not cosine > 0.1:
        raise DataError(f"{source}: its slices do not follow each other along their normal; they are no volume")
    return _LPS_TO_RAS @ lps, float(np.degrees(np.arccos(min(1.0, cosine))))


def _uneven(planes: Sequence[Plane], positions: Vector, source: Path) -> DataError:
    """The error for a stack that is not even: which slices are missing, or which steps differ."""
    axis = int(np.abs(positions[-1] - positions[0]).argmax())
    along = positions[:, axis]
    steps = np.diff(along)
    usual = float(np.median(steps))
    counts = np.rint(steps / usual).astype(int)
    if counts.max() > 1 and np.abs(steps / usual - counts).max() < 2 * UNEVEN:
        missing = [along[k] + usual * n for k in np.flatnonzero(counts > 1) for n in range(1, counts[k])]
        places = ", ".join(f"{place:.4g}" for place in missing[:5]) + ", ..." * (len(missing) > 5)
        return DataError(
            f"{source}: {len(missing)} slice{'s' * (len(missing) > 1)} missing at {'xyz'[axis]} = {places} mm ({len(planes)} "
            f"slices from {along[0]:g} to {along[-1]:g} mm, step {abs(usual):g} mm); export the whole series again"
        )
    sizes = sorted({f"{size:.3f}" for size in np.linalg.norm(np.diff(positions, axis=0), axis=1)}, key=float)
    shown = ", ".join(sizes if len(sizes) < 6 else [*sizes[:2], "...", *sizes[-2:]])
    return DataError(
        f"{source}: its slices are unevenly spaced (steps of {shown} mm) or shifted sideways, which no volume can hold; "
        "copy the slices of one even stretch to a folder of its own and give that"
    )
