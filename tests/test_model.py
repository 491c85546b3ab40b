"""SemanticSam: as many channels as classes, at any side that fits, and gradients only where they are wanted."""

from __future__ import annotations

import pytest
import torch

from sampeft.backbones import RANDOM, load_backbone
from sampeft.errors import DataError
from sampeft.labels import LabelSet
from sampeft.losses import segmentation_loss
from sampeft.model import SemanticSam
from sampeft.peft import attach


@pytest.mark.parametrize("foreground", [1, 13, 117])
def test_channels_are_foreground_and_one(foreground: int) -> None:
    names = ("background", *(f"c{k}" for k in range(1, foreground + 1)))
    model = SemanticSam(load_backbone("lite-medsam", RANDOM), LabelSet(names, tuple(range(len(names)))), 56)
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 56, 56))
    assert logits.shape == (1, foreground + 1, 56, 56)
    # All classes start from the same pretrained token, so that none is preferred before the truth speaks.
    assert torch.allclose(logits, logits[:, :1].expand_as(logits), atol=1e-5)


def test_one_class_alone_is_not_a_softmax_over_one_channel() -> None:
    with pytest.raises(DataError, match="at least two classes"):
        LabelSet(("target",), (1,))


def test_every_trained_parameter_gets_a_gradient_and_no_other_does(labels: LabelSet) -> None:
    """Parameters without a gradient break distributed training (case D29)."""
    model = SemanticSam(load_backbone("lite-medsam", RANDOM), labels, 56)
    attach(model, "lora")
    truth = torch.randint(0, len(labels), (1, 56, 56), generator=torch.Generator().manual_seed(0))
    segmentation_loss(model.train()(torch.rand(1, 3, 56, 56)), truth).total.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in model.named_parameters() if p.requires_grad}


def test_embeddings_can_be_kept_and_decoded_later(labels: LabelSet) -> None:
    model = SemanticSam(load_backbone("lite-medsam", RANDOM), labels, 56).eval()
    images = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        assert torch.equal(model(images), model(None, model.encode(images)))
