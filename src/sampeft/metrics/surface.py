"""Distances between the surfaces of masks: NSD, HD95 and ASSD.

The surface is made of elements that sit on the corners of the pixels: the triangles of marching cubes within each
2 x 2 x 2 pixels (each 2 x 2 in a picture), weighted by their area (length). So a number does not depend on how finely
a surface is sampled. Definition and values are those of DeepMind's `surface-distance` (Nikolov et al. 2018,
arXiv:1809.04430); `elements="pixels"` takes border pixels of equal weight instead, as MONAI and medpy do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from sampeft.metrics.counts import used_box

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float64]
Elements = Literal["area", "pixels"]

_STEPS = 400  # closest offsets that are tried one by one; the points still without a partner go to a tree


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Elements of two surfaces. Elements of several files join with `+`.

    truth_distance, prediction_distance: (N,), (M,) from each element to the other surface, in the unit of the spacing;
    inf where there is no other surface. truth_weight, prediction_weight: areas, or ones.
    """

    truth_distance: Array
    truth_weight: Array
    prediction_distance: Array
    prediction_weight: Array
    elements: Elements = "area"

    def __add__(self, other: Surfaces) -> Surfaces:
        if self.elements != other.elements:
            raise ValueError(f"cannot join surfaces of '{self.elements}' and '{other.elements}'")
        return Surfaces(
            np.concatenate([self.truth_distance, other.truth_distance]),
            np.concatenate([self.truth_weight, other.truth_weight]),
            np.concatenate([self.prediction_distance, other.prediction_distance]),
            np.concatenate([self.prediction_weight, other.prediction_weight]),
            self.elements,
        )

    @property
    def missing(self) -> float | None:
        """The distance where it is not measured: NaN when neither surface exists, inf when one of them does not."""
        if not self.truth_distance.size and not self.prediction_distance.size:
            return float("nan")
        return None if self.truth_distance.size and self.prediction_distance.size else float("inf")


def surfaces(
    prediction: Mask,
    truth: Mask,
    spacing: Sequence[float],
    ignored: Mask | None = None,
    elements: Elements = "area",
    limit: float = np.inf,
) -> Surfaces:
    """Surface elements of two masks of equal shape, 2-D or 3-D, and their distances.

    spacing: size of a pixel along each axis. ignored: pixels without a truth; elements that touch one are left out of
    both surfaces. limit: longer distances need not be known and are inf. What lies outside the array is outside the
    object. Raises ValueError for other shapes.
    """
    if prediction.shape != truth.shape or truth.ndim not in (2, 3) or len(spacing) != truth.ndim:
        raise ValueError(
            f"masks {prediction.shape} and {truth.shape} with spacing {tuple(spacing)}: need equal 2-D or 3-D"
        )
    box = used_box(prediction, truth)
    if ignored is not None and ignored.any():
        box = widened(box, truth.shape)  # an ignored pixel just outside touches the elements at the edge
    offsets, lengths = _offsets(tuple(float(s) for s in spacing))
    margin = np.abs(offsets).max(axis=0) + 1  # so that no offset leads out of the array
    inside = [_padded(mask[box], margin) for mask in (truth, prediction)]
    unknown = None
    if ignored is not None and ignored[box].any():
        unknown = _padded(ignored[box], margin)
        unknown = _codes(unknown) > 0 if elements == "area" else _grown(unknown)
    borders, places, weights = [], [], []
    for mask in inside:
        codes = _codes(mask) if elements == "area" else None
        full = (1 << (1 << mask.ndim)) - 1
        border = _border_pixels(mask) if codes is None else (codes != 0) & (codes != full)
        if unknown is not None:
            border &= ~unknown
        at = np.flatnonzero(border)
        borders.append(border)
        places.append(at)
        weights.append(np.ones(at.size) if codes is None else element_sizes(spacing)[codes.ravel().take(at)])
    distances = [_nearest(places[i], borders[1 - i], spacing, offsets, lengths, limit) for i in (0, 1)]
    return Surfaces(distances[0], weights[0], distances[1], weights[1], elements)


def nsd(found: Surfaces, tolerance: float) -> float:
    """Normalised surface distance (surface Dice): the share of both surfaces within the tolerance of the other, 0..1.

    NaN when neither surface exists, 0 when one of them does not.
    """
    if found.missing is not None:
        return 0.0 if found.missing > 0 else float("nan")
    near = found.truth_weight[found.truth_distance <= tolerance].sum()
    near += found.prediction_weight[found.prediction_distance <= tolerance].sum()
    return float(near / (found.truth_weight.sum() + found.prediction_weight.sum()))


def hausdorff(found: Surfaces, percent: float = 95.0) -> float:
    """The larger of both directions' percentiles of the distance; 100 is the Hausdorff distance itself.

    By area: the distance that so much of the surface stays below. By pixels: interpolated between ranks.
    NaN when neither surface exists, inf when one of them does not.
    """
    if found.missing is not None:
        return found.missing
    percentile = _weighted_percentile if found.elements == "area" else _percentile
    return max(
        percentile(found.truth_distance, found.truth_weight, percent),
        percentile(found.prediction_distance, found.prediction_weight, percent),
    )


def assd(found: Surfaces) -> float:
    """Average symmetric surface distance: the mean distance over both surfaces together.

    NaN when neither surface exists, inf when one of them does not.
    """
    if found.missing is not None:
        return found.missing
    total = found.truth_distance @ found.truth_weight + found.prediction_distance @ found.prediction_weight
    return float(total / (found.truth_weight.sum() + found.prediction_weight.sum()))


def element_sizes(spacing: Sequence[float]) -> Array:
    """Area (length in 2-D) of the surface within 2 x 2 x 2 (2 x 2) pixels, by the code of the pixels that are set.

    Where marching cubes leaves a choice, the smaller surface. Spacing in mm gives mm2 (mm).
    """
    vectors, first = _element_vectors(len(spacing))
    scale = np.prod(spacing) / np.asarray(spacing, dtype=np.float64)
    if len(spacing) == 2:
        scale = scale[::-1]
    sizes = np.add.reduceat(np.linalg.norm(vectors * scale, axis=1), first)
    return np.minimum(sizes, sizes[::-1])


@cache
def _element_vectors(dimensions: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Area vectors of the triangles (or the lines) of each code at unit spacing, and each code's first row."""
    from skimage.measure import find_contours, marching_cubes

    vectors: list[Array] = []
    first: list[int] = []
    codes = 1 << (1 << dimensions)
    for code in range(codes):
        first.append(len(vectors))
        vectors.append(np.zeros(dimensions))
        if 0 < code < codes - 1:
            bits = [(code >> bit) & 1 for bit in reversed(range(1 << dimensions))]
            corners = np.array(bits, dtype=np.float32).reshape((2,) * dimensions)
            if dimensions == 3:
                points, faces, _, _ = marching_cubes(corners, 0.5, method="lorensen")
                a, b, c = points[faces].astype(np.float64).transpose(1, 0, 2)
                vectors += list(np.cross(b - a, c - a) / 2)
            else:
                vectors += [step for line in find_contours(corners, 0.5) for step in np.diff(line, axis=0)]
    return np.array(vectors), np.array(first)


def _padded(mask: Mask, margin: npt.NDArray[np.int64]) -> Mask:
    result = np.zeros(np.asarray(mask.shape) + 2 * margin, dtype=bool)
    result[tuple(slice(m, m + n) for m, n in zip(margin, mask.shape, strict=True))] = mask
    return result


def _codes(mask: Mask) -> npt.NDArray[np.uint8]:
    """Which of the 2 x 2 x 2 (2 x 2) pixels around each inner corner are set, one bit each; an element is at a corner."""
    codes = mask.view(np.uint8)
    for axis in reversed(range(mask.ndim)):
        before, after = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        codes = (codes[tuple(before)] << np.uint8(1 << (mask.ndim - 1 - axis))) | codes[tuple(after)]
    return codes


def _border_pixels(mask: Mask) -> Mask:
    """Pixels of the mask with a face towards the outside."""
    from scipy.ndimage import binary_erosion

    border: Mask = mask & ~binary_erosion(mask)
    return border


def _grown(mask: Mask) -> Mask:
    """The mask and the pixels that share a face with it."""
    from scipy.ndimage import binary_dilation

    grown: Mask = binary_dilation(mask)
    return grown


def widened(box: tuple[slice, ...], shape: Sequence[int]) -> tuple[slice, ...]:
    """The box with one pixel more on each side, as far as the array goes; an empty box stays empty."""
    return tuple(
        slice(max(side.start - 1, 0), min(side.stop + 1, n)) if side.stop > side.start else side
        for side, n in zip(box, shape, strict=True)
    )


def _nearest(
    at: npt.NDArray[np.int64],
    goal: Mask,
    spacing: Sequence[float],
    offsets: npt.NDArray[np.int64],
    lengths: Array,
    limit: float,
) -> Array:
    """(N,) distance of each place (flat index) to the closest set pixel of `goal`; inf where there is none within limit.

    Exact: offsets are tried from the closest on, and whoever finds no partner among them asks a tree.
    """
    result = np.full(len(at), np.inf)
    if not at.size or not goal.any():
        return result
    steps = offsets @ np.array([int(np.prod(goal.shape[a + 1 :])) for a in range(goal.ndim)])
    flat, left = goal.ravel(), np.arange(len(at))
    firsts = np.flatnonzero(np.diff(lengths, prepend=-1.0))  # offsets of one length are looked at together
    for first, last in zip(firsts, [*firsts[1:], len(lengths)], strict=True):
        if lengths[first] > limit:
            return result
        hit = flat.take(at + steps[first])
        for step in steps[first + 1 : last]:
            hit |= flat.take(at + step)
        result[left[hit]] = lengths[first]
        at, left = at[~hit], left[~hit]
        if not left.size:
            return result
    from scipy.spatial import cKDTree

    size = np.asarray(spacing, dtype=np.float64)
    goals, points = np.argwhere(goal), np.stack(np.unravel_index(at, goal.shape), axis=1)
    _, closest = cKDTree(goals * size, balanced_tree=False, compact_nodes=False).query(points * size)
    result[left] = np.sqrt((((goals[closest] - points) * size) ** 2).sum(axis=1))
    result[result > limit] = np.inf
    return result


@cache
def _offsets(spacing: tuple[float, ...]) -> tuple[npt.NDArray[np.int64], Array]:
    """All offsets up to some length, the shortest first, and their lengths; about _STEPS."""
    size = np.asarray(spacing)
    ball = np.pi if len(spacing) == 2 else 4 * np.pi / 3
    radius = max(float((_STEPS * np.prod(size) / ball) ** (1 / len(spacing))), float(size.min()))
    axes = [np.arange(-r, r + 1) for r in np.floor(radius / size).astype(int)]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(spacing))
    lengths = np.sqrt(((offsets * size) ** 2).sum(axis=1))
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius]
    return offsets[order], lengths[order]


def _weighted_percentile(distance: Array, weight: Array, percent: float) -> float:
    order = np.argsort(distance, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    return float(distance[order][min(int(np.searchsorted(share, percent / 100)), len(order) - 1)])


def _percentile(distance: Array, _: Array, percent: float) -> float:
    rank = percent / 100 * (len(distance) - 1)
    low, high = np.sort(distance)[[int(np.floor(rank)), int(np.ceil(rank))]]
    return float(low if low == high else low + (rank - np.floor(rank)) * (high - low))
