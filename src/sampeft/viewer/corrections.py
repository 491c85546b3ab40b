"""A class map that takes corrections and gives them back step by step; masks travel as run lengths."""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.slices import SliceView
from sampeft.viewer.errors import RequestError

_MOST_STEPS = 200  # that can be taken back


def run_lengths(mask_HW: npt.NDArray[np.bool_]) -> list[int]:
    """How many pixels are outside, inside, outside ... along the rows; the first number may be 0."""
    flat = np.concatenate([[False], mask_HW.ravel(), [not mask_HW.ravel()[-1]]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return list(map(int, np.diff(np.concatenate([[0], edges]))))


def mask_of(size: Sequence[int], counts: Sequence[int], wanted: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(H, W) of what `run_lengths` gave. Raises RequestError (422) when it does not fit the slice."""
    if tuple(size) != wanted or sum(counts) != wanted[0] * wanted[1] or min(counts, default=0) < 0:
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"the mask has {sum(counts)} pixels of a slice {tuple(size)}; slices here are {wanted[0]} x {wanted[1]}",
        )
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(wanted)


@dataclass
class ClassMap:
    """Class channels (I, J, K) in a file, changed slice by slice.

    revision: grows with every change, so that what was made from the map is known to be old. pixels: of each class.
    """

    path: Path
    view: SliceView
    classes: int
    revision: int = 0
    pixels: npt.NDArray[np.int64] = field(init=False)
    lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)
    _steps: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=_MOST_STEPS), init=False, repr=False)

    def __post_init__(self) -> None:
        parts = self.view.slices(self.array("r"))
        counts = [np.bincount(np.asarray(part).ravel(), minlength=self.classes) for part in parts]
        self.pixels = np.sum(counts, axis=0, dtype=np.int64)

    def array(self, mode: Any = "r") -> npt.NDArray[np.uint8]:
        """The channels as they lie on the disk."""
        found: npt.NDArray[np.uint8] = np.load(self.path, mmap_mode=mode)
        return found

    @property
    def steps(self) -> int:
        """How many changes can be taken back."""
        return len(self._steps)

    @property
    def slices(self) -> int:
        return len(self.view.slices(self.array()))

    def size(self) -> tuple[int, int]:
        """(H, W) of a slice."""
        height, width = self.view.slices(self.array()).shape[1:3]
        return height, width

    def slice(self, s: int) -> npt.NDArray[np.uint8]:
        return np.array(self.view.slices(self.array())[s])

    def draw(self, s: int, mask_HW: npt.NDArray[np.bool_], channel: int, over: bool) -> int:
        """Give the pixels of a mask to a class; over: also those of other foreground classes. Returns how many changed."""
        with self.lock:
            before = self.slice(s)
            taken = mask_HW if over else mask_HW & ((before == 0) | (before == channel))
            after = np.where(taken, np.uint8(channel), before)
            self._steps.append((s, zlib.compress(before.tobytes(), 1)))
            self._put(s, before, after)
            return int((after != before).sum())

    def undo(self) -> tuple[int, int]:
        """Take the last change back; returns its slice and how many pixels changed. Raises RequestError (409) without one."""
        with self.lock:
            if not self._steps:
                raise RequestError(HTTPStatus.CONFLICT, "there is no correction to take back")
            s, packed = self._steps.pop()
            before = self.slice(s)
            after = np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(before.shape)
            self._put(s, before, after)
            return s, int((after != before).sum())

    def _put(self, s: int, before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> None:
        stored = self.array("r+")
        self.view.slices(stored)[s] = after
        stored.flush()  # type: ignore[attr-defined]  # a memory map
        for channels, sign in ((before, -1), (after, 1)):
            self.pixels += sign * np.bincount(channels.ravel(), minlength=self.classes)
        self.revision += 1
