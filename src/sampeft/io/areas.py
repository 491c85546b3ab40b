"""Pixels and square metres of each class of a label file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.io import geotiff, read_label_ids, write_atomically
from sampeft.io.georeference import affine_of, row_square_metres
from sampeft.labels import LabelSet
from sampeft.provenance import csv_text

_ROWS = 512


@dataclass(frozen=True)
class ClassArea:
    """A class of a map: its id in files, its pixels, and square metres on the ground, None without a place on the map."""

    id: int
    name: str
    pixels: int
    square_metres: float | None


def class_areas(map_path: Path, labels: LabelSet) -> list[ClassArea]:
    """Of a GeoTIFF or PNG of ids, which is read row by row; pixels of degrees or Mercator maps count by their row."""
    if not geotiff.is_map(map_path):
        ids_HW = read_label_ids(map_path).array[..., 0]
        return _listed(labels, _counted(ids_HW, labels).sum(axis=0), None)
    pixels, square_metres = np.zeros(len(labels), dtype=np.int64), np.zeros(len(labels))
    with geotiff.damage_told(map_path) as rasterio, geotiff.open_file(map_path) as file:
        crs, transform, gcps = geotiff.place_of(file)
        ground = row_square_metres(crs, affine_of(transform, gcps), file.shape)
        for top in range(0, file.height, _ROWS):
            rows = min(_ROWS, file.height - top)
            counted = _counted(file.read(1, window=rasterio.windows.Window(0, top, file.width, rows)), labels)
            pixels += counted.sum(axis=0)
            if ground is not None:
                square_metres += ground[top : top + rows] @ counted
    return _listed(labels, pixels, None if ground is None else square_metres)


def write_class_areas(map_path: Path, out: Path, labels: LabelSet) -> list[ClassArea]:
    """The same, also as CSV: id, class, pixels, area_m2; the last is empty without a place on the map."""
    areas = class_areas(map_path, labels)
    rows = [(a.id, a.name, a.pixels, "" if a.square_metres is None else f"{a.square_metres:.2f}") for a in areas]
    write_atomically(out, csv_text(["id", "class", "pixels", "area_m2"], rows))
    return areas


def _counted(ids_HW: npt.NDArray[Any], labels: LabelSet) -> npt.NDArray[np.int64]:
    """(H, K) pixels of each class in each row."""
    return np.stack([(ids_HW == id).sum(axis=1) for id in labels.ids], axis=1)


def _listed(
    labels: LabelSet, pixels: npt.NDArray[np.int64], square_metres: npt.NDArray[np.float64] | None
) -> list[ClassArea]:
    sizes = [None] * len(labels) if square_metres is None else square_metres.tolist()
    return [ClassArea(*row) for row in zip(labels.ids, labels.names, pixels.tolist(), sizes, strict=True)]
