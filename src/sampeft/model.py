"""image_B3HW -> logits_BKHW: a promptable Segment Anything model with a default prompt and a class-aware mask head.

The promptable model stays whole beside the new head: points and boxes keep working, with the adapter on or off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from sampeft.backbones import Features, LoadedBackbone, set_side
from sampeft.errors import UsageError
from sampeft.labels import LabelSet


class DefaultPrompt(nn.Module):
    """The prompt used when nobody prompts: SAM's "no mask" embedding, trained as the target domain's own."""

    def __init__(self, no_mask_embed: torch.Tensor) -> None:
        super().__init__()
        self.dense = nn.Parameter(no_mask_embed.detach().clone().reshape(1, -1, 1, 1))

    def forward(self, embedding_BCHW: torch.Tensor) -> torch.Tensor:
        return embedding_BCHW + self.dense


class Detail(nn.Module):
    """Lets the head draw on the input's own grid: early tokens of a ViT, which still hold the pixels of their patch, are
    unfolded and added to the upscaled embedding, and the sum is unfolded once more. Both steps start as nothing added.

    width: channels of the early tokens. channels: of the upscaled embedding.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.early = nn.Conv2d(width, 16 * channels, 1)
        self.finest = nn.Conv2d(channels, 16 * channels, 1)
        for layer in (self.early, self.finest):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(cast(torch.Tensor, layer.bias))

    def forward(self, features_BCHW: torch.Tensor, early_BDhw: torch.Tensor) -> torch.Tensor:
        """(B, C, 4g, 4g) and (B, D, g, g) -> (B, C, 16g, 16g)."""
        features = features_BCHW + F.pixel_shuffle(self.early(early_BDhw), 4)
        smooth = F.interpolate(features, scale_factor=4, mode="bilinear", align_corners=False)
        return smooth + F.pixel_shuffle(self.finest(features), 4)


class ClassHead(nn.Module):
    """One token and one hypernetwork per class over the upscaled image embedding (the paper's section 3.1).

    Everything starts as a copy of the pretrained head of SAM's single-mask token, so all classes begin equal and the
    truth tells them apart. The copy leaves the promptable head as it was. SAM 2's finer maps are added on the way up.
    detail_width: channels of the early tokens for a head on the input's own grid; None: on a grid 4 times as coarse as
    SAM's patches are wide.
    """

    def __init__(self, mask_decoder: Any, classes: int, detail_width: int | None = None) -> None:
        super().__init__()
        token, network = mask_decoder.mask_tokens.weight[:1], mask_decoder.output_hypernetworks_mlps[0]
        self.tokens = nn.Parameter(token.detach().repeat(classes, 1))
        self.hypernetworks = nn.ModuleList(copy.deepcopy(network) for _ in range(classes))
        self.upscale_conv1 = copy.deepcopy(mask_decoder.upscale_conv1)
        self.upscale_layer_norm = copy.deepcopy(mask_decoder.upscale_layer_norm)
        self.upscale_conv2 = copy.deepcopy(mask_decoder.upscale_conv2)
        channels = self.upscale_conv2.out_channels
        self.detail = None if detail_width is None else Detail(detail_width, channels)
        self.requires_grad_(True)

    def forward(
        self, class_tokens_BKC: torch.Tensor, embedding_BCHW: torch.Tensor, finer: Features = ()
    ) -> torch.Tensor:
        """Tokens and embedding after the transformer -> logits_BK,4H,4W, or 16H,16W with detail.

        finer: the encoder's other maps: SAM 2's two, the coarser first, or the early tokens that detail wants.
        """
        coarse, fine = finer if self.detail is None and finer else (0.0, 0.0)
        features = F.gelu(self.upscale_layer_norm(self.upscale_conv1(embedding_BCHW) + coarse))
        features = F.gelu(self.upscale_conv2(features) + fine)
        if self.detail is not None:
            features = self.detail(features, finer[0])
        weights_BKC = torch.stack([net(class_tokens_BKC[:, k]) for k, net in enumerate(self.hypernetworks)], dim=1)
        return torch.einsum("bkc,bchw->bkhw", weights_BKC, features)


class Regulator(Protocol):
    """What a method does during training beside having parameters, such as AdaLoRA's choice of ranks."""

    def penalty(self) -> torch.Tensor: ...

    def update(self, progress: float) -> None:
        """After a step; progress: 0..1, the share of the training that is over."""


@dataclass
class Patch:
    """What a method changed in a promptable model, so that it can be taken off and put on again without a trace.

    modules: path -> (before, with the method). merged: path -> plain module that stands for the latter while folded.
    values: name of a trained base weight -> the value that is not in use now (pretrained while the method is on).
    """

    sam: Any
    modules: dict[str, tuple[nn.Module, nn.Module]] = field(default_factory=dict)
    merged: dict[str, nn.Module] = field(default_factory=dict)
    values: dict[str, torch.Tensor] = field(default_factory=dict)
    on: bool = True

    @classmethod
    def between(cls, before: dict[str, nn.Module], sam: Any) -> Patch:
        """The topmost modules that differ from `dict(sam.named_modules())` of before; trained base weights follow."""
        found: dict[str, tuple[nn.Module, nn.Module]] = {}
        for path, module in before.items():  # parents come before their children
            if not any(path.startswith(f"{parent}.") for parent in found) and sam.get_submodule(path) is not module:
                found[path] = (module, sam.get_submodule(path))
        return cls(sam, found)

    def put(self, on: bool) -> None:
        """Put the method on or take it off; off, the base is bit-equal to what it was, and nothing in it is trained."""
        if on == self.on:
            return
        parameters = dict(self.sam.named_parameters()) if self.values else {}
        device = next(self.sam.parameters()).device
        for path, (before, after) in self.modules.items():
            self.sam.set_submodule(path, (self.merged.get(path, after) if on else before).to(device))
        for name, value in self.values.items():
            parameter = parameters[name]
            self.values[name], parameter.data = parameter.data, value.to(device)
            parameter.requires_grad_(on)
        self.on = on


class SemanticSam(nn.Module):
    """A Segment Anything model that segments its user's classes without a prompt.

    sam: the promptable model (transformers' `SamModel` or `Sam2Model`), to which a method attaches. Several models may
    share one that was loaded once; the one that is used puts its own method in place.
    prompt, head: the trained default prompt and class-aware head.
    side: pixels of the square input; the logits have 4 positions per position of the embedding (256 of 256 for
        LiteMedSAM, 112 of 448 for SAM and SAM 2), or with `detail` (SAM's ViT only) one per pixel.
    """

    sam: Any

    def __init__(self, loaded: LoadedBackbone, labels: LabelSet, side: int | None = None, detail: bool = False) -> None:
        super().__init__()
        if loaded.active:
            loaded.active.pop().patch.put(False)
        self.spec = loaded.spec
        self.sites = loaded.sites
        self.digest = loaded.digest
        self.loaded = loaded
        self.labels = labels
        self.side = side or loaded.spec.side
        set_side(loaded, self.side)
        sam: Any = loaded.sam
        self.sam = sam
        self.prompt = DefaultPrompt(sam.prompt_encoder.no_mask_embed.weight)
        width = getattr(sam.config.vision_config, "hidden_size", 0)
        if detail and not hasattr(loaded.spec.family, "early_block"):
            raise UsageError(
                f"{loaded.spec.name} has no head of higher resolution: SAM's ViT has one; SAM 2 brings finer maps of its "
                "own, and for others a larger --side draws finer"
            )
        self.head = ClassHead(sam.mask_decoder, len(labels), width if detail else None)
        mean, std = loaded.spec.norm
        self.mean = nn.Buffer(torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)
        self.base_names = frozenset(sam.state_dict())
        self.patch = Patch(sam)
        self._before: Callable[..., Features] = loaded.spec.family.before
        self._after: Callable[..., Features] = loaded.spec.family.after
        self.regulator: Regulator | None = None
        loaded.active.append(self)

    def train(self, mode: bool = True) -> SemanticSam:
        """Switch dropout of trained parts; frozen batch norms keep their statistics in either mode."""
        super().train(mode)
        for module in self.sam.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def activate(self) -> None:
        """Put this model's method into the shared base, if another model's is there."""
        if self.loaded.active == [self]:
            return
        for other in self.loaded.active:
            other.patch.put(False)
        self.loaded.active[:] = [self]
        set_side(self.loaded, self.side)
        self.patch.put(True)
        self.train(self.training)

    def encode(self, image_B3HW: torch.Tensor) -> Features:
        """Images in 0..1, side x side -> image embedding and finer maps, if there are any."""
        return self.encode_rest(self.encode_start(image_B3HW, 0), 0)

    def encode_start(self, image_B3HW: torch.Tensor, block: int) -> Features:
        """Images in 0..1 -> what enters a block of the encoder; frozen up to `frozen_blocks`, so it can be kept."""
        self.activate()
        pixels = (image_B3HW - self.mean) / self.std
        return self._before(self.sam, pixels, block, self.head.detail is not None)

    def encode_rest(self, started: Features, block: int) -> Features:
        """What `encode_start` gave for that block -> image embedding and finer maps, if there are any."""
        self.activate()
        return self._after(self.sam, started, block, self.head.detail is not None)

    def compile_encoder(self) -> None:
        """Fuse the encoder's operations by `torch.compile`, at its first use with each shape; where there is no compiler,
        it goes on as it is, with a warning."""
        torch._dynamo.config.suppress_errors = True
        self._before = torch.compile(self.spec.family.before, dynamic=False)
        self._after = torch.compile(self.spec.family.after, dynamic=False)

    def recompute_blocks(self) -> None:
        """Keep only what enters each of the encoder's blocks for the backward pass, which computes the rest again."""
        for path in self.block_paths():
            block = self.sam.get_submodule(path)
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)

    def block_paths(self) -> dict[str, int]:
        """Path -> number of each block of the encoder that a method may attach to."""
        return {site.path.rpartition(".")[0]: site.block for site in self.sites if site.part == "encoder"}

    def frozen_blocks(self) -> int:
        """How many of the encoder's first blocks no training changes, nor anything before them; -1 when something before
        the first block is trained."""
        blocks = self.block_paths()
        found = 1 + max(blocks.values())
        for name, parameter in self.sam.named_parameters():
            if not (parameter.requires_grad and name.startswith("vision_encoder.")) or ".neck." in name:
                continue
            found = min(found, next((b for path, b in blocks.items() if name.startswith(f"{path}.")), -1))
        return found

    def decode(self, features: Features) -> torch.Tensor:
        """What `encode` gave -> logits_BKHW by the default prompt and the class-aware head."""
        embedding_BCHW, *finer = features
        batch, _, height, width = embedding_BCHW.shape
        decoder = self.sam.mask_decoder
        # SAM's own order of tokens, that of quality (and presence) first, so that the transformer sees what it knows.
        lead = [getattr(decoder, name).weight for name in self.spec.family.LEAD_TOKENS]
        tokens = torch.cat([*lead, self.head.tokens])[None, None].expand(batch, 1, -1, -1)
        queries, keys = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=self.prompt(embedding_BCHW),
            image_positional_embeddings=self.sam.get_image_wide_positional_embeddings().expand(batch, -1, -1, -1),
            attention_similarity=None,
        )
        embedding = keys[:, 0].transpose(1, 2).reshape(batch, -1, height, width)
        return cast(torch.Tensor, self.head(queries[:, 0, len(lead) :], embedding, tuple(finer)))

    def forward(
        self, image_B3HW: torch.Tensor | None, features: Features | None = None, block: int | None = None
    ) -> torch.Tensor:
        """Images -> logits_BKHW; or what `encode` gave for them before, or `encode_start` up to a block."""
        if features is None:
            assert image_B3HW is not None
            features = self.encode(image_B3HW)
        elif block is not None:
            features = self.encode_rest(features, block)
        return self.decode(features)

    def segment_prompted(
        self,
        image_B3HW: torch.Tensor | None = None,
        *,
        features: Features | None = None,
        boxes_BN4: torch.Tensor | None = None,
        points_BNP2: torch.Tensor | None = None,
        point_labels_BNP: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mask logits_BNHW for N prompts an image; boxes (x0, y0, x1, y1) and points (x, y) in pixels of the square.

        The image, or what `encode` gave for it when several prompts share it. Point labels: 1 inside, 0 outside.
        """
        given = self.encode(image_B3HW) if image_B3HW is not None else features
        assert given is not None
        output = self.sam(
            image_embeddings=self.spec.family.promptable_input(given),
            input_boxes=boxes_BN4,
            input_points=points_BNP2,
            input_labels=point_labels_BNP,
            multimask_output=False,
        )
        return cast(torch.Tensor, output.pred_masks[:, :, 0])

    def is_added(self, name: str) -> bool:
        """Whether a tensor, by its name in this model, is a method's own and not one of the base, wrapped or split."""
        inner = name.removeprefix("sam.")
        if inner == name:
            return False
        plain = inner.replace(".base_layer", "")
        parent, _, last = plain.rpartition(".")
        fused = f"{parent.removesuffix('.q_proj').removesuffix('.k_proj').removesuffix('.v_proj')}.{last}"
        return plain not in self.base_names and fused not in self.base_names

    @contextmanager
    def original(self) -> Iterator[None]:
        """Within this block `segment_prompted` is the pretrained model: the method's modules and weights are taken off."""
        self.activate()
        self.patch.put(False)
        self.train(self.training)  # TinyViT keeps its attention biases gathered; a switch of mode drops them
        try:
            yield
        finally:
            self.patch.put(True)
            self.train(self.training)
