"""Export a trained model as a prompt-free graph, and tell two graphs apart."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sampeft.heads.given import without_small
from sampeft.io import sha256
from sampeft.model import SemanticSam
from sampeft.peft.run_files import tensors_file

INPUT, LOGITS, CLASSES = "image", "logits", "classes"
VERSION = 2
"""Raised when graphs of the same model become others."""
_PACKAGES = ("torch", "transformers", "timm", "openvino", "onnx", "onnxruntime", "nncf")


@dataclass(frozen=True)
class Identity:
    """What a graph depends on.

    content: digest of the trained weights, the base's and all that says how they are put together. side: pixels of the square.
    """

    content: str
    side: int

    @classmethod
    def of(cls, folder: Path, description: Mapping[str, Any]) -> Identity:
        """Of a run, from its files alone. description: the content of its adapter.json, where the base's digest is."""
        named = ("backbone", "weights_sha256", "seed", "method", "options", "label_map")
        shape = ("head", "head_options", "encoder_side")
        parts = [
            sha256(tensors_file(folder)),
            {name: description.get(name) for name in (*named, *shape)},
        ]
        side = int(description["preparation"]["side"])
        return cls(hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(), side)

    def key(self, engine: str, precision: str) -> str:
        """Name of the graph of an engine, with the versions that made it."""
        parts = [VERSION, self.content, self.side, engine, precision, versions()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def versions() -> dict[str, str]:
    """Installed versions of what makes and runs graphs."""
    return {package: version(package) for package in _PACKAGES if find_spec(package)}


class ClassMap(nn.Module):
    """image (B, 3, side, side) in 0..1 -> classes uint8 (B, side, side) and logits (B, K, side, side), which are the
    network's, scaled up to the square."""

    def __init__(self, model: SemanticSam) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        side = self.model.side
        coarse = self.model(image)
        logits, decided = (
            F.interpolate(m, (side, side), mode="bilinear", align_corners=False)
            for m in (coarse, without_small(coarse, self.model.least_share))
        )
        return decided.argmax(dim=1).to(torch.uint8), logits


@contextmanager
def tracing(model: nn.Module) -> Iterator[None]:
    """Quiet: what a tracer warns of are shapes, which are the same at every use of these graphs."""
    was = model.training
    model.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        model.train(was)


def example(side: int, batch: int) -> torch.Tensor:
    """Images to follow through a model; their values have no meaning."""
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
