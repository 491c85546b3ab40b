"""Outlines of a label file as GeoJSON or GeoPackage, each with class and square metres."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np

from sampeft.errors import DataError, UsageError
from sampeft.io import geotiff
from sampeft.io.georeference import EQUAL_AREA, metres_per_unit
from sampeft.io.raster_windows import disk_told
from sampeft.labels import LabelSet

Kind = Literal["geojson", "gpkg"]
KINDS: tuple[str, ...] = get_args(Kind)
LAYER = "classes"
_MANY = 2000  # polygons that are turned and written at a time
_DIGITS = 8  # of degrees: a millimetre


@dataclass(frozen=True)
class Area:
    """A connected area of one class: polygon in the map's own coordinates (pixels where it has no CRS), its id in files,
    and its size in square metres (pixels without a CRS), as drawn by the pixels, however the outline is simplified."""

    polygon: Any
    id: int
    size: float


def write_areas(
    map_path: Path, out: Path, labels: LabelSet, kind: Kind, min_area: float = 0.0, simplify: float = 0.0
) -> int:
    """Write the outlines of all classes but `background` of a GeoTIFF or PNG of ids; returns how many there are.

    GeoJSON follows RFC 7946: longitude and latitude on WGS84; a map without a CRS gives pixels, x to the right and y
    down, and says so in its member `coordinates`. A GeoPackage keeps the CRS; its layer is `classes`.
    min_area: smaller areas are left out, square metres or, without a CRS, pixels. simplify: about how many pixels wide
    the corners are that are left out; neighbours keep their common border. Pixels join by their sides, not corners.
    Memory holds the outlines, and with `simplify` all of them as polygons, but never the map.
    Raises UsageError for a map that has no place for polygons, DataError without the extra `geo`, OSError from the disk.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind of outlines '{kind}'; known: {', '.join(KINDS)}")
    try:
        import pyogrio  # noqa: F401
        import shapely
    except ImportError as error:
        raise DataError(f"{map_path}: outlines need {error.name}; pip install 'sampeft[geo]'") from None
    with geotiff.open_file(map_path) as ids:
        if ids.gcps[0] and ids.crs is None:
            raise UsageError(f"{map_path}: lies by ground control points only; warp the image first (gdalwarp)")
        if kind == "gpkg" and not ids.crs:
            raise UsageError(f"{map_path}: has no CRS, which a GeoPackage needs; write geojson, in pixels")
        areas = _areas(ids, labels, min_area)
        if simplify > 0:
            pixel = float(np.sqrt(abs(ids.transform.determinant)))
            areas = _simplified(list(areas), simplify * pixel, shapely)
        temporary = out.with_name(f".{out.stem}.{uuid.uuid4().hex}.{kind}")
        try:
            write = _write_geojson if kind == "geojson" else _write_geopackage
            with disk_told(out):
                count = write(temporary, areas, labels, ids.crs)
            os.replace(temporary, out)
        except BaseException as error:
            if isinstance(error, OSError):
                error.filename = str(out)
            raise
        finally:
            for left in out.parent.glob(f"{temporary.name}*"):  # the file, or a journal of the GeoPackage
                left.unlink()
    return count


def _areas(ids: Any, labels: LabelSet, min_area: float) -> Iterator[Area]:
    """All areas of classes with a colour of their own, in the order in which the map is read."""
    import rasterio
    import shapely
    from rasterio.features import shapes

    shown = {labels.ids[k] for k in labels.foreground}
    found = shapes(rasterio.band(ids, 1), connectivity=4, transform=ids.transform)
    outlines = ((outline, int(id)) for outline, id in found if int(id) in shown)
    unit = metres_per_unit(ids.crs)
    while some := list(islice(outlines, _MANY)):
        polygons = [shapely.geometry.shape(outline) for outline, _ in some]
        if unit is not None:
            sizes = shapely.area(polygons) * unit**2
        else:
            measured = [outline for outline, _ in some]
            if ids.crs:
                measured = rasterio.warp.transform_geom(ids.crs, EQUAL_AREA, measured)
            sizes = shapely.area([shapely.geometry.shape(outline) for outline in measured])
        for polygon, (_, id), size in zip(polygons, some, sizes.tolist(), strict=True):
            if size >= min_area:
                yield Area(polygon, id, size)


def _simplified(areas: Sequence[Area], tolerance: float, shapely: Any) -> Iterator[Area]:
    for area, polygon in zip(areas, shapely.coverage_simplify([a.polygon for a in areas], tolerance), strict=True):
        if not polygon.is_empty:
            yield Area(polygon, area.id, area.size)


def _write_geojson(path: Path, areas: Iterator[Area], labels: LabelSet, crs: Any) -> int:
    names = dict(zip(labels.ids, labels.names, strict=True))
    unit = "area_m2" if crs else "area_pixels"
    count = 0
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        said = "" if crs else '"coordinates": "pixels of the image: x to the right, y down", '
        file.write(f'{{"type": "FeatureCollection", {said}"features": [')
        while some := list(islice(areas, _MANY)):
            for area, geometry in zip(some, _longitude_latitude(some, crs), strict=True):
                properties = {"class_id": area.id, "name": names[area.id], unit: round(area.size, 2)}
                feature = {"type": "Feature", "properties": properties, "geometry": geometry}
                _write_json(file, feature, first=count == 0)
                count += 1
        file.write("\n]}\n")
        file.flush()
        os.fsync(file.fileno())
    return count


def _write_json(file: IO[str], feature: dict[str, Any], first: bool) -> None:
    file.write(("\n" if first else ",\n") + json.dumps(feature, ensure_ascii=False))


def _longitude_latitude(areas: Sequence[Area], crs: Any) -> list[dict[str, Any]]:
    """Geometries with outer rings against the clock, as RFC 7946 wants them; cut where they cross 180 degrees."""
    import shapely
    from rasterio.warp import transform_geom

    geometries = [shapely.geometry.mapping(area.polygon) for area in areas]
    if crs:
        geometries = transform_geom(crs, "EPSG:4326", geometries, antimeridian_cutting=True)
    turned = [shapely.orient_polygons(shapely.geometry.shape(g), exterior_cw=False) for g in geometries]
    return [_rounded(shapely.geometry.mapping(polygon)) for polygon in turned]


def _rounded(geometry: dict[str, Any]) -> dict[str, Any]:
    def rounded(positions: Any) -> Any:
        if isinstance(positions[0], float):
            return [round(number, _DIGITS) for number in positions[:2]]
        return [rounded(position) for position in positions]

    return {"type": geometry["type"], "coordinates": rounded(geometry["coordinates"])}


def _write_geopackage(path: Path, areas: Iterator[Area], labels: LabelSet, crs: Any) -> int:
    import shapely
    from pyogrio.raw import write

    names = dict(zip(labels.ids, labels.names, strict=True))
    count = 0
    while True:
        some = list(islice(areas, _MANY))
        if not some and count:
            return count
        write(
            path,
            shapely.to_wkb([area.polygon for area in some]) if some else np.array([], dtype=object),
            [
                np.array([area.id for area in some], dtype=np.int32),
                np.array([names[area.id] for area in some], dtype=object),
                np.array([area.size for area in some], dtype=np.float64),
            ],
            ["class_id", "name", "area_m2"],
            layer=LAYER,
            driver="GPKG",
            geometry_type="Polygon",
            crs=crs.to_wkt(),
            append=count > 0,
        )
        count += len(some)
        if not some:
            return 0
