"""Laws that every method keeps on every architecture: identity at start, frozen base, gradients, saving, merging, prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fabricate.backbones import architectures, make_tiny
from sampeft.backbones.checkpoints import load_state
from sampeft.labels import LabelSet
from sampeft.losses import segmentation_loss
from sampeft.model import SemanticSam
from sampeft.peft import METHODS, Attached, attach, count_parameters
from sampeft.peft.state import load_trained, merge, save_trained, unmerge

LABELS = LabelSet(("background", "liver", "spleen"), (0, 1, 2))
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in METHODS},
    "lora everywhere": ("lora", {"targets": ("q", "k", "v", "proj", "mlp"), "rank": 2}),
    "lora with the whole decoder": ("lora", {"whole_decoder": True, "last": 2}),
    "adapter with the whole decoder": ("adapter", {"whole_decoder": True, "last": 1}),
}
MERGES_TO_PLAIN = {"lora", "dora", "rslora", "pissa", "adalora", "vera", "oft", "lokr"}
APPROXIMATE_START = {"pissa": 1e-5}  # W + B A - B A is rounded; all others add exact zeros


def train(model: SemanticSam, images: torch.Tensor, steps: int = 3) -> None:
    """With weight decay off, a parameter moves only by its own gradient."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    truth = torch.randint(0, 3, (len(images), *images.shape[-2:]), generator=torch.Generator().manual_seed(2))
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        logits = torch.nn.functional.interpolate(model(images), truth.shape[-2:], mode="bilinear")
        penalty = model.regulator.penalty() if model.regulator else 0.0
        (segmentation_loss(logits, truth).total + penalty).backward()
        optimizer.step()
        if model.regulator:
            model.regulator.update(step / steps)
    model.eval()


def logits(model: SemanticSam, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


def prompted(model: SemanticSam, images: torch.Tensor) -> torch.Tensor:
    boxes = torch.tensor([[[5.0, 6.0, 30.0, 40.0], [10.0, 10.0, 20.0, 20.0]]]).repeat(2, 1, 1)
    with torch.no_grad():
        return model.segment_prompted(images, boxes_BN4=boxes)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


@dataclass
class Story:
    """A tiny model before a method, with it, and after three steps. Tests leave it as they find it."""

    architecture: str
    method: str
    options: dict[str, object]
    model: SemanticSam
    images: torch.Tensor
    attached: Attached
    base: dict[str, torch.Tensor]
    modules: dict[str, type]
    frozen: dict[str, torch.Tensor]
    prompted_before: torch.Tensor
    logits_before: torch.Tensor
    logits_attached: torch.Tensor
    logits_trained: torch.Tensor

    def fresh(self) -> SemanticSam:
        """An untrained copy with the same method."""
        model = make_tiny(f"tiny {self.architecture}", LABELS)
        attach(model, self.method, self.options)
        return model


@pytest.fixture(
    scope="module",
    params=[(a, v) for a in architectures() for v in VARIANTS],
    ids=lambda p: f"{p[0]}: {p[1]}",
)
def story(request: pytest.FixtureRequest, tiny_backbones: None) -> Story:
    architecture, variant = request.param
    method, options = VARIANTS[variant]
    model = make_tiny(f"tiny {architecture}", LABELS)
    side = model.side
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    base = {name: value.clone() for name, value in model.sam.state_dict().items()}
    modules = {name: type(module) for name, module in model.sam.named_modules()}
    before, prompts = logits(model, images), prompted(model, images)
    attached = attach(model, method, options)
    start = logits(model, images)
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {n: t.clone() for n, t in model.state_dict().items() if n not in learned}
    train(model, images)
    after = logits(model, images)
    return Story(
        architecture, method, options, model, images, attached, base, modules, frozen, prompts, before, start, after
    )


def test_the_start_is_the_base_model_bit_for_bit(story: Story) -> None:
    if tolerance := APPROXIMATE_START.get(story.method):
        assert relative(story.logits_before, story.logits_attached) < tolerance
    else:
        assert torch.equal(story.logits_before, story.logits_attached)


def test_frozen_tensors_are_bit_equal_after_training_and_every_trained_one_got_a_gradient(story: Story) -> None:
    now = story.model.state_dict()
    assert story.frozen
    assert not [name for name, value in story.frozen.items() if not torch.equal(value, now[name])]
    trained = {name: p for name, p in story.model.named_parameters() if p.requires_grad}
    assert trained
    assert not [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    assert relative(story.logits_before, story.logits_trained) > 1e-3


def test_counts_are_those_of_the_tensors(story: Story) -> None:
    counts = count_parameters(story.model)
    assert (
        story.attached.total == sum(p.numel() for p in story.model.parameters()) == sum(t for t, _ in counts.values())
    )
    trained = sum(p.numel() for p in story.model.parameters() if p.requires_grad)
    assert story.attached.trainable == trained == sum(t for _, t in counts.values())
    base = sum(p.numel() for p in make_tiny(f"tiny {story.architecture}", LABELS).parameters())
    assert counts["added"][0] == story.attached.total - base


def test_saved_and_loaded_on_a_fresh_base_gives_equal_logits(story: Story, tmp_path: Path) -> None:
    save_trained(tmp_path, story.model, {})
    other = story.fresh()
    logits(other, story.images)  # anything derived from the untrained weights must not survive the loading
    load_trained(other, load_state(tmp_path / "adapter.safetensors"), tmp_path)
    assert torch.equal(story.logits_trained, logits(other, story.images))


def test_merged_is_unmerged_and_back_bit_for_bit(story: Story) -> None:
    merge(story.model)
    once = logits(story.model, story.images)
    assert relative(story.logits_trained, once) < 1e-5
    assert torch.equal(story.logits_trained.argmax(1), once.argmax(1))
    merge(story.model)
    assert torch.equal(once, logits(story.model, story.images))
    if story.method in MERGES_TO_PLAIN:
        assert {name: type(module) for name, module in story.model.sam.named_modules()} == story.modules
    unmerge(story.model)
    assert torch.equal(story.logits_trained, logits(story.model, story.images))


def test_without_the_method_the_base_is_what_it_was_and_prompts_work_either_way(story: Story) -> None:
    model = story.model
    adapted = prompted(model, story.images)
    for folded in (False, True):
        if folded:
            merge(model)
        with model.original():
            state = model.sam.state_dict()
            assert state.keys() == story.base.keys()
            assert all(torch.equal(value, state[name]) for name, value in story.base.items())
            assert not any(p.requires_grad for p in model.sam.parameters())
            assert torch.equal(story.prompted_before, prompted(model, story.images))
        assert relative(adapted, prompted(model, story.images)) < 1e-5
    unmerge(model)
    assert torch.equal(story.logits_trained, logits(model, story.images))
    assert relative(story.prompted_before, adapted) > 1e-4
    point = torch.full((2, 1, 1, 2), 20.0)
    with torch.no_grad():
        by_point = model.segment_prompted(
            story.images, points_BNP2=point, point_labels_BNP=torch.ones(2, 1, 1, dtype=torch.int)
        )
    assert by_point.shape[:2] == (2, 1)
    assert math.isfinite(float(by_point.sum()))


@pytest.mark.parametrize("architecture", architectures())
def test_an_update_of_q_moves_only_q_in_every_layout(architecture: str, tiny_backbones: None) -> None:
    """Read from the fused layer's rows as the attention itself reads them, Hiera's widening layers among them."""
    model = make_tiny(f"tiny {architecture}", LABELS)
    base = {name: value.clone() for name, value in model.sam.state_dict().items()}
    attach(model, "lora", {"targets": ("q",), "parts": ("encoder",)})
    train(model, torch.rand(2, 3, model.side, model.side, generator=torch.Generator().manual_seed(1)))
    merge(model)
    seen = 0
    for site in (s for s in model.sites if s.part == "encoder" and getattr(s, "fused", None)):
        path = f"{site.path}.qkv"
        moved = (model.sam.get_submodule(path).weight - base[f"{path}.weight"]).abs().amax(dim=1)
        heads = model.sam.get_submodule(site.path)
        if hasattr(heads, "key_dim"):  # TinyViT: each head's q, k and v lie side by side
            by_kind = moved.reshape(heads.num_heads, 3, heads.key_dim).amax(dim=(0, 2))
        else:
            by_kind = moved.reshape(3, -1).amax(dim=1)
        assert by_kind[0] > 0, path
        assert by_kind[1:].max() == 0, path
        seen += 1
    assert seen >= 3


def test_what_lies_before_the_trained_blocks_is_that_of_the_base(story: Story) -> None:
    """So that it may be computed once and kept; a method that trains earlier things says so."""
    model = story.model
    block = model.frozen_blocks()
    blocks = 1 + max(site.block for site in model.sites if site.part == "encoder")
    expected = {"bitfit": -1, "full": -1, "decoder": blocks}.get(
        story.method, blocks - int(story.options.get("last", blocks))
    )
    assert block == expected
    if block < 0:
        return
    with torch.no_grad():
        trained = model.encode_start(story.images, block)
        with model.original():
            base = model.encode_start(story.images, block)
    assert all(torch.equal(a, b) for a, b in zip(trained, base, strict=True))
