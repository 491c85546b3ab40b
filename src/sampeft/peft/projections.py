"""A fused q-k-v linear layer -> three linear layers with equal output, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from sampeft.sites import AttentionSite, Site

NAMES = ("q_proj", "k_proj", "v_proj")


class SplitProjection(nn.Module):
    """Stands where a fused linear layer stood: q_proj, k_proj and v_proj, their outputs laid out as the fused one's.

    groups: interleaved (q, k, v) groups of the fused output, see `AttentionSite`. q, k and v are equally wide. With one
    group the three share the fused layer's memory.
    """

    def __init__(self, fused: nn.Linear, groups: int) -> None:
        super().__init__()
        self.groups = groups
        for name, index in zip(NAMES, self.rows(fused.out_features, groups), strict=True):
            part = nn.Linear(fused.in_features, len(index), bias=fused.bias is not None, device="meta")
            part.weight = nn.Parameter(self._take(fused.weight, index), requires_grad=fused.weight.requires_grad)
            if fused.bias is not None:
                part.bias = nn.Parameter(self._take(fused.bias, index), requires_grad=fused.bias.requires_grad)
            self.add_module(name, part)

    def _take(self, tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        first = int(index[0])
        view = tensor.detach()[first : first + len(index)]
        return view if self.groups == 1 else tensor.detach()[index.to(tensor.device)]

    @staticmethod
    def rows(out_features: int, groups: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Output rows of q, k and v in the fused layer."""
        index = torch.arange(out_features, device="cpu").reshape(groups, 3, -1)
        return index[:, 0].reshape(-1), index[:, 1].reshape(-1), index[:, 2].reshape(-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [cast(torch.Tensor, self.get_submodule(name)(x)) for name in NAMES]
        grouped = [part.reshape(*part.shape[:-1], self.groups, 1, -1) for part in parts]
        return torch.cat(grouped, dim=-2).flatten(-3)

    def fuse(self) -> nn.Linear:
        """The one linear layer with the same output; the parts must be plain linear layers again."""
        parts = [cast(nn.Linear, self.get_submodule(name)) for name in NAMES]
        assert all(type(part) is nn.Linear for part in parts), "merge the adapters before fusing"
        first = parts[0]
        out_features = sum(part.out_features for part in parts)
        fused = nn.Linear(first.in_features, out_features, bias=first.bias is not None, device="meta")
        order = torch.cat(self.rows(out_features, self.groups)).argsort()
        weight = torch.cat([part.weight.detach() for part in parts])[order.to(first.weight.device)]
        fused.weight = nn.Parameter(weight, requires_grad=first.weight.requires_grad)
        if first.bias is not None:
            bias = torch.cat([part.bias.detach() for part in parts])[order.to(first.weight.device)]
            fused.bias = nn.Parameter(bias, requires_grad=first.bias.requires_grad)
        return fused


def split_fused(model: Any, sites: Iterable[Site]) -> None:
    """Replace the fused projection of every site that has one, in place."""
    for site in sites:
        if isinstance(site, AttentionSite) and site.fused:
            path = f"{site.path}.{site.fused}"
            fused = model.get_submodule(path)
            if isinstance(fused, nn.Linear):
                model.set_submodule(path, SplitProjection(fused, site.groups))
