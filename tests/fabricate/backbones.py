"""Every architecture in a tiny random version, registered for a test like any other backbone."""

from __future__ import annotations

from dataclasses import replace

import torch

from sampeft.backbones import BACKBONES, RANDOM, Backbone, load_backbone
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam


def tiny(spec: Backbone) -> Backbone:
    return replace(spec, name=f"tiny {spec.name}", shape={**spec.shape, **spec.family.TINY})


def architectures() -> dict[str, Backbone]:
    """One backbone for every distinct tiny version: sizes of one architecture shrink to the same."""
    found: dict[str, Backbone] = {}
    for spec in BACKBONES.values():
        small = tiny(spec)
        found.setdefault(repr((spec.family.__name__, sorted(small.shape.items()))), small)
    return {spec.name.removeprefix("tiny "): spec for spec in found.values()}


def make_tiny(name: str, labels: LabelSet, detail: bool = False) -> SemanticSam:
    """Equal models at every call: random weights from one seed. name: of a registered tiny backbone."""
    torch.manual_seed(7)
    loaded = load_backbone(name, RANDOM)
    for module in loaded.sam.modules():
        # timm starts the last norm of a convolution block at zero, behind which nothing has a gradient; no trained model does.
        if isinstance(module, torch.nn.BatchNorm2d) and not module.weight.any():
            torch.nn.init.ones_(module.weight)
    return SemanticSam(loaded, labels, loaded.spec.family.TINY_SIDE, detail).eval()
