"""Draw a slice and its classes on matplotlib axes: levels, filled classes, outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.labels import LabelSet
from sampeft.report.style import rgb
from sampeft.volume import IGNORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]

FILL = 0.38  # opacity of a class over the image
OUTLINE_DASHES = (0, (3.0, 2.0))


def show_image(axes: Axes, image_HW: Array) -> None:
    """uint8 from 0 to 255; numbers from 0 to 1 where they lie there, else from their minimum to their maximum."""
    low, high = 0.0, 1.0
    if image_HW.dtype == np.uint8:
        high = 255.0
    elif image_HW.size and not 0.0 <= float(np.min(image_HW)) <= float(np.max(image_HW)) <= 1.0:
        low, high = float(np.min(image_HW)), float(np.max(image_HW))
    levels = (image_HW.astype(np.float32) - low) / max(high - low, 1e-6)
    axes.imshow(levels, cmap="gray", vmin=0.0, vmax=1.0, interpolation="antialiased")


def show_classes(axes: Axes, channels_HW: Array, labels: LabelSet, *, numbers: bool = True) -> None:
    """Translucent fill, an outline drawn twice (dark under coloured) and the class id on regions with room for it.

    numbers: whether the ids are written.
    """
    from matplotlib.patheffects import Normal, Stroke

    height, width = channels_HW.shape
    over_HWC = np.zeros((height, width, 4), dtype=np.float32)
    for k in labels.foreground:
        over_HWC[channels_HW == k] = (*rgb(labels, k), FILL)
    axes.imshow(over_HWC, interpolation="nearest")
    if (channels_HW == IGNORE).any():
        axes.contourf(_bordered(channels_HW == IGNORE), levels=[0.5, 1.5], colors=["#ffffff44"], hatches=["////"],
                      extent=(-1.5, width + 0.5, -1.5, height + 0.5))  # fmt: skip
    grid_x, grid_y = np.arange(-1, width + 1), np.arange(-1, height + 1)
    for k in labels.foreground:
        mask = channels_HW == k
        if not mask.any():
            continue
        color = rgb(labels, k)
        outline = axes.contour(grid_x, grid_y, _bordered(mask), levels=[0.5], colors=[color], linewidths=1.0)
        outline.set_path_effects([Stroke(linewidth=1.9, foreground="#000000aa"), Normal()])
        if numbers and mask.sum() > 0.0035 * mask.size:
            y, x = _inmost(mask)
            number = axes.text(
                x, y, str(labels.ids[k]), color="white", fontsize=6.5, weight="bold", ha="center", va="center"
            )
            number.set_path_effects([Stroke(linewidth=1.6, foreground="black"), Normal()])
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def show_outlines(axes: Axes, channels_HW: Array, labels: LabelSet) -> None:
    """Thin dashed outlines of the classes, white on black, so that they differ from the outlines of `show_classes`.

    They end where the image or what has a truth ends, and a border between two classes is drawn once.
    """
    from matplotlib.patheffects import Normal, Stroke

    done_HW = channels_HW == IGNORE
    for k in labels.foreground:
        mask = channels_HW == k
        level_HW = np.ma.masked_array(mask.astype(np.float32), done_HW)
        done_HW = done_HW | mask
        if not mask.any() or done_HW.all():  # nothing is left that it could border on
            continue
        outline = axes.contour(level_HW, levels=[0.5], colors=["white"], linewidths=0.8, linestyles=[OUTLINE_DASHES])
        outline.set_path_effects([Stroke(linewidth=1.5, foreground="#000000aa"), Normal()])


def _bordered(mask_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """With an empty border, so that outlines close at the edge of the image."""
    return np.pad(mask_HW.astype(np.float32), 1)


def _inmost(mask_HW: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """(row, column) of the pixel deepest inside."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask_HW, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), mask_HW.shape)
    return int(row), int(column)
