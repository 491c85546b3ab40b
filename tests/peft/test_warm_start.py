"""A run as the start of another: what it knows of a class goes to the class of that name, wherever it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fabricate.backbones import make_tiny, stirred
from fabricate.runs import description_of
from sampeft.backbones import NONE
from sampeft.errors import UsageError, WeightsError
from sampeft.heads import HEADS
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.run_files import WEIGHTS
from sampeft.peft.state import save_trained, trained_state
from sampeft.peft.warm_start import _BY_CLASS, _OF_A_CLASS, start_from

OLD = LabelSet(("background", "liver", "spleen"), (0, 1, 2))
SWAPPED = LabelSet(("background", "spleen", "liver"), (0, 1, 2))
MORE = LabelSet(("background", "kidney", "liver", "spleen"), (0, 1, 2, 3))
LESS = LabelSet(("background", "spleen"), (0, 1))
CASES = [("mobile-sam", head) for head in HEADS] + [(NONE, "pixel"), ("sam2-hiera-t", "pixel")]
of_every_head = pytest.mark.parametrize(("architecture", "head"), CASES)


pytestmark = pytest.mark.usefixtures("tiny_backbones")


def make(architecture: str, head: str, labels: LabelSet) -> SemanticSam:
    model = make_tiny(architecture if architecture == NONE else f"tiny {architecture}", labels, head)
    attach(model, "decoder")
    return model


def saved(folder: Path, model: SemanticSam, head: str, **other: Any) -> Path:
    save_trained(folder, model, description_of(model, "decoder", head=head, **other))
    return folder


def logits_by_name(model: SemanticSam) -> dict[str, torch.Tensor]:
    images = torch.rand(1, 3, model.side, model.side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return dict(zip(model.labels.names, model.eval()(images)[0], strict=True))


@of_every_head
def test_the_tensors_that_are_of_classes_are_those_that_change_with_their_number(architecture: str, head: str) -> None:
    few, many = (trained_state(make(architecture, head, labels)) for labels in (OLD, MORE))
    assert {name for name in many if name not in few} == {
        name for name in many if (match := _OF_A_CLASS.match(name)) and int(match[2]) == 3
    }
    assert {name for name in few if few[name].shape != many[name].shape} == {
        name for name in few if _BY_CLASS.match(name)
    }


@of_every_head
def test_swapped_classes_keep_what_is_known_of_each(architecture: str, head: str, tmp_path: Path) -> None:
    old, new = stirred(make(architecture, head, OLD)), make(architecture, head, SWAPPED)
    lines = start_from(new, saved(tmp_path, old, head), head)
    assert lines == ["3 classes by name (background, spleen, liver)"]
    wanted, found = logits_by_name(old), logits_by_name(new)
    for name in OLD.names:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(wanted["liver"], wanted["spleen"], atol=1e-2)


@of_every_head
def test_a_new_class_starts_as_it_was_made_and_one_that_is_gone_is_left_behind(
    architecture: str, head: str, tmp_path: Path
) -> None:
    old = stirred(make(architecture, head, OLD))
    folder, known = saved(tmp_path, old, head), trained_state(old)
    fresh, more, less = make(architecture, head, MORE), make(architecture, head, MORE), make(architecture, head, LESS)
    assert start_from(more, folder, head) == ["3 classes by name (background, liver, spleen)", "new, untrained: kidney"]
    assert start_from(less, folder, head) == ["2 classes by name (background, spleen)", "left behind: liver"]
    untouched, wider, narrower = (trained_state(m) for m in (fresh, more, less))
    for name in known:
        if _BY_CLASS.match(name):
            assert torch.equal(wider[name][1], untouched[name][1])
            assert torch.equal(wider[name][[0, 2, 3]], known[name])
            assert torch.equal(narrower[name], known[name][[0, 2]])
        elif match := _OF_A_CLASS.match(name):
            to = {0: 0, 1: 2, 2: 3}[int(match[2])]
            assert torch.equal(wider[f"{match[1]}{to}{match[3]}"], known[name])
        else:
            assert torch.equal(wider[name], known[name])


def test_what_cannot_be_a_start_is_told(tmp_path: Path) -> None:
    old = stirred(make("mobile-sam", "mask", OLD))
    folder = saved(tmp_path / "mask", old, "mask")
    with pytest.raises(UsageError, match="has the head mask, this training pixel; give --head mask"):
        start_from(make("mobile-sam", "pixel", OLD), folder, "pixel")
    with pytest.raises(
        UsageError, match="has the backbone tiny mobile-sam, this training none; give --backbone tiny mobile"
    ):
        start_from(make(NONE, "pixel", OLD), folder, "pixel")
    other = make("mobile-sam", "mask", LabelSet(("background", "bladder"), (0, 1)))
    with pytest.raises(UsageError, match="trained for background, liver, spleen, none of which is a class here"):
        start_from(other, folder, "mask")
    with torch.no_grad():
        old.head.tokens[0, 0] = torch.nan
    saved(folder, old, "mask")
    with pytest.raises(WeightsError, match=r"head\.tokens holds values that are not finite"):
        start_from(make("mobile-sam", "mask", OLD), folder, "mask")
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match="no such weights file"):
        start_from(make("mobile-sam", "mask", OLD), folder, "mask")
