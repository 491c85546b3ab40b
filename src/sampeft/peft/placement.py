"""Options that methods share: which parts of the model they reach, and which of the base they free beside."""

from __future__ import annotations

from dataclasses import dataclass

from sampeft.errors import UsageError
from sampeft.model import SemanticSam
from sampeft.options import check_ranges, number
from sampeft.sites import Site


@dataclass(frozen=True)
class Options:
    """prompt, head: train the default prompt and the class-aware head (as the paper does), or leave them."""

    prompt: bool = True
    head: bool = True


@dataclass(frozen=True)
class Placement(Options):
    """parts: where, of encoder and decoder. last: only in the last so many blocks of the encoder; None: in all.
    whole_decoder: train all weights of the decoder's transformer instead of attaching there; the paper attaches, SAMed's
    default is the whole decoder.
    """

    parts: tuple[str, ...] = ("encoder", "decoder")
    last: int | None = number(None, 1)
    whole_decoder: bool = False

    def __post_init__(self) -> None:
        if unknown := [part for part in self.parts if part not in ("encoder", "decoder")]:
            raise UsageError(f"parts are of encoder, decoder; got {', '.join(unknown)}")
        check_ranges(self)

    def sites(self, model: SemanticSam) -> list[Site]:
        """The sites to attach to. Raises UsageError when there is none."""
        blocks = 1 + max(site.block for site in model.sites if site.part == "encoder")
        first = 0 if self.last is None else blocks - self.last
        if first < 0:
            raise UsageError(f"last is {self.last} blocks, but the encoder of {model.spec.name} has {blocks}")
        found = [
            site
            for site in model.sites
            if site.part in self.parts
            and not (site.part == "encoder" and site.block < first)
            and not (site.part == "decoder" and self.whole_decoder)
        ]
        if not found and not self.whole_decoder:
            raise UsageError("nothing to attach to: name at least one of encoder, decoder as parts")
        return found

    def free_decoder(self, model: SemanticSam) -> list[str]:
        """Make the decoder's transformer trainable, if that is asked for. Returns its path, or nothing."""
        if not self.whole_decoder:
            return []
        model.sam.mask_decoder.transformer.requires_grad_(True)
        return ["mask_decoder.transformer"]
