"""image_B3HW -> logits_BKHW: a promptable Segment Anything model with a default prompt and a class-aware head.

The promptable model stays whole beside the new head: points and boxes keep working, with the adapter on or off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from sampeft.backbones import Features, LoadedBackbone, set_side
from sampeft.errors import UsageError, WeightsError
from sampeft.heads import Setting, build_head
from sampeft.heads.given import Given, Output, Window
from sampeft.labels import LabelSet


class DefaultPrompt(nn.Module):
    """The prompt used when nobody prompts: SAM's "no mask" embedding, trained as the target domain's own."""

    def __init__(self, no_mask_embed: torch.Tensor) -> None:
        super().__init__()
        self.dense = nn.Parameter(no_mask_embed.detach().clone().reshape(1, -1, 1, 1))

    def forward(self, embedding_BCHW: torch.Tensor) -> torch.Tensor:
        return embedding_BCHW + self.dense


class Regulator(Protocol):
    """Training hook of a PEFT method: a penalty, an update after each step (AdaLoRA's choice of ranks), and what a resumed
    training needs of it."""

    def penalty(self) -> torch.Tensor: ...

    def update(self, progress: float) -> None:
        """After a step; progress: 0..1, the share of the training that is over."""

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """State beside the parameters: tensors by name, and values that JSON can hold."""

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Put back what `state` gave. Raises KeyError where something is missing."""


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
        device = next((p.device for p in self.sam.parameters()), torch.device("cpu"))
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
    share one that was loaded once; the one that is used puts its own method in place. Of the backbone `none` it is empty.
    prompt, head: the trained default prompt and class-aware head.
    side: pixels of the square picture. encoder_side: pixels of what the encoder sees of it, the same by default; smaller, it
    costs less while a head that reads the picture keeps its detail.
    least_share: of a picture, that a class must fill to be drawn in its class map, of which `without_small` makes sure after
    views and models are averaged.
    The logits of the head `mask` have 4 positions per position of the embedding (256 of 256 for LiteMedSAM, 112 of 448 for
    SAM and SAM 2), those of `pixel` one per pixel.
    """

    sam: Any

    def __init__(
        self,
        loaded: LoadedBackbone,
        labels: LabelSet,
        side: int | None = None,
        head: str = "mask",
        head_options: Mapping[str, Any] | None = None,
        encoder_side: int | None = None,
    ) -> None:
        super().__init__()
        if loaded.active:
            loaded.active.pop().patch.put(False)
        self.spec = loaded.spec
        self.sites = loaded.sites
        self.digest = loaded.digest
        self.loaded = loaded
        self.labels = labels
        self.side = side or loaded.spec.side
        self.encoder_side = encoder_side if encoder_side and self.spec.is_sam else self.side  # `none` has no encoder
        if self.encoder_side > self.side:
            raise UsageError(
                f"the encoder's side is {self.encoder_side}, that of the picture {self.side}; the encoder sees the whole "
                "picture at its own size or smaller"
            )
        set_side(loaded, self.encoder_side)
        sam: Any = loaded.sam
        self.sam = sam
        self.prompt = DefaultPrompt(sam.prompt_encoder.no_mask_embed.weight) if self.spec.is_sam else None
        setting = Setting(
            sam.mask_decoder if self.spec.is_sam else None,
            len(labels),
            loaded.spec.family.encoder_maps(sam),
            self.encoder_side // sam.prompt_encoder.image_embedding_size[0] if self.spec.is_sam else None,
            self.side,
            self.encoder_side,
        )
        self.head = build_head(head, setting, head_options)
        self.least_share = 0.0
        mean, std = loaded.spec.norm
        self.mean = nn.Buffer(torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)
        self.base_names = frozenset(sam.state_dict())
        self.patch = Patch(sam)
        self._before: Callable[..., Features] = loaded.spec.family.before
        self._after: Callable[..., Features] = loaded.spec.family.after
        self.regulator: Regulator | None = None
        loaded.active.append(self)

    @classmethod
    def described(cls, loaded: LoadedBackbone, labels: LabelSet, description: Mapping[str, Any]) -> SemanticSam:
        """The model that a run's adapter.json describes, before its method is attached. Raises WeightsError for a head that
        is no more."""
        if description.get("detail"):
            raise WeightsError(
                "the run was trained with --detail, which --head pixel has replaced; train it anew, or load it with sampeft 0.1"
            )
        model = cls(
            loaded,
            labels,
            description["preparation"]["side"],
            description.get("head", "mask"),
            description.get("head_options"),
            description.get("encoder_side"),
        )
        model.least_share = description.get("least_share", 0.0)
        return model

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
        set_side(self.loaded, self.encoder_side)
        self.patch.put(True)
        self.train(self.training)

    def encode(self, image_B3HW: torch.Tensor) -> Features:
        """Images in 0..1, side x side -> image embedding and the other maps that the head reads, the images last."""
        return self.encode_rest(self.encode_start(image_B3HW, 0), 0)

    def encode_start(self, image_B3HW: torch.Tensor, block: int) -> Features:
        """Images in 0..1 -> what enters a block of the encoder; frozen up to `frozen_blocks`, so it can be kept. For a head
        that reads them the images follow, with one channel where all three are one in memory."""
        self.activate()
        seen = image_B3HW
        if self.encoder_side != self.side:
            size = self.encoder_side, self.encoder_side
            seen = F.interpolate(image_B3HW, size, mode="bilinear", align_corners=False, antialias=True)
        features = self._before(self.sam, (seen - self.mean) / self.std, block, self.head.reads_encoder_maps)
        if not self.head.reads_encoder_maps:
            return features
        return *features, image_B3HW[:, :1] if image_B3HW.stride(1) == 0 else image_B3HW

    def encode_rest(self, started: Features, block: int) -> Features:
        """What `encode_start` gave for that block -> what `encode` gives."""
        self.activate()
        if not self.head.reads_encoder_maps:
            return self._after(self.sam, started, block, False)
        *features, image = started
        return *self._after(self.sam, tuple(features), block, True), image

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
        found = 1 + max(blocks.values(), default=-1)
        for name, parameter in self.sam.named_parameters():
            if not (parameter.requires_grad and name.startswith("vision_encoder.")) or ".neck." in name:
                continue
            found = min(found, next((b for path, b in blocks.items() if name.startswith(f"{path}.")), -1))
        return found

    def decode(self, features: Features, windows: Sequence[Window] | None = None, size: int = 0) -> Output:
        """What `encode` gave -> what the head says by the default prompt.

        windows: a square of `size` pixels of each picture that alone is drawn, at multiples of `window_unit`; what the
        transformer and the head know of the whole picture stays.
        """
        given = self._given(features)
        if self.prompt is not None and self.head.tokens is not None:
            tokens_BKC, embedding = self._attend(features[0], features[0].shape[0])
            given = replace(given, tokens_BKC=tokens_BKC, embedding_BCHW=embedding)
        if windows is None:
            return cast(Output, self.head(given))
        given = self.head.on_whole(given)
        return cast(Output, self.head(given.cut(windows, size))._replace(whole_BKHW=given.drawn_BKHW))

    def standardise(self, features: Iterable[Features]) -> None:
        """Let an untrained head take means and spreads from what `encode` gave for pictures of the training."""
        with torch.no_grad():
            self.head.standardise(map(self._given, features))

    def _given(self, features: Features) -> Given:
        """What a head has before the transformer."""
        maps, image = list(features), None
        if self.head.reads_encoder_maps:
            image = maps.pop()
            image = (image.float() / 255 if image.dtype == torch.uint8 else image).expand(-1, 3, -1, -1)
        tokens = self.head.tokens
        batch = features[0].shape[0]  # not len, which a tracer would take for a constant
        tokens_BKC = None if tokens is None else tokens.expand(batch, -1, -1)
        maps = maps[1:] if self.prompt is not None else maps  # the embedding comes first
        finer = self.spec.family.FINER_MAPS
        return Given(self.side, tokens_BKC, None, tuple(maps[:finer]), tuple(maps[finer:]), image)

    def _attend(self, embedding_BCHW: torch.Tensor, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The class tokens and the embedding after the mask decoder's transformer."""
        decoder = self.sam.mask_decoder
        # SAM's own order of tokens, that of quality (and presence) first, so that the transformer sees what it knows.
        lead = [getattr(decoder, name).weight for name in self.spec.family.LEAD_TOKENS]
        tokens = torch.cat([*lead, self.head.tokens])[None, None].expand(batch, 1, -1, -1)
        assert self.prompt is not None
        queries, keys = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=self.prompt(embedding_BCHW),
            image_positional_embeddings=self.sam.get_image_wide_positional_embeddings().expand(batch, -1, -1, -1),
            attention_similarity=None,
        )
        embedding = keys[:, 0].transpose(1, 2).reshape(batch, -1, *embedding_BCHW.shape[-2:])
        return queries[:, 0, len(lead) :], embedding

    def window_unit(self) -> int:
        """Pixels of the picture whose multiples are whole cells of all that the encoder gives; without one 16."""
        if not self.spec.is_sam:
            return 16
        grids = [self.encoder_side // m.stride for m in self.spec.family.encoder_maps(self.sam)]
        return self.side // math.gcd(self.side, *grids)

    def forward(
        self,
        image_B3HW: torch.Tensor | None,
        features: Features | None = None,
        block: int | None = None,
        windows: Sequence[Window] | None = None,
        size: int = 0,
        in_full: bool = False,
    ) -> Any:
        """Images -> logits_BKHW; or what `encode` gave for them before, or `encode_start` up to a block.

        in_full: the head's `Output` instead, before presence, as losses want it. windows, size: see `decode`.
        """
        if features is None:
            assert image_B3HW is not None
            features = self.encode(image_B3HW)
        elif block is not None:
            features = self.encode_rest(features, block)
        output = self.decode(features, windows, size)
        return output if in_full else output.decided()

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
        if self.prompt is None:
            raise UsageError("the backbone none is no Segment Anything model and cannot be prompted")
        given = self.encode(image_B3HW) if image_B3HW is not None else features
        assert given is not None
        share = self.encoder_side / self.side
        output = self.sam(
            image_embeddings=self.spec.family.promptable_input(given),
            input_boxes=None if boxes_BN4 is None else boxes_BN4 * share,
            input_points=None if points_BNP2 is None else points_BNP2 * share,
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
