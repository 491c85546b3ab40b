"""Every size of SAM and SAM 2: the authors' checkpoint names and shapes become exactly those of our model."""

from __future__ import annotations

import pytest
import torch

from fabricate import authors
from sampeft.backbones import BACKBONES
from sampeft.backbones.tinyvit import convert


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize("name", [*authors.SAM_VIT, *authors.SAM2])
def test_the_authors_names_and_shapes_become_ours(name: str) -> None:
    spec = BACKBONES[name]
    with torch.device("meta"):
        theirs, ours = authors.build(name).state_dict(), spec.build().state_dict()
    assert shapes(spec.family.convert(theirs)) == shapes(ours)
    wrapped = {f"module.{key}": value for key, value in theirs.items()}
    assert shapes(spec.family.convert(wrapped)) == shapes(ours)


@pytest.mark.parametrize("name", [name for name, spec in BACKBONES.items() if spec.is_sam])
def test_our_own_names_stay_as_they_are(name: str) -> None:
    """A file saved from `transformers` must not be renamed a second time."""
    spec = BACKBONES[name]
    with torch.device("meta"):
        state = spec.build().state_dict()
    assert shapes(spec.family.convert(state)) == shapes(state)


def test_two_values_never_share_a_name() -> None:
    """Were two tensors renamed alike, one would be lost in silence."""
    with torch.device("meta"):
        theirs = authors.build("sam-vit-b").state_dict()
    assert len(BACKBONES["sam-vit-b"].family.convert(theirs)) == len(theirs) + 1  # the position table has two names


def test_mobile_sam_has_lite_medsams_names_and_a_classifier_that_is_left_out() -> None:
    with torch.device("meta"):
        ours = BACKBONES["mobile-sam"].build().state_dict()
        lite = BACKBONES["lite-medsam"].build().state_dict()
    assert set(ours) == set(lite)
    differ = {name for name in ours if ours[name].shape != lite[name].shape}
    assert differ == {f"vision_encoder.trunk.patch_embed.conv{i}.conv.weight" for i in (1, 2)}  # 3x3 against 1x1
    classifier = {"image_encoder.norm_head.weight": torch.ones(320), "image_encoder.head.bias": torch.ones(1000)}
    assert convert({**classifier, "image_encoder.neck.0.weight": torch.ones(1)}).keys() == {
        "vision_encoder.neck.conv1.weight"
    }
