"""Rasters of any size: the map of windows is the map of the whole, without seams, in place, whole or not at all."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fabricate import write_png
from fabricate.maps import place, write_tiff
from sampeft.data import raster_levels
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation
from sampeft.errors import DataError, UsageError
from sampeft.io import read_label_ids
from sampeft.io.raster_windows import Ids, MapWriter, opened
from sampeft.labels import LabelSet
from sampeft.prediction import tiling
from sampeft.prediction.outputs import Job
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.tiling import RasterOptions, window_of

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")

PLACE = place()
LABELS = LabelSet(("dark", "grey", "bright"), (1, 5, 9), ignore=255, colors=((9, 8, 7), (6, 5, 4), (3, 2, 1)))
SIDE = 16
WINDOW = Preparation(Intensity("window", 0, 255), SIDE)


class ByPixel(torch.nn.Module):
    """Class by the red level of each pixel: below 0.35, 0.65, above. `context` adds that share of the window's own mean;
    counts the images it saw."""

    labels = LABELS

    def __init__(self, context: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.context, self.seen = context, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        level = images[:, 0] + self.context * (images[:, 0].mean(dim=(1, 2), keepdim=True) - 0.5)
        return torch.stack([-9 * (level - centre).abs() for centre in (0.2, 0.5, 0.8)], dim=1)


def segmenter(model: torch.nn.Module | None = None, preparation: Preparation = WINDOW, **known: Any) -> Segmenter:
    return Segmenter(model or ByPixel(), LABELS, preparation, known)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Written:
    map: Path
    window: tuple[int, int] | None
    confidence: float | None


def written(
    model: Segmenter, path: Path, out: Path, options: RasterOptions | None = None, batch: Any = "auto", **more: Any
) -> Written:
    """The files that a segmenter makes of an image; `more`: of the job, and `progress`."""
    progress = more.pop("progress", None)
    job = Job(out, batch, rasters=options or RasterOptions(), **more)
    map, facts = model.write_prediction(path, job, progress)
    return Written(map, facts.get("window"), facts["confidence"])


def window(model: Segmenter, path: Path, options: RasterOptions | None = None) -> tuple[int, int] | None:
    return window_of(path, model.preparation, model.scale, options or RasterOptions())


def true_ids(red: np.ndarray) -> np.ndarray:
    return np.array([1, 5, 9], np.uint8)[(red > 0.35 * 255).astype(int) + (red > 0.65 * 255)]


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width)).astype(np.uint8)


def ids_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
@pytest.mark.parametrize("size", [(61, 45), (16, 16), (17, 90), (9, 40), (7, 5)])
def test_windows_give_the_map_of_the_whole(size: tuple[int, int], overlap: float, tmp_path: Path) -> None:
    """For a network that looks at single pixels, to the pixel, whatever the batch."""
    array = scene(*size)
    path = write_tiff(tmp_path / "a.tif", array, photometric="rgb", **PLACE)
    for batch in (1, 5):
        options = RasterOptions(tile=str(SIDE), overlap=overlap)
        files = written(segmenter(), path, tmp_path / f"out{batch}", options, batch)
        np.testing.assert_array_equal(ids_of(files.map), true_ids(array[0]))
    assert [p.name for p in (tmp_path / "out1").iterdir()] == ["a.tif"]  # nothing temporary


def test_the_map_lies_where_the_image_lies(tmp_path: Path) -> None:
    """CRS and a rotated transform equal; colours and names of the classes, nodata, tiles and smaller copies."""
    turned = PLACE["transform"] @ rasterio.Affine.rotation(20)
    path = write_tiff(tmp_path / "a.tif", scene(700, 600), photometric="rgb", crs=PLACE["crs"], transform=turned)
    files = written(segmenter(), path, tmp_path / "out", RasterOptions(tile="256"))
    with rasterio.open(files.map) as made:
        assert (made.crs.to_epsg(), made.transform, made.shape, made.nodata) == (32650, turned, (700, 600), 255)
        assert made.colormap(1)[5] == (6, 5, 4, 255)
        assert made.tags()["CLASS_9"] == "bright"
        assert (made.block_shapes, made.overviews(1)) == ([(512, 512)], [2])
        assert made.profile["compress"] == "deflate"


def test_ground_control_points_are_kept(tmp_path: Path) -> None:
    from rasterio.control import GroundControlPoint

    points = [GroundControlPoint(row=r, col=c, x=10 + c, y=30 - r) for r, c in ((0, 0), (0, 40), (30, 0), (30, 40))]
    path = write_tiff(tmp_path / "a.tif", scene(30, 40), photometric="rgb", gcps=points, crs="EPSG:4326")
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    with rasterio.open(path) as file:
        expected = [(p.row, p.col, p.x, p.y) for p in file.gcps[0]]
    files = written(segmenter(), path, tmp_path / "out", RasterOptions(tile="16"))
    with rasterio.open(files.map) as made:
        assert [(p.row, p.col, p.x, p.y) for p in made.gcps[0]] == expected
        assert made.gcps[1].to_epsg() == 4326


def test_a_picture_gives_a_png(tmp_path: Path) -> None:
    array = scene(50, 70)
    path = write_png(tmp_path / "a.png", np.moveaxis(array, 0, -1))
    files = written(segmenter(), path, tmp_path / "out", RasterOptions(tile="16"))
    assert files.map.name == "a.png"
    np.testing.assert_array_equal(read_label_ids(files.map).array[..., 0], true_ids(array[0]))
    with Image.open(files.map) as made:
        assert made.getpalette()[15:18] == [6, 5, 4]


def changes_at_borders(ids: np.ndarray, starts: tuple[int, ...], length: int) -> tuple[float, float]:
    """Share of neighbouring pixels of other classes across the first and last columns of windows, and elsewhere."""
    changed = (ids[:, 1:] != ids[:, :-1]).mean(axis=0)
    border = np.zeros(len(changed), dtype=bool)
    border[[s - 1 for s in starts if s] + [s + length - 1 for s in starts if s + length < ids.shape[1]]] = True
    return float(changed[border].mean()), float(changed[~border].mean())


def test_no_seams_where_windows_meet(tmp_path: Path) -> None:
    """A network whose answer depends on what else is in the window: hard borders show, blended ones do not."""
    from sampeft.prediction.sliding_window import Axis

    x, y = np.meshgrid(np.arange(320), np.arange(224))
    smooth = 127 + 90 * np.sin(x / 37 + y / 53) + 20 * np.cos(y / 19)
    path = write_tiff(tmp_path / "a.tif", smooth.astype(np.uint8)[None].repeat(3, 0), photometric="rgb", **PLACE)
    ratio = {}
    for overlap in (0.0, 0.5):
        model = segmenter(ByPixel(context=0.8), replace(WINDOW, side=32))
        files = written(model, path, tmp_path / f"{overlap}", RasterOptions(tile="32", overlap=overlap))
        at, elsewhere = changes_at_borders(ids_of(files.map), Axis.cover(320, 32, overlap).starts, 32)
        ratio[overlap] = at / elsewhere
    assert ratio[0.0] > 2
    assert ratio[0.5] < 1.2


@pytest.mark.parametrize(("overlap", "looked_at"), [(0.0, 4), (0.25, 9)])
def test_what_was_not_measured_is_skipped_and_stays_out_of_the_statistics(
    overlap: float, looked_at: int, tmp_path: Path
) -> None:
    """Nodata -9999 in three quarters; the recipe's minimum and maximum are those of the rest."""
    red = np.full((64, 64), -9999, np.float32)
    red[:32, :32] = np.linspace(100, 400, 32)
    path = write_tiff(tmp_path / "a.tif", red[None], nodata=-9999, **PLACE)
    model = ByPixel()
    preparation = Preparation(Intensity("percentile", 0, 100), SIDE)
    files = written(segmenter(model, preparation), path, tmp_path / "out", RasterOptions(tile="16", overlap=overlap))
    expected = np.full((64, 64), 255)
    expected[:32, :32] = true_ids((red[:32, :32] - 100) / 300 * 255)
    np.testing.assert_array_equal(ids_of(files.map), expected)
    assert model.seen == looked_at


@pytest.mark.parametrize("bands", [None, (2, 3, 1)])
def test_a_value_means_the_same_in_all_windows(
    bands: tuple[int, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ramp, of which each window sees a part, too large to be measured at once: extremes are exact, percentiles near."""
    ramp = np.tile(np.linspace(1000, 5000, 900), (400, 1)).astype(np.uint16)
    array = np.stack([ramp, ramp, ramp])
    array[:, 5, 7] = 60_000
    path = write_tiff(tmp_path / "a.tif", array, photometric="rgb", **PLACE)
    found = {}
    for limit in (1 << 22, 1):
        monkeypatch.setattr(raster_levels, "WHOLE", limit)
        for low, high in ((0.0, 100.0), (2.0, 98.0)):
            with opened(path) as source:
                recipe = Preparation(Intensity("percentile", low, high, bands=bands), SIDE)
                levels = raster_levels.prepared_sample(source, recipe).levels
                found[limit, low] = np.array([levels.low, levels.high])
    np.testing.assert_array_equal(found[1, 0.0], found[1 << 22, 0.0])
    np.testing.assert_allclose(found[1, 2.0], found[1 << 22, 2.0], atol=120)
    assert not (found[1, 2.0] == found[1, 0.0]).any()


def test_all_but_empty_rasters_are_measured_where_they_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_levels, "WHOLE", 1)
    array = np.zeros((1, 4000, 3000), np.uint16)
    array[0, 3000, 1700:1720] = np.arange(500, 520)
    recipe = Preparation(Intensity("percentile", 0, 100), SIDE)
    path = write_tiff(tmp_path / "a.tif", array, nodata=0, compress="deflate", **PLACE)
    with opened(path) as source:
        levels = raster_levels.prepared_sample(source, recipe).levels
    assert (levels.low, levels.high) == (500, 519)
    empty = write_tiff(tmp_path / "b.tif", array * 0, nodata=0, compress="deflate", **PLACE)
    with opened(empty) as source, pytest.raises(DataError, match=r"b\.tif: no pixel has a value"):
        raster_levels.prepared_sample(source, recipe)


def test_windows_by_the_ground(tmp_path: Path) -> None:
    """A network of side 16 that knows 6 m a pixel looks at 96 m: 24 pixels of 4 m, whatever the size of the raster."""
    path = write_tiff(tmp_path / "a.tif", scene(20, 30), photometric="rgb", **PLACE)
    assert window(segmenter(gsd=6.0, pixels=999), path) == (24, 24)
    assert window(segmenter(pixels=999), path, RasterOptions(gsd=12.0)) == (48, 48)
    assert window(segmenter(gsd=6.0), path, RasterOptions(tile="off")) is None
    assert window(segmenter(gsd=6.0), path, RasterOptions(tile="50")) == (50, 50)
    plain = write_png(tmp_path / "b.png", np.zeros((20, 30), np.uint8))
    assert window(segmenter(gsd=6.0, pixels=10), plain) == (10, 10)
    with pytest.raises(UsageError, match=r"b\.png: states no place on the map, so --gsd says nothing"):
        window(segmenter(), plain, RasterOptions(gsd=1.0))


def test_windows_by_the_training_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (write_png(tmp_path / f"{n}.png", np.zeros((n, 30), np.uint8)) for n in (50, 51))
    assert window(segmenter(pixels=40), small) is None
    assert window(segmenter(pixels=40), large) == (40, 40)
    largest = max(Image.open(large).size) if large.suffix == ".png" else max(ids_of(large).shape)
    # Training looked at pictures of that size whole, and so does prediction.
    assert window(segmenter(pixels=40, most_pixels=largest), large) is None
    assert window(segmenter(pixels=40, most_pixels=largest - 1), large) == (40, 40)
    assert window(segmenter(), large) is None
    monkeypatch.setattr(tiling, "_TOO_LARGE", 1000)
    with pytest.raises(UsageError, match=r"51\.png: has 30 x 51 pixels, and the run does not say"):
        window(segmenter(), large)


def test_a_raster_smaller_than_its_window_keeps_its_scale(tmp_path: Path) -> None:
    """8 rows in a window of 32 are 4 of the square's 16 rows; the rest is padding."""

    class Rows(ByPixel):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert (images[:, 0, :4] > 0.4).all()
            assert (images[:, 0, 4:] == 0).all()
            return super().forward(images)

    path = write_tiff(tmp_path / "a.tif", np.full((1, 8, 50), 120, np.uint8), **PLACE)
    files = written(segmenter(Rows()), path, tmp_path / "out", RasterOptions(tile="32"))
    assert (ids_of(files.map) == 5).all()


def test_stopped_or_failed_leaves_nothing(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", scene(600, 600), photometric="rgb", **PLACE)
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(segmenter(), path, out, RasterOptions(tile="200"), progress=stop)
    assert list(out.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("share", [0.02, 0.5, 0.8, 0.95, 0.999])
def test_a_full_disk_is_told_and_leaves_nothing(share: float, tmp_path: Path) -> None:
    ids = np.array([1, 5, 9], np.uint8)[np.random.default_rng(0).integers(0, 3, (1100, 1100))]
    path = write_tiff(tmp_path / "a.tif", np.zeros((1, 1100, 1100), np.uint8), **PLACE)

    def write(name: str) -> Path:
        with opened(path) as source, MapWriter(tmp_path / "out" / name, source, Ids(LABELS)) as writer:
            for top in range(0, 1100, 100):
                writer.append(ids[top : top + 100])
            writer.finish()
        return writer.path

    whole = write("whole.tif")
    np.testing.assert_array_equal(ids_of(whole), ids)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * whole.stat().st_size), hard))
    try:
        with pytest.raises(OSError) as told:
            write("a.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert told.value.filename.endswith("a.tif")
    assert list((tmp_path / "out").iterdir()) == [whole]


def test_a_file_that_is_not_what_was_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel lost without a word, as on a full disk."""
    import rasterio.shutil

    honest = rasterio.shutil.copy

    def lossy(source: Path, target: Path, **options: Any) -> None:
        with rasterio.open(source, "r+") as file:
            file.write(np.array([[[5]]], np.uint8), window=rasterio.windows.Window(69, 59, 1, 1))
        honest(source, target, **options)

    path = write_tiff(tmp_path / "a.tif", np.zeros((3, 60, 70), np.uint8), photometric="rgb", **PLACE)
    monkeypatch.setattr(rasterio.shutil, "copy", lossy)
    with pytest.raises(OSError, match="the file is not what was written to it"):
        written(segmenter(), path, tmp_path / "out", RasterOptions(tile="16"))
    assert list((tmp_path / "out").iterdir()) == []


def test_errors_of_users(tmp_path: Path) -> None:
    five = write_tiff(tmp_path / "five.tif", scene(40, 40)[:1].repeat(5, 0), **PLACE)
    with pytest.raises(DataError, match=r"five\.tif: has 5 bands, a model looks at one or three"):
        written(segmenter(), five, tmp_path / "out", RasterOptions(tile="16"))
    cut = tmp_path / "cut.tif"
    whole = write_tiff(tmp_path / "whole.tif", scene(600, 600), photometric="rgb", **PLACE).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.tif: damaged or truncated"):
        written(segmenter(), cut, tmp_path / "out", RasterOptions(tile="200"))
    body = segmenter(preparation=Preparation(Intensity("percentile", 2, 98, crop="body"), SIDE))
    with pytest.raises(UsageError, match="cuts every image to the body"):
        written(body, tmp_path / "whole.tif", tmp_path / "out", RasterOptions(tile="200"))
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"tile": "big"}, {"tile": "0"}, {"overlap": 1.0}, {"gsd": 0.0}, {"gsd": 1.0, "tile": "9"}, {"vector": "shp"}],
)
def test_wrong_options_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        RasterOptions(**wrong)


def test_outlines_and_areas_go_beside_the_map(tmp_path: Path) -> None:
    pytest.importorskip("pyogrio")
    path = write_tiff(tmp_path / "a.tif", scene(30, 30) // 255 * 255, photometric="rgb", **PLACE)
    options = RasterOptions(tile="16", vector="gpkg", areas=True)
    files = written(segmenter(), path, tmp_path / "out", options)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.gpkg", "a.tif", "a_areas.csv"]
    rows = (tmp_path / "out/a_areas.csv").read_text().splitlines()
    assert rows[0] == "id,class,pixels,area_m2"
    counted = int((ids_of(files.map) == 1).sum())
    assert rows[1] == f"1,dark,{counted},{counted * 16:.2f}"
