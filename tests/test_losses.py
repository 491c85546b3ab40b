"""The paper's eq. 2 on numbers worked by hand (case D21)."""

from __future__ import annotations

import math

import pytest
import torch

from sampeft.losses import dice_sums, segmentation_loss, soft_dice
from sampeft.volume import IGNORE


def test_uniform_logits_give_the_hand_worked_loss() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    truth = torch.tensor([[[0, 0, 0, 1]]])
    dice = soft_dice(dice_sums(logits.softmax(1), truth))
    assert dice.tolist() == pytest.approx([2 * 1.5 / (2 + 3), 2 * 0.5 / (2 + 1)], abs=1e-5)
    loss = segmentation_loss(logits, truth)
    assert loss.ce.item() == pytest.approx(math.log(2), abs=1e-6)
    assert loss.dice.item() == pytest.approx(1 - (0.6 + 1 / 3) / 2, abs=1e-5)
    assert loss.total.item() == pytest.approx(0.581277, abs=1e-5)


def test_no_foreground_and_sure_background_is_almost_free_and_has_finite_gradients() -> None:
    logits = torch.zeros(2, 3, 8, 8)
    logits[:, 0] = 20.0
    logits.requires_grad_(True)
    loss = segmentation_loss(logits, torch.zeros(2, 8, 8, dtype=torch.long))
    loss.total.backward()
    assert loss.total.item() < 1e-3
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_ignored_pixels_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 6, 6, generator=generator)
    truth = torch.randint(0, 3, (1, 6, 6), generator=generator)
    padded_logits = torch.cat([logits, torch.randn(1, 3, 6, 4, generator=generator) * 50], dim=-1).requires_grad_(True)
    padded_truth = torch.cat([truth, torch.full((1, 6, 4), IGNORE)], dim=-1)
    loss = segmentation_loss(padded_logits, padded_truth)
    assert loss.total.item() == pytest.approx(segmentation_loss(logits, truth).total.item(), abs=1e-6)
    loss.total.backward()
    assert padded_logits.grad is not None
    assert float(padded_logits.grad[..., 6:].abs().max()) == 0.0


def test_only_ignored_pixels_give_zero_loss_and_finite_gradients() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), IGNORE))
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0.0


def test_sums_are_taken_in_float32() -> None:
    probabilities = torch.ones(1, 2, 512, 512, dtype=torch.bfloat16)
    loss = segmentation_loss(torch.zeros_like(probabilities), torch.zeros(1, 512, 512, dtype=torch.long))
    assert loss.total.dtype == torch.float32
    # p = 1/2 everywhere, truth all background: Dice 2 * n/2 / (n/2 + n) = 2/3 for the one class that is present.
    assert loss.dice.item() == pytest.approx(1 / 3, abs=1e-5)


def test_pooling_over_the_batch_equals_one_large_image() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 5, 5, generator=generator)
    truth = torch.randint(0, 4, (2, 5, 5), generator=generator)
    joined = segmentation_loss(torch.cat(list(logits), dim=-1)[None], torch.cat(list(truth), dim=-1)[None])
    assert segmentation_loss(logits, truth).total.item() == pytest.approx(joined.total.item(), abs=1e-6)
