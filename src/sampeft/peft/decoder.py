"""The baseline without an adapter: the image encoder stays frozen, the mask decoder's transformer is trained whole."""

from __future__ import annotations

from dataclasses import dataclass

from sampeft.model import SemanticSam


@dataclass(frozen=True)
class DecoderOptions:
    """Nothing to choose."""


def attach(model: SemanticSam, options: DecoderOptions) -> list[str]:
    """Free the transformer's weights. Returns its path."""
    model.sam.mask_decoder.transformer.requires_grad_(True)
    return ["mask_decoder.transformer"]
