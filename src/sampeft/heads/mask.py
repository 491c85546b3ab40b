"""SAM's own way up from the embedding, with one token and one hypernetwork per class (the paper's section 3.1)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from sampeft.errors import UsageError
from sampeft.heads.given import Given, Output

if TYPE_CHECKING:
    from sampeft.heads import Setting


@dataclass(frozen=True)
class MaskOptions:
    """None: it is SAM's own head."""


def build(setting: Setting, options: MaskOptions) -> MaskHead:
    """SAM's own way up from the embedding, a token and a hypernetwork per class, as in the paper.

    Raises UsageError without a Segment Anything model, whose head this is.
    """
    if setting.mask_decoder is None:
        raise UsageError("the mask head is a Segment Anything model's own; with --backbone none take --head pixel")
    return MaskHead(setting.mask_decoder, setting.classes)


class MaskHead(nn.Module):
    """Class logits on a grid 4 times as fine as the embedding's (eq. 1 of the paper).

    Everything starts as a copy of the pretrained head of SAM's single-mask token, so all classes begin equal and the
    truth tells them apart. The copy leaves the promptable head as it was. SAM 2's finer maps are added on the way up.
    """

    reads_encoder_maps = False
    tells_presence = False

    def __init__(self, mask_decoder: Any, classes: int) -> None:
        super().__init__()
        token, network = mask_decoder.mask_tokens.weight[:1], mask_decoder.output_hypernetworks_mlps[0]
        self.tokens = nn.Parameter(token.detach().repeat(classes, 1))
        self.hypernetworks = nn.ModuleList(copy.deepcopy(network) for _ in range(classes))
        self.upscale_conv1 = copy.deepcopy(mask_decoder.upscale_conv1)
        self.upscale_layer_norm = copy.deepcopy(mask_decoder.upscale_layer_norm)
        self.upscale_conv2 = copy.deepcopy(mask_decoder.upscale_conv2)
        self.requires_grad_(True)

    def on_whole(self, given: Given) -> Given:
        """With the class logits of each whole picture."""
        return replace(given, drawn_BKHW=self(given).logits_BKHW)

    def standardise(self, givens: Iterable[Given]) -> None:
        """Nothing: the pretrained decoder has its own scales."""

    def forward(self, given: Given) -> Output:
        """Tokens and embedding after the transformer -> logits (B, K, 4h, 4w)."""
        if given.drawn_BKHW is not None:
            return Output(given.drawn_BKHW)
        assert given.embedding_BCHW is not None
        assert given.tokens_BKC is not None
        coarse, fine = given.finer or (0.0, 0.0)
        features = F.gelu(self.upscale_layer_norm(self.upscale_conv1(given.embedding_BCHW) + coarse))
        features = F.gelu(self.upscale_conv2(features) + fine)
        weights_BKC = torch.stack([net(given.tokens_BKC[:, k]) for k, net in enumerate(self.hypernetworks)], dim=1)
        return Output(torch.einsum("bkc,bchw->bkhw", weights_BKC, features))

    def is_untrained(self) -> bool:
        """Whether the head is as it was made: all classes are copies of one."""
        first, *others = (list(network.parameters()) for network in self.hypernetworks)
        equal = all(torch.equal(p, q) for other in others for p, q in zip(first, other, strict=True))
        return equal and bool((self.tokens == self.tokens[:1]).all())
