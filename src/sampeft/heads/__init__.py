"""Name -> head: what turns the encoder's maps and the class tokens into class logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from sampeft.heads import mask, pixel, probe
from sampeft.heads.given import Given, Output
from sampeft.options import options_by_name
from sampeft.sites import EncoderMap


class Head(Protocol):
    """A module of class tokens and what follows the mask decoder's transformer.

    reads_encoder_maps: whether it wants the encoder's own maps and the picture beside the embedding. tokens: (K, 256) of the
    classes; None: the head needs no mask decoder, which then does not run. tells_presence: whether it decides which classes
    the whole picture holds.
    """

    @property
    def reads_encoder_maps(self) -> bool: ...

    @property
    def tells_presence(self) -> bool: ...

    @property
    def tokens(self) -> torch.nn.Parameter | None: ...

    def on_whole(self, given: Given) -> Given:
        """With what the head takes from the whole picture, before windows of it are cut out."""
        ...

    def standardise(self, givens: Iterable[Given]) -> None:
        """Before training: take means and spreads of what the head reads from pictures of the training, if it uses such."""
        ...

    def __call__(self, given: Given) -> Output: ...

    def is_untrained(self) -> bool: ...


@dataclass(frozen=True)
class Setting:
    """What a head is made for.

    mask_decoder: the pretrained one; None without a Segment Anything model. maps: the encoder's. stride: pixels of the
    encoder's input for a cell of the embedding; None without one. side, encoder_side: pixels of the square picture and of what
    the encoder sees of it.
    """

    mask_decoder: Any
    classes: int
    maps: tuple[EncoderMap, ...]
    stride: int | None
    side: int
    encoder_side: int


@dataclass(frozen=True)
class HeadKind:
    """options: a frozen dataclass. build: of a setting and options, everything to be trained."""

    options: type[Any]
    build: Callable[[Setting, Any], Any]


HEADS: dict[str, HeadKind] = {
    "mask": HeadKind(mask.MaskOptions, mask.build),
    "pixel": HeadKind(pixel.PixelOptions, pixel.build),
    "probe": HeadKind(probe.ProbeOptions, probe.build),
}


def build_head(name: str, setting: Setting, options: Mapping[str, Any] | None = None) -> Any:
    """A head by name. Raises UsageError for an unknown one or an unknown option, or where it cannot be built."""
    chosen = options_by_name(HEADS, "head", name, options)
    return HEADS[name].build(setting, chosen)
