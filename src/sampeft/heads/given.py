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
"""Added to the logits of a class that a picture does not hold; a probability of 0 in any precision."""


@dataclass(frozen=True)
class Gate:
    """What a class must have to be drawn in a picture at all; the likeliest is drawn always.

    presence: probability that the picture holds it. share: of the picture's pixels, that it would be drawn in. Both 0..1.
    """

    presence: float = 0.0
    share: float = 0.0

    def in_words(self) -> str:
        """For people; empty where every class is drawn."""
        presence = [f"its presence is {self.presence:g} or more"] if self.presence else []
        share = [f"it would fill {100 * self.share:g} % of it or more"] if self.share else []
        return " and ".join([*presence, *share])


OPEN = Gate()
"""Every class is drawn."""


class Output(NamedTuple):
    """logits_BKHW: of the classes. presence_BK: logits of which classes the whole picture holds, from a head that tells.
    coarser: class logits at coarser grids, finest first, for losses of their own; of a head in training alone. whole_BKHW: of
    the whole picture by the mask head, where the others are of windows."""

    logits_BKHW: torch.Tensor
    presence_BK: torch.Tensor | None = None
    coarser: tuple[torch.Tensor, ...] = ()
    whole_BKHW: torch.Tensor | None = None

    def decided(self, gate: Gate = OPEN) -> torch.Tensor:
        """Class logits to which the logarithm of each class's presence is added, or `ABSENT` where it does not pass the
        gate. A head that tells no presence has no gate."""
        if self.presence_BK is None:
            return self.logits_BKHW
        presence_BK = self.presence_BK.float()
        log_BK = F.logsigmoid(presence_BK)
        if gate.presence:
            log_BK = log_BK.masked_fill(_below(presence_BK.sigmoid(), gate.presence), ABSENT)
        logits_BKHW = self.logits_BKHW + log_BK[:, :, None, None]
        if gate.share:
            classes_K = torch.arange(logits_BKHW.shape[1], device=logits_BKHW.device)
            is_drawn_BKHW = logits_BKHW.argmax(dim=1, keepdim=True) == classes_K[:, None, None]
            share_BK = is_drawn_BKHW.float().mean(dim=(2, 3))
            logits_BKHW = logits_BKHW.masked_fill(_below(share_BK, gate.share)[:, :, None, None], ABSENT)
        return logits_BKHW


def _below(values_BK: torch.Tensor, least: float) -> torch.Tensor:
    """Which are lower than `least` and than the largest of their picture."""
    return (values_BK < least) & (values_BK < values_BK.amax(dim=1, keepdim=True))


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
