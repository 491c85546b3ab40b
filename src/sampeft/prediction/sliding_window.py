"""Overlapping windows that cover an image, and the blend of what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sampeft.errors import UsageError

MOST_OVERLAP = 0.9
Planes = npt.NDArray[np.float32]
"""(P, h, w): probabilities of the classes, and perhaps more."""


@dataclass(frozen=True)
class Axis:
    """Windows of equal length that cover one axis of an image; those at its ends lie inside it.

    size: pixels of the axis. length: pixels of a window, at most `size`. starts: first pixel of each, ascending.
    """

    size: int
    length: int
    starts: tuple[int, ...]

    @classmethod
    def cover(cls, size: int, length: int, overlap: float) -> Axis:
        """As few windows as overlap by that share of their length or a little more, at even distances.

        Raises UsageError for a length below 1 or an overlap outside 0..0.9.
        """
        if length < 1 or not 0 <= overlap <= MOST_OVERLAP:
            raise UsageError(
                f"windows of {length} pixels with an overlap of {overlap:g}: the length is at least 1, the overlap a "
                f"share of it from 0 to {MOST_OVERLAP:g}"
            )
        length = min(length, size)
        step = max(1, round(length * (1 - overlap)))
        count = math.ceil((size - length) / step) + 1
        starts = np.linspace(0, size - length, count).round().astype(int)
        return cls(size, length, tuple(starts.tolist()))

    def __len__(self) -> int:
        return len(self.starts)

    def end(self, index: int) -> int:
        """First pixel that windows after this one still add to; `size` for the last."""
        return self.starts[index + 1] if index + 1 < len(self) else self.size

    @cached_property
    def weights(self) -> Planes:
        """(windows, length) share of each window in each of its pixels; over all windows a pixel's shares sum to 1.

        They fall like half a cosine wave where a window overlaps the next, and stay whole towards the image's border.
        """
        raw = np.ones((len(self), self.length))
        for index, (start, following) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            shared = start + self.length - following
            if shared > 0:
                rise = np.sin(np.pi / 2 * (np.arange(shared) + 0.5) / shared) ** 2
                raw[index, self.length - shared :] *= rise[::-1]
                raw[index + 1, :shared] *= rise
        total = np.zeros(self.size)
        for start, shares in zip(self.starts, raw, strict=True):
            total[start : start + self.length] += shares
        each = [shares / total[start : start + self.length] for start, shares in zip(self.starts, raw, strict=True)]
        return np.stack(each).astype(np.float32)


class Blend:
    """The weighted sum of windows, which are added from left to right and from top to bottom.

    Kept are the rows that later windows still add to: at most P x (window's rows - step) x width numbers, however many rows
    the image has.
    """

    def __init__(self, rows: Axis, columns: Axis, planes: int) -> None:
        shared = max((rows.starts[i] + rows.length - rows.end(i) for i in range(len(rows) - 1)), default=0)
        self.rows, self.columns = rows, columns
        self._above = np.zeros((planes, shared, columns.size), dtype=np.float32)
        self._block = np.zeros((planes, rows.length, columns.length), dtype=np.float32)

    def add(self, row: int, column: int, window_Phw: Planes | None) -> Planes:
        """Add a window; None: one that nothing is known of, which counts as 0. Returns (P, n, w) of the rows and columns of
        `finished`."""
        rows, columns, block, above = self.rows, self.columns, self._block, self._above
        if column == 0:
            block[:] = 0
        if window_Phw is not None:
            block += window_Phw * (rows.weights[row][:, None] * columns.weights[column])
        inside, across = finished(rows, row), finished(columns, column)
        height, width = inside.stop - inside.start, across.stop - across.start
        done = block[:, :, :width].copy()
        block[:, :, : columns.length - width] = block[:, :, width:].copy()
        block[:, :, columns.length - width :] = 0
        from_above = rows.starts[row - 1] + rows.length - inside.start if row else 0
        done[:, :from_above] += above[:, :from_above, across]
        above[:, : rows.length - height, across] = done[:, height:]
        return done[:, :height]


def finished(axis: Axis, index: int) -> slice:
    """The pixels that a window sees and no later one."""
    return slice(axis.starts[index], axis.end(index))
