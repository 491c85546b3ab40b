"""Test-time augmentation: shifted, scaled, re-windowed and turned copies of a slice, and their mean prediction.

Views are shifted, larger or smaller, or seen through another window of levels. Mirrored or turned they are only where the run
was trained on such pictures and no classes are left and right. Which they are depends on their number alone, and the first
is the slice as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from sampeft.data.augment import SYMMETRIES, Symmetry
from sampeft.data.slice_cache import PreparedVolume
from sampeft.errors import UsageError
from sampeft.options import MAX_VIEWS

_SHIFT = 1 / 32  # of the square's side, at most, in either direction
_SCALE = 0.10  # larger or smaller, at most
_WIDTH = 0.15  # of the window, wider or narrower, at most
_LEVEL = 0.05  # of the window's width, up or down, at most
_STEPS = tuple(1.1347241**-power for power in range(1, 6))  # x^6 = x + 1: points that spread evenly over five axes


@dataclass(frozen=True)
class View:
    """shift: (down, right) in sides of the square. scale: above 1 shows things larger. width: factor on the window of
    levels. level: how far its middle moves up, in widths. symmetry: how the moved picture is mirrored and turned."""

    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    width: float = 1.0
    level: float = 0.0
    symmetry: Symmetry = SYMMETRIES[0]

    def windowed(self, prepared: PreparedVolume) -> PreparedVolume:
        """The same volume through this view's window."""
        if (self.width, self.level) == (1.0, 0.0):
            return prepared
        found = prepared.levels
        low, high = np.asarray(found.low, dtype=np.float64), np.asarray(found.high, dtype=np.float64)
        middle, half = (low + high) / 2 + self.level * (high - low), self.width * (high - low) / 2
        lowest, highest = middle - half, middle + half
        levels = replace(found, low=_as_stored(lowest), high=_as_stored(highest))
        return replace(prepared, levels=levels)

    def moved(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Images as this view shows them; what comes in from outside is 0."""
        down, right = self.shift
        moved = _sampled(images_BCHW, 1 / self.scale, (-2 * down / self.scale, -2 * right / self.scale))
        return self.symmetry.on(moved)

    def moved_back(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Maps of this view, of any resolution, where the slice has them; 0 where this view did not look."""
        down, right = self.shift
        return _sampled(self.symmetry.back(maps_BCHW), self.scale, (2 * down, 2 * right))


def views(count: int, symmetries: int = 1) -> tuple[View, ...]:
    """The first is the slice as it is; the views of a smaller number are among those of a larger one.

    symmetries: how many of `SYMMETRIES` a run was trained on; those views come first.
    """
    if not 1 <= count <= MAX_VIEWS:
        raise UsageError(f"--views is {count}; give 1 (the slice as it is) to {MAX_VIEWS}")
    found = [View()]
    found += [View(symmetry=symmetry) for symmetry in SYMMETRIES[1 : min(count, symmetries)]]
    for number in range(1, count - len(found) + 1):
        down, right, scale, width, level = (2 * ((0.5 + number * step) % 1.0) - 1 for step in _STEPS)
        found.append(View((_SHIFT * down, _SHIFT * right), 1 + _SCALE * scale, 1 + _WIDTH * width, _LEVEL * level))
    return tuple(found)


def mean_of_views(
    logits_of_views: Sequence[torch.Tensor], shown: Sequence[View]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits (B, K, h, w) of each view -> logits whose softmax is the views' mean probability, and the disagreement
    (B, h, w): the share of the views whose class is not that of the mean. One view: its own logits, and None.

    Where a view did not look, only the others count.
    """
    if len(logits_of_views) == 1:
        return logits_of_views[0], None
    found, looked = [], []
    for logits_BKhw, view in zip(logits_of_views, shown, strict=True):
        probabilities = view.moved_back(logits_BKhw.float().softmax(dim=1))
        weight_Bhw = (view.moved_back(torch.ones_like(logits_BKhw[:, :1])) > 0.999)[:, 0].float()
        found.append(probabilities)
        looked.append(weight_Bhw)
    count_Bhw = torch.stack(looked).sum(dim=0)
    mean_BKhw = sum(p * w[:, None] for p, w in zip(found, looked, strict=True)) / count_Bhw[:, None]
    assert isinstance(mean_BKhw, torch.Tensor)
    said_Bhw = mean_BKhw.argmax(dim=1)
    others = sum((p.argmax(dim=1) != said_Bhw) * w for p, w in zip(found, looked, strict=True))
    return mean_BKhw.clamp(min=1e-12).log(), others / count_Bhw


def _as_stored(values: npt.NDArray[np.float64]) -> float | tuple[float, ...]:
    return float(values) if values.ndim == 0 else tuple(map(float, values))


def _sampled(maps_BCHW: torch.Tensor, scale: float, shift: tuple[float, float]) -> torch.Tensor:
    """Bilinear values at scale * position + (down, right), in units of half a side from the middle."""
    if scale == 1 and shift == (0.0, 0.0):
        return maps_BCHW
    down, right = shift
    theta = torch.tensor([[scale, 0, right], [0, scale, down]], dtype=maps_BCHW.dtype, device=maps_BCHW.device)
    grid = F.affine_grid(theta.expand(len(maps_BCHW), 2, 3), list(maps_BCHW.shape), align_corners=False)
    return F.grid_sample(maps_BCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
