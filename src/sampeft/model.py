"""image_B3HW -> logits_BKHW: a promptable Segment Anything model with a default prompt and a class-aware mask head.

The promptable model stays whole beside the new head: points and boxes keep working, with the adapter on or off.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from sampeft.backbones import LoadedBackbone, set_side
from sampeft.labels import LabelSet


class DefaultPrompt(nn.Module):
    """The prompt used when nobody prompts: SAM's "no mask" embedding, trained as the target domain's own."""

    def __init__(self, no_mask_embed: torch.Tensor) -> None:
        super().__init__()
        self.dense = nn.Parameter(no_mask_embed.detach().clone().reshape(1, -1, 1, 1))

    def forward(self, embedding_BCHW: torch.Tensor) -> torch.Tensor:
        return embedding_BCHW + self.dense


class ClassHead(nn.Module):
    """One token and one hypernetwork per class over the upscaled image embedding (the paper's section 3.1).

    Everything starts as a copy of the pretrained head of SAM's single-mask token, so all classes begin equal and the
    truth tells them apart. The copy leaves the promptable head as it was.
    """

    def __init__(self, mask_decoder: Any, classes: int) -> None:
        super().__init__()
        token, network = mask_decoder.mask_tokens.weight[:1], mask_decoder.output_hypernetworks_mlps[0]
        self.tokens = nn.Parameter(token.detach().repeat(classes, 1))
        self.hypernetworks = nn.ModuleList(copy.deepcopy(network) for _ in range(classes))
        self.upscale_conv1 = copy.deepcopy(mask_decoder.upscale_conv1)
        self.upscale_layer_norm = copy.deepcopy(mask_decoder.upscale_layer_norm)
        self.upscale_conv2 = copy.deepcopy(mask_decoder.upscale_conv2)
        self.requires_grad_(True)

    def forward(self, class_tokens_BKC: torch.Tensor, embedding_BCHW: torch.Tensor) -> torch.Tensor:
        """Tokens and embedding after the transformer -> logits_BK,4H,4W."""
        features = F.gelu(self.upscale_layer_norm(self.upscale_conv1(embedding_BCHW)))
        features = F.gelu(self.upscale_conv2(features))
        weights_BKC = torch.stack([net(class_tokens_BKC[:, k]) for k, net in enumerate(self.hypernetworks)], dim=1)
        return torch.einsum("bkc,bchw->bkhw", weights_BKC, features)


class SemanticSam(nn.Module):
    """A Segment Anything model that segments its user's classes without a prompt.

    sam: the promptable model (transformers' `SamModel`), to which a method attaches.
    prompt, head: the trained default prompt and class-aware head.
    side: pixels of the square input; the logits have a quarter of the stride's resolution (256 of 256 for LiteMedSAM).
    """

    sam: Any

    def __init__(self, loaded: LoadedBackbone, labels: LabelSet, side: int | None = None) -> None:
        super().__init__()
        self.spec = loaded.spec
        self.sites = loaded.sites
        self.digest = loaded.digest
        self.labels = labels
        self.side = side or loaded.spec.native_side
        set_side(loaded, self.side)
        sam: Any = loaded.sam
        self.sam = sam
        self.prompt = DefaultPrompt(sam.prompt_encoder.no_mask_embed.weight)
        self.head = ClassHead(sam.mask_decoder, len(labels))
        self.mean = nn.Buffer(torch.tensor(loaded.spec.mean).reshape(1, 3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(loaded.spec.std).reshape(1, 3, 1, 1), persistent=False)
        self._base: dict[str, torch.Tensor] = {}

    def train(self, mode: bool = True) -> SemanticSam:
        """Switch dropout of trained parts; frozen batch norms keep their statistics in either mode."""
        super().train(mode)
        for module in self.sam.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def encode(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """Images in 0..1, side x side -> image embedding."""
        return cast(torch.Tensor, self.sam.vision_encoder((image_B3HW - self.mean) / self.std)[0])

    def decode(self, embedding_BCHW: torch.Tensor) -> torch.Tensor:
        """Image embedding -> logits_BKHW by the default prompt and the class-aware head."""
        batch, _, height, width = embedding_BCHW.shape
        decoder = self.sam.mask_decoder
        # SAM's own order of tokens, the quality token first, so that the transformer sees what it was trained on.
        tokens = torch.cat([decoder.iou_token.weight, self.head.tokens])[None, None].expand(batch, 1, -1, -1)
        queries, keys = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=self.prompt(embedding_BCHW),
            image_positional_embeddings=self.sam.get_image_wide_positional_embeddings().expand(batch, -1, -1, -1),
            attention_similarity=None,
        )
        embedding = keys[:, 0].transpose(1, 2).reshape(batch, -1, height, width)
        return cast(torch.Tensor, self.head(queries[:, 0, 1:], embedding))

    def forward(self, image_B3HW: torch.Tensor | None, embedding_BCHW: torch.Tensor | None = None) -> torch.Tensor:
        """Images, or embeddings that `encode` gave before, -> logits_BKHW."""
        if embedding_BCHW is None:
            assert image_B3HW is not None
            embedding_BCHW = self.encode(image_B3HW)
        return self.decode(embedding_BCHW)

    def segment_prompted(
        self,
        image_B3HW: torch.Tensor | None = None,
        *,
        embedding_BCHW: torch.Tensor | None = None,
        boxes_BN4: torch.Tensor | None = None,
        points_BNP2: torch.Tensor | None = None,
        point_labels_BNP: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mask logits_BNHW for N prompts an image; boxes (x0, y0, x1, y1) and points (x, y) in pixels of the square.

        The image, or its embedding by `encode` when several prompts share it. Point labels: 1 inside, 0 outside.
        """
        embedding = self.encode(image_B3HW) if image_B3HW is not None else embedding_BCHW
        output = self.sam(
            image_embeddings=embedding,
            input_boxes=boxes_BN4,
            input_points=points_BNP2,
            input_labels=point_labels_BNP,
            multimask_output=False,
        )
        return cast(torch.Tensor, output.pred_masks[:, :, 0])

    def keep_base(self) -> None:
        """Remember the pretrained values of base weights that a method trains, for `original()`."""
        self._base = {
            n: p.detach().clone() for n, p in self.sam.named_parameters() if p.requires_grad and "lora_" not in n
        }

    @contextmanager
    def original(self) -> Iterator[None]:
        """Within this block `segment_prompted` is the pretrained model: adapters off, trained base weights put back."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in self.sam.modules() if isinstance(module, BaseTunerLayer)]
        parameters = dict(self.sam.named_parameters())
        trained = {name: parameters[name].detach().clone() for name in self._base}
        try:
            for layer in layers:
                layer.enable_adapters(False)
            for name, value in self._base.items():
                parameters[name].data.copy_(value)
            yield
        finally:
            for name, value in trained.items():
                parameters[name].data.copy_(value)
            for layer in layers:
                layer.enable_adapters(True)
