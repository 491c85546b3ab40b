"""Switches that change a step's cost and not its result: parts of a step, recomputed blocks, fused operations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from fabricate.backbones import architectures, make_tiny
from sampeft.backbones import BACKBONES
from sampeft.data.slice_cache import Slices
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.training.batches import Batch
from sampeft.training.loop import fit
from sampeft.training.settings import Training
from sampeft.training.setup import optimizer_of
from sampeft.training.step import TrainStep

SPECS = architectures()


@pytest.fixture(params=sorted(SPECS))
def make(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, labels: LabelSet
) -> Callable[[], SemanticSam]:
    spec = SPECS[request.param]
    monkeypatch.setitem(BACKBONES, spec.name, spec)

    def made() -> SemanticSam:
        model = make_tiny(spec.name, labels)
        attach(model, "lora", {"parts": ["encoder"]})
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # away from the start, where half of the gradients are zero
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        return model

    return made


def step(
    model: SemanticSam, parts: int = 1, slices: int = 2, equal: bool = False
) -> tuple[list[float], dict[str, Any]]:
    """Losses and gradients of a step on fixed slices."""
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(slices, 3, model.side, model.side, generator=generator)
    truth = torch.randint(0, 4, (slices, 8, 8), generator=generator)
    truth = truth.repeat_interleave(model.side // 8, 1).repeat_interleave(model.side // 8, 2)
    if equal:
        images, truth = images[:1].expand(slices, -1, -1, -1), truth[:1].expand(slices, -1, -1)
    model.train()
    batch = Batch(truth, slices, images)
    losses = TrainStep(model, Training(batch=slices, accumulate=parts), Accelerator(cpu=True), model).backward(batch)
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(a: tuple[list[float], dict[str, Any]], b: tuple[list[float], dict[str, Any]], rtol: float) -> None:
    assert a[0] == pytest.approx(b[0], rel=rtol)
    assert a[1].keys() == b[1].keys()
    assert any(float(g.abs().max()) > 0 for g in a[1].values())
    for name, gradient in a[1].items():
        torch.testing.assert_close(gradient, b[1][name], rtol=rtol, atol=1e-3 * rtol)


def kept_bytes(model: SemanticSam) -> int:
    """Of the tensors that the forward pass keeps for the backward pass."""
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.train()(torch.rand(2, 3, model.side, model.side)).sum()
    return sum(size for address, size in seen.items() if address not in known)


def test_recomputed_blocks_give_the_same_gradients_and_keep_less(make: Callable[[], SemanticSam]) -> None:
    plain, frugal = make(), make()
    frugal.recompute_blocks()
    assert_same(step(frugal), step(plain), rtol=1e-5)
    assert kept_bytes(frugal) < 0.8 * kept_bytes(plain)


def test_a_step_in_parts_is_the_mean_of_its_parts(make: Callable[[], SemanticSam]) -> None:
    """Of equal slices each part has the loss of all."""
    model = make()
    whole = step(model, 1, 4, equal=True)
    for parts in (2, 3, 4):
        model.zero_grad()
        assert_same(step(model, parts, 4, equal=True), whole, rtol=1e-4)
    model.zero_grad()
    assert step(model, 2, 2)[0][0] != pytest.approx(step(model, 1, 2)[0][0], rel=1e-4), "Dice is pooled over a part"


def test_fused_operations_give_the_same_gradients(
    make: Callable[[], SemanticSam], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a compiler that traces and fuses nothing, which is quick; the real one is measured in benchmarks."""
    compiled: list[Any] = []
    whole: Any = torch.compile

    def traced(function: Any, **settings: Any) -> Any:
        compiled.append(function)
        return whole(function, backend="eager", **settings)

    monkeypatch.setattr(torch, "compile", traced)
    plain, fused = make(), make()
    fused.compile_encoder()
    assert_same(step(fused), step(plain), rtol=1e-5)
    assert len(compiled) == 2


def test_without_a_compiler_it_goes_on(make: Callable[[], SemanticSam], monkeypatch: pytest.MonkeyPatch) -> None:
    whole: Any = torch.compile

    def missing(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda function, **settings: whole(function, backend=missing, **settings))
    plain, fused = make(), make()
    fused.compile_encoder()
    assert_same(step(fused), step(plain), rtol=1e-5)


def test_what_is_pretrained_learns_more_slowly(make: Callable[[], SemanticSam], labels: LabelSet) -> None:
    model = make_tiny(make().spec.name, labels)
    attach(model, "lora", {"parts": ["encoder"], "whole_decoder": True})
    names = {id(p): name for name, p in model.named_parameters()}
    new, base = optimizer_of(model, Training(base_lr=0.25)).param_groups
    assert (new["share"], base["share"]) == (1.0, 0.25)
    assert all(names[id(p)].startswith("sam.mask_decoder.transformer.") for p in base["params"])
    assert all("lora_" in names[id(p)] or names[id(p)].split(".")[0] in ("prompt", "head") for p in new["params"])
    assert len(new["params"]) + len(base["params"]) == sum(p.requires_grad for p in model.parameters())
    assert base["params"]


def test_parts_and_shares_out_of_range_are_refused() -> None:
    for wrong in ({"accumulate": 0}, {"accumulate": 3}, {"base_lr": -0.1}):
        with pytest.raises(UsageError, match=rf"training\.{next(iter(wrong))} is"):
            Training(batch=2, **wrong)  # type: ignore[arg-type]


def test_a_run_with_these_switches_on_trains_the_encoder(make: Callable[[], SemanticSam], tmp_path: Path) -> None:
    model = make()
    side, no_dataset = model.side, cast(Any, None)
    truth = np.tile(np.arange(side, dtype=np.int16) * 4 // side, (3, side, 1))
    slices = Slices((60 * truth[:, None]).astype(np.uint8), truth, np.arange(3, dtype=np.int32))
    before = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_B" in name}
    config = Training(steps=4, batch=3, accumulate=2, recompute=True, head_first=0.5, validations=1)
    assert fit(model, slices, config, tmp_path, {"seed": 0}, no_dataset).steps == 4
    after = dict(model.named_parameters())
    assert before
    assert all(not torch.equal(value, after[name]) for name, value in before.items())
