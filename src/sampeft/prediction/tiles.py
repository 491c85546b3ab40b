"""Sizes of an image in, overlapping windows and their weights out; probabilities of windows in, rows of classes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sampeft.errors import UsageError

MOST_OVERLAP = 0.9
Probabilities = npt.NDArray[np.float32]


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
    def weights(self) -> Probabilities:
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


def class_rows(
    rows: Axis,
    columns: Axis,
    classes: int,
    predicted: Callable[[int], Iterable[Probabilities | None] | None],
    see: Callable[[int, Probabilities], None] | None = None,
    planes: int | None = None,
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """(first row, class channels (n, width)) from top to bottom: of the blended probabilities the greatest.

    predicted: number of a row of windows -> probabilities (K, h, w) of its windows from left to right; None for a window
    that nothing is known of, which counts as 0, or for a whole row of them. Kept are the rows that the next windows still
    add to: at most K x (h - step) x width numbers, however many rows the image has.
    see: gets (first column, blended probabilities (K, n, w)) of the rows that are yielded next, from left to right.
    planes: of what is predicted, where it is more than the classes' probabilities, which come first; `see` gets all of them.
    """
    shared = max([rows.starts[i] + rows.length - rows.end(i) for i in range(len(rows) - 1)], default=0)
    planes = planes or classes
    above = np.zeros((planes, shared, columns.size), dtype=np.float32)
    kept = 0  # rows of `above` in use
    for i, top in enumerate(rows.starts):
        finished = rows.end(i) - top
        windows = predicted(i)
        if windows is None:
            kept = 0
            yield top, np.zeros((finished, columns.size), dtype=np.uint8)
            continue
        found = np.empty((finished, columns.size), dtype=np.uint8)
        for left, block in _blended_columns(rows.weights[i], columns, planes, windows):
            right = left + block.shape[2]
            block[:, :kept] += above[:, :kept, left:right]
            found[:, left:right] = block[:classes, :finished].argmax(axis=0)
            if see:
                see(left, block[:, :finished])
            above[:, : rows.length - finished, left:right] = block[:, finished:]
        kept = rows.length - finished
        yield top, found


def _blended_columns(
    shares: Probabilities, columns: Axis, planes: int, windows: Iterable[Probabilities | None]
) -> Iterator[tuple[int, Probabilities]]:
    """(first column, weighted sum (K, h, n) of all windows that cover these columns) from left to right.

    shares: (h,) weights of this row of windows.
    """
    height = len(shares)
    block = np.zeros((planes, height, columns.length), dtype=np.float32)
    for j, probabilities in enumerate(windows):
        if probabilities is not None:
            block += probabilities * (shares[:, None] * columns.weights[j])
        left, finished = columns.starts[j], columns.end(j) - columns.starts[j]
        yield left, block[:, :, :finished].copy()
        block[:, :, : columns.length - finished] = block[:, :, finished:].copy()
        block[:, :, columns.length - finished :] = 0
