"""A segmenter and a raster, looked at by overlapping windows, in; rows of classes from top to bottom out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sampeft.data.intensity import select_bands
from sampeft.data.prepared import PreparedVolume
from sampeft.data.samples import prepared_sample
from sampeft.data.slices import Frame
from sampeft.errors import UsageError
from sampeft.heads.given import without_small
from sampeft.io.windows import Source
from sampeft.prediction.batch_size import Batch, BatchSize, free_bytes, memory_in_words
from sampeft.prediction.inference import Segmenter
from sampeft.prediction.model_lock import lock_of
from sampeft.prediction.raster_reading import RowReader
from sampeft.prediction.test_time import View, mean_of_views
from sampeft.prediction.tiles import Axis, Probabilities, class_rows
from sampeft.refine import Channels, Refiner
from sampeft.volume import Volume

Progress = Callable[[int, int], None]
Network = Callable[[torch.Tensor], torch.Tensor]
"""Images (B, 3, side, side) in 0..1 -> logits (B, K, h, w)."""

_TOGETHER = 4  # windows that go through the network with the batch `auto`
_REFINED_BYTES = 40  # at most, of a pixel of a map that `components` refines


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


def check_refiner(refiner: Refiner | None, path: Path, size: tuple[int, int]) -> None:
    """Raises UsageError for a refiner that looks at slices, or where there is no memory for the map of an image of that size.

    What looks at the class map alone gets the whole of it.
    """
    if refiner is None:
        return
    if refiner.looks_at_slices():
        raise UsageError(
            f"{path}: the refiner {refiner.name} looks at whole images, this one is larger than training's and is cut into "
            "windows; take components; only `sampeft predict --tile off` looks at it whole"
        )
    needed, free = _REFINED_BYTES * size[0] * size[1], free_bytes(torch.device("cpu"))
    if needed > free:
        raise UsageError(
            f"{path}: the refiner {refiner.name} needs the whole map of {size[1]} x {size[0]} pixels at once, up to "
            f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free; leave it out or cut the image into parts"
        )


def channels_by_rows(
    segmenter: Segmenter,
    source: Source,
    window: tuple[int, int],
    overlap: float = 0.25,
    batch: Batch = "auto",
    progress: Progress | None = None,
    reader: RowReader | None = None,
) -> Iterator[tuple[Channels, npt.NDArray[np.bool_]]]:
    """Class channels (n, W) from top to bottom: probabilities of overlapping windows, blended smoothly, the greatest taken.
    And (n, W) where nothing was measured, so that the class there means nothing; windows of that are not looked at.

    With a refiner all rows come at once, at the end. Raises what `check_refiner` raises.
    """
    check_refiner(segmenter.refiner, source.path, source.size)
    rows = _rough_rows(segmenter, source, window, overlap, batch, progress, reader)
    if segmenter.refiner is None:
        yield from rows
        return
    channels_HW = np.empty(source.size, dtype=np.uint8)
    missing_HW = np.empty(source.size, dtype=np.bool_)
    top = 0
    for channels_nW, missing_nW in rows:
        bottom = top + len(channels_nW)
        channels_HW[top:bottom], missing_HW[top:bottom] = channels_nW, missing_nW
        top = bottom
    pixels = (1.0, 1.0, 1.0)  # the spacing of pictures, as it is where they are looked at whole
    yield (
        segmenter.refiner.refine_measured(channels_HW[None], missing_HW[None], pixels, segmenter.labels)[0],
        missing_HW,
    )


def _rough_rows(
    segmenter: Segmenter,
    source: Source,
    window: tuple[int, int],
    overlap: float,
    batch: Batch,
    progress: Progress | None,
    reader: RowReader | None,
) -> Iterator[tuple[Channels, npt.NDArray[np.bool_]]]:
    """As `channels_by_rows`, before any refiner."""
    classes, side = len(segmenter.labels), segmenter.preparation.side
    rows, columns = (Axis.cover(size, length, overlap) for size, length in zip(source.size, window, strict=True))
    shape = rows.length, columns.length
    frame = WindowFrame(shape, (0, 0, *shape), side, (side / window[0], side / window[1]))
    shared = replace(prepared_sample(source, segmenter.preparation), frame=frame, reach=None)
    if reader:
        reader.warnings = shared.warnings
    strip = _Strip(source, rows)
    look = _Look(
        network_of(segmenter),
        frame,
        segmenter.shown,
        reader.temperature if reader else 1.0,
        reader is not None and reader.uncertainty and segmenter.views > 1,
        segmenter.least_share,
    )
    together = _TOGETHER if batch == "auto" else BatchSize(batch).now
    prepared, bands = [view.windowed(shared) for view in look.shown], segmenter.preparation.intensity.bands

    def predicted(i: int) -> Iterator[Probabilities | None] | None:
        strip.move_to(i)
        if strip.missing.all():
            return None
        images = (_window_images(prepared, bands, strip, left, columns.length) for left in columns.starts)
        return look.through(images, together)

    see = partial(reader.see, source.size[1]) if reader else None
    planes = classes + look.disagreement
    for i, (_, channels) in enumerate(class_rows(rows, columns, classes, predicted, see, planes)):
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


Window = Sequence[torch.Tensor] | None
"""(3, side, side) of each view of a window; None when it has no measurement."""


def _window_images(
    prepared: Sequence[PreparedVolume], bands: Sequence[int] | None, strip: _Strip, left: int, length: int
) -> Window:
    """A window prepared as any image is. prepared: what all windows share, with the levels of each view."""
    if strip.missing[:, left : left + length].all():
        return None
    first = prepared[0]
    volume = Volume(strip.array[:, left : left + length, None], None, first.volume.path)
    chosen = first.view.slices(select_bands(volume, bands))
    return [replace(of_view, volume=volume, slices=chosen).image(0) for of_view in prepared]


@dataclass(frozen=True)
class _Look:
    """How windows go through a network: as these views, whose mean is divided by the temperature. least_share: of a window, that
    a class must fill to be drawn in it.

    disagreement: also tell the share of the views that see another class than the mean.
    """

    network: Network
    frame: Frame
    shown: tuple[View, ...]
    temperature: float
    disagreement: bool
    least_share: float

    def through(self, windows: Iterator[Window], batch: int) -> Iterator[Probabilities | None]:
        """Of each window (K, h, w), or (K + 1, h, w) with the disagreement, in order; `batch` of those that hold anything go
        through the network at a time."""
        waiting: deque[Window] = deque()
        known = 0
        for window in windows:
            waiting.append(window)
            known += window is not None
            if known == batch:
                yield from self._said(waiting)
                waiting.clear()
                known = 0
        yield from self._said(waiting)

    def _said(self, waiting: deque[Window]) -> Iterator[Probabilities | None]:
        known = [window for window in waiting if window is not None]
        said: Iterator[tuple[torch.Tensor, torch.Tensor | None]] = iter(())
        if known:
            images = map(torch.stack, zip(*known, strict=True))
            found = [self.network(view.moved(of_view)) for view, of_view in zip(self.shown, images, strict=True)]
            mean_BKhw, disagreement_Bhw = mean_of_views(found, self.shown)
            logits_BKhw = without_small(mean_BKhw, self.least_share, [self.frame.filled] * len(known))
            said = iter(
                zip(logits_BKhw, [None] * len(known) if disagreement_Bhw is None else disagreement_Bhw, strict=True)
            )
        for window in waiting:
            yield None if window is None else self._planes(*next(said))

    def _planes(self, logits_Khw: torch.Tensor, disagreement_hw: torch.Tensor | None) -> Probabilities:
        planes = (self.frame.logits(logits_Khw) / self.temperature).softmax(dim=0)
        if self.disagreement and disagreement_hw is not None:
            planes = torch.cat([planes, self.frame.logits(disagreement_hw[None])])
        return planes.numpy()


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
