"""A trained model and a picture or raster of any size in; its map of classes, outlines and areas out, by windows."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sampeft.data.intensity import select_bands
from sampeft.data.prepared import PreparedVolume
from sampeft.data.samples import prepared_sample
from sampeft.data.scale import Scale
from sampeft.data.slices import Frame
from sampeft.errors import UsageError
from sampeft.io import geotiff, read_volume, write_map
from sampeft.io.areas import write_class_areas
from sampeft.io.vector import KINDS, Kind, write_areas
from sampeft.io.windows import Ids, MapWriter, Source, glance, looks_like_picture, opened
from sampeft.labels import LabelSet
from sampeft.prediction.batch_size import Batch, BatchSize, memory_in_words
from sampeft.prediction.inference import Segmenter, output_stem
from sampeft.prediction.model_lock import lock_of
from sampeft.prediction.raster_reading import RowReader
from sampeft.prediction.tiles import Axis, Probabilities, class_rows
from sampeft.volume import Volume

Progress = Callable[[int, int], None]
Network = Callable[[torch.Tensor], torch.Tensor]
"""Images (B, 3, side, side) in 0..1 -> logits (B, K, h, w)."""

_TOGETHER = 4  # windows that go through the network with the batch `auto`
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
    overlap: float = 0.25
    gsd: float | None = None
    vector: Kind | None = None
    min_area: float = 0.0
    simplify: float = 0.0
    areas: bool = False

    def __post_init__(self) -> None:
        if self.tile not in ("auto", "off") and not (self.tile.isdecimal() and int(self.tile) > 0):
            raise UsageError(f"--tile is '{self.tile}'; give auto, off, or the pixels of a window's side, such as 512")
        if not 0 <= self.overlap <= 0.75:
            raise UsageError(f"--overlap is {self.overlap:g}; it is a share of a window, 0 to 0.75")
        if self.gsd is not None and not self.gsd > 0:
            raise UsageError(f"--gsd is {self.gsd:g}; it is metres on the ground, above 0")
        if self.gsd is not None and self.tile != "auto":
            raise UsageError("--gsd and --tile both say how large a window is; give one of them")
        if self.vector is not None and self.vector not in KINDS:
            raise UsageError(f"--vector is '{self.vector}'; known: {', '.join(KINDS)}")
        if min(self.min_area, self.simplify) < 0:
            raise UsageError("--min_area and --simplify are at least 0")


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
    its height; other pictures are read whole.
    Raises UsageError when no window can be chosen, DataError as `read_volume`, OSError when it cannot be written.
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
        check_no_refiner(segmenter, path)
        with opened(path) as source:
            written = stem.with_name(stem.name + (".png" if source.header is None else ".tif"))
            maps = reader.writing(out, stem.name, source) if reader else nullcontext()
            with MapWriter(written, source, Ids(segmenter.labels)) as writer:
                with maps:
                    rows = channels_by_rows(segmenter, source, window, options.overlap, batch, progress, reader)
                    for channels_nW, missing_nW in rows:
                        ids_nW = segmenter.labels.to_ids(channels_nW)
                        writer.append(geotiff.without_measurement(ids_nW, missing_nW, segmenter.labels))
                writer.finish()  # last: where it is, its other maps are
    return RasterFiles(written, *write_beside(written, stem, segmenter.labels, options), window)


def check_no_refiner(segmenter: Segmenter, path: Path) -> None:
    """Raises UsageError where what is wanted of an image that is cut into windows needs it whole."""
    if segmenter.refiner is not None or segmenter.views > 1:
        raise UsageError(
            f"{path}: refiners and views look at whole images, this one is larger than training's and is cut into windows; "
            "leave them out, or look at it whole with `sampeft predict --tile off`"
        )


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


@dataclass(frozen=True)
class WindowFrame(Frame):
    """A frame of known scale: (down, across) pixels of the square for a pixel of the raster."""

    scale: tuple[float, float] = (1.0, 1.0)

    @property
    def inner_size(self) -> tuple[int, int]:
        height, width = (
            min(self.side, max(1, round(pixels * scale)))
            for pixels, scale in zip(self.box_size, self.scale, strict=True)
        )
        return height, width


def channels_by_rows(
    segmenter: Segmenter,
    source: Source,
    window: tuple[int, int],
    overlap: float = 0.25,
    batch: Batch = "auto",
    progress: Progress | None = None,
    reader: RowReader | None = None,
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]:
    """Class channels (n, W) from top to bottom: probabilities of overlapping windows, blended smoothly, the greatest taken.
    And (n, W) where nothing was measured, so that the class there means nothing; windows of that are not looked at.
    """
    labels, side = segmenter.labels, segmenter.preparation.side
    rows, columns = (Axis.cover(size, length, overlap) for size, length in zip(source.size, window, strict=True))
    shape = rows.length, columns.length
    frame = WindowFrame(shape, (0, 0, *shape), side, (side / window[0], side / window[1]))
    shared = replace(prepared_sample(source, segmenter.preparation), frame=frame, reach=None)
    strip = _Strip(source, rows)
    network = network_of(segmenter)
    together = _TOGETHER if batch == "auto" else BatchSize(batch).now
    bands = segmenter.preparation.intensity.bands

    def predicted(i: int) -> Iterator[Probabilities | None] | None:
        strip.move_to(i)
        if strip.missing.all():
            return None
        images = (_window_image(shared, bands, strip, left, columns.length) for left in columns.starts)
        return _probabilities(network, frame, images, together, reader.temperature if reader else 1.0)

    see = partial(reader.see, source.size[1]) if reader else None
    for i, (_, channels) in enumerate(class_rows(rows, columns, len(labels), predicted, see)):
        missing_nW = strip.missing[: len(channels)]
        if reader:
            reader.end_rows(channels, missing_nW)
        yield channels, missing_nW
        if progress:
            progress((i + 1) * len(columns), len(rows) * len(columns))


class _Strip:
    """The rows of a raster that one row of windows sees; those that the next row sees, too, are not read twice."""

    def __init__(self, source: Source, rows: Axis) -> None:
        self._source, self._rows, self._bottom = source, rows, 0
        self.array, self.missing = source.read(0, 0)

    def move_to(self, index: int) -> None:
        top = self._rows.starts[index]
        bottom = top + self._rows.length
        array, missing = self._source.read(max(self._bottom, top), bottom)
        seen = max(self._bottom - top, 0)
        if seen:
            array = np.concatenate([self.array[-seen:], array])
            missing = np.concatenate([self.missing[-seen:], missing])
        self.array, self.missing, self._bottom = array, missing, bottom


def _window_image(
    shared: PreparedVolume, bands: Sequence[int] | None, strip: _Strip, left: int, length: int
) -> torch.Tensor | None:
    """(3, side, side) of a window, prepared as any image is; None when it has no measurement."""
    if strip.missing[:, left : left + length].all():
        return None
    volume = Volume(strip.array[:, left : left + length, None], None, shared.volume.path)
    chosen = shared.view.slices(select_bands(volume, bands))
    return replace(shared, volume=volume, slices=chosen).image(0)


def _probabilities(
    network: Network, frame: Frame, images: Iterator[torch.Tensor | None], batch: int, temperature: float
) -> Iterator[Probabilities | None]:
    """Of each window (K, h, w), in order; `batch` of those that hold anything go through the network at a time."""
    waiting: deque[torch.Tensor | None] = deque()
    known = 0
    for image in images:
        waiting.append(image)
        known += image is not None
        if known == batch:
            yield from _looked_at(network, frame, waiting, temperature)
            waiting.clear()
            known = 0
    yield from _looked_at(network, frame, waiting, temperature)


def _looked_at(
    network: Network, frame: Frame, waiting: deque[torch.Tensor | None], temperature: float
) -> Iterator[Probabilities | None]:
    known = [image for image in waiting if image is not None]
    logits = iter(network(torch.stack(known))) if known else iter(())
    for image in waiting:
        yield None if image is None else (frame.logits(next(logits)) / temperature).softmax(dim=0).numpy()


def network_of(segmenter: Segmenter) -> Network:
    """The engine of a segmenter, or its model itself, under the lock that its other users take."""
    model = segmenter.model.eval()
    device = next(model.parameters()).device

    def network(images_B3HW: torch.Tensor) -> torch.Tensor:
        with memory_in_words(len(images_B3HW)), lock_of(model), torch.inference_mode():
            if segmenter.engine is not None:
                return segmenter.engine(images_B3HW)
            logits: torch.Tensor = model(images_B3HW.to(device)).float().cpu()
            return logits

    return network
