"""A trained model and a picture or raster of any size in; its map of classes, outlines and areas out, by windows."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from sampeft.data.scale import Scale
from sampeft.errors import UsageError
from sampeft.io import geotiff, read_volume, write_map
from sampeft.io.areas import write_class_areas
from sampeft.io.vector import KINDS, Kind, write_areas
from sampeft.io.windows import Ids, MapWriter, glance, looks_like_picture, opened
from sampeft.labels import LabelSet
from sampeft.options import check_ranges, check_tile, number
from sampeft.prediction.batch_size import Batch
from sampeft.prediction.by_windows import Progress, channels_by_rows
from sampeft.prediction.inference import Segmenter, output_stem
from sampeft.prediction.raster_reading import RowReader

_TOO_LARGE = 1 << 26  # pixels that are not looked at whole unless asked for


@dataclass(frozen=True)
class RasterOptions:
    """How a picture or raster is looked at and what is made of it.

    tile: pixels of a window's side, `auto`: as large as the training pictures, or on the ground, or `off`: in one piece.
    overlap: share of a window that the next one sees, too. gsd: metres on the ground of a pixel of the network's square,
    instead of what the run says. vector: also write outlines as `geojson` or `gpkg`. min_area, simplify: see
    `write_areas`. areas: also write a CSV of pixels and square metres of each class.
    """

    tile: str = "auto"
    overlap: float = number(0.25, 0, 0.75)
    gsd: float | None = number(None, 0, 1_000_000, above=True)
    vector: Kind | None = None
    min_area: float = number(0.0, 0)
    simplify: float = number(0.0, 0, 1000)
    areas: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        check_tile(self.tile)
        if self.gsd is not None and self.tile != "auto":
            raise UsageError("--gsd and --tile both say how large a window is; give one of them")
        if self.vector is not None and self.vector not in KINDS:
            raise UsageError(f"--vector is '{self.vector}'; known: {', '.join(KINDS)}")


@dataclass(frozen=True)
class RasterFiles:
    """What was written. window: (rows, columns) in pixels of the raster, None when it was looked at in one piece."""

    map: Path
    outlines: Path | None
    areas: Path | None
    window: tuple[int, int] | None


def predict_raster(
    segmenter: Segmenter,
    path: Path,
    out: Path,
    options: RasterOptions | None = None,
    batch: Batch = "auto",
    progress: Progress | None = None,
    reader: RowReader | None = None,
) -> RasterFiles:
    """Segment a PNG, JPEG, TIFF or GeoTIFF of any size into the folder `out`; each file is there whole or not at all.

    progress: (windows done, all). reader: reads the probabilities of what is cut into windows, and nothing else.
    Memory holds rows of windows: of a GeoTIFF W x (classes x overlapping rows x 4 bytes + window rows x bands), whatever
    its height; other pictures are read whole. A refiner gets the whole map, see `check_refiner`.
    Raises UsageError when no window can be chosen or a refiner does not go with windows, DataError as `read_volume`,
    OSError when it cannot be written.
    """
    options = options or RasterOptions()
    window = chosen_window(segmenter, path, options)
    stem = out / output_stem(path)
    if window is None:
        volume = read_volume(path)
        way = segmenter.way(batch)
        channels = next(segmenter.predict_volumes([(volume, segmenter.preparation)], way, progress))
        written = write_map(stem, channels, segmenter.labels, volume)
    else:
        with opened(path) as source:
            written = stem.with_name(stem.name + (".png" if source.header is None else ".tif"))
            maps = reader.writing(out, stem.name, source, segmenter.views) if reader else nullcontext()
            with MapWriter(written, source, Ids(segmenter.labels)) as writer:
                with maps:
                    rows = channels_by_rows(segmenter, source, window, options.overlap, batch, progress, reader)
                    for channels_nW, missing_nW in rows:
                        ids_nW = segmenter.labels.to_ids(channels_nW)
                        writer.append(geotiff.without_measurement(ids_nW, missing_nW, segmenter.labels))
                writer.finish()  # last: where it is, its other maps are
    return RasterFiles(written, *write_beside(written, stem, segmenter.labels, options), window)


def write_beside(
    written: Path, stem: Path, labels: LabelSet, options: RasterOptions
) -> tuple[Path | None, Path | None]:
    """Write outlines and areas of a picture's label map where they are asked for; their files."""
    outlines = areas = None
    if options.vector:
        outlines = stem.with_name(f"{stem.name}.{options.vector}")
        write_areas(written, outlines, labels, options.vector, options.min_area, options.simplify)
    if options.areas:
        areas = stem.with_name(f"{stem.name}_areas.csv")
        write_class_areas(written, areas, labels)
    return outlines, areas


def window_of(segmenter: Segmenter, path: Path, options: RasterOptions) -> tuple[int, int] | None:
    """What `chosen_window` says of a picture or raster; None for other images. Raises what it raises."""
    return chosen_window(segmenter, path, options) if looks_like_picture(path) else None


def chosen_window(segmenter: Segmenter, path: Path, options: RasterOptions) -> tuple[int, int] | None:
    """(rows, columns) of a window in pixels of the raster; None: it is looked at in one piece, scaled to the square.

    `auto`: by the ground where metres are known of training and raster; else the size of the training pictures, unless
    the raster is hardly larger. Raises UsageError when a raster is too large to be looked at blindly.
    """
    if options.tile == "off":
        return None
    size, metres = glance(path)
    side = segmenter.preparation.side
    crops = segmenter.preparation.intensity.crop == "body"
    if options.tile != "auto" or options.gsd is not None:
        if crops:
            raise UsageError(f"{path}: the run cuts every image to the body, which windows cannot; use --tile off")
        if options.tile != "auto":
            return int(options.tile), int(options.tile)
        if metres is None:
            raise UsageError(f"{path}: states no place on the map, so --gsd says nothing about it; use --tile PIXELS")
        return Scale(gsd=options.gsd).window(side, metres)
    scale = Scale.from_json(segmenter.description)
    window = None if crops else scale.window(side, metres)
    if window is None:
        if size[0] * size[1] > _TOO_LARGE and not crops:
            raise UsageError(
                f"{path}: has {size[1]} x {size[0]} pixels, and the run does not say what part of it the network saw in "
                f"training; give `sampeft predict` the side of a training picture with --tile PIXELS, or --tile off to look "
                f"at it whole; a run that is trained anew knows its pictures' size"
            )
        return None
    if max(window) < side // 2:
        logging.getLogger("sampeft").warning(
            "warning: %s: a window has only %d x %d pixels for a network of side %d; its pixels are much larger on the "
            "ground than those of training",
            *(path, window[1], window[0], side),
        )
    by_ground = scale.gsd is not None and metres is not None
    if scale.is_one(size, window) or (not by_ground and scale.shows_whole(size, window)):
        return None
    return window
