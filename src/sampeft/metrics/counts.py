"""Pixel counts per class of a prediction against the truth: counts first, scores second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.volume import IGNORE

_PIXELS_AT_ONCE = 1 << 22  # bounds the memory that counting a whole volume takes


@dataclass(frozen=True, eq=False)
class Counts:
    """True positive, false positive and false negative pixels, each (K,) int64, one entry per class.

    Counts of slices or files add up to the counts of their case.
    """

    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]
    fn: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls, classes: int) -> Counts:
        """Counts of no pixels at all, the start of a sum."""
        return cls(*(np.zeros(classes, dtype=np.int64) for _ in range(3)))

    def __add__(self, other: Counts) -> Counts:
        if self.tp.shape != other.tp.shape:
            raise ValueError(f"cannot add counts of {len(self.tp)} and {len(other.tp)} classes")
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Counts):
            return NotImplemented
        return all(map(np.array_equal, (self.tp, self.fp, self.fn), (other.tp, other.fp, other.fn)))

    __hash__ = None  # type: ignore[assignment]  # equal by content, as arrays are

    @property
    def truth(self) -> npt.NDArray[np.int64]:
        """(K,) pixels that the truth gives to each class."""
        return self.tp + self.fn

    @property
    def prediction(self) -> npt.NDArray[np.int64]:
        """(K,) pixels that the prediction gives to each class; pixels without a truth are not among them."""
        return self.tp + self.fp


def count(prediction: npt.NDArray[Any], truth: npt.NDArray[Any], classes: int) -> Counts:
    """Count the pixels of channel arrays of any equal shape: a slice, a volume, a batch.

    truth: 0..classes-1 or IGNORE; a pixel with IGNORE is left out of every count.
    prediction: 0..classes-1; IGNORE predicts no class, so the pixel's true class counts it as missed.
    Raises ValueError for unequal shapes and for other values.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    confusion = np.zeros((classes, classes + 1), dtype=np.int64)  # truth x prediction; last column: no class
    pixels, ignored = truth.size, 0
    flat_prediction, flat_truth = prediction.ravel(), truth.ravel()
    for start in range(0, flat_truth.size, _PIXELS_AT_ONCE):
        true, predicted = flat_truth[start : start + _PIXELS_AT_ONCE], flat_prediction[start : start + _PIXELS_AT_ONCE]
        used = np.flatnonzero((true != 0) | (predicted != 0))  # 0 in both, most of a scan, is what is left over
        true, predicted = true.take(used).astype(np.int64), predicted.take(used).astype(np.int64)
        known = true != IGNORE
        ignored += int(true.size - np.count_nonzero(known))
        true, predicted = true[known], predicted[known]
        predicted[predicted == IGNORE] = classes
        _check("truth", true, classes - 1)
        _check("prediction", predicted, classes)
        true *= classes + 1
        true += predicted
        confusion += np.bincount(true, minlength=confusion.size).reshape(confusion.shape)
    if classes:
        confusion[0, 0] += pixels - ignored - confusion.sum()
    tp = confusion.diagonal().copy()
    return Counts(tp, confusion.sum(axis=0)[:classes] - tp, confusion.sum(axis=1) - tp)


def count_in_boxes(prediction: npt.NDArray[Any], truth: npt.NDArray[Any], boxes: Sequence[tuple[slice, ...]]) -> Counts:
    """What `count` gives, by looking at each class within its box only; boxes[k] holds all pixels of class k in both."""
    for what, array in (("prediction", prediction), ("truth", truth)):
        if array.size and (array.max() >= len(boxes) or array.min() < 0):
            _check(what, array[array != IGNORE].astype(np.int64), len(boxes) - 1)
    counts = Counts.zeros(len(boxes))
    any_ignored = bool(truth.size) and truth.min() == IGNORE
    for k, box in enumerate(boxes):
        true, predicted = truth[box] == k, prediction[box] == k
        if any_ignored:
            predicted &= truth[box] != IGNORE
        tp = np.count_nonzero(true & predicted)
        counts.tp[k], counts.fn[k], counts.fp[k] = tp, np.count_nonzero(true) - tp, np.count_nonzero(predicted) - tp
    return counts


def used_box(*arrays: npt.NDArray[Any]) -> tuple[slice, ...]:
    """The smallest box outside of which all of the arrays, integers of equal shape, are 0; empty where they are all 0."""
    if arrays[0].ndim == 1:
        places = np.flatnonzero(np.logical_or.reduce([array != 0 for array in arrays]))
        return (slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0),)
    # The first axis is folded away along whole rows of memory, which is much faster than to look at each axis alone.
    rest = used_box(*(np.bitwise_or.reduce(array, axis=0) for array in arrays))
    lines = [array[(slice(None), *rest)] for array in arrays]
    while lines[0].ndim > 1:
        lines = [np.bitwise_or.reduce(line, axis=1) for line in lines]
    return (*used_box(*lines), *rest)


def class_boxes(arrays: Sequence[npt.NDArray[Any]], classes: int) -> list[tuple[slice, ...]]:
    """For each channel the smallest box that holds all of its pixels in all arrays, of equal shape.

    The classes of a pixel become bits, 16 at a time, so that folding lines of pixels shows every class on the line.
    """
    boxes: list[tuple[slice, ...]] = []
    axes = range(arrays[0].ndim)
    for start in range(0, classes, 16):
        folded = []
        for array in arrays:
            # Other channels, IGNORE among them, shift by 16 or more, which leaves no bit.
            bits = np.left_shift(np.uint16(1), array.astype(np.uint16) - np.uint16(start))
            folded.append(_lines(bits))
        lines = [np.bitwise_or.reduce([one[a] for one in folded], axis=0) for a in axes]
        for k in range(min(16, classes - start)):
            places = [np.flatnonzero(line >> np.uint16(k) & np.uint16(1)) for line in lines]
            boxes.append(tuple(slice(int(p[0]), int(p[-1]) + 1) if p.size else slice(0, 0) for p in places))
    return boxes


def _lines(bits: npt.NDArray[np.uint16]) -> list[npt.NDArray[np.uint16]]:
    """For each axis the union over all others."""
    if bits.ndim == 1:
        return [bits]
    first = bits
    while first.ndim > 1:
        first = np.bitwise_or.reduce(first, axis=1)
    return [first, *_lines(np.bitwise_or.reduce(bits, axis=0))]


def _check(what: str, channels: npt.NDArray[np.int64], highest: int) -> None:
    if channels.size and not 0 <= channels.min() <= channels.max() <= highest:
        wrong = channels.min() if channels.min() < 0 else channels.max()
        raise ValueError(f"{what} holds channel {wrong}, expected 0..{highest}")
