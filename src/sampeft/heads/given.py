"""What a head works on, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F

Window = tuple[int, int]
"""Top and left pixel of a square part of the picture."""


ABSENT = -1e4
"""The logits of a class that is left out of a picture; a probability of 0 in any precision."""


class Output(NamedTuple):
    """logits_BKHW: of the classes. presence_BK: logits of which classes the whole picture holds, from a head that tells.
    coarser: class logits at coarser grids, finest first, for losses of their own; of a head in training alone. whole_BKHW: of
    the whole picture by the mask head, where the others are of windows."""

    logits_BKHW: torch.Tensor
    presence_BK: torch.Tensor | None = None
    coarser: tuple[torch.Tensor, ...] = ()
    whole_BKHW: torch.Tensor | None = None

    def decided(self) -> torch.Tensor:
        """Class logits to which the logarithm of each class's presence is added."""
        if self.presence_BK is None:
            return self.logits_BKHW
        # As `logsigmoid`, which graphs take apart into a logarithm of what may have become 0.
        return self.logits_BKHW - F.softplus(-self.presence_BK.float())[:, :, None, None]


def without_small(
    logits_BKHW: torch.Tensor, least_share: float, filled: Sequence[tuple[float, float]] | None = None
) -> torch.Tensor:
    """Logits in which classes that would fill less than a share of their picture are `ABSENT`, so that the next likeliest takes
    their place; the largest stays.

    filled: per picture the share of the square's rows and columns that show it, from the top left; the rest is padding, which
    does not count. None: all of them.
    """
    if not least_share:
        return logits_BKHW
    classes, *size = logits_BKHW.shape[1:]
    classes_K = torch.arange(classes, device=logits_BKHW.device)
    is_drawn_BKHW = logits_BKHW.argmax(dim=1, keepdim=True) == classes_K[:, None, None]
    if filled is None:
        share_BK = is_drawn_BKHW.float().mean(dim=(2, 3))
    else:
        inner = [[max(1, round(n * share)) for n, share in zip(size, shares, strict=True)] for shares in filled]
        parts = [drawn_KHW[:, :h, :w] for drawn_KHW, (h, w) in zip(is_drawn_BKHW, inner, strict=True)]
        share_BK = torch.stack([part_Khw.float().mean(dim=(1, 2)) for part_Khw in parts])
    is_small_BK = (share_BK < least_share) & (share_BK < share_BK.amax(dim=1, keepdim=True))
    return logits_BKHW.masked_fill(is_small_BK[:, :, None, None], ABSENT)


@dataclass(frozen=True)
class Given:
    """What is known of a batch of pictures when the head begins.

    side: pixels of the square picture. tokens_BKC: of the classes, after the mask decoder's transformer; None for a
    head that has none. embedding_BCHW:
    after the transformer; None without a Segment Anything model. finer: SAM 2's two maps for its mask head, the coarser
    first. maps: the encoder's own, as `EncoderMap` lists them. image_B3HW: the pictures in 0..1, for a head that reads them.
    pooled_BD, drawn_BKHW: what is known of each whole picture and its class logits by the mask head; the head fills them
    before windows are cut.
    """

    side: int
    tokens_BKC: torch.Tensor | None
    embedding_BCHW: torch.Tensor | None
    finer: tuple[torch.Tensor, ...]
    maps: tuple[torch.Tensor, ...] = ()
    image_B3HW: torch.Tensor | None = None
    pooled_BD: torch.Tensor | None = None
    drawn_BKHW: torch.Tensor | None = None

    def cut(self, windows: Sequence[Window], size: int) -> Given:
        """The same of one window of `size` pixels of each picture; windows lie where all maps have whole cells."""

        def part(maps_BCHW: torch.Tensor) -> torch.Tensor:
            cells = maps_BCHW.shape[-1]
            corners = [(top * cells // self.side, left * cells // self.side) for top, left in windows]
            return cut(maps_BCHW, corners, size * cells // self.side)

        return replace(
            self,
            side=size,
            embedding_BCHW=None if self.embedding_BCHW is None else part(self.embedding_BCHW),
            finer=tuple(map(part, self.finer)),
            maps=tuple(map(part, self.maps)),
            image_B3HW=None if self.image_B3HW is None else part(self.image_B3HW),
            drawn_BKHW=None if self.drawn_BKHW is None else part(self.drawn_BKHW),
        )


def moments(maps_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (B, C) of each channel over the picture."""
    flat = maps_BCHW.flatten(2)
    return flat.mean(dim=2), flat.std(dim=2, correction=0)


def cut(maps: torch.Tensor, corners: Sequence[Window], length: int) -> torch.Tensor:
    """A square of each of the maps (B, ..., H, W)."""
    parts = zip(maps, corners, strict=True)
    return torch.stack([m[..., top : top + length, left : left + length] for m, (top, left) in parts])
