"""Contact sheet: a picture of each case's most telling slice with its labels over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Case, Dataset
from sampeft.data.ground_truth import read_labels
from sampeft.data.preprocessing import Preparation, PreparedVolume
from sampeft.data.slices import SliceView
from sampeft.io import read_volume
from sampeft.labels import LabelSet
from sampeft.report.figures import DPI, rgb, show_classes, show_image
from sampeft.volume import IGNORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
MOST = 24
_TILE, _GAP, _STRIP = 2.15, 0.10, 0.20  # inches: side of a tile, between tiles, for a tile's name
_TINY = 0.04  # of the picture's larger side: objects up to this size get a ring,
_RARE = 0.003  # when all pixels of their class are no more of the picture than this
_RINGS = 40  # per class at most
_SHARP = 512  # pixels of a tile's larger side; larger pictures are thinned out


@dataclass(frozen=True)
class Tile:
    """A slice: levels (H, W, 3) in 0..1 as the model is shown them, class channels (H, W) or IGNORE.

    box: (top, left, bottom, right) that the intensity recipe cuts out. aspect: height of a pixel over its width.
    rings: (class, x, y) of objects that would hardly be seen.
    """

    name: str
    image_HWC: Array
    channels_HW: Array
    box: tuple[int, int, int, int]
    aspect: float = 1.0
    rings: tuple[tuple[int, float, float], ...] = ()


def chosen_cases(cases: Sequence[Case], most: int = MOST) -> list[Case]:
    """At most so many cases, evenly spread over all."""
    step = max(1.0, len(cases) / most)
    return [cases[int(i * step)] for i in range(min(most, len(cases)))]


def telling_tile(dataset: Dataset, case: Case, preparation: Preparation) -> Tile:
    """The slice of a case that shows most classes, of those the one with most labelled pixels."""
    best, found = (-1, -1), None
    for file in case.files:
        volume = read_volume(file.image)
        view = SliceView.of(volume, preparation.plane)
        truth = view.slices(read_labels(file, dataset, volume).array)
        for s, channels_HW in enumerate(truth):
            counts = np.bincount(channels_HW[channels_HW >= 0].ravel(), minlength=len(dataset.labels))
            counts = counts[list(dataset.labels.foreground)]
            if (rank := (int((counts > 0).sum()), int(counts.sum()))) > best:
                best, found = rank, (file.id, volume, s, np.array(channels_HW))
    assert found is not None, "a case has at least one file with at least one slice"
    id, volume, s, channels_HW = found
    prepared = PreparedVolume.of(volume, preparation, quiet=True)
    levels = np.moveaxis(prepared.levels.apply(prepared.slices[s]), 0, -1)
    name = f"{id} {s + 1}/{len(prepared)}" if len(prepared) > 1 else id
    _, down, along = prepared.view.spacing_mm
    step = max(1, max(channels_HW.shape) // _SHARP)
    rings = [(k, x / step, y / step) for k in dataset.labels.foreground for x, y in _tiny(channels_HW == k)]
    top, left, bottom, right = (end // step for end in prepared.frame.box)
    return Tile(
        name,
        levels[::step, ::step],
        channels_HW[::step, ::step],
        (top, left, bottom, right),
        down / along,
        tuple(rings),
    )


def tiles(
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tile]:
    """A tile of each case. progress: called with (cases done, cases)."""
    made = []
    for done, case in enumerate(cases):
        made.append(telling_tile(dataset, case, preparation))
        if progress:
            progress(done + 1, len(cases))
    return made


def contact_sheet(shown: Sequence[Tile], labels: LabelSet, title: str) -> Figure:
    """The tiles in rows under a title, labels filled and outlined, tiny ones ringed, a legend of their colours below.

    Raises ValueError without tiles.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not shown:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(len(shown), max(4, math.ceil(math.sqrt(1.5 * len(shown)))))
    rows = math.ceil(len(shown) / columns)
    present = [k for k in labels.foreground if any((tile.channels_HW == k).any() for tile in shown)]
    ignored = any((tile.channels_HW == IGNORE).any() for tile in shown)
    width = columns * _TILE + (columns + 1) * _GAP
    per_line = max(1, int(width / (0.6 + 0.085 * max((len(labels.names[k]) for k in present), default=1))))
    below = 0.24 * math.ceil((len(present) + ignored) / per_line) + 0.2
    top = 0.42
    height = top + rows * (_TILE + _STRIP + _GAP) + below
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.text(_GAP / width, 1 - 0.27 / height, title, fontsize=11, weight="bold")
    for number, tile in enumerate(shown):
        row, column = divmod(number, columns)
        x = _GAP + column * (_TILE + _GAP)
        y = height - top - (row + 1) * (_TILE + _STRIP) - row * _GAP
        axes = figure.add_axes((x / width, y / height, _TILE / width, _TILE / height), facecolor="#eeeeee")
        _draw(axes, tile, labels)
        name = tile.name if len(tile.name) <= 36 else f"{tile.name[:17]}…{tile.name[-18:]}"
        figure.text(x / width, (y + _TILE + 0.05) / height, name, fontsize=8, color="#222222")
    handles: list[Any] = [
        Patch(facecolor=rgb(labels, k), edgecolor="black", linewidth=0.4, label=f"{labels.ids[k]}  {labels.names[k]}")
        for k in present
    ]
    if ignored:
        handles.append(Patch(facecolor="white", edgecolor="black", hatch="////", linewidth=0.4, label="no truth"))
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=min(per_line, len(handles)), fontsize=9, frameon=False,
                      handlelength=1.1, handleheight=1.0, columnspacing=1.5, borderaxespad=0.3)  # fmt: skip
    return figure


def _draw(axes: Axes, tile: Tile, labels: LabelSet) -> None:
    from matplotlib.patches import Rectangle

    height, width = tile.channels_HW.shape
    show_image(axes, tile.image_HWC)
    show_classes(axes, tile.channels_HW, labels)
    for k, x, y in tile.rings:
        axes.plot(x, y, marker="o", markersize=11, markerfacecolor="none", markeredgecolor=rgb(labels, k))
    top, left, bottom, right = tile.box
    if (top, left, bottom, right) != (0, 0, height, width):
        cut = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, linewidth=0.8)
        cut.set(edgecolor="#ffffffb0", linestyle=(0, (4, 3)))
        axes.add_patch(cut)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_aspect(tile.aspect, anchor="C")
    # The picture keeps its shape inside a square tile.
    grown = max(height * tile.aspect, width)
    x0, y0 = (width - 1) / 2, (height - 1) / 2
    axes.set_xlim(x0 - grown / 2, x0 + grown / 2)
    axes.set_ylim(y0 + grown / tile.aspect / 2, y0 - grown / tile.aspect / 2)


def _tiny(mask_HW: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Middles (x, y) of small objects of a class that has few pixels; none when there are very many."""
    if not 0 < mask_HW.sum() <= max(_RARE * mask_HW.size, 1):
        return []
    from scipy import ndimage

    objects, count = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    limit = _TINY * max(mask_HW.shape)
    return [
        ((columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2)
        for rows, columns in (ndimage.find_objects(objects) if count <= _RINGS else [])
        if max(rows.stop - rows.start, columns.stop - columns.start) <= limit
    ]
