"""Splitting fused projections, LoRA's formula, what is refused, and going from one method's run to another's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sampeft.errors import SampeftError, UsageError, WeightsError
from sampeft.losses import segmentation_loss
from sampeft.model import SemanticSam
from sampeft.peft import attach, count_parameters
from sampeft.peft.projections import SplitProjection
from sampeft.peft.state import load_trained, trained_state

Make = Callable[[], SemanticSam]


def train_two_steps(model: SemanticSam, images: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    truth = torch.randint(
        0, len(model.labels), (len(images), *images.shape[-2:]), generator=torch.Generator().manual_seed(2)
    )
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        segmentation_loss(model(images), truth).total.backward()
        optimizer.step()
    model.eval()


def logits(model: SemanticSam, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    """Within the tolerance of the largest value; float32 sums of other order differ by that."""
    return float((a - b).abs().max()) <= tolerance * max(1.0, float(a.abs().max()))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_split_projection_equals_the_fused_one_and_fuses_back_bit_for_bit(groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    fused = torch.nn.Linear(32, 96, bias=bias)
    split = SplitProjection(fused, groups)
    x = torch.randn(3, 7, 32)
    assert torch.allclose(split(x), fused(x), atol=1e-6)
    back = split.fuse()
    assert torch.equal(back.weight, fused.weight)
    if bias:
        assert torch.equal(back.bias, fused.bias)


def test_with_q_k_v_in_thirds_the_parts_are_views_and_cost_no_memory() -> None:
    fused = torch.nn.Linear(32, 96)
    split = SplitProjection(fused, 1)
    assert split.v_proj.weight.data_ptr() == fused.weight[64:].data_ptr()  # type: ignore[union-attr,operator,index]


def test_parts_are_equally_wide_where_the_layer_widens() -> None:
    """Hiera's first layer of a stage: 16 channels in, 3 x 32 out; q is the first 32 rows."""
    fused = torch.nn.Linear(16, 96)
    split = SplitProjection(fused, 1)
    x = torch.randn(2, 16)
    assert torch.equal(split.q_proj(x), fused(x)[:, :32])  # type: ignore[operator]
    assert torch.equal(split.k_proj(x), fused(x)[:, 32:64])  # type: ignore[operator]


@pytest.mark.parametrize("groups", [1, 4])
def test_an_update_of_q_moves_only_q(groups: int) -> None:
    torch.manual_seed(0)
    fused = torch.nn.Linear(32, 96)
    split = SplitProjection(fused, groups)
    x = torch.randn(5, 32)
    before = fused(x).detach()
    with torch.no_grad():
        split.q_proj.weight += 1.0  # type: ignore[union-attr,operator]
    # The reader's side: heads side by side, or q | k | v in thirds.
    after = split(x).detach().reshape(5, groups, 3, -1)
    moved = (after - before.reshape(5, groups, 3, -1)).abs().amax(dim=(0, 1, 3))
    assert moved[0] > 0.1
    assert moved[1:].max() < 1e-5


def test_lora_counts_are_the_formula(make_model: Make) -> None:
    model = make_model()
    attached = attach(model, "lora", {"rank": 4})
    widths = [128] * 2 + [160] * 6 + [320] * 2
    encoder = sum(2 * 4 * (w + w) for w in widths)
    decoder = 2 * (2 * 4 * (256 + 256) + 2 * 2 * 4 * (256 + 128)) + 2 * 4 * (256 + 128)
    assert count_parameters(model)["added"] == (encoder + decoder, encoder + decoder)
    assert len(attached.sites) == 2 * 17
    assert attached.total == sum(p.numel() for p in model.parameters())
    assert attached.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_counts_of_the_class_head_are_the_papers_hypernetwork(make_model: Make) -> None:
    model = make_model()
    network = model.head.hypernetworks[0]
    assert sum(p.numel() for p in network.parameters()) == 139_808  # 256-256-256-32, the notes on table 3


def test_wrong_files_are_refused_with_what_is_wrong(make_model: Make) -> None:
    model = make_model()
    attach(model, "lora", {"rank": 8})
    state = trained_state(model)
    load_trained(model, {f"module.{name}": tensor for name, tensor in state.items()}, "prefixed")
    half = dict(list(state.items())[: len(state) // 2])
    with pytest.raises(WeightsError, match=rf"{len(state) - len(half)} tensors missing"):
        load_trained(model, half, "half")
    other = make_model()
    attach(other, "lora", {"rank": 4})
    with pytest.raises(WeightsError, match=r"of another shape .* \(4, .*\) in the file, \(8, .*\) wanted"):
        load_trained(model, trained_state(other), "rank 4")


def test_a_run_of_the_decoder_alone_is_a_start_for_lora_with_the_whole_decoder(
    make_model: Make, images: torch.Tensor
) -> None:
    first, second = make_model(), make_model()
    attach(first, "decoder")
    train_two_steps(first, images)
    attach(second, "lora", {"whole_decoder": True})
    load_trained(second, trained_state(first), "first", partial=True)
    assert close(logits(first, images), logits(second, images))  # the encoder's paths start as the identity
    with pytest.raises(WeightsError, match=r"tensors missing, 0 unexpected"):
        load_trained(second, trained_state(first), "first")
    with pytest.raises(WeightsError, match=r"0 tensors missing, [1-9]\d* unexpected"):
        load_trained(first, trained_state(second), "second", partial=True)


def test_unknown_names_and_options_suggest(make_model: Make) -> None:
    with pytest.raises(UsageError, match="unknown method 'lorra'; did you mean 'lora'"):
        attach(make_model(), "lorra")
    with pytest.raises(SampeftError, match="unknown option of lora 'rnk'; did you mean 'rank'"):
        attach(make_model(), "lora", {"rnk": 8})
    with pytest.raises(UsageError, match="targets are of q, k, v"):
        attach(make_model(), "lora", {"targets": ("x",)})
