"""Dataset in, every pairing, label and geometry fault out; image and label file in, class channels on one grid out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.pairing import image_files
from sampeft.errors import DataError
from sampeft.io import read_label_ids, read_volume
from sampeft.volume import IGNORE, LabelVolume, Volume

GRID_TOLERANCE_VOXELS = 0.1
"""Grids whose corners are closer than this are the same: headers round differently."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file and how to mend it. severity: `error` stops a training, `warning` does not."""

    file: Path
    problem: str
    fix: str
    severity: str = "error"

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}; {self.fix}"


@dataclass(frozen=True)
class ClassCount:
    """Pixels (voxels) of a class and the number of cases that have it."""

    name: str
    id: int
    pixels: int
    cases: int


@dataclass(frozen=True)
class CheckReport:
    """What a check found. ignored: pixels without a truth."""

    root: Path
    cases: int
    files: int
    classes: tuple[ClassCount, ...]
    ignored: int
    faults: tuple[Fault, ...]

    @property
    def errors(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.severity == "error")

    def raise_on_errors(self, shown: int = 3) -> None:
        """Raises one DataError with the first errors, if there are any."""
        errors = self.errors
        if len(errors) == 1:
            raise DataError(str(errors[0]))
        if errors:
            more = f" | and {len(errors) - shown} more" if len(errors) > shown else ""
            raise DataError(f"{self.root}: {len(errors)} faults: {' | '.join(map(str, errors[:shown]))}{more}")

    def table(self) -> str:
        """Markdown table of the classes."""
        rows = [f"| {c.id} | {c.name} | {c.pixels} | {c.cases} of {self.cases} |" for c in self.classes]
        return "\n".join(["| id | class | pixels | cases |", "| ---: | --- | ---: | ---: |", *rows])

    def to_json(self) -> dict[str, Any]:
        faults = [{**asdict(fault), "file": str(fault.file)} for fault in self.faults]
        return {**asdict(self), "root": str(self.root), "faults": faults}


def read_labels(file: ImageFile, dataset: Dataset, image: Volume) -> LabelVolume:
    """The truth of an image as class channels on the image's grid.

    Applies the data set's `label_values`; a mask with 255 for the only class is read as that class, unless 255 means
    something else. A label that is stored with flipped or swapped axes is turned to the image's.
    Raises DataError for a missing label, a value of no class, or another grid.
    """
    return _read_labels(file, dataset, image)[0]


def on_image_grid(label: Volume, image: Volume) -> npt.NDArray[Any]:
    """The label's array on the grid of the image, turned exactly where axes are flipped or swapped.

    Raises DataError when sizes differ or a corner is off by GRID_TOLERANCE_VOXELS or more.
    """
    if label.affine is None or image.affine is None:
        if (label.affine is None) != (image.affine is None) or label.grid != image.grid:
            raise DataError(_sizes_differ(label, image))
        return label.array
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    to_image = np.linalg.inv(image.affine) @ label.affine
    turn = io_orientation(to_image)
    turned = apply_orientation(label.array, turn)
    if turned.shape != image.grid:
        raise DataError(_sizes_differ(label, image))
    # Maps an index of the turned array to the index in the image; the identity when the grids agree.
    index = to_image @ inv_ornt_aff(turn, label.grid)
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in image.grid))]).T
    off = (index - np.eye(4)) @ corners
    if np.abs(off[:3]).max() >= GRID_TOLERANCE_VOXELS:
        off_mm = np.linalg.norm((image.affine @ off)[:3], axis=0).max()
        raise DataError(
            f"{label.path}: its grid is up to {off_mm:.2f} mm away from that of {image.path.name}; resample the label "
            "to the image with nearest neighbour, or correct the affine that is wrong"
        )
    return turned if (turn == [[0, 1], [1, 1], [2, 1]]).all() else np.ascontiguousarray(turned)


def check_dataset(
    dataset: Dataset, cases: Sequence[Case] | None = None, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Open every image and label of the cases (all of them by default) and list what is wrong.

    progress: called with (files done, files). Faults come in the order of the cases, those of the whole set last.
    """
    chosen = dataset.cases if cases is None else tuple(cases)
    jobs = [(case, file) for case in chosen for file in case.files]
    counts = {case.id: np.zeros(len(dataset.labels) + 1, dtype=np.int64) for case in chosen}
    faults: list[Fault] = []
    displayed: list[Path] = []
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda job: _check_file(job[1], dataset), jobs)
        for done, ((case, file), (found, counted, display)) in enumerate(zip(jobs, results, strict=True)):
            faults += found
            counts[case.id] += counted
            displayed += [file.label] if display and file.label else []
            if progress:
                progress(done + 1, len(jobs))
    if displayed:
        name = dataset.labels.names[dataset.labels.foreground[0]]
        problem = f"{len(displayed)} masks hold 255, the first is {displayed[0].name}"
        faults.append(Fault(dataset.root, problem, f"it is read as the only class, '{name}'", "warning"))
    faults += _lonely_labels(dataset)
    faults += _class_faults(dataset, counts)
    table = np.stack([*counts.values(), np.zeros(len(dataset.labels) + 1, dtype=np.int64)])
    classes = tuple(
        ClassCount(name, id, int(table[:, c].sum()), int((table[:, c] > 0).sum()))
        for c, (name, id) in enumerate(zip(dataset.labels.names, dataset.labels.ids, strict=True))
    )
    return CheckReport(dataset.root, len(chosen), len(jobs), classes, int(table[:, -1].sum()), tuple(faults))


def _check_file(file: ImageFile, dataset: Dataset) -> tuple[list[Fault], npt.NDArray[np.int64], bool]:
    """Faults of one image and its label, pixels per class and (last) ignored, and whether 255 was read as the class."""
    classes = len(dataset.labels)
    faults: list[Fault] = []
    counts = np.zeros(classes + 1, dtype=np.int64)
    try:
        image = read_volume(file.image)
        if image.array.dtype.kind == "f" and (bad := int((~np.isfinite(image.array)).sum())):
            faults.append(Fault(file.image, f"{bad} values are NaN or infinite", "replace them by that of air"))
        label, display = _read_labels(file, dataset, image)
    except DataError as error:
        return [*faults, _fault(error, file)], counts, False
    counts[:-1] = _counts(label.array, classes)
    counts[-1] = label.array.size - counts[:-1].sum()
    return faults, counts, display


def _read_labels(file: ImageFile, dataset: Dataset, image: Volume) -> tuple[LabelVolume, bool]:
    if file.label is None:
        raise DataError(f"{file.image}: has no label; add its label file, or take the image out of the data set")
    raw = read_label_ids(file.label)
    ids = on_image_grid(raw, image)
    table = _channel_of_value(dataset)
    values, counts = _values(ids)
    foreground = dataset.labels.foreground
    display = 255 in values and set(values) <= {0, 255} and 255 not in table and len(foreground) == 1
    if display:
        table[255] = foreground[0]
    if unknown := [(value, n) for value, n in zip(values, counts, strict=True) if value not in table]:
        raise DataError(_unknown_ids(file.label, unknown, values, dataset, "pixels" if image.is_raster else "voxels"))
    lowest = min(0, values[0])
    lookup = np.full(values[-1] - lowest + 1, IGNORE, dtype=np.int16)
    for value in values:
        lookup[value - lowest] = table[value]
    channels = lookup[ids - lowest if lowest else ids]
    return LabelVolume(channels, image.affine, file.label), display


def _channel_of_value(dataset: Dataset) -> dict[int, int]:
    """Value in label files -> class channel or IGNORE."""
    labels = dataset.labels
    table = {id: channel for channel, id in enumerate(labels.ids)}
    if labels.ignore is not None:
        table[labels.ignore] = IGNORE
    return {**table, **{value: table[id] for value, id in dataset.label_values.items()}}


def _unknown_ids(path: Path, unknown: list[tuple[int, int]], values: list[int], dataset: Dataset, unit: str) -> str:
    """The message for values that no class has; suggests the nearest id that the file does not use."""
    ids = dataset.labels.ids
    free = [id for id in ids if id not in values] or list(ids)
    shown = ", ".join(f"{value} ({n} {unit})" for value, n in unknown[:5])
    more = f" and {len(unknown) - 5} others" if len(unknown) > 5 else ""
    pairs = ",".join(f"{value}:{min(free, key=lambda id: abs(id - value))}" for value, _ in unknown[:5])
    known = f"{ids[0]}..{ids[-1]}" if ids == tuple(range(ids[0], ids[-1] + 1)) else ", ".join(map(str, ids))
    what, them = (f"label id {shown} is", "it") if len(unknown) == 1 else (f"label ids {shown}{more} are", "them")
    return (
        f"{path}: {what} not in the label map {{{known}}}; map {them} with --map {pairs} or add {them} to the label map"
    )


def _values(ids: npt.NDArray[Any]) -> tuple[list[int], list[int]]:
    """Distinct ids, ascending, and how often each occurs."""
    low, high = int(ids.min()), int(ids.max())
    if low >= 0 and high <= 65535:
        counts = _counts(ids, high + 1)
        values = np.flatnonzero(counts)
        return values.tolist(), counts[values].tolist()
    found, times = np.unique(ids, return_counts=True)
    return found.tolist(), times.tolist()


def _counts(channels: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    """How often 0..classes-1 occur; slab by slab, because bincount makes a 64-bit copy."""
    counts = np.zeros(classes, dtype=np.int64)
    for slab in np.moveaxis(channels, 2, 0):
        flat = slab.ravel()
        counts += np.bincount(flat[flat >= 0], minlength=classes)
    return counts


def _sizes_differ(label: Volume, image: Volume) -> str:
    kinds = ["raster image" if volume.is_raster else "NIfTI" for volume in (label, image)]
    return (
        f"{label.path}: is a {kinds[0]} of size {_size(label)}, its image {image.path.name} a {kinds[1]} of "
        f'{_size(image)}; give the label that was drawn on this image, or leave the pair out ("exclude" in dataset.json)'
    )


def _size(volume: Volume) -> str:
    shape = " x ".join(map(str, volume.grid[:2] if volume.is_raster else volume.grid))
    return f"{shape} {'(rows x columns)' if volume.is_raster else 'voxels'}"


def _lonely_labels(dataset: Dataset) -> list[Fault]:
    files = [file for case in dataset.cases for file in case.files]
    used = {file.image for file in files} | {file.label for file in files}
    folders = sorted({file.label.parent for file in files if file.label})
    return [
        Fault(path, "belongs to no image of the data set", "add its image or remove the label", "warning")
        for folder in folders
        for path in image_files(folder)
        if path not in used
    ]


def _class_faults(dataset: Dataset, counts: dict[str, npt.NDArray[np.int64]]) -> list[Fault]:
    """Warnings for classes that nothing teaches: in no case at all, or in test cases but in no training case."""

    def seen(ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        total: npt.NDArray[np.int64] = sum((counts[i][:-1] for i in ids), np.zeros(len(dataset.labels), np.int64))
        return total > 0

    faults = []
    everywhere = seen(list(counts))
    train = [i for i in dataset.splits.get("train", ()) if i in counts]
    for channel in dataset.labels.foreground:
        name = dataset.labels.names[channel]
        if not everywhere[channel]:
            problem = f"class '{name}' is in none of {len(counts)} cases"
            fix = "it cannot be learned or scored; add cases that have it or remove it from the label map"
            faults.append(Fault(dataset.root, problem, fix, "warning"))
            continue
        for split in ("val", "test"):
            others = [i for i in dataset.splits.get(split, ()) if i in counts]
            if train and others and seen(others)[channel] and not seen(train)[channel]:
                problem = f"class '{name}' is in the {split} cases but in no training case"
                faults.append(Fault(dataset.root, problem, "move a case that has it to the training split", "warning"))
    return faults


def _fault(error: DataError, file: ImageFile) -> Fault:
    """A reader's sentence `file: problem; fix` in its parts."""
    text = str(error)
    path = file.label if file.label and text.startswith(f"{file.label}: ") else file.image
    problem, _, fix = text.removeprefix(f"{path}: ").rpartition("; ")
    return Fault(path, problem, fix)
