"""Files beside a raster (N05): what they say counts as GDAL reads it, and what is not read of them is told by its name, once."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from fabricate import write_png
from fabricate.maps import write_tiff
from sampeft.io import read_label_ids, read_volume

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")

WORLD = "0.5\n0.0\n0.0\n-0.5\n500000.25\n4000000.75\n"
PLACE = (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_001.0)


def told(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for read in (read_volume, read_label_ids, read_volume):
            read(path)
    return [str(one.message).removeprefix(f"{path}: ") for one in caught if issubclass(one.category, UserWarning)]


@pytest.mark.parametrize("name", ["a.pgw", "a.PGW", "a.pngw", "a.wld"])
@pytest.mark.parametrize("text", [WORLD, WORLD.replace("\n", "\r\n"), WORLD.replace(".", ",")])
def test_world_files_as_programs_write_them_place_a_picture(name: str, text: str, tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.arange(48, dtype=np.uint8).reshape(6, 8))
    (tmp_path / name).write_text(text)
    assert told(path) == []
    assert tuple(read_volume(path).header.transform)[:6] == PLACE


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.pgw",
            "\n".join(WORLD.splitlines()[:5]),
            "a.pgw beside it is no world file of six numbers, and is not read",
        ),
        ("a.pgw", "\ufeff" + WORLD, "a.pgw beside it is no world file"),
        ("a.wld", "", "a.wld beside it is no world file"),
        ("a.pngw", "0\n0\n0\n0\n5\n5\n", "a.pngw beside it is no world file"),
        ("a.png.aux.xml", "<PAMDataset><SRS>EPSG:32633</SRS>", "a.png.aux.xml beside it is no XML (no element found"),
        ("a.png.msk", "II*\0rubbish", "a.png.msk beside it holds no mask that can be read"),
    ],
)
def test_a_file_that_is_not_read_is_named_once(name: str, content: str, said: str, tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.arange(48, dtype=np.uint8).reshape(6, 8))
    (tmp_path / name).write_bytes(content.encode())
    (one,) = told(path)
    assert one.startswith(said)


def test_a_coordinate_system_that_is_not_read_is_told_once(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.arange(48, dtype=np.uint8).reshape(6, 8))
    (tmp_path / "a.pgw").write_text(WORLD)
    (tmp_path / "a.prj").write_text("UTM zone 33")
    assert told(path) == ["a.prj beside it holds no coordinate system that can be read; write it again as WKT"]


@pytest.mark.parametrize(("east", "contradicts"), [(0.0, False), (0.04, False), (0.06, True), (7.0, True)])
def test_a_world_file_beside_a_geotiff_that_says_another_place_is_told(
    east: float, contradicts: bool, tmp_path: Path
) -> None:
    """The file's own place counts; a tenth of its pixels is 0.05 m."""
    transform = rasterio.Affine(*PLACE)
    path = write_tiff(tmp_path / "a.tif", np.ones((1, 6, 8), np.uint8), crs="EPSG:32633", transform=transform)
    lines = WORLD.splitlines()
    lines[4] = str(float(lines[4]) + east)
    (tmp_path / "a.tfw").write_text("\n".join(lines))
    assert [text.split(",")[0] for text in told(path)] == [
        "a.tfw beside it says another place than the file or its .aux.xml"
    ] * contradicts
    assert tuple(read_volume(path).header.transform)[:6] == PLACE


def test_statistics_and_overviews_beside_a_raster_are_no_fault(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.ones((1, 6, 8), np.uint8))
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata/></PAMRasterBand></PAMDataset>'
    )
    (tmp_path / "a.tif.ovr").write_bytes(b"rubbish")
    assert told(path) == []
