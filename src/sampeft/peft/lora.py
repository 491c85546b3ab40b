"""LoRA on q and v of every attention layer, by the `peft` library (the paper's section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

from sampeft.errors import UsageError
from sampeft.model import SemanticSam
from sampeft.peft.projections import split_fused
from sampeft.sites import Projection


@dataclass(frozen=True)
class LoraOptions:
    """rank: width r of the added low-rank path. alpha: the path is scaled by alpha / rank; None: alpha = rank, so that
    the weight is W + B A as in the paper's eq. 3. dropout: before the path. targets: projections, of q, k and v.
    parts: where, of encoder and decoder. whole_decoder: train all weights of the decoder's transformer instead of low-rank
    paths in it; the paper has the paths, SAMed's default is the whole decoder.
    """

    rank: int = 4
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[Projection, ...] = ("q", "v")
    parts: tuple[str, ...] = ("encoder", "decoder")
    whole_decoder: bool = False


def attach(model: SemanticSam, options: LoraOptions) -> list[str]:
    """Add the low-rank paths (zero at start); the trained parameters are theirs only. Returns the projections' paths."""
    from peft import LoraConfig, inject_adapter_in_model

    if bad := [t for t in options.targets if t not in ("q", "k", "v")]:
        raise UsageError(f"LoRA targets are of q, k, v; got {', '.join(bad)}")
    if unknown := [p for p in options.parts if p not in ("encoder", "decoder")]:
        raise UsageError(f"LoRA parts are of encoder, decoder; got {', '.join(unknown)}")
    if options.rank < 1:
        raise UsageError(f"LoRA rank must be at least 1, got {options.rank}")
    paths: list[str] = []
    for site in model.sites:
        if site.part in options.parts and not (options.whole_decoder and site.part == "decoder"):
            paths += [site.projection(target) for target in options.targets]
    split_fused(model.sam, model.sites)
    alpha = options.rank if options.alpha is None else options.alpha
    config = LoraConfig(r=options.rank, lora_alpha=alpha, lora_dropout=options.dropout, target_modules=paths)
    inject_adapter_in_model(config, model.sam)
    if options.whole_decoder:
        model.sam.mask_decoder.transformer.requires_grad_(True)
        paths.append("mask_decoder.transformer")
    return paths
