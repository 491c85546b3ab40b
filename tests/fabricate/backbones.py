"""Every architecture in a tiny random version, registered for a test like any other backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sampeft.backbones import BACKBONES, RANDOM, Backbone, load_backbone
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam


def tiny(spec: Backbone) -> Backbone:
    return replace(spec, name=f"tiny {spec.name}", shape={**spec.shape, **spec.family.TINY})


def architectures() -> dict[str, Backbone]:
    """One Segment Anything model for every distinct tiny version: sizes of one architecture shrink to the same."""
    found: dict[str, Backbone] = {}
    for spec in (spec for spec in BACKBONES.values() if spec.is_sam):
        small = tiny(spec)
        found.setdefault(repr((spec.family.__name__, sorted(small.shape.items()))), small)
    return {spec.name.removeprefix("tiny "): spec for spec in found.values()}


@contextmanager
def tiny_sam(side: int, cache: Path) -> Iterator[None]:
    """Within the block there is a backbone `tiny` small enough for whole trainings, and the cache is that folder."""
    spec = replace(architectures()["sam-vit-b"], name="tiny", native_side=side, side=side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, spec.name, spec)
        patch.setenv("SAMPEFT_CACHE", str(cache))
        yield


def make_tiny(
    name: str,
    labels: LabelSet,
    head: str = "mask",
    head_options: Mapping[str, Any] | None = None,
    side: int | None = None,
    encoder_side: int | None = None,
) -> SemanticSam:
    """Equal models at every call: random weights from one seed. name: of a registered tiny backbone, or `none`. side:
    nothing: the family's own for tests."""
    torch.manual_seed(7)
    loaded = load_backbone(name, RANDOM)
    for module in loaded.sam.modules():
        # timm starts the last norm of a convolution block at zero, behind which nothing has a gradient; no trained model does.
        if isinstance(module, torch.nn.BatchNorm2d) and not module.weight.any():
            torch.nn.init.ones_(module.weight)
    side = side or loaded.spec.family.TINY_SIDE
    return SemanticSam(loaded, labels, side, head, head_options, encoder_side).eval()


def presence_bias(model: SemanticSam) -> torch.nn.Parameter:
    """(K,) of a head that tells presence."""
    return next(p for name, p in model.head.named_parameters() if name.endswith("presence.bias"))


def stirred(model: SemanticSam, seed: int = 3) -> SemanticSam:
    """The model with a head that does something, as after a training; in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
