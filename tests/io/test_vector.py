"""Outlines and areas of a map of classes: sizes on the ground, places on the globe, borders that neighbours share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricate import write_png
from fabricate.maps import place, write_tiff
from sampeft.errors import UsageError
from sampeft.io.areas import class_areas
from sampeft.io.georeference import pixel_metres, row_square_metres
from sampeft.io.vector import write_areas
from sampeft.labels import LabelSet

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
shapely = pytest.importorskip("shapely", reason="needs the extra geo")
pyogrio = pytest.importorskip("pyogrio", reason="needs the extra geo")

LABELS = LabelSet(("background", "field", "lake"), (0, 3, 7), ignore=255)
IDS = np.array(
    [
        [0, 3, 3, 3, 255],
        [0, 3, 7, 3, 255],
        [0, 3, 3, 3, 7],
        [0, 0, 0, 0, 7],
    ],
    dtype=np.uint8,
)


def read_geojson(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["features"])


def test_outlines_by_hand_in_a_geopackage(tmp_path: Path) -> None:
    """A ring of 8 pixels of 16 m2 round a lake of one; a second lake of two at the corner. Background and ignored pixels
    have no outline; the CRS is the map's."""
    path = write_tiff(tmp_path / "a.tif", IDS[None], **place(100.0, 500.0))
    assert write_areas(path, tmp_path / "a.gpkg", LABELS, "gpkg") == 3
    facts, _, geometries, fields = pyogrio.raw.read(tmp_path / "a.gpkg")
    assert facts["crs"] == "EPSG:32650"
    columns = dict(zip(facts["fields"], fields, strict=True))
    found = sorted(zip(columns["class_id"].tolist(), columns["name"], columns["area_m2"], strict=True))
    assert found == [(3, "field", 128.0), (7, "lake", 16.0), (7, "lake", 32.0)]
    by_size = {size: shapely.from_wkb(g) for size, g in zip(columns["area_m2"], geometries, strict=True)}
    assert by_size[32.0].bounds == (116, 484, 120, 492)
    assert by_size[128.0].bounds == (104, 488, 116, 500)
    assert len(by_size[128.0].interiors) == 1
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_geojson_is_longitude_and_latitude_against_the_clock(tmp_path: Path) -> None:
    """RFC 7946, 3.1.6 and 4; corners where rasterio's own transformation puts them."""
    path = write_tiff(tmp_path / "a.tif", IDS[None], **place())
    write_areas(path, tmp_path / "a.geojson", LABELS, "geojson", min_area=100)
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert set(content) == {"type", "features"}
    (feature,) = content["features"]
    assert feature["properties"] == {"class_id": 3, "name": "field", "area_m2": 128.0}
    outer, inner = feature["geometry"]["coordinates"]
    assert shapely.LinearRing(outer).is_ccw
    assert not shapely.LinearRing(inner).is_ccw
    west, north = 412_000.5 + 4, 3_345_000.25
    (longitude,), (latitude,) = rasterio.warp.transform("EPSG:32650", "EPSG:4326", [west], [north])
    assert np.abs(np.array(outer) - [longitude, latitude]).sum(axis=1).min() < 1e-7


def test_a_map_without_a_place_gives_pixels_and_says_so(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", IDS)
    assert write_areas(path, tmp_path / "a.geojson", LABELS, "geojson", min_area=2) == 2
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["coordinates"].startswith("pixels of the image")
    lake = next(f for f in content["features"] if f["properties"]["name"] == "lake")
    assert lake["properties"] == {"class_id": 7, "name": "lake", "area_pixels": 2.0}
    assert shapely.geometry.shape(lake["geometry"]).bounds == (4, 2, 5, 4)
    with pytest.raises(UsageError, match=r"a\.png: has no CRS, which a GeoPackage needs"):
        write_areas(path, tmp_path / "a.gpkg", LABELS, "gpkg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.geojson", "a.png"]


@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
def test_a_map_without_areas_gives_an_empty_layer(kind: str, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((1, 4, 4), np.uint8), **place())
    assert write_areas(path, tmp_path / f"a.{kind}", LABELS, kind) == 0  # type: ignore[arg-type]
    if kind == "geojson":
        assert read_geojson(tmp_path / "a.geojson") == []
    else:
        assert len(pyogrio.raw.read(tmp_path / "a.gpkg")[2]) == 0


def test_simplified_neighbours_keep_their_common_border(tmp_path: Path) -> None:
    """A border along a slope loses its steps; both sides still meet without gap or overlap, sizes are those of pixels."""
    x, y = np.meshgrid(np.arange(40), np.arange(40))
    ids = np.where(x > 0.6 * y + 5, 3, 7).astype(np.uint8)
    path = write_tiff(tmp_path / "a.tif", ids[None], **place(0.0, 160.0))
    write_areas(path, tmp_path / "a.gpkg", LABELS, "gpkg", simplify=3)
    facts, _, geometries, fields = pyogrio.raw.read(tmp_path / "a.gpkg")
    one, other = shapely.from_wkb(geometries)
    assert sum(shapely.get_num_coordinates([one, other])) < 20
    assert shapely.area(one.intersection(other)) == 0
    assert shapely.area(one.union(other)) == pytest.approx(160**2)
    sizes = dict(zip(*(fields[list(facts["fields"]).index(n)].tolist() for n in ("class_id", "area_m2")), strict=True))
    assert sizes == {3: 16.0 * (ids == 3).sum(), 7: 16.0 * (ids == 7).sum()}


def test_degrees_are_measured_on_the_ellipsoid(tmp_path: Path) -> None:
    """A degree of the zone from the equator to latitude 1, by the closed form of a zone's area on WGS84; the outline's size
    is that of its pixels."""
    e = np.sqrt(6.69437999014e-3)
    s = np.sin(np.radians(1))
    zone = 6378137.0**2 * (1 - e**2) / 2 * (s / (1 - (e * s) ** 2) + np.arctanh(e * s) / e) * np.radians(1) / 1e6
    ids = np.full((1, 10, 10), 7, np.uint8)
    path = write_tiff(tmp_path / "a.tif", ids, **place(20.0, 1.0, 0.1, "EPSG:4326"))
    lake = class_areas(path, LABELS)[2]
    assert (lake.name, lake.pixels) == ("lake", 100)
    assert lake.square_metres / 1e6 == pytest.approx(zone, rel=1e-8)
    write_areas(path, tmp_path / "a.geojson", LABELS, "geojson")
    (feature,) = read_geojson(tmp_path / "a.geojson")
    assert feature["properties"]["area_m2"] == pytest.approx(zone * 1e6, rel=1e-8)


def test_pixels_in_metres_by_hand() -> None:
    """UTM by its own units, survey feet turned, degrees at 60 north by the ellipsoid, Mercator by its stretch there."""
    from affine import Affine
    from rasterio.crs import CRS

    metre = Affine(4, 0, 0, 0, -2, 0)
    assert pixel_metres(CRS.from_epsg(32650), metre, (10, 10)) == (2, 4)
    feet = pixel_metres(CRS.from_epsg(2263), Affine(10, 0, 0, 0, -10, 0), (10, 10))
    assert feet == pytest.approx((3.048006, 3.048006), rel=1e-6)
    degree = Affine(1e-5, 0, 10, 0, -1e-5, 60)
    down, across = pixel_metres(CRS.from_epsg(4326), degree, (0, 0))
    assert (down, across) == pytest.approx((1.11412, 0.55800), abs=2e-5)  # 111,412 m and 55,800 m a degree at 60 north
    mercator = Affine(10, 0, 0, 0, -10, 8399737.9)  # the same latitude
    assert pixel_metres(CRS.from_epsg(3857), mercator, (0, 0)) == pytest.approx((5, 5), rel=5e-3)
    area = row_square_metres(CRS.from_epsg(3857), mercator, (1, 1))
    assert area == pytest.approx([25], rel=5e-3)
    assert pixel_metres(None, metre, (10, 10)) is None


def test_class_areas_by_hand(tmp_path: Path) -> None:
    place_m = place(0.0, 0.0, 0.5)
    found = class_areas(write_tiff(tmp_path / "a.tif", IDS[None], **place_m), LABELS)
    assert [(a.id, a.pixels, a.square_metres) for a in found] == [(0, 7, 1.75), (3, 8, 2.0), (7, 3, 0.75)]
    plain = class_areas(write_png(tmp_path / "a.png", IDS), LABELS)
    assert [(a.pixels, a.square_metres) for a in plain] == [(7, None), (8, None), (3, None)]
