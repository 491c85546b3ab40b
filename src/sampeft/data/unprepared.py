"""Slices that are prepared when they are asked for: their number, plane and size, and their labels."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Case, Dataset
from sampeft.data.ground_truth import read_labels
from sampeft.data.preprocessing import Preparation, PreparedVolume
from sampeft.data.slices import SliceView
from sampeft.io import read_volume
from sampeft.volume import Volume

_PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Shape:
    """An image without its pixels. case: with this one file."""

    case: Case
    volume: Volume

    @property
    def plane(self) -> str:
        """By its spacing; see `SliceView.of`."""
        return SliceView.of(self.volume).plane

    def slices(self, plane: str) -> int:
        return self.volume.grid[SliceView.of(self.volume, plane).axes[0]]


def shapes_of(cases: Sequence[Case]) -> list[Shape]:
    """Of each file; pictures are known by their kind without being read. Raises DataError as `read_volume` does."""
    nothing = np.uint8(0)
    found = []
    for case in cases:
        for file in case.files:
            if file.image.suffix.lower() in _PICTURES:
                volume = Volume(np.broadcast_to(nothing, (1, 1, 1)), None, file.image)
            else:
                read = read_volume(file.image)
                volume = replace(read, array=np.broadcast_to(nothing, read.grid), header=None)
            found.append(Shape(replace(case, files=(file,)), volume))
    return found


class Truth(Protocol):
    """Class channels (side, side) of each slice, such as `cache.Slices.channels` or `Unprepared`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> npt.NDArray[Any]: ...


class Unprepared:
    """Class channels (side, side) of each slice of some files, as `cache.Slices.channels` has them once they are prepared.

    The file of a slice is read when the slice is asked for, and kept until one of another file is. A slice without any
    valid pixel, which preparation leaves out, counts here.
    """

    def __init__(self, dataset: Dataset, shapes: Sequence[Shape], preparation: Preparation) -> None:
        self._dataset, self._shapes, self._preparation = dataset, shapes, preparation
        self._ends = list(accumulate(shape.slices(preparation.plane) for shape in shapes))
        self._open: tuple[int, PreparedVolume, npt.NDArray[np.int16]] | None = None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int, /) -> npt.NDArray[Any]:
        import torch

        number = range(len(self))[index]
        file = bisect_right(self._ends, number)
        prepared, truth_SHW = self._read(file)
        truth_HW = truth_SHW[number - (self._ends[file - 1] if file else 0)]
        channels: npt.NDArray[Any] = prepared.frame.channels(torch.from_numpy(np.ascontiguousarray(truth_HW))).numpy()
        return channels

    @cached_property
    def slice_bytes(self) -> int:
        """Of a prepared slice, by the first: a byte for each pixel and channel, two for the truth."""
        image = read_volume(self._shapes[0].case.files[0].image)
        channels = len(PreparedVolume.of(image, self._preparation, quiet=True).compact(0))
        return (channels + 2) * self._preparation.side**2

    def _read(self, number: int) -> tuple[PreparedVolume, npt.NDArray[np.int16]]:
        if self._open is None or self._open[0] != number:
            (file,) = self._shapes[number].case.files
            prepared = PreparedVolume.of(read_volume(file.image), self._preparation, quiet=True)
            truth = prepared.view.slices(read_labels(file, self._dataset, prepared.volume).array)
            self._open = number, prepared, truth
        return self._open[1:]
