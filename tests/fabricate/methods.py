"""A made-up method, as a file of one's own would hold it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sampeft.model import SemanticSam
from sampeft.peft.placement import Options


@dataclass(frozen=True)
class GainOptions(Options):
    """start: the factor."""

    start: float = 1.0


class Gain(nn.Module):
    def __init__(self, base_layer: nn.Module, start: float) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.gain = nn.Parameter(torch.full((), start))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) * self.gain


def gain(model: SemanticSam, options: GainOptions) -> list[str]:
    """A factor on every MLP."""
    paths = [site.path for site in model.sites if not hasattr(site, "output")]
    for path in paths:
        model.sam.set_submodule(path, Gain(model.sam.get_submodule(path), options.start))
    return paths
