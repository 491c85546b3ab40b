"""Class channels of prediction and truth in, pixel counts per class out: counts first, scores second."""

from __future__ import annotations

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
    flat_prediction, flat_truth = prediction.ravel(), truth.ravel()
    for start in range(0, flat_truth.size, _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        known = flat_truth[part] != IGNORE
        true = flat_truth[part][known].astype(np.int64)
        predicted = flat_prediction[part][known].astype(np.int64)
        predicted[predicted == IGNORE] = classes
        _check("truth", true, classes - 1)
        _check("prediction", predicted, classes)
        joint = np.bincount(true * (classes + 1) + predicted, minlength=confusion.size)
        confusion += joint.reshape(confusion.shape)
    tp = confusion.diagonal().copy()
    return Counts(tp, confusion.sum(axis=0)[:classes] - tp, confusion.sum(axis=1) - tp)


def _check(what: str, channels: npt.NDArray[np.int64], highest: int) -> None:
    if channels.size and not 0 <= channels.min() <= channels.max() <= highest:
        raise ValueError(f"{what} holds channels {channels.min()}..{channels.max()}, expected 0..{highest}")
