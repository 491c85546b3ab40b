"""Gaussian smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sampeft.errors import UsageError

if TYPE_CHECKING:
    import torch

_WIDEST = 100.0


@dataclass(frozen=True)
class GaussianFilter:
    """Gaussian smoothing of each channel (scipy); the border's pixels go on outside.

    sigma: standard deviation in pixels; 0 changes nothing.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= _WIDEST:
            raise UsageError(f"the gaussian denoiser's sigma is {self.sigma:g} pixels; give 0 to {_WIDEST:g}")

    def __call__(self, levels_CHW: torch.Tensor) -> torch.Tensor:
        """(C, H, W) in 0..1 -> the same."""
        import torch
        from scipy.ndimage import gaussian_filter

        smooth = gaussian_filter(levels_CHW.numpy(), (0, self.sigma, self.sigma), mode="nearest")
        return torch.from_numpy(np.clip(smooth, 0.0, 1.0))
