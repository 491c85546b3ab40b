"""An image as the network looks at it: planes, each covered by windows, and what the network says of those put together.

A volume has many planes with one window each, a photograph one plane with one window, a large raster one plane with many.
`open_scene` alone decides which; nobody else asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.data.intensity import select_bands
from sampeft.data.preprocessing import Preparation, PreparedVolume
from sampeft.data.raster_levels import prepared_sample
from sampeft.data.raster_scale import Scale
from sampeft.data.slices import Frame
from sampeft.io import read_volume
from sampeft.io.georeference import affine_of, pixel_metres
from sampeft.io.geotiff import MapHeader
from sampeft.io.raster_windows import Picture, Source, glance, looks_like_picture, opened
from sampeft.prediction.bands import Band, BlendedBand, Channels, LogitsBand
from sampeft.prediction.sliding_window import Axis, Blend, finished
from sampeft.prediction.tiling import RasterOptions, choose_window, window_of
from sampeft.prediction.tta import View
from sampeft.volume import Volume


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a plane that goes through the network as one square.

    index: its number in the scene, counted from 0. image: (3, side, side) in 0..1 of a view of it; None where nothing was
    measured, which is not looked at. missing_hw: where nothing was measured, if that is told window by window.
    """

    scene: Scene
    index: int
    image: Callable[[View], torch.Tensor] | None
    missing_hw: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class WindowLogits:
    """What the network says of a window: logits (K, h, w) of the square and, with several views of it, the share (h, w) of
    them that see another class. None of a window that it did not look at."""

    window: Window
    logits_Khw: torch.Tensor | None
    disagreement_hw: torch.Tensor | None = None


Assembler = Callable[[WindowLogits], Iterator[Band]]


class Scene(ABC):
    """size: (H, W) of a plane. frame: of every window. spacing_mm: slice, row, column. warnings: what is odd about the image; of
    one that is cut into windows they are known with the first of them."""

    path: Path
    size: tuple[int, int]
    frame: Frame
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    warnings: tuple[str, ...] = ()

    @property
    @abstractmethod
    def planes(self) -> int:
        """How many there are."""

    @abstractmethod
    def __len__(self) -> int:
        """Windows of all planes."""

    @abstractmethod
    def windows(self) -> Iterator[Window]:
        """In their order, plane by plane; of a plane from left to right and from top to bottom."""

    @abstractmethod
    def assembler(self, classes: int, temperature: float, disagreement: bool) -> Assembler:
        """What takes the logits of all windows, in order, and gives the bands that each of them completes.

        temperature: what logits are divided by before they are probabilities. disagreement: bands tell that of the views, too.
        """

    @property
    def missing(self) -> npt.NDArray[np.bool_] | None:
        """(S, H, W) where nothing was measured; None where that is of no pixel, or told band by band."""
        return None

    @abstractmethod
    def restore(self, channels_SHW: Channels) -> Channels:
        """(S, H, W) of the planes -> (I, J, K) on the image's own grid."""


class SliceScene(Scene):
    """The slices of a volume, or a picture as its only slice, each looked at as a whole."""

    def __init__(self, prepared: PreparedVolume) -> None:
        self.prepared, self.path, self.frame = prepared, prepared.volume.path, prepared.frame
        self.size, self.spacing_mm, self.warnings = prepared.frame.size, prepared.view.spacing_mm, prepared.warnings
        self._views: dict[View, PreparedVolume] = {}

    @property
    def planes(self) -> int:
        return len(self.prepared)

    def __len__(self) -> int:
        return len(self.prepared)

    def windows(self) -> Iterator[Window]:
        for s in range(len(self)):
            yield Window(self, s, partial(self._image, s))

    def _image(self, s: int, view: View) -> torch.Tensor:
        if view not in self._views:
            self._views[view] = view.windowed(self.prepared)
        return self._views[view].image(s)

    def assembler(self, classes: int, temperature: float, disagreement: bool) -> Assembler:
        return partial(self._bands, temperature, disagreement)

    def _bands(self, temperature: float, disagreement: bool, said: WindowLogits) -> Iterator[Band]:
        """Blocks of rows, which stay in the processor's cache while they are looked at."""
        assert said.logits_Khw is not None
        top, left, _, right = self.frame.box
        wanted = said.disagreement_hw if disagreement else None
        others = self.frame.blocks(wanted[None]) if wanted is not None else None
        for rows, logits_Knw in self.frame.blocks(said.logits_Khw):
            inside = slice(top + rows.start, top + rows.stop), slice(left, right)
            disagreement_nw = next(others)[1][0] if others else None
            yield LogitsBand(said.window.index, *inside, logits_Knw, temperature, disagreement_nw)

    @property
    def missing(self) -> npt.NDArray[np.bool_] | None:
        return self.prepared.missing

    def restore(self, channels_SHW: Channels) -> Channels:
        return self.prepared.view.restore(channels_SHW)


@dataclass(frozen=True)
class _WindowFrame(Frame):
    """A frame of known scale: (down, across) pixels of the square for a pixel of the raster."""

    scale: tuple[float, float] = (1.0, 1.0)

    @property
    def inner_size(self) -> tuple[int, int]:
        height, width = (
            min(self.side, max(1, round(pixels * scale)))
            for pixels, scale in zip(self.box_size, self.scale, strict=True)
        )
        return height, width


class TiledScene(Scene):
    """A picture or raster that overlapping windows cover; their probabilities are blended smoothly.

    window: its (rows, columns) in pixels of the raster. source: the open image, once its first window is there. Memory holds
    the rows that windows see and that later ones add to, whatever the raster's height.
    """

    planes = 1

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        window: tuple[int, int],
        overlap: float,
        preparation: Preparation,
        source: Callable[[], AbstractContextManager[Source]],
    ) -> None:
        self.path, self.size, self.window = path, size, window
        self.source: Source | None = None
        self._open, self._preparation = source, preparation
        self._rows, self._columns = (Axis.cover(n, length, overlap) for n, length in zip(size, window, strict=True))
        shape, side = (self._rows.length, self._columns.length), preparation.side
        self.frame = _WindowFrame(shape, (0, 0, *shape), side, (side / window[0], side / window[1]))

    def __len__(self) -> int:
        return len(self._rows) * len(self._columns)

    def windows(self) -> Iterator[Window]:
        with self._open() as source:
            self.source = source
            shared = replace(prepared_sample(source, self._preparation), frame=self.frame, reach=None)
            self.warnings = shared.warnings
            strip = _Strip(source, self._rows)
            for row in range(len(self._rows)):
                strip.move_to(row)
                for column, left in enumerate(self._columns.starts):
                    array_hw, missing_hw = strip.columns(left, left + self._columns.length)
                    image = None if missing_hw.all() else partial(self._image, shared, array_hw)
                    yield Window(self, row * len(self._columns) + column, image, missing_hw)

    def _image(self, shared: PreparedVolume, array_hw: npt.NDArray[Any], view: View) -> torch.Tensor:
        """A window prepared as any image is. shared: what all windows share."""
        volume = Volume(array_hw[:, :, None], None, self.path)
        slices = shared.view.slices(select_bands(volume, self._preparation.intensity.bands))
        return view.windowed(replace(shared, volume=volume, slices=slices)).image(0)

    def assembler(self, classes: int, temperature: float, disagreement: bool) -> Assembler:
        blend = Blend(self._rows, self._columns, classes + disagreement)

        def bands(said: WindowLogits) -> Iterator[Band]:
            planes_Phw = None
            if said.logits_Khw is not None:
                planes = (self.frame.logits(said.logits_Khw) / temperature).softmax(dim=0)
                if disagreement and said.disagreement_hw is not None:
                    planes = torch.cat([planes, self.frame.logits(said.disagreement_hw[None])])
                planes_Phw = planes.numpy()
            row, column = divmod(said.window.index, len(self._columns))
            blended_Pnw = blend.add(row, column, planes_Phw)
            assert said.window.missing_hw is not None
            missing_nw = said.window.missing_hw[: blended_Pnw.shape[1], : blended_Pnw.shape[2]]
            inside = finished(self._rows, row), finished(self._columns, column)
            yield BlendedBand(0, *inside, missing_nw, blended_Pnw, classes)

        return bands

    def restore(self, channels_SHW: Channels) -> Channels:
        return np.ascontiguousarray(np.moveaxis(channels_SHW, 0, 2))


class _Strip:
    """The rows of a raster that one row of windows sees; those that the next row sees, too, are not read twice."""

    def __init__(self, source: Source, rows: Axis) -> None:
        self._source, self._rows, self._bottom = source, rows, 0
        self._array, self._missing = source.read(0, 0)

    def move_to(self, index: int) -> None:
        top = self._rows.starts[index]
        bottom = top + self._rows.length
        array, missing = self._source.read(max(self._bottom, top), bottom)
        seen = max(self._bottom - top, 0)
        if seen:
            array = np.concatenate([self._array[-seen:], array])
            missing = np.concatenate([self._missing[-seen:], missing])
        self._array, self._missing, self._bottom = array, missing, bottom

    def columns(self, left: int, right: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        return self._array[:, left:right], self._missing[:, left:right]


def open_scene(
    image: Path | Volume | PreparedVolume,
    preparation: Preparation,
    scale: Scale | None = None,
    options: RasterOptions | None = None,
) -> Scene:
    """The scene of a file or DICOM series, or of what was read of one.

    scale: at what scale pictures were seen in training. A file that is cut into windows is not read before they are; of a
    GeoTIFF no more than their rows are in memory. Raises DataError as `read_volume`, UsageError as `choose_window`.
    """
    scale, options = scale or Scale(), options or RasterOptions()
    if isinstance(image, Path):
        window = window_of(image, preparation, scale, options)
        if window is not None:
            return TiledScene(image, glance(image)[0], window, options.overlap, preparation, partial(opened, image))
        return SliceScene(PreparedVolume.of(read_volume(image), preparation))
    volume = image.volume if isinstance(image, PreparedVolume) else image
    # A flat image of another kind of file, such as DICOM, is looked at whole, as it is by its path.
    if volume.is_raster and (looks_like_picture(volume.path) or not volume.path.exists()):
        size, header = volume.grid[:2], volume.header
        known = isinstance(header, MapHeader)
        metres = pixel_metres(header.crs, affine_of(header.transform, header.gcps), size) if known else None
        window = choose_window(volume.path, size, metres, preparation, scale, options)
        if window is not None:
            source = lambda: nullcontext(Picture(volume))  # noqa: E731
            return TiledScene(volume.path, size, window, options.overlap, preparation, source)
    return SliceScene(image if isinstance(image, PreparedVolume) else PreparedVolume.of(image, preparation))
