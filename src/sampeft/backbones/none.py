"""No Segment Anything model at all: the control that shows what one adds to the same head, data and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sampeft.backbones.checkpoints import State
from sampeft.errors import WeightsError
from sampeft.sites import EncoderMap, Parts, Site

LEAD_TOKENS: tuple[str, ...] = ()
PARTS = Parts()
FINER_MAPS = 0
TINY: dict[str, Any] = {}
TINY_SIDE = 64


def build() -> nn.Module:
    """A module without parameters."""
    return nn.Module()


def convert(state: State) -> dict[str, torch.Tensor]:
    """There are no weights to convert."""
    raise WeightsError("backbone none has no weights; leave --weights out")


def read_folder(folder: Path) -> State:
    """There are no weights to read."""
    raise WeightsError(f"{folder}: backbone none has no weights; leave --weights out")


def sites(sam: nn.Module) -> list[Site]:
    """None: nothing is pretrained."""
    return []


def encoder_maps(sam: nn.Module) -> tuple[EncoderMap, ...]:
    """None: the head's own pyramid of the picture is all there is."""
    return ()


def resize(sam: Any, side: int) -> None:
    """Any side will do."""


def before(sam: Any, pixels_B3HW: torch.Tensor, block: int, maps: bool = False) -> tuple[torch.Tensor, ...]:
    """Nothing."""
    return ()


def after(sam: Any, features: tuple[torch.Tensor, ...], block: int, maps: bool = False) -> tuple[torch.Tensor, ...]:
    """Nothing."""
    return ()


def promptable_input(features: tuple[torch.Tensor, ...]) -> Any:
    """Never asked for: without a Segment Anything model nothing can be prompted."""
    raise AssertionError
