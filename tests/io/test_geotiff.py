"""GeoTIFF: every band and the position on the map come in; labels lie on the same ground."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabricate import write_png
from fabricate.maps import write_tiff
from sampeft.errors import DataError
from sampeft.io import geotiff, label_suffix, raster, read_label_ids, read_volume, write_labels
from sampeft.io.windows import glance, opened
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.enums import ColorInterp  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

LABELS = LabelSet(("background", "road"), (0, 5), ignore=255, colors=((0, 0, 0), (200, 30, 9)))
PLACE = {"crs": "EPSG:32650", "transform": from_origin(412_000.5, 3_345_000.25, 4.0, 4.0)}


def five_bands() -> np.ndarray:
    """D17: float32 with nodata -9999 in 10 % of the pixels."""
    array = np.random.default_rng(0).uniform(0, 1000, (5, 20, 30)).astype(np.float32)
    array[:, :2] = -9999
    return array


def test_five_bands_with_nodata_keep_values_and_position(tmp_path: Path) -> None:
    """D17: all bands in order, nodata told by value and mask, labels with the size, transform and CRS of the image."""
    array = five_bands()
    image = read_volume(write_tiff(tmp_path / "scene.tif", array, nodata=-9999, **PLACE))
    assert image.array.shape == (20, 30, 1, 5)
    assert image.is_raster
    np.testing.assert_array_equal(np.moveaxis(image.array[:, :, 0], -1, 0), array)
    assert image.header.nodata == -9999
    assert image.header.missing.mean() == pytest.approx(0.1)
    assert image.header.missing[:2].all()

    assert label_suffix(image) == ".tif"
    channels = np.ones((20, 30, 1), dtype=np.int16)
    channels[5, 6, 0] = IGNORE
    path = write_labels(tmp_path / "labels.tif", channels, LABELS, image)
    with rasterio.open(path) as file:
        assert (file.crs.to_epsg(), file.transform) == (32650, PLACE["transform"])
        assert (file.width, file.height, file.count, file.dtypes, file.nodata) == (30, 20, 1, ("uint8",), 255)
        assert file.colormap(1)[5] == (200, 30, 9, 255)
        ids = file.read(1)
    assert set(np.unique(ids[:2]).tolist()) == {255}  # nodata of the image
    assert ids[5, 6] == 255
    assert (ids == 5).sum() == 18 * 30 - 1
    np.testing.assert_array_equal(read_label_ids(path).array[..., 0], ids)


def test_without_an_ignore_id_nodata_is_background(tmp_path: Path) -> None:
    image = read_volume(write_tiff(tmp_path / "scene.tif", five_bands(), nodata=-9999, **PLACE))
    labels = LabelSet(("background", "road"), (0, 1000))
    path = write_labels(tmp_path / "labels.tif", np.ones((20, 30, 1), int), labels, image)
    with rasterio.open(path) as file:
        assert (file.dtypes, file.nodata) == (("uint16",), None)
        assert np.unique(file.read(1)[:2]).tolist() == [0]
        assert np.unique(file.read(1)[2:]).tolist() == [1000]


def test_a_band_with_a_value_is_a_measurement(tmp_path: Path) -> None:
    """A pixel is missing where all bands are; NaN counts as nodata."""
    array = np.ones((2, 2, 2), dtype=np.float32)
    array[:, 0, 0], array[0, 1, 1] = np.nan, np.nan
    header = read_volume(write_tiff(tmp_path / "a.tif", array, **PLACE)).header
    assert header.missing[..., 0].tolist() == [[True, False], [False, False]]


def test_four_bands_are_not_rgba_unless_tagged(tmp_path: Path) -> None:
    """D17, D44: near infrared stays; tagged alpha goes, with a word on how to keep a band that was tagged by mistake."""
    array = np.random.default_rng(1).integers(0, 255, (4, 5, 6)).astype(np.uint8)
    for place in (PLACE, {}):
        path = write_tiff(tmp_path / "rgbn.tif", array, photometric="rgb", **place)
        assert rasterio.open(path).colorinterp[3] == ColorInterp.undefined
        np.testing.assert_array_equal(np.moveaxis(read_volume(path).array[:, :, 0], -1, 0), array)
    path = write_tiff(tmp_path / "rgba.tif", array, photometric="rgb", alpha="yes", **PLACE)
    with pytest.warns(UserWarning, match=r"rgba\.tif: band 4 is tagged as transparency and left out"):
        image = read_volume(path)
    np.testing.assert_array_equal(np.moveaxis(image.array[:, :, 0], -1, 0), array[:3])


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_several_bands_keep_their_type(kind: str, tmp_path: Path) -> None:
    """16-bit colour, which Pillow would cut to 8 bits, comes whole; 64-bit fractions become 32-bit ones."""
    array = (np.random.default_rng(2).uniform(0, 250, (3, 4, 5)) * (1 if kind == "uint8" else 100)).astype(kind)
    image = read_volume(write_tiff(tmp_path / "a.tif", array, photometric="rgb")).array
    assert image.dtype == kind
    np.testing.assert_array_equal(np.moveaxis(image[:, :, 0], -1, 0), array)
    wide = read_volume(write_tiff(tmp_path / "b.tif", np.full((2, 2, 2), 0.1), **PLACE)).array
    assert (wide.dtype, wide.shape) == (np.float32, (2, 2, 1, 2))


@pytest.mark.parametrize(
    "kind", ["int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
)
def test_numbers_of_a_plain_tiff_are_those_stored(kind: str, tmp_path: Path) -> None:
    """Pillow takes -1 of int8 for 255 and 3e9 of uint32 for a negative number, and 64 bits for damage."""
    highest = min(3e9, np.iinfo(kind).max) if kind[0] != "f" else 3e9
    stored = np.array([[[0, 1, 2], [7, 100, highest]]], dtype=kind)
    if kind[0] != "u":
        stored[0, 0, 2] = -1
    path = write_tiff(tmp_path / "plain.tif", stored)
    if kind[0] != "f":
        assert read_label_ids(path).array[..., 0].tolist() == stored[0].tolist()
    assert read_volume(path).array[..., 0].tolist() == stored[0].tolist()


def test_whole_numbers_in_a_plain_tiff_of_fractions_are_ids(tmp_path: Path) -> None:
    for kind in ("float32", "float64"):
        path = write_tiff(tmp_path / f"{kind}.tif", np.array([[[0, 1.0004, 2]]], dtype=kind))
        assert read_label_ids(path).array.ravel().tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"half\.tif: label values 0\.5 \(1 voxels\) are not whole numbers"):
        read_label_ids(write_tiff(tmp_path / "half.tif", np.array([[[0, 0.5, 2]]], dtype=np.float32)))


@pytest.mark.parametrize("bits", [3, 7, 10, 14])
def test_numbers_of_few_bits_are_those_stored(bits: int, tmp_path: Path) -> None:
    stored = np.array([[[0, 1, 2**bits - 1]]], dtype=np.uint8 if bits < 9 else np.uint16)
    assert read_volume(write_tiff(tmp_path / "a.tif", stored, nbits=bits)).array.ravel().tolist() == [0, 1, 2**bits - 1]


def test_plain_tiffs_need_no_rasterio_and_others_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_png(tmp_path / "plain.tif", np.arange(12, dtype=np.uint8).reshape(3, 4))
    tagged = write_png(tmp_path / "rgba.tif", np.zeros((3, 4, 4), np.uint8))
    bands = write_tiff(tmp_path / "bands.tif", five_bands())
    placed = write_tiff(tmp_path / "placed.tif", np.zeros((1, 3, 4), np.uint8), **PLACE)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert read_volume(plain).array[1, 0, 0] == 4
    with pytest.warns(UserWarning, match="transparency"):
        assert read_volume(tagged).array.shape == (3, 4, 1, 3)
    for path in (bands, placed):
        with pytest.raises(DataError, match=rf"{path.name}: .* need rasterio; pip install 'sampeft\[geo\]'"):
            read_volume(path)


def test_scaled_bands_are_measurements_and_their_nodata_is_nan(tmp_path: Path) -> None:
    """Stored 10 with scale 0.1 and offset -3 is -2; nodata 0 is no -3."""
    path = write_tiff(tmp_path / "a.tif", np.array([[[0, 10]]], dtype=np.uint16), nodata=0, **PLACE)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.1,), (-3.0,)
    image = read_volume(path)
    np.testing.assert_allclose(image.array.ravel(), [np.nan, -2], rtol=1e-6)
    assert image.header.missing.ravel().tolist() == [True, False]


def test_indices_of_a_colour_table_are_ids_and_its_colours_the_image(tmp_path: Path) -> None:
    """D06 for GeoTIFF, and back to ids by the table of D05."""
    path = tmp_path / "classes.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=1, width=3, dtype="uint8", photometric="palette", **PLACE
    ) as file:
        file.write(np.array([[[0, 1, 2]]], dtype=np.uint8))
        file.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 0)})
    assert read_label_ids(path).array.ravel().tolist() == [0, 1, 2]
    colours = read_volume(path).array
    assert colours.reshape(3, 3).tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    table = {(0, 0, 0): 255, (255, 0, 0): 1, (0, 255, 0): 2}
    assert raster.colors_to_ids(colours, table, path).ravel().tolist() == [255, 1, 2]


def test_bands_and_fractions_are_no_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"five\.tif: has 5 bands instead of ids"):
        read_label_ids(write_tiff(tmp_path / "five.tif", five_bands(), **PLACE))
    half = np.full((1, 2, 2), 1.37, dtype=np.float32)
    with pytest.raises(DataError, match=r"half\.tif: label values 1\.37 \(4 voxels\)"):
        read_label_ids(write_tiff(tmp_path / "half.tif", half, **PLACE))
    whole = np.array([[[0, 3]]], dtype=np.float32)
    assert read_label_ids(write_tiff(tmp_path / "whole.tif", whole, **PLACE)).array.ravel().tolist() == [0, 3]


def test_ground_control_points_are_kept(tmp_path: Path) -> None:
    points = [GroundControlPoint(row=r, col=c, x=100 + c, y=30 - r) for r, c in ((0, 0), (0, 4), (3, 0), (3, 4))]
    path = write_tiff(tmp_path / "gcp.tif", np.ones((1, 3, 4), np.uint8), gcps=points, crs="EPSG:4326")
    out = write_labels(tmp_path / "out.tif", np.zeros((3, 4, 1), int), LABELS, read_volume(path))
    with rasterio.open(out) as file:
        found, crs = file.gcps
    assert crs.to_epsg() == 4326
    assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]


def test_a_png_is_not_written_for_a_map(tmp_path: Path) -> None:
    image = read_volume(write_tiff(tmp_path / "a.tif", np.ones((1, 3, 4), np.uint8), **PLACE))
    assert isinstance(image.header, geotiff.MapHeader)
    with pytest.raises(ValueError, match=r"written as \.tif"):
        write_labels(tmp_path / "out.png", np.zeros((3, 4, 1), int), LABELS, image)
    assert not (tmp_path / "out.png").exists()


WORLD_FILE = "0.2\n0.0\n0.0\n-0.2\n400000.1\n5700000.9\n"  # the middle of the first pixel
WITH_NODATA = "<PAMDataset><PAMRasterBand band='1'><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>"


@pytest.mark.parametrize(
    ("ending", "world"), [("tif", "tfw"), ("jpg", "jgw"), ("png", "pgw"), ("tif", "TFW"), ("jpg", "wld")]
)
def test_a_place_in_a_world_file_is_read_by_every_path(ending: str, world: str, tmp_path: Path) -> None:
    """N05: 0.2 m pixels whose upper left corner is (400000, 5700001) of ETRS89 / UTM 32N; the labels lie there, too."""
    path = tmp_path / f"ortho.{ending}"
    grey = np.random.default_rng(1).integers(1, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(grey).save(path, quality=95)
    plain = read_volume(path)
    assert plain.header is None
    path.with_suffix(f".{world}").write_text(WORLD_FILE)
    path.with_suffix(".prj").write_text(rasterio.crs.CRS.from_epsg(25832).to_wkt(version="WKT1_ESRI"))
    image = read_volume(path)
    np.testing.assert_array_equal(image.array, plain.array)
    assert tuple(image.header.transform)[:6] == pytest.approx((0.2, 0, 400000, 0, -0.2, 5700001))
    assert image.header.crs.to_epsg() == 25832
    assert glance(path) == ((12, 16), pytest.approx((0.2, 0.2)))
    with opened(path) as source:
        assert source.header.transform == image.header.transform
        assert source.header.crs == image.header.crs
        np.testing.assert_array_equal(source.read(0, 12)[0], image.array[:, :, 0])
    written = write_labels(tmp_path / "labels.tif", np.ones((12, 16, 1), np.int16), LABELS, image)
    assert read_volume(written).header.transform == image.header.transform


@pytest.mark.parametrize("how", ["inside", "aux", "mask", "png"])
def test_nodata_and_masks_beside_the_file_are_read_by_every_path(how: str, tmp_path: Path) -> None:
    """N05: 3 of 10 columns were not measured."""
    grey = np.random.default_rng(2).integers(1, 200, (1, 8, 10)).astype(np.uint8)
    grey[:, :, :3] = 0
    path = tmp_path / ("a.png" if how == "png" else "a.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        if how == "png":
            write_png(path, grey[0])
        else:
            write_tiff(path, grey, **(PLACE | ({"nodata": 0} if how == "inside" else {})))
        if how == "mask":
            with rasterio.open(path, "r+") as file:
                file.write_mask(grey[0] > 0)
    if how in ("aux", "png"):
        path.with_name(f"{path.name}.aux.xml").write_text(WITH_NODATA)
    assert path.with_name("a.tif.msk").exists() == (how == "mask")
    image = read_volume(path)
    assert image.header.missing[..., 0].sum(axis=0).tolist() == [8] * 3 + [0] * 7
    with opened(path) as source:
        array, missing = source.read(2, 8)
        np.testing.assert_array_equal(missing, image.header.missing[2:, :, 0])
        np.testing.assert_array_equal(array, image.array[2:, :, 0])
    labels = read_label_ids(path)
    assert labels.header.nodata == (None if how == "mask" else 0)


def test_statistics_beside_a_picture_say_nothing_of_it(tmp_path: Path) -> None:
    """QGIS writes such for every picture that it shows."""
    path = write_png(tmp_path / "a.png", np.arange(12, dtype=np.uint8).reshape(3, 4))
    mean = "<Metadata><MDI key='STATISTICS_MEAN'>5</MDI></Metadata>"
    said = WITH_NODATA.replace("<NoDataValue>0</NoDataValue>", mean)
    path.with_name("a.png.aux.xml").write_text(said)
    image = read_volume(path)
    assert (image.header, label_suffix(image)) == (None, ".png")


def test_a_coordinate_system_that_cannot_be_read_is_told_by_name(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.ones((1, 3, 4), np.uint8))
    path.with_suffix(".tfw").write_text(WORLD_FILE)
    path.with_suffix(".prj").write_text("nonsense")
    with pytest.warns(UserWarning, match=r"a\.tif: a\.prj beside it holds no coordinate system that can be read"):
        assert read_volume(path).header.crs is None
