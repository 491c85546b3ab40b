"""Augmentation: shift, scale, turn and re-tone slices with their labels; left stays left unless ids are swapped."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from sampeft.data.augmentation import Augmentation as Augmentation
from sampeft.data.noise import NOISES, noise
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE

_RING = 3  # pixels round a piece that is pasted, by which its surroundings are compared


@dataclass(frozen=True)
class Symmetry:
    """One of the eight symmetries of the square, acting on the last two axes: mirrored left to right, then top to bottom,
    then rows and columns exchanged."""

    sideways: bool = False
    upside_down: bool = False
    exchanged: bool = False

    @classmethod
    def drawn(cls, config: Augmentation, generator: torch.Generator) -> Symmetry:
        """One of those that an augmentation makes anyway: all eight where it turns pictures to any direction and mirrors
        them, mirror images where it only mirrors, otherwise none."""
        if not config.mirror:
            return cls()
        sideways, upside_down, exchanged = (torch.rand(3, generator=generator) < 0.5).tolist()
        turns = config.rotation_deg >= 180
        return cls(sideways, upside_down and turns, exchanged and turns)

    @property
    def mirrors(self) -> bool:
        """Whether left and right change sides, as seen in the picture's own frame."""
        return (self.sideways + self.upside_down + self.exchanged) % 2 == 1

    def on(self, values: torch.Tensor) -> torch.Tensor:
        if self.sideways:
            values = values.flip(-1)
        if self.upside_down:
            values = values.flip(-2)
        return values.transpose(-1, -2) if self.exchanged else values

    def back(self, values: torch.Tensor) -> torch.Tensor:
        """Undoes `on`."""
        if self.exchanged:
            values = values.transpose(-1, -2)
        if self.upside_down:
            values = values.flip(-2)
        return values.flip(-1) if self.sideways else values


SYMMETRIES = tuple(
    Symmetry(sideways, upside_down, exchanged)
    for exchanged in (False, True)
    for upside_down in (False, True)
    for sideways in (False, True)
)
"""All eight; the first is none, the second the mirror image."""


def symmetries_of(config: Augmentation, labels: LabelSet) -> int:
    """How many of `SYMMETRIES` pictures are seen in by such a training: 1, 2 or 8; 1 where classes are left and right."""
    if labels.pairs or not config.mirror:
        return 1
    return 8 if config.rotation_deg >= 180 else 2


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
    if config.elastic:
        grid = grid + _bent(count, known.shape[-1], config.elastic, generator)
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

    images = _gamma(images.clamp(0, 1), per_image(torch.exp(draw(config.gamma))), config.inverted_gamma, generator)
    images = (images - 0.5) * per_image(1 + draw(config.contrast)) + 0.5 + per_image(draw(config.brightness))
    if config.blur or config.low_resolution > 1:
        images = torch.stack([_softened(image_CHW, config, generator) for image_CHW in images])
    sigma = per_image(draw(config.noise).abs())
    white = torch.randn(images[:, :1].shape, generator=generator)
    images = (images + sigma * white).clamp(0, 1)
    still = torch.rand(count, generator=generator) < config.unchanged
    images = torch.where(still[:, None, None, None], known, images).expand(-1, 3, -1, -1)
    channels = torch.where(still[:, None, None], channels_BHW, channels)
    return (_spoilt(images, config, generator) if config.noises else images), channels


def pasted(
    images_1CHW: torch.Tensor,
    channels_1HW: torch.Tensor,
    other_1CHW: torch.Tensor,
    others_1HW: torch.Tensor,
    labels: LabelSet,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A slice with the foreground pieces of another, each moved to a random place of known background where there is one in
    ten tries; its values change by the difference of what surrounds it there and here."""
    known = images_1CHW[:, :1] if images_1CHW.stride(1) == 0 else images_1CHW
    image_CHW, channels_HW = known[0].numpy().copy(), channels_1HW[0].numpy().copy()
    other_CHW, others_HW = other_1CHW[0, : len(image_CHW)].numpy(), others_1HW[0].numpy()
    pieces_HW, number = ndimage.label(np.isin(others_HW, labels.foreground), np.ones((3, 3)))
    height, width = channels_HW.shape
    for piece in range(1, number + 1 if labels.has_background else 1):
        mask_HW = pieces_HW == piece
        rows, columns = np.nonzero(mask_HW)
        ring = np.stack(np.nonzero(ndimage.binary_dilation(mask_HW, iterations=_RING) & ~mask_HW))
        for _ in range(10):
            down = int(torch.randint(-rows.min(), height - rows.max(), (), generator=generator))
            right = int(torch.randint(-columns.min(), width - columns.max(), (), generator=generator))
            if (channels_HW[rows + down, columns + right] == 0).all():
                change_C = np.zeros(len(image_CHW), np.float32)
                there = np.clip(ring + np.array([[down], [right]]), 0, np.array([[height - 1], [width - 1]]))
                if ring.size:  # a piece that fills the picture has no surroundings
                    change_C = image_CHW[:, there[0], there[1]].mean(axis=1) - other_CHW[:, ring[0], ring[1]].mean(
                        axis=1
                    )
                moved = other_CHW[:, rows, columns] + change_C[:, None]
                image_CHW[:, rows + down, columns + right] = moved.clip(0, 1)
                channels_HW[rows + down, columns + right] = others_HW[rows, columns]
                break
    return torch.from_numpy(image_CHW)[None].expand(-1, 3, -1, -1), torch.from_numpy(channels_HW)[None]


def _bent(count: int, side: int, elastic: float, generator: torch.Generator) -> torch.Tensor:
    """(B, side, side, 2) smooth displacements in units of half a side, up to `elastic` sides at the grid's 5 x 5 points."""
    points = (torch.rand(count, 2, 5, 5, generator=generator) * 2 - 1) * 2 * elastic
    return F.interpolate(points, (side, side), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def _gamma(
    images_BCHW: torch.Tensor, exponents_B111: torch.Tensor, inverted: float, generator: torch.Generator
) -> torch.Tensor:
    """Values to their exponents, or with the given probability those of the negative."""
    if not inverted:
        return images_BCHW**exponents_B111
    negative = (torch.rand(len(images_BCHW), generator=generator) < inverted)[:, None, None, None]
    return torch.where(negative, 1 - (1 - images_BCHW) ** exponents_B111, images_BCHW**exponents_B111)


def _softened(image_CHW: torch.Tensor, config: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """The image blurred, made coarser, both, or as it is."""
    blurs, coarsens, blur_share, coarse_share = torch.rand(4, generator=generator).tolist()
    side = image_CHW.shape[-1]
    if config.blur and blurs < 0.5 and (sigma := blur_share * config.blur * side / 1000) > 0.05:
        reach = math.ceil(3 * sigma)
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
        kernel = (kernel / kernel.sum())[None, None]
        rows = F.pad(image_CHW[:, None], (reach, reach, reach, reach), mode="replicate")
        image_CHW = F.conv2d(F.conv2d(rows, kernel[..., None]), kernel[..., None, :])[:, 0]
    if config.low_resolution > 1 and coarsens < 0.5:
        small = max(1, round(side / (1 + coarse_share * (config.low_resolution - 1))))
        coarse = F.interpolate(image_CHW[None], (small, small), mode="bilinear", antialias=True, align_corners=False)
        image_CHW = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)[0]
    return image_CHW


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
