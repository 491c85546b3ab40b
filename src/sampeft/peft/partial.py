"""Methods without added parameters: a frozen encoder with a free decoder, biases alone (BitFit), or everything."""

from __future__ import annotations

from torch import nn

from sampeft.errors import UsageError
from sampeft.model import SemanticSam
from sampeft.peft.placement import Options, Placement

_PARTS = {"encoder": "vision_encoder", "decoder": "mask_decoder.transformer"}


def decoder(model: SemanticSam, options: Options) -> list[str]:
    """The baseline: the image encoder stays frozen, the mask decoder's transformer is trained whole."""
    model.sam.mask_decoder.transformer.requires_grad_(True)
    return ["mask_decoder.transformer"]


def bitfit(model: SemanticSam, options: Placement) -> list[str]:
    """The bias terms of every layer, and nothing else."""
    if options.last is not None:
        raise UsageError("bitfit trains the biases of whole parts; it has no --options.last")
    freed = []
    for part in options.parts:
        for path, module in model.sam.get_submodule(_PARTS[part]).named_modules(prefix=_PARTS[part]):
            if getattr(module, "bias", None) is not None:
                module.bias.requires_grad_(True)
                freed.append(path)
    return freed + options.free_decoder(model)


def full(model: SemanticSam, options: Options) -> list[str]:
    """Every weight that takes part without a prompt: encoder, decoder transformer and its leading tokens."""
    parts, freed = model.spec.family.PARTS, []
    for path in (*parts.encoder, *parts.decoder):
        parent, _, name = path.rpartition(".")
        part = getattr(model.sam.get_submodule(parent), name)  # a module, or a parameter by itself
        part.requires_grad_(True)
        freed += [path] * isinstance(part, nn.Module)
    return freed
