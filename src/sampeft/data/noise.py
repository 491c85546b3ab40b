"""Synthetic noise of a named kind and strength on levels in 0..1; labels are never touched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from sampeft.errors import UsageError, unknown_name

Levels = TypeVar("Levels", npt.NDArray[np.float32], torch.Tensor)


@dataclass(frozen=True)
class Noise:
    """A kind of noise. `noise(levels_BCHW, generator)` gives the levels with noise, clipped to 0..1.

    strength: 0 or more; what it means is said by each kind, 0 changes nothing, bit for bit. The formulas of the kinds
    hold before the clipping, so on levels far enough from 0 and 1. usual: a strength that is just seen and one that is
    hard to bear. Where the channels of a picture are all the same (a grey one, repeated), its noise is the same in all.
    Raises UsageError for a strength that is negative or no number.
    """

    usual: ClassVar[tuple[float, float]] = (0.02, 0.2)

    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf:
            raise UsageError(f"the strength of noise is {self.strength:g}; give 0 or more")

    def __call__(self, levels_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self.strength == 0:
            return levels_BCHW
        pictures = []
        for levels_CHW in levels_BCHW.float().cpu():
            same = bool((levels_CHW == levels_CHW[:1]).all())
            found = self.spoil(levels_CHW[:1] if same else levels_CHW, generator).clamp(0, 1)
            pictures.append(found.expand_as(levels_CHW))
        return torch.stack(pictures).to(levels_BCHW)

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One picture with noise, not clipped; the strength is above 0."""
        raise NotImplementedError


class Gaussian(Noise):
    """White noise; strength: its standard deviation, 1 being the range of levels (25 of 255 grey levels: 0.098)."""

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return levels_CHW + self.strength * torch.randn(levels_CHW.shape, generator=generator)


class Poisson(Noise):
    """Counted photons; strength: the standard deviation at level 1, so that a level of 1 is strength^-2 photons and the
    variance is level / counts."""

    @property
    def counts(self) -> float:
        return self.strength**-2

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.poisson(levels_CHW.clamp_min(0) * self.counts, generator=generator) / self.counts


class Speckle(Noise):
    """Noise of coherent imaging (ultrasound, radar): level x (1 + n), n normal; strength: its standard deviation."""

    usual = (0.05, 0.5)

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return levels_CHW * (1 + self.strength * torch.randn(levels_CHW.shape, generator=generator))


class Rician(Noise):
    """Noise of MR magnitude images: |level + n1 + i n2|; strength: the standard deviation of n1 and of n2. In a
    background of 0 the mean becomes strength x sqrt(pi / 2)."""

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        real, imaginary = torch.randn((2, *levels_CHW.shape), generator=generator) * self.strength
        return torch.hypot(levels_CHW + real, imaginary)


class Streaks(Noise):
    """Noise of CT at a low dose: normal noise in the sinogram, of variance exp(line integral) as photons leave it, put
    back by filtered back-projection; thin streaks, strongest along the rays that pass most tissue.

    strength: its standard deviation over the picture. The line integrals are those of the picture at a quarter of its
    detail, 4 at most, since the variance needs no more; back-projection is linear, so that only the noise goes through it.
    """

    usual = (0.02, 0.15)

    _ANGLES: ClassVar[int] = 120
    _ATTENUATION: ClassVar[float] = 4.0  # of the longest path: some 20 cm of water

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        from skimage.transform import iradon, radon

        height, width = levels_CHW.shape[-2:]
        side = max(height, width)
        angles = np.linspace(0, 180, self._ANGLES, endpoint=False)
        squares = F.pad(levels_CHW, (0, side - width, 0, side - height))[None]
        coarse = F.interpolate(squares, size=max(8, side // 4), mode="area")[0].numpy()
        rays = math.ceil(side * math.sqrt(2))
        added = torch.empty_like(levels_CHW)
        for channel, picture in enumerate(coarse):
            integrals = torch.from_numpy(radon(picture, angles, circle=False)).float()
            integrals = F.interpolate(integrals.T[None], size=rays, mode="linear", align_corners=False)[0].T
            integrals *= self._ATTENUATION / integrals.max().clamp_min(1e-6)
            sinogram = torch.randn((rays, self._ANGLES), generator=generator) * torch.exp(integrals / 2)
            streaks = iradon(sinogram.numpy(), angles, output_size=side, circle=False)[:height, :width]
            added[channel] = torch.from_numpy(streaks / streaks.std()).float()
        return levels_CHW + self.strength * added


class Bias(Noise):
    """A coil's uneven sensitivity (MR): level x exp(field), a smooth field; strength: the largest |field|, so that 0.5
    makes places 1.65 times as bright or dark at most."""

    usual = (0.1, 1.0)

    _KNOTS: ClassVar[int] = 4  # a side; between them the field is bicubic

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        knots = torch.randn((1, 1, self._KNOTS, self._KNOTS), generator=generator)
        field = F.interpolate(knots, levels_CHW.shape[-2:], mode="bicubic", align_corners=True)[0]
        return levels_CHW * torch.exp(self.strength * field / field.abs().max())


class Motion(Noise):
    """A patient who moves during an MR scan: of 32 blocks of k-space's rows all but the middle two were measured with the
    patient shifted; ghosts and blur along the columns. strength: the largest shift each way, of the picture's sides."""

    usual = (0.005, 0.05)

    _BLOCKS: ClassVar[int] = 32

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        height, width = levels_CHW.shape[-2:]
        shifts = (torch.rand((2, self._BLOCKS), generator=generator) * 2 - 1) * self.strength
        shifts[:, self._BLOCKS // 2 - 1 : self._BLOCKS // 2 + 1] = 0  # where the picture's energy is
        row = torch.fft.fftshift(torch.fft.fftfreq(height) * height)  # whole waves per picture
        column = torch.fft.fftshift(torch.fft.fftfreq(width) * width)
        block = torch.arange(height) * self._BLOCKS // height
        waves = row[:, None] * shifts[0, block][:, None] + column * shifts[1, block][:, None]
        measured = torch.fft.fftshift(torch.fft.fft2(levels_CHW), dim=(-2, -1)) * torch.exp(-2j * math.pi * waves)
        found: torch.Tensor = torch.fft.ifft2(torch.fft.ifftshift(measured, dim=(-2, -1))).abs()
        return found


class Blur(Noise):
    """A camera that moves while the shutter is open: the mean along a straight path of any direction. strength: length
    of the path, of the picture's larger side. Beyond the border the picture's last pixel goes on."""

    usual = (0.005, 0.05)

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        height, width = levels_CHW.shape[-2:]
        length = self.strength * max(height, width)
        angle = float(torch.rand((), generator=generator)) * math.pi
        steps = torch.linspace(-0.5, 0.5, max(2, math.ceil(2 * length) + 1)).tolist()  # half a pixel apart at most
        still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=False)
        total = torch.zeros_like(levels_CHW)
        for step in steps:
            # affine_grid counts in half sides.
            moved = torch.tensor([math.cos(angle) / width, math.sin(angle) / height]) * (2 * step * length)
            total += F.grid_sample(levels_CHW[None], still + moved, padding_mode="border", align_corners=False)[0]
        return total / len(steps)


class Stripes(Noise):
    """An infrared array whose columns differ: one normal number is added to all pixels of a column; strength: its
    standard deviation."""

    usual = (0.01, 0.1)

    def spoil(self, levels_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        channels, _, width = levels_CHW.shape
        return levels_CHW + self.strength * torch.randn((channels, 1, width), generator=generator)


NOISES: dict[str, type[Noise]] = {
    "gaussian": Gaussian,
    "poisson": Poisson,
    "speckle": Speckle,
    "rician": Rician,
    "streaks": Streaks,
    "bias": Bias,
    "motion": Motion,
    "blur": Blur,
    "stripes": Stripes,
}


def noise(name: str, strength: float) -> Noise:
    """The noise of that name. Raises UsageError for an unknown name or a strength below 0."""
    if name not in NOISES:
        raise unknown_name("noise", name, NOISES)
    return NOISES[name](strength)


def noisy(levels: Levels, name: str, strength: float, seed: int) -> Levels:
    """Levels in 0..1 with noise, clipped to 0..1: a picture (H, W) or (H, W, C) of numpy, or a torch batch (B, C, H, W).

    The same seed gives the same noise, and to a picture the same as to the batch that holds only it. Raises UsageError
    as `noise` does, ValueError for other shapes.
    """
    chosen, generator = noise(name, strength), torch.Generator().manual_seed(seed)
    if isinstance(levels, torch.Tensor):
        if levels.ndim != 4:
            raise ValueError(f"a batch has the axes (B, C, H, W), not {tuple(levels.shape)}")
        return chosen(levels, generator)
    if levels.ndim not in (2, 3):
        raise ValueError(f"a picture has the axes (H, W) or (H, W, C), not {levels.shape}")
    if strength == 0:
        return levels
    picture_HWC = levels if levels.ndim == 3 else levels[..., None]
    batch = torch.from_numpy(np.ascontiguousarray(np.moveaxis(picture_HWC, -1, 0), dtype=np.float32))[None]
    found = np.moveaxis(chosen(batch, generator)[0].numpy(), 0, -1).astype(levels.dtype)
    return np.ascontiguousarray(found.reshape(levels.shape))
