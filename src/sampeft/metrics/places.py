"""Where the truth of each class lies, as the mean position of its pixels: what tells truths of equal pixel counts apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]
Unit = Literal["mm", "px"]

PLACES: dict[Unit, tuple[str, str, str]] = {
    "mm": ("truth_x_mm", "truth_y_mm", "truth_z_mm"),
    "px": ("truth_row_px", "truth_column_px", "truth_slice_px"),
}
"""Names of a mean position by its unit: in NIfTI's RAS+ world, or along the array axes of a picture or raster."""
PLACE_TOLERANCE: dict[Unit, float] = {"mm": 0.1, "px": 0.001}
"""Mean positions that are closer are the same: headers round differently, pixels are counted."""


def position_sums(
    truth: npt.NDArray[Any], boxes: Sequence[tuple[slice, ...]], origin: Sequence[int], channels: Iterable[int]
) -> npt.NDArray[np.int64]:
    """(K, axes) sums of the indices of each class's pixels; zeros for classes that are not among the channels.

    boxes: of all K classes; boxes[k] holds all pixels of class k. origin: index of the first pixel of the array.
    """
    sums = np.zeros((len(boxes), truth.ndim), dtype=np.int64)
    for k in channels:
        mask = truth[boxes[k]] == k
        for axis, side in enumerate(boxes[k]):
            others = tuple(other for other in range(truth.ndim) if other != axis)
            indices = origin[axis] + np.arange(side.start, side.stop)
            sums[k, axis] = indices @ np.count_nonzero(mask, axis=others)
    return sums


def positions_of(
    sums: npt.NDArray[np.int64], pixels_K: npt.NDArray[np.int64], axes: Sequence[int], unit: Unit, affine: Affine | None
) -> npt.NDArray[np.float64] | None:
    """(K, 3) sums of the positions of each class's pixels: indices for px, mm by the affine, None for mm without one.

    sums: as `position_sums` gives them along these axes of the volume, whose other axes have one pixel.
    """
    positions_K3 = np.zeros((len(sums), 3))
    positions_K3[:, list(axes)] = sums
    if unit == "px":
        return positions_K3
    return None if affine is None else positions_K3 @ affine[:3, :3].T + np.outer(pixels_K, affine[:3, 3])
