"""Volume -> upright slices -> square network input, and class logits -> class map on the original grid.

The only module that changes the pixel grid; it owns both directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import unknown_name
from sampeft.volume import IGNORE, Volume

if TYPE_CHECKING:
    import torch

PLANES = ("sagittal", "coronal", "axial", "auto")
"""Across the patient's axes x, y and z, or across the largest spacing."""
PICTURE = "picture"
"""What `SliceView.plane` is of a raster image."""
_ROWS = 32  # of a block of logits: 14 classes of 512 columns are then 0.9 MB


@dataclass(frozen=True)
class SliceView:
    """How an array (I, J, K) is seen as upright slices: slice, row and column axis, and which of them run backwards.

    Axial slices show the patient's anterior side at the top and the right side at the left, as radiologists look at
    them; coronal and sagittal slices show the head at the top. A raster image is one slice, as stored.
    plane: axial, coronal, sagittal, or `picture` of a raster image.
    """

    axes: tuple[int, int, int]
    backwards: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]
    plane: str = PICTURE

    @classmethod
    def of(cls, volume: Volume, plane: str = "auto") -> SliceView:
        """The view of a volume. plane: axial, coronal, sagittal, or `auto`: across the largest spacing, ties axial."""
        if volume.affine is None:
            return cls((2, 0, 1), (False, False, False), (1.0, 1.0, 1.0))
        import nibabel as nib

        orientation = nib.io_orientation(volume.affine)
        # world[w]: array axis that runs along world axis w (x to the right, y to anterior, z to superior).
        world = [int(np.flatnonzero(orientation[:, 0] == w)[0]) for w in range(3)]
        spacing = volume.spacing_mm
        if plane == "auto":
            largest = max(spacing)
            across = max(w for w in range(3) if spacing[world[w]] >= 0.99 * largest)
        elif plane in PLANES:
            across = PLANES.index(plane)
        else:
            raise unknown_name("slice plane", plane, PLANES)
        rows, columns = {0: (2, 1), 1: (2, 0), 2: (1, 0)}[across]
        axes = (world[across], world[rows], world[columns])
        grows = [orientation[axis, 1] > 0 for axis in axes]
        backwards = (not grows[0], bool(grows[1]), bool(grows[2]))
        return cls(axes, backwards, (spacing[axes[0]], spacing[axes[1]], spacing[axes[2]]), PLANES[across])

    def slices(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(I, J, K) or (I, J, K, C) -> (S, H, W) or (S, H, W, C); a view, nothing is copied."""
        turned = np.moveaxis(array, self.axes, (0, 1, 2))
        return turned[tuple(slice(None, None, -1 if back else 1) for back in self.backwards)]

    def restore(self, slices_SHW: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(S, H, W) -> (I, J, K): the inverse of `slices`."""
        turned = slices_SHW[tuple(slice(None, None, -1 if back else 1) for back in self.backwards)]
        return np.ascontiguousarray(np.moveaxis(turned, (0, 1, 2), self.axes))


@dataclass(frozen=True)
class Frame:
    """The window of a slice that the network sees: a box, scaled to fit a square, padded at the bottom and right.

    size: (H, W) of the slice. box: (top, left, bottom, right), half open. side: pixels of the square.
    """

    size: tuple[int, int]
    box: tuple[int, int, int, int]
    side: int

    @classmethod
    def whole(cls, size: tuple[int, int], side: int) -> Frame:
        return cls(size, (0, 0, *size), side)

    @property
    def box_size(self) -> tuple[int, int]:
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    @property
    def inner_size(self) -> tuple[int, int]:
        """Rows and columns of the square that show the box; the rest is padding."""
        height, width = self.box_size
        scale = self.side / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    @property
    def filled(self) -> tuple[float, float]:
        """Share of the square's rows and columns that show the box."""
        height, width = self.inner_size
        return height / self.side, width / self.side

    def image(self, slice_CHW: torch.Tensor) -> torch.Tensor:
        """(C, H, W) float -> (C, side, side), antialiased; the padding is 0."""
        top, left, bottom, right = self.box
        return self.scaled(slice_CHW[:, top:bottom, left:right])

    def scaled(self, box_CHW: torch.Tensor) -> torch.Tensor:
        """What `image` gives, from the part of the slice inside the box: (C, box height, box width)."""
        import torch.nn.functional as F

        size = self.inner_size
        inner = F.interpolate(box_CHW[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        return self._pad(inner, 0.0)

    def channels(self, channels_HW: torch.Tensor) -> torch.Tensor:
        """(H, W) integer class channels -> (side, side), nearest pixel; the padding is IGNORE."""
        import torch

        rows, columns = self._nearest
        square = np.full((self.side, self.side), IGNORE, dtype=np.int16)
        square[: len(rows), : len(columns)] = channels_HW.numpy()[rows][:, columns]
        return torch.from_numpy(square)

    @cached_property
    def _nearest(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Row and column of the slice that each row and column of the square's inner part shows."""
        import torch
        import torch.nn.functional as F

        def nearest(start: int, stop: int, count: int) -> npt.NDArray[np.int64]:
            positions = torch.arange(start, stop, dtype=torch.float32)[None, None]
            found: npt.NDArray[np.int64] = F.interpolate(positions, count, mode="nearest-exact")[0, 0].long().numpy()
            return found

        top, left, bottom, right = self.box
        height, width = self.inner_size
        return nearest(top, bottom, height), nearest(left, right, width)

    def logits(self, logits_Khw: torch.Tensor) -> torch.Tensor:
        """(K, h, w) logits of the square, at any resolution -> (K, box height, box width)."""
        import torch

        return torch.cat([block_KnW for _, block_KnW in self.blocks(logits_Khw)], dim=1)

    def blocks(self, logits_Khw: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """What `logits` gives in blocks of rows: (rows of the box, (K, rows, box width)), which stay in the processor's
        cache while they are looked at.

        Scaling up to the square, cutting the padding off and scaling to the box are each linear in rows and in columns,
        so all three are one matrix for the rows and one for the columns.
        """
        import torch

        (height, width), (inner_height, inner_width) = self.box_size, self.inner_size
        source_height, source_width = logits_Khw.shape[-2:]
        with torch.inference_mode():
            columns = _growth(source_width, self.side, inner_width, width).to(logits_Khw.device)
            wide_KhW = logits_Khw.float() @ columns.T
            for first, start, stop, part in _bands(source_height, self.side, inner_height, height):
                yield slice(first, first + len(part)), part.to(wide_KhW.device) @ wide_KhW[:, start:stop]

    def class_map(self, logits_Khw: torch.Tensor) -> npt.NDArray[np.uint8]:
        """(K, h, w) logits of the square -> (H, W) class channels; outside the box: channel 0. The logits of all classes
        are never held on the slice's own grid."""
        top, left, bottom, right = self.box
        channels = np.zeros(self.size, dtype=np.uint8)
        inside = channels[top:bottom, left:right]
        for rows, block_KnW in self.blocks(logits_Khw):
            inside[rows] = largest(block_KnW)
        return channels

    def placed(self, logits_Khw: torch.Tensor) -> npt.NDArray[np.uint8]:
        """What `logits` gave -> (H, W) class channels; outside the box: channel 0."""
        return self.in_slice(largest(logits_Khw))

    def in_slice(self, box_HW: npt.NDArray[Any], outside: float = 0) -> npt.NDArray[Any]:
        """(box height, box width) of any type -> (H, W); what lies outside the box holds one value."""
        top, left, bottom, right = self.box
        whole = np.full(self.size, outside, dtype=box_HW.dtype)
        whole[top:bottom, left:right] = box_HW
        return whole

    def points(self, points_N2: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(N, 2) pixel positions (x, y) of the slice -> positions in the square, as a prompt wants them."""
        scale = np.array([self.inner_size[1] / self.box_size[1], self.inner_size[0] / self.box_size[0]])
        placed = (np.asarray(points_N2, dtype=np.float64) + 0.5 - [self.box[1], self.box[0]]) * scale - 0.5
        return np.asarray(placed)

    def _pad(self, inner: torch.Tensor, value: float) -> torch.Tensor:
        import torch.nn.functional as F

        height, width = inner.shape[-2:]
        return F.pad(inner, (0, self.side - width, 0, self.side - height), value=value)


def largest(values_KHW: torch.Tensor) -> npt.NDArray[np.uint8]:
    """(K, H, W) -> (H, W) channel of the largest value, the first of equal ones; torch's argmax across the first axis takes
    several times as long."""
    import torch

    with torch.inference_mode():
        best_HW = values_KHW[0].clone()
        channels_HW = torch.zeros(best_HW.shape, dtype=torch.uint8, device=best_HW.device)
        for channel, values_HW in enumerate(values_KHW[1:], 1):
            channels_HW.masked_fill_(values_HW > best_HW, channel)
            torch.maximum(best_HW, values_HW, out=best_HW)
        found: npt.NDArray[np.uint8] = channels_HW.cpu().numpy()
    return found


@lru_cache(maxsize=64)
def _growth(source: int, side: int, inner: int, target: int) -> torch.Tensor:
    """(target, source): how much each row of the box takes of each row of the logits, worked out by torch itself."""
    import torch
    import torch.nn.functional as F

    with torch.inference_mode(False):
        each = torch.eye(source)[None, None]
        square = F.interpolate(each, (side, source), mode="bilinear", align_corners=False)
        size = target, source
        return F.interpolate(square[:, :, :inner], size, mode="bilinear", align_corners=False, antialias=True)[0, 0]


@lru_cache(maxsize=64)
def _bands(source: int, side: int, inner: int, target: int) -> tuple[tuple[int, int, int, torch.Tensor], ...]:
    """The same in blocks of rows with the columns left out that are all zeros: (first row, start, stop, (rows, stop -
    start))."""
    growth = _growth(source, side, inner, target)
    found = []
    for first in range(0, target, _ROWS):
        part = growth[first : first + _ROWS]
        used = np.flatnonzero(part.numpy().any(axis=0))
        start, stop = int(used[0]), int(used[-1]) + 1
        found.append((first, start, stop, part[:, start:stop].contiguous()))
    return tuple(found)
