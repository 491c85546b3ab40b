"""Time, memory, position and seams of predicting a large raster by windows; prints Markdown.

Usage: OMP_NUM_THREADS=1 python benchmarks/predict_raster.py [--side 20000] [--run RUN --data gid_mtl5] [--folder DIR]
First a made-up RGB GeoTIFF of 20,000 x 20,000 pixels with a network that costs nothing: what reading, preparing, blending,
writing and drawing outlines take. Then, with a run and GID's crops, a mosaic of crops by the real model, from which the time
of the large raster is worked out; hard borders of windows run through the middle of crops. Each part runs in a process of
its own, whose peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sampeft
from sampeft.console import bar
from sampeft.data.intensity import PRESETS
from sampeft.data.layouts.gid import GID_LABELS
from sampeft.data.preprocessing import Preparation
from sampeft.io import read_volume
from sampeft.io.areas import class_areas
from sampeft.io.vector import write_areas
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.sliding_window import Axis
from sampeft.prediction.tiling import RasterOptions
from sampeft.provenance import peak_memory_mib

WINDOW, SIDE, OVERLAP, CROP = 224, 112, 0.25, 224
PLACE = {"crs": "EPSG:32650", "origin": (412_000.5, 3_345_000.25), "pixel": 4.0}


class ByLevel(torch.nn.Module):
    """Five classes by the red level; its logits are a quarter of the square, as SAM's are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = torch.nn.functional.avg_pool2d(images[:, 0], 4)
        return torch.stack([-20 * (level - (k + 0.5) / 5).abs() for k in range(5)], dim=1)


def write_scene(path: Path, side: int) -> None:
    """Fields of colours that change slowly, with a texture; written 512 rows at a time."""
    import rasterio
    from rasterio.transform import from_origin

    texture = np.random.default_rng(0).integers(-6, 7, (512, 512), dtype=np.int16)
    grain = np.tile(texture, (1, side // 512 + 1))[:, :side]
    x = np.arange(side)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=3,
        dtype="uint8",
        photometric="rgb",
        crs=PLACE["crs"],
        transform=from_origin(*PLACE["origin"], PLACE["pixel"], PLACE["pixel"]),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress="deflate",
        zlevel=1,
    ) as file:
        for top in range(0, side, 512):
            y = np.arange(top, min(top + 512, side))[:, None]
            wave = 127 + 60 * np.sin(x / 310 + np.cos(y / 470)) + 55 * np.cos(y / 390)
            red = np.clip(wave + grain[: len(y)], 0, 255).astype(np.uint8)
            file.write(np.stack([red, 255 - red, red // 2]), window=rasterio.windows.Window(0, top, side, len(y)))


def changes(path: Path, length: int, overlap: float, pasted: bool = False) -> list[float]:
    """Share of neighbours of other classes, in per mille: where windows begin or end, in the middle of their overlaps (where
    one outweighs the other; two pixels each way), and elsewhere.

    pasted: leave out where the mosaic is pasted together.
    """
    import rasterio

    with rasterio.open(path) as file:
        size = file.shape
        kinds = [_kinds(n, length, overlap) for n in size]
        for kind in kinds if pasted else []:
            kind[(np.arange(1, len(kind) + 1) + CROP // 2) % CROP == 0] = -1
        changed, all_ = np.zeros(3), np.zeros(3)
        last = np.zeros((0, size[1]), dtype=np.uint8)
        for top, ids in _strips(file):
            across = (ids[:, 1:] != ids[:, :-1]).sum(axis=0)
            joined = np.concatenate([last, ids])
            down = (joined[1:] != joined[:-1]).sum(axis=1)
            first = top - len(last)
            rows = kinds[0][first : first + len(down)]
            for kind in range(3):
                changed[kind] += across[kinds[1] == kind].sum() + down[rows == kind].sum()
                all_[kind] += (kinds[1] == kind).sum() * len(ids) + (rows == kind).sum() * size[1]
            last = ids[-1:]
    return list((1000 * changed / np.maximum(all_, 1)).tolist())


def _kinds(size: int, length: int, overlap: float) -> np.ndarray:
    """(size - 1,) of each pixel and the next: 0 a window begins or ends between them, 1 in the middle of an overlap, 2 else."""
    axis = Axis.cover(size, length, overlap)
    found = np.full(size - 1, 2)
    for start, following in zip(axis.starts, axis.starts[1:], strict=False):
        middle = (start + length + following) // 2
        found[middle - 3 : middle + 2] = 1
    for start in axis.starts:
        for edge in (start, start + axis.length):
            if 0 < edge < size:
                found[edge - 1] = 0
    return found


def _strips(file: Any) -> Iterator[tuple[int, np.ndarray]]:
    from rasterio.windows import Window

    for top in range(0, file.height, 512):
        yield top, file.read(1, window=Window(0, top, file.width, min(512, file.height - top)))


def plumbing(folder: Path, side: int) -> dict[str, Any]:
    """The made-up scene by the network that costs nothing."""
    import rasterio

    path = folder / "scene.tif"
    segmenter = Segmenter(ByLevel(), GID_LABELS, Preparation(PRESETS["8bit"], SIDE), {"pixels": WINDOW})  # type: ignore[arg-type]
    before = peak_memory_mib()
    start, cpu = time.perf_counter(), time.process_time()
    with bar("predicting") as shown:
        map = segmenter.predict_file(path, folder / "out", 8, shown, rasters=RasterOptions(overlap=OVERLAP))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_memory_mib()
    start = time.perf_counter()
    areas = class_areas(map, segmenter.labels)
    areas_seconds = time.perf_counter() - start
    start = time.perf_counter()
    outlines = write_areas(map, folder / "out" / "scene.gpkg", segmenter.labels, "gpkg", min_area=160.0)
    outlines_seconds = time.perf_counter() - start
    with rasterio.open(path) as image, rasterio.open(map) as made:
        same = (image.crs, image.transform, image.shape) == (made.crs, made.transform, made.shape)
        overviews = made.overviews(1)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "before_mib": before,
        "peak_mib": peak,
        "peak_with_outlines_mib": peak_memory_mib(),
        "same_place": same,
        "overviews": overviews,
        "areas_seconds": areas_seconds,
        "pixels": sum(area.pixels for area in areas),
        "outlines": outlines,
        "outlines_seconds": outlines_seconds,
        "seam": changes(map, WINDOW, OVERLAP),
        "map_mib": map.stat().st_size / 2**20,
        "image_mib": path.stat().st_size / 2**20,
    }


def real(folder: Path, run: Path, data: Path, crops: int) -> dict[str, Any]:
    """A mosaic of real crops by a trained model: time a window, seams with hard and with blended borders."""
    import rasterio
    from rasterio.transform import from_origin

    chosen = sorted((data / "images").glob("*.png"))[:: max(1, 200 // crops**2)][: crops**2]
    images = [read_volume(path).array[:, :, 0] for path in chosen]
    rows = [np.concatenate(images[i : i + crops], axis=1) for i in range(0, crops**2, crops)]
    half = CROP // 2
    mosaic = np.moveaxis(np.concatenate(rows)[half:-half, half:-half], -1, 0)
    path = folder / "mosaic.tif"
    place = from_origin(*PLACE["origin"], PLACE["pixel"], PLACE["pixel"])
    shape = {"height": mosaic.shape[1], "width": mosaic.shape[2], "count": 3, "dtype": "uint8"}
    with rasterio.open(
        path, "w", driver="GTiff", crs=PLACE["crs"], transform=place, photometric="rgb", **shape
    ) as file:
        file.write(mosaic)
    segmenter = sampeft.load(run)
    found: dict[str, Any] = {"pixels": mosaic.shape[1] * mosaic.shape[2], "crops": crops**2}
    maps = {}
    for name, overlap, batch in (("hard", 0.0, 4), ("half", 0.5, 4), ("blended", OVERLAP, 4), ("one", OVERLAP, 1)):
        start, cpu = time.perf_counter(), time.process_time()
        rasters = RasterOptions(tile=str(WINDOW), overlap=overlap)
        map = segmenter.predict_file(path, folder / name, batch, rasters=rasters)
        windows = len(Axis.cover(mosaic.shape[1], WINDOW, overlap)) * len(Axis.cover(mosaic.shape[2], WINDOW, overlap))
        found[name] = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
            "windows": windows,
            "seam": changes(map, WINDOW, overlap, pasted=True),
        }
        with rasterio.open(map) as file:
            maps[name] = file.read(1)
    found["batches_agree"] = float((maps["blended"] == maps["one"]).mean())
    found["peak_mib"] = peak_memory_mib()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000, help="0: only the real model")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--crops", type=int, default=6, help="crops each way of the mosaic")
    parser.add_argument("--folder", type=Path, help="where the files are made, and removed again")
    parser.add_argument("--part", choices=["plumbing", "real"], help="(for itself)")
    options = parser.parse_args()
    if options.part:
        work = plumbing(options.folder, options.side) if options.part == "plumbing" else None
        print(json.dumps(work or real(options.folder, options.run, options.data, options.crops)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        found = {}
        if options.side:
            write_scene(folder / "scene.tif", options.side)
            found["plumbing"] = _part("plumbing", folder)
        if options.run:
            found["real"] = _part("real", folder)
    _report(found, options.side)


def _part(name: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--part", name, "--folder", str(folder)]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(made.stdout.splitlines()[-1]))


def _report(found: dict[str, Any], side: int) -> None:
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"{torch.get_num_threads()} thread, torch {torch.__version__}, sampeft {sampeft.__version__}\n"
    )
    if "plumbing" in found:
        _report_plumbing(found["plumbing"], side)
    if "real" in found:
        _report_real(found["real"])


def _report_plumbing(p: dict[str, Any], side: int) -> None:
    megapixels = side * side / 1e6
    windows = len(Axis.cover(side, WINDOW, OVERLAP)) ** 2
    print(
        f"RGB of {side} x {side} pixels ({p['image_mib']:.0f} MiB), windows of {WINDOW}, side {SIDE}, overlap {OVERLAP}\n"
    )
    print("| a network that costs nothing | |\n| --- | --- |")
    print(f"| windows | {windows} |")
    print(f"| wall, own CPU time | {p['seconds']:.0f} s, {p['cpu_seconds']:.0f} s |")
    print(f"| megapixels a second, wall, CPU | {megapixels / p['seconds']:.2f}, {megapixels / p['cpu_seconds']:.2f} |")
    print(f"| resident memory before, at most | {p['before_mib']} MiB, {p['peak_mib']} MiB (target below 2048) |")
    print(f"| CRS, transform and size equal | {p['same_place']} |")
    print(f"| map | {p['map_mib']:.1f} MiB, smaller copies {p['overviews']} |")
    print(
        f"| neighbours of other classes: where windows begin or end, in the middle of overlaps, elsewhere | {_seam(p['seam'])} |"
    )
    print(f"| areas of classes | {p['areas_seconds']:.0f} s, {p['pixels']} pixels |")
    print(
        f"| outlines of 10 pixels and more (GeoPackage) | {p['outlines']} in {p['outlines_seconds']:.0f} s, "
        f"at most {p['peak_with_outlines_mib']} MiB |"
    )


def _report_real(r: dict[str, Any], side: int = 20_000) -> None:
    b = r["blended"]
    windows = len(Axis.cover(side, WINDOW, OVERLAP)) ** 2
    each = b["cpu_seconds"] / b["windows"]
    print(f"\n| real model, mosaic of {r['crops']} crops, {r['pixels'] / 1e6:.2f} megapixels | |\n| --- | --- |")
    print(f"| windows, wall, own CPU time | {b['windows']}, {b['seconds']:.0f} s, {b['cpu_seconds']:.0f} s |")
    print(f"| for {side} x {side}, extrapolated from its CPU time a window | {each * windows / 3600:.1f} h |")
    print(f"| seam, hard borders | {_seam(r['hard']['seam'])} |")
    print(f"| seam, blended, overlap {OVERLAP} | {_seam(b['seam'])} |")
    print(f"| seam, blended, overlap 0.5 | {_seam(r['half']['seam'])} |")
    print(f"| pixels equal for batch 1 and 4 | {100 * r['batches_agree']:.4f} % |")
    print(f"| resident memory at most | {r['peak_mib']} MiB |")


def _seam(shares: list[float]) -> str:
    ends, middles, elsewhere = shares
    return (
        f"{ends:.2f} ‰, {middles:.2f} ‰, {elsewhere:.2f} ‰ (ratios {ends / elsewhere:.2f}, {middles / elsewhere:.2f})"
    )


if __name__ == "__main__":
    main()
