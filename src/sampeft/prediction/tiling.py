"""Whether a picture or raster is looked at in one piece or by windows, and by how large ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from sampeft.data.preprocessing import Preparation
from sampeft.data.raster_scale import Scale
from sampeft.errors import UsageError
from sampeft.io.raster_windows import glance, looks_like_picture
from sampeft.io.vector import KINDS, Kind
from sampeft.options import check_ranges, check_tile, number

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


def window_of(path: Path, preparation: Preparation, scale: Scale, options: RasterOptions) -> tuple[int, int] | None:
    """What `choose_window` says of a picture or raster, of which only the beginning is read; None for other files."""
    if options.tile == "off" or not looks_like_picture(path):
        return None
    return choose_window(path, *glance(path), preparation, scale, options)


def choose_window(
    path: Path,
    size: tuple[int, int],
    metres: tuple[float, float] | None,
    preparation: Preparation,
    scale: Scale,
    options: RasterOptions,
) -> tuple[int, int] | None:
    """(rows, columns) of a window in pixels of a picture (H, W); None: it is looked at in one piece, scaled to the square.

    path: for messages. metres: (down, across) on the ground of one of its pixels. scale: of the training pictures. `auto`: by
    the ground where metres are known of training and raster; else the size of the training pictures, unless the raster is
    hardly larger. Raises UsageError when a raster is too large to be looked at blindly.
    """
    if options.tile == "off":
        return None
    side, crops = preparation.side, preparation.intensity.crop == "body"
    if options.tile != "auto" or options.gsd is not None:
        if crops:
            raise UsageError(f"{path}: the run cuts every image to the body, which windows cannot; use --tile off")
        if options.tile != "auto":
            return int(options.tile), int(options.tile)
        if metres is None:
            raise UsageError(f"{path}: states no place on the map, so --gsd says nothing about it; use --tile PIXELS")
        return Scale(gsd=options.gsd).window(side, metres)
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
