"""A linear classifier of what the frozen encoder has at each place and over the whole picture: the two-minute baseline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from sampeft.heads.given import Given, Output, moments
from sampeft.options import check_ranges, number

if TYPE_CHECKING:
    from sampeft.heads import Setting

_CELL = 8  # pixels of a cell where there is no embedding
_COLOURS = 6  # mean and spread of the three channels
_LEAST_SPREAD = 1e-4  # below it a feature is the same everywhere


@dataclass(frozen=True)
class ProbeOptions:
    """presence: decide from the whole picture which classes it holds. dropout: share of the features left out in each step of
    the training, others for each picture; there are more of them than pictures to learn from."""

    presence: bool = True
    dropout: float = number(0.5, 0, 1, below=True)

    def __post_init__(self) -> None:
        check_ranges(self)


def build(setting: Setting, options: ProbeOptions) -> ProbeHead:
    """A linear classifier of the encoder's maps and the colours, here and over the whole picture."""
    return ProbeHead(setting, options.presence, options.dropout)


class ProbeHead(nn.Module):
    """Class logits on the embedding's grid, linear in the encoder's maps there, in mean and spread of the colours
    there, and in the means and spreads of all of these over the whole picture. The mask decoder does not run.

    Every map is normalised over the channels of each place, and everything by its mean and spread over pictures of the
    training, so that what varies little from picture to picture is learned as fast as what varies much; nothing else bends.
    Of a backbone without maps colours are left.
    """

    reads_encoder_maps = True
    tokens = None

    def __init__(self, setting: Setting, presence: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        classes, maps = setting.classes, setting.maps
        self.widths = [m.width for m in maps]
        width = sum(self.widths) + _COLOURS
        self.side = setting.side
        self.grid = setting.side // _CELL if setting.stride is None else setting.encoder_side // setting.stride
        self.grids = [setting.encoder_side // m.stride for m in maps]
        self.pooled_width = 2 * width
        self.standard, self.pooled_standard = _Standard(width), _Standard(2 * width)
        self.here = nn.Conv2d(width, classes, 1)
        self.everywhere = nn.Linear(2 * width, classes)
        self.presence = nn.Linear(2 * width, classes) if presence else None
        for layer in (self.here, self.everywhere, self.presence):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.requires_grad_(True)

    @property
    def tells_presence(self) -> bool:
        """Whether the output has a presence."""
        return self.presence is not None

    def on_whole(self, given: Given) -> Given:
        """With means and spreads of the features over each whole picture, standardised."""
        return replace(given, pooled_BD=self._pooled(self._features(given)))

    def standardise(self, givens: Iterable[Given]) -> None:
        """Take means and spreads of the training's pictures, unless something was learned with other ones."""
        if not self.is_untrained():
            return
        pooled = [torch.cat(moments(self._features(given)), dim=1) for given in givens]
        if not pooled:
            return
        pooled_ND = torch.cat(pooled)
        mean_ND, spread_ND = pooled_ND.chunk(2, dim=1)
        mean_D = mean_ND.mean(dim=0)
        variance_D = (spread_ND.square() + mean_ND.square()).mean(dim=0) - mean_D.square()
        self.standard.set(mean_D, variance_D.clamp_min(0).sqrt())
        self.pooled_standard.set(pooled_ND.mean(dim=0), pooled_ND.std(dim=0, correction=0))

    def forward(self, given: Given) -> Output:
        """(B, K, h, w) on the embedding's grid."""
        features = self._features(given)
        pooled_BD = given.pooled_BD if given.pooled_BD is not None else self._pooled(features)
        pooled_BD = F.dropout(pooled_BD, self.dropout, self.training)
        here = F.dropout2d(self.standard(features), self.dropout, self.training)
        logits = self.here(here) + self.everywhere(pooled_BD)[:, :, None, None]
        return Output(logits, self.presence(pooled_BD) if self.presence is not None else None)

    def is_untrained(self) -> bool:
        """Whether all classes are alike."""
        return not bool(self.here.weight.any())

    def _pooled(self, features_BDhw: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.pooled_standard(torch.cat(moments(features_BDhw), dim=1))
        return pooled

    def _features(self, given: Given) -> torch.Tensor:
        """(B, D, h, w): the encoder's maps and the colours on one grid."""
        assert given.image_B3HW is not None
        image = (given.image_B3HW - 0.5) / 0.25
        mean = self._on_grid(image, self.side, given.side)
        spread = (self._on_grid(image.square(), self.side, given.side) - mean.square()).clamp_min(1e-6).sqrt()
        found = []
        for map_BCHW, width, grid in zip(given.maps, self.widths, self.grids, strict=True):
            normed = F.layer_norm(map_BCHW.permute(0, 2, 3, 1), (width,)).permute(0, 3, 1, 2)
            found.append(self._on_grid(normed, grid, given.side))
        return torch.cat([*found, mean, spread], dim=1)

    def _on_grid(self, maps_BCHW: torch.Tensor, grid: int, shown: int) -> torch.Tensor:
        """Means over whole cells, repeated values on a finer grid, bilinear ones where the grids do not divide each other.

        grid: cells of the maps of a whole picture. shown: pixels of the part that is there. All sizes are numbers and no
        tensors' shapes, as ONNX wants.
        """
        factor = max(1, grid // self.grid)
        means = F.avg_pool2d(maps_BCHW, factor) if factor > 1 else maps_BCHW
        if grid // factor == self.grid:
            return means
        cells = self.grid * shown // self.side
        if grid < self.grid:  # repeated, so that a part of the picture has what the whole has there
            return F.interpolate(means, (cells, cells), mode="nearest")
        return F.interpolate(means, (cells, cells), mode="bilinear", align_corners=False)


class _Standard(nn.Module):
    """(B, D, ...): less the mean of each of D features, in units of its spread; as they are until these are set."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def set(self, mean_D: torch.Tensor, spread_D: torch.Tensor) -> None:
        self.mean.copy_(mean_D)
        self.spread.copy_(torch.where(spread_D > _LEAST_SPREAD, spread_D, 1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (1, -1, *(1 for _ in range(x.dim() - 2)))
        return (x - self.mean.view(shape)) / self.spread.view(shape)
