"""The mask head, and on top of it a U-shaped decoder that draws on the picture's own grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from sampeft.heads.given import Given, Output, moments
from sampeft.heads.mask import MaskHead
from sampeft.sites import EncoderMap

if TYPE_CHECKING:
    from sampeft.heads import Setting

WIDTHS = (16, 32, 64, 96, 128)
"""Channels at strides 1, 2, 4, 8 and 16 of the picture."""


@dataclass(frozen=True)
class PixelOptions:
    """presence: decide from the whole picture which classes it holds. encoder_maps: read what the encoder has before its
    neck. deep_supervision: losses at the coarser levels of the decoder, too. widths: channels at strides 1, 2, 4 ..."""

    presence: bool = True
    encoder_maps: bool = True
    deep_supervision: bool = True
    widths: tuple[int, ...] = WIDTHS


def build(setting: Setting, options: PixelOptions) -> PixelHead:
    maps = setting.maps if options.encoder_maps else ()
    stride = setting.maps[-1].stride if setting.maps else None
    return PixelHead(
        setting.mask_decoder,
        setting.classes,
        maps,
        setting.scale,
        stride,
        options.presence,
        options.deep_supervision,
        options.widths,
    )


class PixelHead(nn.Module):
    """Class logits on the picture's own grid: those of `MaskHead`, drawn up, plus what a U-shaped decoder adds.

    The decoder goes down a small convolutional pyramid of the picture, to which the encoder's maps and the embedding after
    the transformer are added where their grids are, and up again. Hypernetworks turn each class token into the weights of
    its last features, so that eq. 1 of the paper holds on the input's own grid. They start at zero: the head begins as the
    mask head. Features are normalised over the channels of each place alone; over the picture they would lose its mean
    colour. Without a SAM (mask_decoder None) the pyramid is all there is.

    maps: the encoder's. scale: pixels of the picture for one of the encoder's input. embedding_stride: pixels of the
    encoder's input for a cell of the embedding.
    """

    reads_encoder_maps = True

    def __init__(
        self,
        mask_decoder: Any,
        classes: int,
        maps: Sequence[EncoderMap],
        scale: float,
        embedding_stride: int | None,
        presence: bool = True,
        deep_supervision: bool = True,
        widths: Sequence[int] = WIDTHS,
        token_width: int = 256,
    ) -> None:
        super().__init__()
        self.mask = MaskHead(mask_decoder, classes) if mask_decoder is not None else None
        if self.mask is None:
            self.own_tokens = nn.Parameter(torch.randn(classes, token_width) * 0.02)
        embedding = [] if embedding_stride is None else [EncoderMap(token_width, embedding_stride)]
        deepest = len(widths) - 1
        self.levels = [min(deepest, max(0, round(math.log2(scale * m.stride / m.spread)))) for m in (*maps, *embedding)]
        self.taken = nn.ModuleList(
            _Taken(m, widths[level]) for m, level in zip((*maps, *embedding), self.levels, strict=True)
        )
        self.down = nn.ModuleList(
            _Block(before, width, *((1, 1) if i == 0 else (2, 2)))
            for i, (before, width) in enumerate(zip((3, *widths[:-1]), widths, strict=True))
        )
        self.narrow = nn.ModuleList(nn.Conv2d(deeper, width, 1) for width, deeper in pairwise(widths))
        self.up = nn.ModuleList(_Block(width, width, 1, 2 if i == 0 else 1) for i, width in enumerate(widths[:-1]))
        self.pooled_width = 6 + (2 * maps[-1].width if maps else 0)
        self.pool_norm = nn.LayerNorm(self.pooled_width - 6) if maps else None
        self.context = nn.Linear(self.pooled_width, widths[-1])
        self.weights = nn.Linear(token_width, widths[0])
        self.bias = nn.Linear(token_width, 1)
        for layer in (self.weights, self.bias, self.context):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.coarse = nn.ModuleList(nn.Conv2d(w, classes, 1) for w in widths[1:-1]) if deep_supervision else None
        self.presence = nn.Linear(self.pooled_width + widths[-1], classes) if presence else None
        if self.presence is not None:
            nn.init.zeros_(self.presence.weight)
            nn.init.zeros_(self.presence.bias)
        self.requires_grad_(True)

    @property
    def tells_presence(self) -> bool:
        """Whether the output has a presence."""
        return self.presence is not None

    @property
    def tokens(self) -> nn.Parameter:
        """(K, 256) of the classes."""
        return self.own_tokens if self.mask is None else self.mask.tokens

    def pooled(self, given: Given) -> Given:
        """With mean and spread of the colours and of the encoder's last map over each whole picture."""
        assert given.image_B3HW is not None
        found = [*moments((given.image_B3HW - 0.5) / 0.25)]
        if self.pool_norm is not None:
            found.append(self.pool_norm(torch.cat(moments(given.maps[-1]), dim=1)))
        return replace(given, pooled_BD=torch.cat(found, dim=1))

    def forward(self, given: Given) -> Output:
        """(B, K, H, W) of pictures of H x W pixels."""
        if given.pooled_BD is None:
            given = self.pooled(given)
        assert given.pooled_BD is not None
        assert given.tokens_BKC is not None
        assert given.image_B3HW is not None
        maps = [*given.maps[: len(self.taken) - (given.embedding_BCHW is not None)]] + (
            [] if given.embedding_BCHW is None else [given.embedding_BCHW]
        )
        features = (given.image_B3HW - 0.5) / 0.25
        path = []
        for level, block in enumerate(self.down):
            features = block(features)
            for at, taken, map_BCHW in zip(self.levels, self.taken, maps, strict=True):
                if at == level:
                    features = features + _sized(taken(map_BCHW), features.shape[-2:])
            path.append(features)
        features = path.pop()
        seen_BD = torch.cat([given.pooled_BD, features.mean(dim=(2, 3))], dim=1)
        features = features + self.context(given.pooled_BD)[:, :, None, None]
        coarser = []
        for level in reversed(range(len(path))):
            before = path[level]
            features = self.up[level](before + _sized(self.narrow[level](features), before.shape[-2:]))
            if self.training and self.coarse is not None and level:
                coarser.append(self.coarse[level - 1](features))
        weights_BKC, bias_BK = self.weights(given.tokens_BKC), self.bias(given.tokens_BKC)[..., 0]
        logits = torch.einsum("bkc,bchw->bkhw", weights_BKC, features) + bias_BK[:, :, None, None]
        if self.mask is not None:
            logits = logits + _sized(self.mask(given).logits_BKHW, logits.shape[-2:])
        presence_BK = self.presence(seen_BD) if self.presence is not None else None
        return Output(logits, presence_BK, tuple(reversed(coarser)))

    def is_untrained(self) -> bool:
        """Whether the decoder adds nothing yet and the mask head is as it was made."""
        is_zero = not self.weights.weight.any() and not self.weights.bias.any()
        return bool(is_zero) and (self.mask is None or self.mask.is_untrained())


class _Norm(nn.Module):
    """Over the channels of each place; (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-5).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """3 x 3 convolutions, each normalised and rectified; the first may halve the grid."""

    def __init__(self, before: int, after: int, stride: int, convolutions: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(convolutions):
            layers += [
                nn.Conv2d(before if i == 0 else after, after, 3, stride if i == 0 else 1, 1),
                _Norm(after),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


class _Taken(nn.Module):
    """A map of the encoder, normalised, at the width of the level it joins; tokens of large patches are spread first."""

    def __init__(self, given: EncoderMap, width: int) -> None:
        super().__init__()
        self.norm = _Norm(given.width)
        self.spread = given.spread
        self.layer = nn.Conv2d(given.width, width * given.spread**2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(self.layer(self.norm(x)), self.spread) if self.spread > 1 else self.layer(self.norm(x))


def _sized(maps_BCHW: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(maps_BCHW.shape[-2:]) == tuple(size):
        return maps_BCHW
    return F.interpolate(maps_BCHW, tuple(size), mode="bilinear", align_corners=False)
