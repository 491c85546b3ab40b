"""METHODS: options are checked, placement is as asked, a method of one's own is a function and a dict line."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from fabricate.methods import Gain, GainOptions, gain
from sampeft.errors import UsageError
from sampeft.model import SemanticSam
from sampeft.peft import METHODS, Method, attach, count_parameters
from sampeft.peft.adapter import Adapted
from sampeft.peft.lora import RankBudget
from sampeft.peft.state import merge, trained_state

Make = Callable[[], SemanticSam]


def test_a_method_of_ones_own_is_a_function_and_a_dict_line(
    make_model: Make, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "gain", Method("Gain", GainOptions, gain))
    model = make_model()
    with torch.no_grad():
        before = model(images)
        attached = attach(model, "gain")
        assert torch.equal(before, model(images))
    assert count_parameters(model)["added"] == (12, 12)  # ten blocks of the encoder and two of the decoder
    model(images).square().mean().backward()
    assert sum("gain" in name for name in trained_state(model)) == len(attached.sites) == 12
    for module in model.sam.modules():
        if isinstance(module, Gain):
            module.gain.data.fill_(2.0)
    with torch.no_grad():
        assert not torch.allclose(before, model(images))
        with model.original():
            assert torch.equal(before, model(images))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("lora", {"rank": 0}, "rank is 0; give 1 to 4096"),
        ("lora", {"targets": ("q", "x")}, "targets are of q, k, v, proj, mlp; got x"),
        ("lora", {"parts": ("neck",)}, "parts are of encoder, decoder; got neck"),
        ("lora", {"last": 11}, "last is 11 blocks, but the encoder of lite-medsam has 10"),
        ("lora", {"last": 0}, "last is 0; give 1 or more"),
        ("lora", {"parts": ()}, "nothing to attach to: name at least one of encoder, decoder"),
        ("adalora", {"rank": 8}, "start_rank must be above rank (8), got 8"),
        ("adapter", {"width": 2.5}, "width is a share below 1 or a number of channels, got 2.5"),
        ("bitfit", {"last": 2}, "it has no --options.last"),
        ("full", {"rank": 2}, "unknown option of full 'rank'"),
        ("dorra", {}, "unknown method 'dorra'; did you mean 'dora'"),
    ],
)
def test_a_wrong_option_is_named(make_model: Make, method: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        attach(make_model(), method, options)


def test_last_blocks_and_parts_are_the_ones_asked_for(make_model: Make) -> None:
    sites = attach(make_model(), "lora", {"last": 2, "parts": ("encoder",), "targets": ("v",)}).sites
    assert [path.rsplit(".attn", 1)[0] for path in sites] == [
        f"vision_encoder.trunk.stages.3.blocks.{i}" for i in (0, 1)
    ]
    decoder_only = attach(make_model(), "adapter", {"parts": ("decoder",)}).sites
    assert all(path.startswith("mask_decoder.transformer.") for path in decoder_only)
    assert len(decoder_only) == 4  # an MLP and a norm in each of two blocks


@pytest.mark.parametrize(("prompt", "head"), [(True, False), (False, True), (False, False)])
def test_prompt_and_head_can_be_switched_off_and_are_saved_all_the_same(
    make_model: Make, images: torch.Tensor, prompt: bool, head: bool
) -> None:
    model = make_model()
    attach(model, "lora", {"prompt": prompt, "head": head})
    counts = count_parameters(model)
    assert (counts["default prompt"][1] > 0, counts["class head"][1] > 0) == (prompt, head)
    model(images).square().mean().backward()
    assert any(name.startswith("head.") for name in trained_state(model))  # else a reader would miss the classes


def test_adapted_is_equation_5_in_its_place() -> None:
    """ReLU(F W_down) W_up + F by hand: F = (1, -2), W_down = (1 -1; 0 1), W_up = (1 2; 3 4)."""
    x = torch.tensor([[1.0, -2.0]])
    bottleneck = torch.tensor([[1.0, 2.0]])  # F W_down = (1, -3), ReLU (1, 0), times W_up (1, 2)

    def adapted(base: nn.Module, place: str, **other: object) -> Adapted:
        module = Adapted(base, place, 2, 2, **other)  # type: ignore[arg-type]
        with torch.no_grad():
            module.down.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 1.0]]))
            module.up.weight.copy_(torch.tensor([[1.0, 3.0], [2.0, 4.0]]))
            module.down.bias.zero_()
        return module

    tripled = nn.Linear(2, 2, bias=False)
    nn.init.eye_(tripled.weight).data.mul_(3)
    assert torch.equal(adapted(nn.Identity(), "after")(x), x + bottleneck)
    assert torch.equal(adapted(tripled, "beside", scale=0.5)(x), 3 * x + 0.5 * bottleneck)
    assert torch.equal(adapted(tripled, "before")(x), 3 * (x + bottleneck))
    kept = adapted(_Tuple(), "after")(x)
    assert torch.equal(kept[0], x + bottleneck)
    assert kept[1] == "weights"


class _Tuple(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        return x, "weights"


def test_rslora_is_lora_scaled_by_the_root_of_the_rank(make_model: Make, images: torch.Tensor) -> None:
    outputs = []
    for method, alpha in (("rslora", 4.0), ("lora", 8.0)):  # 4 / sqrt(4) = 8 / 4
        model = make_model()
        attach(model, method, {"rank": 4, "alpha": alpha})
        torch.manual_seed(1)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_" in name:
                    p.copy_(torch.randn_like(p) * 0.1)
            outputs.append(model(images))
    assert torch.allclose(*outputs, atol=1e-6)


def test_adalora_ends_with_the_ranks_it_was_given(make_model: Make, images: torch.Tensor) -> None:
    model = make_model()
    attached = attach(model, "adalora", {"rank": 2, "start_rank": 6})
    assert isinstance(model.regulator, RankBudget)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    def alive() -> int:
        return sum(int((p != 0).sum()) for n, p in model.named_parameters() if "lora_E" in n)

    layers, seen = len(attached.sites), []
    for step in range(11):
        optimizer.zero_grad()
        (model(images).square().mean() + model.regulator.penalty()).backward()
        optimizer.step()
        model.regulator.update(step / 10)
        seen.append(alive())
    assert seen[0] == 6 * layers
    assert sorted(seen, reverse=True) == seen  # ranks only fall
    assert seen[-1] == 2 * layers
    counts = {int((p != 0).sum()) for n, p in model.named_parameters() if "lora_E" in n}
    assert len(counts) > 1  # shared out by importance, not equally


def test_adaloras_penalty_is_the_distance_from_orthogonal(make_model: Make) -> None:
    """By hand: with A = (1 0; 0 1) padded and B likewise all grams are the identity; doubling A gives |4 I - I| = 3 sqrt r."""
    model = make_model()
    attach(model, "adalora", {"rank": 1, "start_rank": 2, "orthogonality": 1.0})
    assert model.regulator is not None
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                p.zero_()
                p[0, 0] = p[1, 1] = 1.0
    assert float(model.regulator.penalty()) == pytest.approx(0.0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_A" in name:
                p.mul_(2)
    assert float(model.regulator.penalty()) == pytest.approx(0.5 * 3 * 2**0.5)  # half of the matrices


def test_pissa_starts_at_the_principal_directions(make_model: Make) -> None:
    model = make_model()
    attach(model, "pissa", {"rank": 3})
    path = "mask_decoder.transformer.layers.0.self_attn.q_proj"
    layer = model.sam.get_submodule(path)
    product = (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach()
    u, s, v = torch.linalg.svd(layer.base_layer.weight)
    assert torch.allclose(product, u[:, :3] * s[:3] @ v[:3], atol=1e-5)
    assert torch.equal(layer.lora_B["start"].weight, -layer.lora_B["default"].weight)


def test_vera_shares_its_projections_and_saves_only_vectors(make_model: Make) -> None:
    model = make_model()
    attach(model, "vera", {"rank": 32})
    added = [tensor for name, tensor in trained_state(model).items() if "vera" in name]
    assert added
    assert all(tensor.ndim == 1 for tensor in added)


def test_merging_leaves_adapters_in_place(make_model: Make) -> None:
    model = make_model()
    attach(model, "adaptformer")
    merge(model)
    assert sum(isinstance(module, Adapted) for module in model.sam.modules()) == 12
