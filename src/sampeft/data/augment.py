"""Slices and labels in, shifted, scaled, turned and re-toned slices and labels out; left stays left unless ids are swapped."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sampeft.data.noise import NOISES, noise
from sampeft.errors import UsageError, unknown_name
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE


@dataclass(frozen=True)
class Augmentation:
    """Ranges, each drawn uniformly per slice; 0 switches one off.

    shift: of the side. scale: factor 1 - scale .. 1 + scale. rotation_deg: degrees each way. contrast: gain 1 +- this,
    about mid-grey. brightness: added, of the full range. gamma: exponent exp(+- this). noise: standard deviation at most.
    mirror: probability of a left-right flip, with the ids of left/right pairs swapped; off by default, since organs
    that are no pairs (a liver) would still change sides.
    unchanged: probability that a slice stays as it is, apart from noises. A model that never meets one as users have
    them, without black corners and shifted tones, can do worse on these than on changed ones.
    noises: kinds of noise (`sampeft.data.noise`); with noise_probability a slice gets one of them, after all else, on the
    image alone. noise_strength: lowest and highest strength, drawn uniformly; None: the usual ones of each kind.
    """

    shift: float = 0.06
    scale: float = 0.15
    rotation_deg: float = 15.0
    contrast: float = 0.2
    brightness: float = 0.08
    gamma: float = 0.2
    noise: float = 0.03
    mirror: float = 0.0
    unchanged: float = 0.25
    noises: tuple[str, ...] = ()
    noise_probability: float = 0.5
    noise_strength: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in self.noises:
            if name not in NOISES:
                raise unknown_name("noise", name, NOISES)
        for name in ("mirror", "unchanged", "noise_probability"):
            if not 0 <= (probability := getattr(self, name)) <= 1:
                raise UsageError(f"{name} is {probability:g}; give 0 to 1")
        if self.noise_strength is not None and not 0 <= self.noise_strength[0] <= self.noise_strength[1]:
            low, high = self.noise_strength
            raise UsageError(f"noise_strength goes from low to high, got {low:g} to {high:g}")


def augment(
    images_B3HW: torch.Tensor,
    channels_BHW: torch.Tensor,
    labels: LabelSet,
    config: Augmentation,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in 0..1 and class channels -> the same after random changes; what comes in from outside is IGNORE.

    Of images whose three channels are one in memory (stride 0) that one is changed.
    """
    count = len(images_B3HW)
    known = images_B3HW[:, :1] if images_B3HW.stride(1) == 0 else images_B3HW

    def draw(limit: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle = draw(math.radians(config.rotation_deg))
    zoom = 1 + draw(config.scale)
    shift_x, shift_y = draw(2 * config.shift), draw(2 * config.shift)
    flip = torch.where(torch.rand(count, generator=generator) < config.mirror, -1.0, 1.0)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    # Output position -> input position, in units of half a side; the flip acts last on the input's x.
    theta = torch.stack(
        [torch.stack([cos * flip, -sin * flip, shift_x * flip], -1), torch.stack([sin, cos, shift_y], -1)], dim=1
    )
    grid = F.affine_grid(theta, list(known.shape), align_corners=False)
    images = F.grid_sample(known, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    shifted = (channels_BHW - IGNORE).to(images.dtype)[:, None]  # so that the zeros from outside mean IGNORE
    channels = (
        F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)[:, 0].long() + IGNORE
    )

    swap = torch.as_tensor(labels.mirror_channels)
    mirrored = torch.where(channels == IGNORE, channels, swap[channels.clamp_min(0)])
    channels = torch.where((flip < 0)[:, None, None], mirrored, channels)

    def per_image(values: torch.Tensor) -> torch.Tensor:
        return values[:, None, None, None]

    images = images.clamp(0, 1) ** per_image(torch.exp(draw(config.gamma)))
    images = (images - 0.5) * per_image(1 + draw(config.contrast)) + 0.5 + per_image(draw(config.brightness))
    sigma = per_image(draw(config.noise).abs())
    white = torch.randn(images[:, :1].shape, generator=generator)
    images = (images + sigma * white).clamp(0, 1)
    still = torch.rand(count, generator=generator) < config.unchanged
    images = torch.where(still[:, None, None, None], known, images).expand(-1, 3, -1, -1)
    channels = torch.where(still[:, None, None], channels_BHW, channels)
    return (_spoilt(images, config, generator) if config.noises else images), channels


def _spoilt(images_B3HW: torch.Tensor, config: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Some of the images with noise of a kind and strength that are drawn for each."""
    images = []
    for image_3HW in images_B3HW:
        chance, share = torch.rand(2, generator=generator).tolist()
        name = config.noises[int(torch.randint(len(config.noises), (), generator=generator))]
        low, high = config.noise_strength or NOISES[name].usual
        if chance < config.noise_probability:
            image_3HW = noise(name, low + share * (high - low))(image_3HW[None], generator)[0]
        images.append(image_3HW)
    return torch.stack(images)
