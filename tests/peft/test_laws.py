"""Laws that every method keeps: identity at start, frozen base, whole saved set, merging, prompts still working."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sampeft.backbones.checkpoints import load_state
from sampeft.errors import SampeftError, UsageError, WeightsError
from sampeft.losses import segmentation_loss
from sampeft.model import SemanticSam
from sampeft.peft import METHODS, attach, count_parameters
from sampeft.peft.projections import NAMES, SplitProjection, fuse_split, split_fused
from sampeft.peft.state import load_trained, merge, save_trained, trained_state

Make = Callable[[], SemanticSam]
Variant = tuple[str, dict[str, object]]


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


VARIANTS: dict[str, Variant] = {
    **{name: (name, {}) for name in sorted(METHODS)},
    "lora with the whole decoder": ("lora", {"whole_decoder": True}),
}


@pytest.fixture(params=VARIANTS)
def method(request: pytest.FixtureRequest) -> Variant:
    """Name and options, for `attach(model, *method)`."""
    return VARIANTS[request.param]


def test_identity_at_start(make_model: Make, method: Variant, images: torch.Tensor) -> None:
    model = make_model()
    before = logits(model, images)
    attach(model, *method)
    assert close(before, logits(model, images), 1e-6)


def test_base_is_bit_equal_after_training_and_something_was_learned(
    make_model: Make, method: Variant, images: torch.Tensor
) -> None:
    model = make_model()
    attach(model, *method)
    frozen = {n: t.clone() for n, t in model.state_dict().items() if n not in trained_state(model)}
    first, before = trained_state(model), logits(model, images)
    first = {name: tensor.clone() for name, tensor in first.items()}
    train_two_steps(model, images)
    assert len(frozen) > 100
    for name, tensor in model.state_dict().items():
        if name in frozen:
            assert torch.equal(tensor, frozen[name]), name
    still = [name for name, tensor in trained_state(model).items() if torch.equal(tensor, first[name])]
    assert not still, f"trained in name only: {still}"
    assert not close(before, logits(model, images), 1e-3)


def test_save_load_gives_equal_logits_on_a_fresh_base(
    make_model: Make, method: Variant, images: torch.Tensor, tmp_path: Path
) -> None:
    model = make_model()
    attach(model, *method)
    train_two_steps(model, images)
    save_trained(tmp_path, model, {})
    other = make_model()
    attach(other, *method)
    load_trained(other, load_state(tmp_path / "adapter.safetensors"), tmp_path)
    assert torch.equal(logits(model, images), logits(other, images))


def test_merged_equals_unmerged_and_merging_twice_changes_nothing(
    make_model: Make, method: Variant, images: torch.Tensor
) -> None:
    model = make_model()
    plain = {name: type(module) for name, module in model.sam.named_modules()}
    attach(model, *method)
    train_two_steps(model, images)
    before = logits(model, images)
    merge(model)
    once = logits(model, images)
    assert close(before, once)
    assert torch.equal(before.argmax(1), once.argmax(1))
    merge(model)
    assert torch.equal(once, logits(model, images))
    assert {name: type(module) for name, module in model.sam.named_modules()} == plain


def test_original_is_the_pretrained_promptable_model_and_prompts_survive(
    make_model: Make, method: Variant, images: torch.Tensor
) -> None:
    boxes = torch.tensor([[[5.0, 6.0, 30.0, 40.0], [10.0, 10.0, 20.0, 20.0]]]).repeat(2, 1, 1)
    model = make_model()
    with torch.no_grad():
        pretrained = model.segment_prompted(images, boxes_BN4=boxes)
        attach(model, *method)
    train_two_steps(model, images)
    with torch.no_grad():
        adapted = model.segment_prompted(images, boxes_BN4=boxes)
        with model.original():
            assert close(pretrained, model.segment_prompted(images, boxes_BN4=boxes), 1e-6)
        assert torch.equal(adapted, model.segment_prompted(images, boxes_BN4=boxes))
        by_point = model.segment_prompted(
            images, points_BNP2=torch.full((2, 1, 1, 2), 20.0), point_labels_BNP=torch.ones(2, 1, 1, dtype=torch.int)
        )
    assert pretrained.shape == (2, 2, 56, 56)
    assert by_point.shape == (2, 1, 56, 56)
    assert not close(adapted, pretrained, 1e-4)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == set(trained_state(model))  # the round trip left the same parameters trainable


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


def test_lora_on_q_leaves_k_and_v_of_every_encoder_site(make_model: Make, images: torch.Tensor) -> None:
    model = make_model()
    reference = copy.deepcopy(model)
    split_fused(reference.sam, reference.sites)
    attach(model, "lora", {"targets": ("q",), "parts": ("encoder",)})
    train_two_steps(model, images)
    merge(model)
    split_fused(model.sam, model.sites)
    for site in (s for s in model.sites if s.part == "encoder"):
        ours, theirs = (m.sam.get_submodule(site.path) for m in (model, reference))
        equal = [torch.equal(ours.get_submodule(n).weight, theirs.get_submodule(n).weight) for n in NAMES]
        assert equal == [False, True, True], site.path
    fuse_split(model.sam)


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
