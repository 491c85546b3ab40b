"""What a backbone publishes: attention layers and MLPs where a method may attach, with the layout of fused projections, and
the maps that its encoder has on the way.

A backbone lists its sites; methods (LoRA and its relatives, adapters) read them and never guess channel positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class Parts:
    """Paths of modules and parameters of a promptable model, by what they are for; the first part that names one has it.

    encoder: what makes the image's embedding and the finer maps. prompts: what encodes points, boxes and masks. decoder: the
    mask decoder's transformer and its own tokens. mask_head: what draws masks for prompts, which without one does not run.
    """

    encoder: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    decoder: tuple[str, ...] = ()
    mask_head: tuple[str, ...] = ()


TARGETS = ("q", "k", "v", "proj", "mlp")
"""Linear layers by role: query, key, value and output projection of an attention, and the layers of an MLP."""


@dataclass(frozen=True)
class AttentionSite:
    """One attention layer of a promptable model.

    path: path of the attention module below the model. output: name of its output projection, inside it.
    part: the image encoder or the mask decoder's transformer.
    block: index of the block within its part, counted from the input.
    fused: name, inside the module, of the one linear layer that gives q, k and v together; None when the module holds
        `q_proj`, `k_proj` and `v_proj`.
    groups: number of interleaved (q, k, v) groups along the fused output: 1 when the output is q | k | v in thirds
        (SAM's ViT, Hiera), the number of heads when every head has its own q, k, v next to each other (TinyViT).
    norm: path of the layer norm over the sum of this attention's output and its residual, where a block has one there
        and the paper's Adapter goes before it: behind the decoder's attention from image to prompt.
    """

    path: str
    output: str
    part: Part
    block: int
    fused: str | None = None
    groups: int = 1
    norm: str | None = None

    def linears(self, target: str) -> list[str]:
        """Paths of the linear layers of a role, once fused ones are split; empty for a role that this site has not."""
        if target in ("q", "k", "v"):
            return [".".join(filter(None, (self.path, self.fused, f"{target}_proj")))]
        return [f"{self.path}.{self.output}"] if target == "proj" else []


@dataclass(frozen=True)
class MlpSite:
    """One MLP of a transformer block.

    path: path of the module. layers: names of its linear layers, inside it, from input to output.
    norm: name of a layer norm that the module itself applies to its input first, or None: the block did it before.
    """

    path: str
    layers: tuple[str, ...]
    part: Part
    block: int
    norm: str | None = None

    def linears(self, target: str) -> list[str]:
        """As of `AttentionSite`."""
        return [f"{self.path}.{layer}" for layer in self.layers] if target == "mlp" else []


Site = AttentionSite | MlpSite


@dataclass(frozen=True)
class EncoderMap:
    """A map that an encoder has on its way, for heads that read it.

    width: channels. stride: pixels of the encoder's input for a cell. spread: cells a side that a head may unfold each cell
    to, since tokens of a ViT still hold the pixels of their patch.
    """

    width: int
    stride: int
    spread: int = 1
