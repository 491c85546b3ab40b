"""Close-ups of small targets: where to look, and where there is room for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.labels import LabelSet
from sampeft.report.style import rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]
Box = tuple[slice, slice]  # rows, columns

SMALL = 0.02  # share of the picture that all of the truth's foreground fills at most,
_TINY = 0.1  # and of the picture's smaller side that its largest object measures at most
_LEAST = 24  # pixels: side of what is shown closely
_PART = 0.46  # of the picture's smaller side: side of the close-up
_LARGER = 1.4  # times that it enlarges at least
_RINGED, _RINGS = 0.05, 40  # of the picture's smaller side: extent of what gets a ring; most rings per class


@dataclass(frozen=True)
class CloseUp:
    """A square of the picture, and the corner of the panel in which it is shown larger.

    top, left, side: pixels. corner: (0 top or 1 bottom, 0 left or 1 right).
    """

    top: int
    left: int
    side: int
    corner: tuple[int, int]
    shape_HW: tuple[int, int]

    @classmethod
    def of(cls, truth_HW: Array | None, predictions: Iterable[Array], labels: LabelSet) -> CloseUp | None:
        """None unless there is a background, and a foreground of small objects that fill no more than 2 % of the picture.

        All of the truth's foreground is in it when that is compact, else its largest object.
        """
        if truth_HW is None or not labels.has_background:
            return None
        targets_HW = np.isin(truth_HW, labels.foreground)
        if not 0 < targets_HW.sum() <= SMALL * targets_HW.size:
            return None
        height, width = truth_HW.shape
        most = int(_PART / _LARGER * min(height, width))
        objects = _objects(targets_HW)
        if max(map(_extent, objects)) > _TINY * min(height, width):
            return None
        for rows, columns in (_around(objects), max(objects, key=lambda box: int(targets_HW[box].sum()))):
            if (side := max(_LEAST, int(1.15 * _extent((rows, columns))) + 6)) <= most:
                break
        else:
            return None
        top = int(np.clip((rows.start + rows.stop - side) // 2, 0, height - side))
        left = int(np.clip((columns.start + columns.stop - side) // 2, 0, width - side))
        shown_HW = targets_HW.astype(np.int64)
        for prediction_HW in predictions:
            shown_HW += np.isin(prediction_HW, labels.foreground)
        shown_HW[top : top + side, left : left + side] += 1  # the frame itself must stay in sight
        y, x = (top + side / 2) / height, (left + side / 2) / width

        def hidden_and_near(corner: tuple[int, int]) -> tuple[int, float]:
            hidden = int(shown_HW[covered(corner, truth_HW.shape)].sum())
            return hidden, -((corner[0] - y) ** 2 + (corner[1] - x) ** 2)

        corner = min(((down, right) for down in (0, 1) for right in (0, 1)), key=hidden_and_near)
        return cls(top, left, side, corner, (height, width))

    def axes(self, panel: Axes) -> Axes:
        """Axes for the close-up in its corner of a panel."""
        height, width = self.shape_HW
        part = _PART * min(height, width)
        down, right = self.corner
        close = panel.inset_axes(
            (right * (1 - part / width), (1 - down) * (1 - part / height), part / width, part / height)
        )
        close.set(xticks=[], yticks=[])
        for spine in close.spines.values():
            spine.set(edgecolor="white", linewidth=1.2)
        return close

    def finish(self, panel: Axes, close: Axes, channels_HW: Array | None, labels: LabelSet) -> None:
        """Set what both show, frame the square in the panel, and ring small objects of the channels outside of it."""
        from matplotlib.patches import Rectangle

        close.set_xlim(self.left - 0.5, self.left + self.side - 0.5)
        close.set_ylim(self.top + self.side - 0.5, self.top - 0.5)
        close.images[0].set_interpolation("nearest")
        height, width = self.shape_HW
        panel.set_xlim(-0.5, width - 0.5)
        panel.set_ylim(height - 0.5, -0.5)
        frame = Rectangle((self.left - 0.5, self.top - 0.5), self.side, self.side, fill=False)
        frame.set(edgecolor="white", linewidth=1.0)
        panel.add_patch(frame)
        if channels_HW is None:
            return
        for k in labels.foreground:
            objects = _objects(channels_HW == k)
            for rows, columns in objects if len(objects) <= _RINGS else ():
                y, x = (rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2
                inside = self.top <= y < self.top + self.side and self.left <= x < self.left + self.side
                if not inside and _extent((rows, columns)) <= _RINGED * min(height, width):
                    panel.plot(x, y, marker="o", markersize=11, markerfacecolor="none", markeredgecolor=rgb(labels, k))


def covered(corner: tuple[int, int], shape_HW: tuple[int, ...]) -> Box:
    """The pixels of a picture that a close-up in this corner hides."""
    part = round(_PART * min(shape_HW))
    rows, columns = (
        slice(whole - part, whole) if far else slice(0, part) for far, whole in zip(corner, shape_HW, strict=True)
    )
    return rows, columns


def _objects(mask_HW: npt.NDArray[np.bool_]) -> list[Box]:
    """Boxes of the objects, corners touching."""
    from scipy import ndimage

    boxes: list[Box] = ndimage.find_objects(ndimage.label(mask_HW, structure=np.ones((3, 3)))[0])
    return boxes


def _around(boxes: list[Box]) -> Box:
    """The box of all boxes."""
    return (
        slice(min(rows.start for rows, _ in boxes), max(rows.stop for rows, _ in boxes)),
        slice(min(columns.start for _, columns in boxes), max(columns.stop for _, columns in boxes)),
    )


def _extent(box: Box) -> int:
    return max(int(end.stop) - int(end.start) for end in box)
