"""Where a method may attach: the attention projections that a backbone publishes, with the layout of fused ones.

A backbone lists its sites; methods (LoRA and its relatives, adapters) read them and never guess channel positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["encoder", "decoder"]
Projection = Literal["q", "k", "v"]


@dataclass(frozen=True)
class AttentionSite:
    """One attention layer of a promptable model.

    path: module path below the model. With `groups` it names the fused linear layer that gives q, k and v together;
        without, it names the attention module that already holds `q_proj`, `k_proj` and `v_proj`.
    part: the image encoder or the mask decoder's transformer.
    block: index of the block within its part, counted from the input.
    groups: number of interleaved (q, k, v) groups along the fused output: 1 when the output is q | k | v in thirds
        (SAM's ViT, Hiera), the number of heads when every head has its own q, k, v next to each other (TinyViT);
        None when the projections are separate.
    """

    path: str
    part: Part
    block: int
    groups: int | None = None

    def projection(self, name: Projection) -> str:
        """Path of one projection, a Linear, once fused layers are split."""
        return f"{self.path}.{name}_proj"
