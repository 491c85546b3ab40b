"""The mask head and the probe, and on top of them a U-shaped decoder that draws on the picture's own grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from sampeft.errors import UsageError
from sampeft.heads.given import Given, Output
from sampeft.heads.mask import MaskHead
from sampeft.heads.probe import ProbeHead
from sampeft.options import check_ranges, number
from sampeft.sites import EncoderMap

if TYPE_CHECKING:
    from sampeft.heads import Setting

WIDTHS = (16, 32, 64, 96, 128)
"""Channels at strides 1, 2, 4, 8 and 16 of the picture."""
TOKEN_WIDTH = 256


@dataclass(frozen=True)
class PixelOptions:
    """presence: decide from the whole picture which classes it holds. encoder_maps: read what the encoder has before its
    neck. deep_supervision: losses at the coarser levels of the decoder, too. widths: channels at strides 1, 2, 4 ..."""

    presence: bool = True
    encoder_maps: bool = True
    deep_supervision: bool = True
    widths: tuple[int, ...] = number(WIDTHS, 1, 4096)

    def __post_init__(self) -> None:
        check_ranges(self)
        if not 1 <= len(self.widths) <= 8:
            raise UsageError(f"widths are {len(self.widths)} numbers; give 1 to 8, of strides 1, 2, 4 ...")


def build(setting: Setting, options: PixelOptions) -> PixelHead:
    """`mask` and `probe`, and a decoder over the picture, the encoder's maps and the embedding, on the picture's own grid."""
    return PixelHead(setting, options)


class PixelHead(nn.Module):
    """Class logits on the picture's own grid: those of `MaskHead` and of `ProbeHead`, drawn up, plus what a U-shaped decoder
    adds.

    The decoder goes down a small convolutional pyramid of the picture, to which the encoder's maps and the embedding after
    the transformer are added where their grids are, and up again. Hypernetworks turn each class token into the weights of
    its last features, so that eq. 1 of the paper holds on the input's own grid. They start at zero, as the probe does: the
    head begins as the mask head. What the whole picture holds is told by the probe. Features are normalised over the
    channels of each place alone; over the picture they would lose its mean colour. Without a Segment Anything model pyramid
    and colours are all there is.
    """

    reads_encoder_maps = True

    def __init__(self, setting: Setting, options: PixelOptions) -> None:
        super().__init__()
        classes, widths = setting.classes, options.widths
        self.maps = setting.maps if options.encoder_maps else ()
        self.mask = MaskHead(setting.mask_decoder, classes) if setting.mask_decoder is not None else None
        if self.mask is None:
            self.own_tokens = nn.Parameter(torch.randn(classes, TOKEN_WIDTH) * 0.02)
        joined = [*self.maps, *([] if setting.stride is None else [EncoderMap(TOKEN_WIDTH, setting.stride)])]
        deepest = len(widths) - 1
        strides = [m.stride / m.spread * setting.side / setting.encoder_side for m in joined]
        self.levels = [min(deepest, max(0, round(math.log2(stride)))) for stride in strides]
        self.taken = nn.ModuleList(_Taken(m, widths[at]) for m, at in zip(joined, self.levels, strict=True))
        self.down = nn.ModuleList(
            _Block(before, width, *((1, 1) if i == 0 else (2, 2)))
            for i, (before, width) in enumerate(zip((3, *widths[:-1]), widths, strict=True))
        )
        self.narrow = nn.ModuleList(nn.Conv2d(deeper, width, 1) for width, deeper in pairwise(widths))
        self.up = nn.ModuleList(_Block(width, width, 1, 2 if i == 0 else 1) for i, width in enumerate(widths[:-1]))
        self.probe = ProbeHead(replace(setting, maps=self.maps), options.presence)
        self.context = nn.Linear(self.probe.pooled_width, widths[-1])
        self.weights = nn.Linear(TOKEN_WIDTH, widths[0])
        self.bias = nn.Linear(TOKEN_WIDTH, 1)
        for layer in (self.weights, self.bias, self.context):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.coarse = (
            nn.ModuleList(nn.Conv2d(w, classes, 1) for w in widths[1:-1]) if options.deep_supervision else None
        )
        self.requires_grad_(True)

    @property
    def tells_presence(self) -> bool:
        """Whether the output has a presence."""
        return self.probe.tells_presence

    @property
    def tokens(self) -> nn.Parameter:
        """(K, 256) of the classes."""
        return self.own_tokens if self.mask is None else self.mask.tokens

    def on_whole(self, given: Given) -> Given:
        """As the probe and the mask head do it."""
        given = self.probe.on_whole(self._read(given))
        return given if self.mask is None else self.mask.on_whole(given)

    def standardise(self, givens: Iterable[Given]) -> None:
        """As the probe does."""
        self.probe.standardise(map(self._read, givens))

    def forward(self, given: Given) -> Output:
        """(B, K, H, W) of pictures of H x W pixels."""
        given = self._read(given) if given.pooled_BD is not None else self.on_whole(given)
        assert given.pooled_BD is not None
        assert given.tokens_BKC is not None
        assert given.image_B3HW is not None
        maps = [*given.maps, *([] if given.embedding_BCHW is None else [given.embedding_BCHW])]
        features = (given.image_B3HW - 0.5) / 0.25
        path = []
        for level, block in enumerate(self.down):
            features = block(features)
            for at, taken, map_BCHW in zip(self.levels, self.taken, maps, strict=True):
                if at == level:
                    features = features + _sized(taken(map_BCHW), features.shape[-2:])
            path.append(features)
        features = path.pop()
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
        linear = self.probe(given)
        logits = logits + _sized(linear.logits_BKHW, logits.shape[-2:])
        return Output(logits, linear.presence_BK, tuple(reversed(coarser)))

    def _read(self, given: Given) -> Given:
        return replace(given, maps=given.maps[: len(self.maps)])

    def is_untrained(self) -> bool:
        """Whether the decoder adds nothing yet and the mask head is as it was made."""
        is_zero = not self.weights.weight.any() and not self.weights.bias.any()
        return bool(is_zero) and self.probe.is_untrained() and (self.mask is None or self.mask.is_untrained())


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
