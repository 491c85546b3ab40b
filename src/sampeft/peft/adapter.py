"""Bottleneck adapters around attention layers and MLPs: the paper's (section 3.4), AdaptFormer's and Houlsby's.

All start as nothing added: the up-projection is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from sampeft.errors import UsageError
from sampeft.model import SemanticSam
from sampeft.options import number
from sampeft.peft.placement import Placement
from sampeft.sites import AttentionSite, MlpSite


@dataclass(frozen=True)
class AdapterOptions(Placement):
    """width: of the bottleneck; below 1 a share of the layer's width (Med-SA's quarter), else a number of channels.
    scale: of the adapters beside an MLP (the paper's s).
    """

    width: float = number(0.25, 0, 4096, above=True)
    scale: float = number(0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width > 1 and self.width != int(self.width):
            raise UsageError(f"width is a share below 1 or a number of channels, got {self.width}")

    def channels(self, width: int) -> int:
        return max(1, round(self.width * width)) if self.width < 1 else int(self.width)


@dataclass(frozen=True)
class AdaptFormerOptions(AdapterOptions):
    """As of `adapter`; the defaults are AdaptFormer's."""

    width: float = number(64, 0, 4096, above=True)
    scale: float = number(0.1)


@dataclass(frozen=True)
class HoulsbyOptions(AdapterOptions):
    """As of `adapter`; scale has no part in it."""

    width: float = number(64, 0, 4096, above=True)
    scale: float = number(1.0)


class Adapted(nn.Module):
    """A module with a bottleneck ReLU(x W_down) W_up, scaled and added: to what the module gives (`after`: of its output,
    `beside`: of its input) or to what it gets (`before`).

    norm: name of the layer norm that the module applies first; a bottleneck beside it sees the normed input, too.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        place: Literal["after", "beside", "before"],
        width: int,
        channels: int,
        scale: float = 1.0,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.place, self.scale, self.norm = place, scale, norm
        self.down = nn.Linear(width, channels)
        self.up = nn.Linear(channels, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def bottleneck(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.scale * self.up(F.relu(self.down(x))))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.place == "before":
            return self.base_layer(args[0] + self.bottleneck(args[0]))
        output = self.base_layer(*args, **kwargs)
        if self.place == "beside":
            x = args[0] if self.norm is None else self.base_layer.get_submodule(self.norm)(args[0])
            return output + self.bottleneck(x)
        if isinstance(output, tuple):  # an attention of `transformers` gives its weights, too
            return output[0] + self.bottleneck(output[0]), *output[1:]
        return output + self.bottleneck(output)


def _wrap(
    model: SemanticSam,
    path: str,
    place: Literal["after", "beside", "before"],
    width: int,
    options: AdapterOptions,
    scale: float = 1.0,
    norm: str | None = None,
) -> str:
    adapted = Adapted(model.sam.get_submodule(path), place, width, options.channels(width), scale, norm)
    model.sam.set_submodule(path, adapted.to(next(model.sam.parameters()).device))
    return path


def _output_width(model: SemanticSam, site: AttentionSite | MlpSite) -> int:
    last = site.output if isinstance(site, AttentionSite) else site.layers[-1]
    return int(model.sam.get_submodule(f"{site.path}.{last}").out_features)


def _beside(model: SemanticSam, site: MlpSite, options: AdapterOptions) -> str:
    return _wrap(model, site.path, "beside", _output_width(model, site), options, options.scale, site.norm)


def adapter(model: SemanticSam, options: AdapterOptions) -> list[str]:
    """The paper's: in an encoder block one after the attention and one beside the MLP, scaled by s; in a decoder block one
    beside the MLP, scaled by s, and one after the sum of image-to-prompt attention and residual.

    The paper's eq. 5 adds the input to every adapter's output. Beside an MLP that would add s times the input to the
    residual path at the start already; as in Med-SA's code, it is left out there, so that the start is the base model.
    """
    paths = []
    for site in options.sites(model):
        if isinstance(site, MlpSite):
            paths.append(_beside(model, site, options))
        elif site.part == "encoder":
            paths.append(_wrap(model, site.path, "after", _output_width(model, site), options))
        elif site.norm is not None:
            paths.append(_wrap(model, site.norm, "before", _output_width(model, site), options))
    return paths + options.free_decoder(model)


def adaptformer(model: SemanticSam, options: AdaptFormerOptions) -> list[str]:
    """AdaptFormer's: one beside every MLP, scaled."""
    sites = [site for site in options.sites(model) if isinstance(site, MlpSite)]
    return [_beside(model, site, options) for site in sites] + options.free_decoder(model)


def houlsby(model: SemanticSam, options: HoulsbyOptions) -> list[str]:
    """Houlsby's: one after every attention and one after every MLP, before the residual is added."""
    sites = options.sites(model)
    wrapped = [_wrap(model, site.path, "after", _output_width(model, site), options) for site in sites]
    return wrapped + options.free_decoder(model)
