"""Metres on the ground of a raster's pixels; square metres of pixels and polygons.

A projected CRS is measured by its own units. Degrees and Mercator maps, whose units are not metres on the ground, go by the
ellipsoid: lengths at the middle of the raster, areas by an equal-area projection.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

EQUAL_AREA = "EPSG:6933"  # cylindrical: parallels and meridians stay straight, so that areas of pixels are exact
_LONGITUDE_LATITUDE = "EPSG:4326"
_SEMI_MAJOR_M, _ECCENTRICITY_2 = 6378137.0, 6.69437999014e-3  # WGS84


def metres_per_unit(crs: Any) -> float | None:
    """Of a projected CRS whose units are lengths on the ground; None for degrees, Mercator, or no CRS."""
    if not crs or not crs.is_projected or crs.to_dict().get("proj") in ("merc", "webmerc"):
        return None
    return float(crs.linear_units_factor[1])


def affine_of(transform: Any, gcps: Any) -> Any:
    """The transform pixels -> map, or the one closest to the ground control points; None without either."""
    if transform is None and gcps:
        from rasterio.transform import from_gcps

        return from_gcps(gcps)
    return transform


def pixel_metres(crs: Any, affine: Any, size: tuple[int, int]) -> tuple[float, float] | None:
    """(down, across) metres on the ground of a pixel in the middle of a raster (H, W); None without a place on the map."""
    if not crs or affine is None:
        return None
    unit = metres_per_unit(crs)
    if unit is not None:
        return float(np.hypot(affine.b, affine.e)) * unit, float(np.hypot(affine.a, affine.d)) * unit
    row, column = size[0] / 2, size[1] / 2
    longitude, latitude = _longitude_latitude(crs, affine, [row, row + 1, row], [column, column, column + 1])
    bend = 1 - _ECCENTRICITY_2 * np.sin(np.radians(latitude[0])) ** 2
    east_m = np.radians(longitude[1:] - longitude[0]) * np.cos(np.radians(latitude[0])) * _SEMI_MAJOR_M / bend**0.5
    north_m = np.radians(latitude[1:] - latitude[0]) * _SEMI_MAJOR_M * (1 - _ECCENTRICITY_2) / bend**1.5
    down, across = np.hypot(east_m, north_m)
    return float(down), float(across)


def row_square_metres(crs: Any, affine: Any, size: tuple[int, int]) -> npt.NDArray[np.float64] | None:
    """(H,) square metres of a pixel in each row of a raster (H, W); None without a place on the map."""
    if not crs or affine is None:
        return None
    unit = metres_per_unit(crs)
    if unit is not None:
        return np.full(size[0], abs(affine.a * affine.e - affine.b * affine.d) * unit**2)
    rows = np.arange(size[0] + 1.0)
    x, y = _placed(crs, affine, np.tile(rows, 2), np.repeat([size[1] // 2, size[1] // 2 + 1], size[0] + 1), EQUAL_AREA)
    corners = np.stack([x, y], axis=-1).reshape(2, size[0] + 1, 2)
    down = corners[0, 1:] - corners[0, :-1]
    across = corners[1, :-1] - corners[0, :-1]
    return np.asarray(np.abs(down[:, 0] * across[:, 1] - down[:, 1] * across[:, 0]))


def _longitude_latitude(
    crs: Any, affine: Any, rows: Any, columns: Any
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return _placed(crs, affine, np.asarray(rows, dtype=float), np.asarray(columns, dtype=float), _LONGITUDE_LATITUDE)


def _placed(
    crs: Any, affine: Any, rows: npt.NDArray[np.float64], columns: npt.NDArray[Any], target: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(x, y) in another CRS of positions in pixels."""
    from rasterio.warp import transform

    x = affine.a * columns + affine.b * rows + affine.c
    y = affine.d * columns + affine.e * rows + affine.f
    xs, ys = transform(crs, target, x.tolist(), y.tolist())
    return np.asarray(xs), np.asarray(ys)
