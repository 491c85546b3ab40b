"""Non-local means: average over similar patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import UsageError

if TYPE_CHECKING:
    import torch

# Daubechies' wavelet with two vanishing moments: its high-pass filter.
_DB2_HIGH = np.array([-(1 + 3**0.5), 3 + 3**0.5, -(3 - 3**0.5), 1 - 3**0.5]) / (4 * 2**0.5)
_NORMAL_QUARTILE = 0.6744897501960817


_LARGEST = 99  # pixels, over which a picture would take hours


@dataclass(frozen=True)
class NonLocalMeans:
    """Non-local means of each channel (Buades, Coll and Morel, CVPR 2005; scikit-image's fast form).

    cut: how unlike patches may be to count, in standard deviations of the noise. sigma: that standard deviation, 1 being
    the range of levels; None: estimated from each picture. patch: pixels of a patch's side. distance: how far away a
    patch is looked for, in pixels.
    """

    cut: float = 0.8
    sigma: float | None = None
    patch: int = 5
    distance: int = 6

    def __post_init__(self) -> None:
        sizes = self.patch, self.distance
        if self.cut <= 0 or min(sizes) < 1 or max(sizes) > _LARGEST or (self.sigma is not None and self.sigma < 0):
            raise UsageError(
                f"nlm wants a cut above 0, patch and distance of 1 to {_LARGEST}, sigma of 0 or more, got {self}"
            )

    def __call__(self, levels_CHW: torch.Tensor) -> torch.Tensor:
        """(C, H, W) in 0..1 -> the same; a picture in which no noise is found is left as it is."""
        import torch
        from skimage.restoration import denoise_nl_means

        found = levels_CHW.clone()
        for channel in found:
            sigma = noise_level(channel.numpy()) if self.sigma is None else self.sigma
            if sigma > 0:
                smooth = denoise_nl_means(
                    channel.numpy(),
                    patch_size=self.patch,
                    patch_distance=self.distance,
                    h=self.cut * sigma,
                    sigma=sigma,
                    fast_mode=True,
                )
                channel.copy_(torch.from_numpy(np.clip(smooth, 0.0, 1.0)))
        return found


def noise_level(picture_HW: npt.NDArray[Any]) -> float:
    """Standard deviation of white noise, by the median of the finest diagonal wavelet coefficients (Donoho and
    Johnstone, Biometrika 1994), exact zeros left out.

    The same as scikit-image's `estimate_sigma`, which would need PyWavelets for these two filterings.
    """
    from scipy.ndimage import convolve1d

    length = len(_DB2_HIGH)
    high = np.pad(picture_HW.astype(np.float64), ((0, length), (0, length)), mode="symmetric")
    for axis in (0, 1):
        high = convolve1d(high, _DB2_HIGH, axis=axis, mode="reflect", origin=-length // 2)
    height, width = picture_HW.shape
    diagonal = np.abs(high[1 : height + length - 1 : 2, 1 : width + length - 1 : 2])
    diagonal = diagonal[diagonal > 1e-12]
    return float(np.median(diagonal) / _NORMAL_QUARTILE) if diagonal.size else 0.0
