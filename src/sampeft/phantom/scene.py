"""A canvas for phantoms: soft-edged shapes painted over one another, as HU and labels.

A shape is a box of voxels and, on it, the signed distance to its surface in mm, negative inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Box = tuple[slice, slice, slice]
Knots = Sequence[tuple[float, float, float, float]]  # x, y, z, radius in mm

WHOLE: Box = (slice(None), slice(None), slice(None))
AIR, FAT = -1000, -105  # HU


class Scene:
    """The volume under construction: frame_mm (three (X, Y, Z) arrays), hu, labels; shapes are (box, distance_mm)."""

    def __init__(self, frame_mm: tuple[Array, Array, Array], texture: Array, edge_mm: float) -> None:
        self.frame_mm, self.texture, self.edge_mm = frame_mm, texture, edge_mm
        self.hu = np.full(texture.shape, AIR, dtype=np.float32)
        self.labels = np.zeros(texture.shape, dtype=np.uint8)
        others = ((1, 2), (0, 2), (0, 1))
        self._range = [(c.min(axis=o), c.max(axis=o)) for c, o in zip(frame_mm, others, strict=True)]

    def box(self, low_mm: npt.ArrayLike, high_mm: npt.ArrayLike) -> Box:
        """Smallest box of voxels that holds every point of the frame between the corners, one edge width more."""
        found = []
        for (lowest, highest), low, high in zip(self._range, np.asarray(low_mm), np.asarray(high_mm), strict=True):
            inside = np.flatnonzero((highest >= low - self.edge_mm) & (lowest <= high + self.edge_mm))
            found.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
        return found[0], found[1], found[2]

    def at(self, box: Box) -> tuple[Array, Array, Array]:
        x, y, z = self.frame_mm
        return x[box], y[box], z[box]

    def paint(self, box: Box, distance_mm: Array, hu: float | Array, label: int | None = None) -> None:
        """Blend `hu` in where the distance is negative and write `label` there; None leaves the labels as they are."""
        cover = np.clip(0.5 - distance_mm / self.edge_mm, 0, 1)
        self.hu[box] += cover * (hu - self.hu[box])
        if label is not None:
            self.labels[box][cover > 0.5] = label

    def organ(
        self, box: Box, distance_mm: Array, hu: float, label: int, sheath_mm: float = 1.5, mottle: float = 4
    ) -> None:
        """Paint an organ of slightly uneven density in a thin sheath of fat."""
        self.paint(box, distance_mm - sheath_mm, FAT, 0)
        self.paint(box, distance_mm, hu + mottle * self.texture[box], label)

    def ellipsoid(
        self, centre_mm: npt.ArrayLike, radii_mm: npt.ArrayLike, lean: tuple[float, float] = (0, 0)
    ) -> tuple[Box, Array]:
        """Ellipsoid; `lean` shifts x and y by so many mm per mm of z."""
        centre, radii = np.asarray(centre_mm, dtype=np.float32), np.asarray(radii_mm, dtype=np.float32)
        reach = radii + np.abs([*lean, 0]) * radii[2]
        box = self.box(centre - reach - 6, centre + reach + 6)
        x, y, z = (c - m for c, m in zip(self.at(box), centre, strict=True))
        u, v, w = (x - lean[0] * z) / radii[0], (y - lean[1] * z) / radii[1], z / radii[2]
        k = np.sqrt(u * u + v * v + w * w)
        slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
        return box, k * (k - 1) / np.maximum(slope, 1e-3)

    def tube(self, knots: Knots, flat: float = 1.0, rough_mm: float = 0.0) -> tuple[Box, Array]:
        """Tube along a smooth line through the knots; `flat` < 1 squeezes it front to back, `rough_mm` roughens it."""
        from scipy.interpolate import PchipInterpolator

        points = np.asarray(knots, dtype=np.float64)
        way = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1) + 1e-3)])
        steps = max(len(points), round(way[-1] / 7)) + 1 if len(points) > 2 else 2
        line = PchipInterpolator(way, points)(np.linspace(0, way[-1], steps)).astype(np.float32)
        margin = line[:, 3:] + 5
        box = self.box((line[:, :3] - margin).min(axis=0), (line[:, :3] + margin).max(axis=0))
        distance = np.full(self.hu[box].shape, 99, dtype=np.float32)
        for a, b in pairwise(line):
            reach = max(a[3], b[3]) + 5
            near = self.box(np.minimum(a, b)[:3] - reach, np.maximum(a, b)[:3] + reach)
            i, j, k = (slice(max(n.start, o.start), min(n.stop, o.stop)) for n, o in zip(near, box, strict=True))
            if any(s.start >= s.stop for s in (i, j, k)):
                continue
            part, local = (
                (i, j, k),
                tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip((i, j, k), box, strict=True)),
            )
            x, y, z = (c - m for c, m in zip(self.at(part), a[:3], strict=True))
            y = y / flat
            ux, uy, uz = b[:3] - a[:3]
            uy = uy / flat
            t = np.clip((x * ux + y * uy + z * uz) / (ux * ux + uy * uy + uz * uz + 1e-6), 0, 1)
            gap = np.sqrt((x - t * ux) ** 2 + (y - t * uy) ** 2 + (z - t * uz) ** 2) - (a[3] + t * (b[3] - a[3]))
            distance[local] = np.minimum(distance[local], gap)
        return box, distance + rough_mm * self.texture[box]


def smooth_field(rng: np.random.Generator, axes_mm: Sequence[Array], scale_mm: float) -> Array:
    """(X, Y, Z) random field of unit variance that varies over about `scale_mm`."""
    bases = []
    for axis in axes_mm:
        extent = len(axis) * abs(float(axis[1] - axis[0]))  # from voxel edge to edge: the same on every grid
        count = max(2, round(extent / scale_mm) + 1)
        centres = np.linspace(-extent / 2, extent / 2, count, dtype=np.float32) + axis.mean()
        bases.append(np.exp(-0.5 * ((axis[:, None] - centres) / (0.7 * scale_mm)) ** 2))
    field = rng.standard_normal([b.shape[1] for b in bases]).astype(np.float32)
    for basis in bases:  # each product moves its axis to the end, so three of them restore the order
        field = np.tensordot(field, basis, axes=(0, 1))
    return np.asarray(field / field.std(), dtype=np.float32)


def smooth_max(*distances_mm: Array, round_mm: float = 8.0) -> Array:
    """Intersection of shapes with edges rounded over about `round_mm`."""
    result = distances_mm[0]
    for other in distances_mm[1:]:
        blend = np.maximum(round_mm - np.abs(result - other), 0)
        result = np.maximum(result, other) + blend * blend / (4 * round_mm)
    return result
