"""Statistics of images and their labels: sizes, spacing, intensity, and notes on how pictures were made."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import ImageFile
from sampeft.data.slices import PICTURE, SliceView
from sampeft.data.values import Quantiles, Seen
from sampeft.errors import counted
from sampeft.labels import LabelSet
from sampeft.volume import Volume

_LEVELS = ("lowest", "p1", "median", "p99", "highest")
PLANES = ("axial", "coronal", "sagittal")
_AXES = ("across", "down", "along")  # slice after slice, row after row, column after column


@dataclass(frozen=True)
class FileFacts:
    """What is measured of one file.

    size, spacing_mm: slices, rows, columns; spacing None for a raster image. plane: as of `SliceView`, by the spacing.
    digest: of the pixels.
    row, column: mean position of each class in slices as they are looked at (at most 24 of them), NaN where absent.
    """

    file: ImageFile
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    plane: str
    bands: int
    dtype: str
    levels: Quantiles
    digest: str
    row: npt.NDArray[np.float64]
    column: npt.NDArray[np.float64]

    @classmethod
    def of(cls, file: ImageFile, image: Volume, channels: npt.NDArray[Any], classes: int) -> FileFacts:
        """channels: (I, J, K) class channels or IGNORE on the grid of the image."""
        view = SliceView.of(image)
        slices = view.slices(channels)
        digest = hashlib.blake2b(str(image.array.shape).encode(), digest_size=16)
        digest.update(image.array.ravel(order="K").data)
        row, column = _positions(slices[:: -(-len(slices) // 24)], classes)
        return cls(
            file=file,
            size=(slices.shape[0], slices.shape[1], slices.shape[2]),
            spacing_mm=None if image.is_raster else view.spacing_mm,
            plane=view.plane,
            bands=image.array.shape[3] if image.array.ndim == 4 else 1,
            dtype=str(image.array.dtype),
            levels=Quantiles.of(image),
            digest=digest.hexdigest(),
            row=row,
            column=column,
        )


def _positions(slices_SHW: npt.NDArray[Any], classes: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean row and mean column of each class over all slices, NaN where it is absent."""
    height, width = slices_SHW.shape[1:]
    rows, columns = np.zeros((classes, height)), np.zeros((classes, width))
    for channels_HW in map(np.ascontiguousarray, slices_SHW):
        for k in np.flatnonzero(np.bincount(channels_HW[channels_HW >= 0].ravel(), minlength=classes)):
            mask = channels_HW == k
            rows[k] += mask.sum(axis=1)
            columns[k] += mask.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return rows @ np.arange(height) / rows.sum(axis=1), columns @ np.arange(width) / columns.sum(axis=1)


def summary(facts: Sequence[FileFacts]) -> dict[str, Any]:
    """Over all files [lowest, median, highest] of sizes, spacing in mm and grey levels; and how many have which type, and which
    plane by their spacing."""

    def over(values: Sequence[float]) -> list[float]:
        return [round(float(v), 4) for v in (min(values), np.median(values), max(values))]

    if not facts:
        return {}
    volumes = [f.spacing_mm for f in facts if f.spacing_mm is not None]
    spacing = dict(zip(_AXES, map(over, zip(*volumes, strict=True)), strict=True)) if volumes else None
    return {
        "size": dict(
            zip(("slices", "rows", "columns"), map(over, zip(*(f.size for f in facts), strict=True)), strict=True)
        ),
        "spacing_mm": spacing,
        "intensity": dict(zip(_LEVELS, map(over, zip(*(f.levels for f in facts), strict=True)), strict=True)),
        "planes": dict(Counter(f.plane for f in facts).most_common()),
        "types": dict(Counter(f.dtype + (f" x {f.bands} bands" if f.bands > 1 else "") for f in facts).most_common()),
    }


def notes(facts: Sequence[FileFacts], labels: LabelSet, modality: str) -> list[str]:
    """What is no fault but good to know: lost HU, slices that were scaled one by one, pictures that lie upside down."""
    found = []
    pictures = [f for f in facts if f.spacing_mm is None and f.dtype == "uint8"]
    if pictures and modality.upper().startswith("CT"):
        found.append(
            f"{len(pictures)} CT slices are 8-bit pictures: Hounsfield units and spacing are lost; windows in HU cannot "
            "be used, grey levels are taken relative to each picture's body"
        )
        ends = {(f.levels[0], f.levels[-1]) for f in pictures}
        if len(pictures) >= _ENOUGH and len(ends) == 1:
            low, high = next(iter(ends))
            found.append(
                f"each of these {len(pictures)} pictures has the same minimum {low:g} and maximum {high:g}: it seems that "
                "every slice was scaled on its own, so that one grey level means another density in each"
            )
    positive = [f for f in facts if f.spacing_mm is not None and f.levels.lowest >= 0]
    if positive and modality.upper().startswith("CT"):
        found.append(
            f"{counted(len(positive), 'CT volume')} without a value below 0, such as {positive[0].file.image.name}: these are "
            "no Hounsfield units, where air is -1000; give them as they were before any scaling, or subtract what was added "
            "(most often 1024)"
        )
    for bands in sorted({f.bands for f in facts} - {1, 3}):
        chosen = "bands 1, 2 and 3 are" if bands > 3 else "band 1 is"
        found.append(f"images have {bands} bands: {chosen} looked at unless others are chosen with --bands")
    planes = [(f.plane, f) for f in facts if f.plane != PICTURE]
    if len({plane for plane, _ in planes}) > 1:
        chosen = usual_plane(f.plane for f in facts)
        parts = [
            f"{len(of_plane)} {plane} (such as {of_plane[0].file.image.name})"
            for plane in PLANES
            if (of_plane := [f for own, f in planes if own == plane])
        ]
        found.append(
            f"by their spacing the slices of the volumes are {', '.join(parts)}: all are looked at in {chosen} ones unless "
            "another plane is chosen with --plane"
        )
    return found + _upside_down(facts, labels)


def usual_plane(planes: Iterable[str]) -> str:
    """The plane that most volumes ask for by their spacing, of equally many the first of PLANES; `auto` without volumes.

    planes: of each file, pictures among them.
    """
    counts = Counter(plane for plane in planes if plane != PICTURE)
    return max(PLANES, key=lambda plane: counts[plane]) if counts else "auto"


def seen_in(facts: Sequence[FileFacts]) -> Seen | None:
    """What a run that is trained on these files has seen; None without any."""
    if not facts:
        return None
    planes = tuple(plane for plane in (*PLANES, PICTURE) if any(f.plane == plane for f in facts))
    return Seen(min(f.levels.p1 for f in facts), max(f.levels.p99 for f in facts), planes)


_ENOUGH = 5  # files that a note on all of them needs
_BACK = r"kidney|adrenal|vertebra|spine"
_FRONT = r"stomach|gall.?bladder|pancreas"
_RIGHT, _LEFT = r"^liver$|gall.?bladder", r"spleen|stomach"


def _upside_down(facts: Sequence[FileFacts], labels: LabelSet) -> list[str]:
    """Whether organs of a patient's back lie above those of the front, or those of the left side at the left.

    A note needs five files with both kinds and 90 % of them of one mind; otherwise nothing is said.
    """
    found = []
    for first, second, axis, problem in (
        (_FRONT, _BACK, "row", "upside down: organs of the back ({}) lie above those of the front ({})"),
        (
            _RIGHT,
            _LEFT,
            "column",
            "mirrored: organs of the patient's left side ({}) lie to the left of those of the right ({})",
        ),
    ):
        one, other = (
            [k for k in labels.foreground if re.search(pattern, labels.names[k].lower().replace("_", " "))]
            for pattern in (first, second)
        )
        if not one or not other:
            continue
        positions = np.stack([getattr(f, axis) for f in facts]) if facts else np.empty((0, len(labels)))
        apart = _mean(positions[:, other]) - _mean(positions[:, one])
        apart = apart[~np.isnan(apart)]
        wrong = int((apart < 0).sum())
        if len(apart) >= _ENOUGH and wrong >= 0.9 * len(apart):
            names = (", ".join(labels.names[k] for k in group) for group in (other, one))
            found.append(
                f"{wrong} of {len(apart)} images seem to be {problem.format(*names)}; this does no harm as long as all "
                "images, those to predict on too, lie the same way"
            )
    return found


def _mean(positions_FK: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean per file over the classes that it has; NaN without any."""
    known = ~np.isnan(positions_FK)
    with np.errstate(invalid="ignore"):
        mean: npt.NDArray[np.float64] = np.where(known, positions_FK, 0.0).sum(axis=1) / known.sum(axis=1)
    return mean
