"""Cached starts of the encoder: the same training to the bit with and without room, and never more than the room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fabricate.backbones import make_tiny, tiny
from sampeft.backbones import BACKBONES
from sampeft.data.slice_cache import Slices
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.training.loop import Training, fit

SPECS = [tiny(BACKBONES[name]) for name in ("sam-vit-b", "lite-medsam", "sam2-hiera-t")]


@pytest.fixture(params=SPECS, ids=lambda spec: spec.name)
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, labels: LabelSet) -> SemanticSam:
    monkeypatch.setitem(BACKBONES, request.param.name, request.param)
    return make_tiny(request.param.name, labels)


def slices(side: int) -> Slices:
    generator = np.random.default_rng(0)
    truth = np.repeat(np.repeat(generator.integers(0, 4, size=(3, side // 8, side // 8)), 8, 1), 8, 2)
    images = np.clip(60 * truth + generator.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    return Slices(images[:, None], truth.astype(np.int16), np.arange(3, dtype=np.int32))


def train(model: SemanticSam, out: Path, **settings: Any) -> dict[str, torch.Tensor]:
    no_dataset: Any = None
    attach(model, "lora", {"last": 1})
    fit(model, slices(model.side), Training(steps=6, validations=1, **settings), out, {"seed": 0}, no_dataset)
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_keeping_the_frozen_start_changes_nothing_but_the_time(
    model: SemanticSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []
    whole = SemanticSam.encode_start
    monkeypatch.setattr(
        SemanticSam, "encode_start", lambda self, images, block: (starts.append(block), whole(self, images, block))[1]
    )
    spec, labels = model.spec.name, model.labels
    found = {}
    for name, room in (("kept", 100), ("computed each time", 0)):
        starts.clear()
        fresh = make_tiny(spec, labels)
        found[name] = train(fresh, tmp_path / name, head_first=0.3, cached_views=2, cache_mib=room)
        blocks = fresh.frozen_blocks()
        assert blocks > 0
        # 3 slices in 2 views at most; without room one for each of the 2 slices of the 5 steps behind the head's.
        assert 0 < starts.count(blocks) <= 6 if room else starts.count(blocks) >= 8
    assert found["kept"].keys() == found["computed each time"].keys()
    assert all(torch.equal(value, found["computed each time"][name]) for name, value in found["kept"].items())


def test_a_method_that_trains_from_the_start_has_nothing_to_keep(model: SemanticSam, tmp_path: Path) -> None:
    no_dataset: Any = None
    attach(model, "bitfit")
    with pytest.raises(UsageError, match=r"cached_views .* trains from the start"):
        fit(model, slices(model.side), Training(steps=2, cached_views=1), tmp_path, {"seed": 0}, no_dataset)
