"""Class logits and the truth in, the training loss out: 0.3 cross-entropy + 0.7 Dice (the paper's eq. 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from sampeft.volume import IGNORE


class Loss(NamedTuple):
    """total = ce_weight * ce + dice_weight * dice, all scalars in float32."""

    total: torch.Tensor
    ce: torch.Tensor
    dice: torch.Tensor


def soft_dice(probabilities_BKHW: torch.Tensor, truth_BHW: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """(K,) Dice coefficient of every class, pooled over the batch: (2 sum(p t) + eps) / (sum p + sum t + eps).

    Sums are plain, not squared. IGNORE pixels count in none of them.
    """
    valid = truth_BHW != IGNORE
    one_hot = F.one_hot(truth_BHW.clamp_min(0), probabilities_BKHW.shape[1]).movedim(-1, 1)
    truth = one_hot * valid[:, None]
    p = probabilities_BKHW * valid[:, None]
    overlap = (p * truth).sum(dim=(0, 2, 3))
    return (2 * overlap + eps) / (p.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3)) + eps)


def segmentation_loss(
    logits_BKHW: torch.Tensor, truth_BHW: torch.Tensor, ce_weight: float = 0.3, dice_weight: float = 0.7
) -> Loss:
    """Loss of logits against class channels of the same height and width (IGNORE pixels left out).

    The Dice term is 1 minus the mean over the classes that the batch's truth holds: a class that is absent has no
    overlap to gain, and cross-entropy already charges its false pixels. Without any valid pixel the loss is 0.
    """
    logits = logits_BKHW.float()
    truth = truth_BHW.long()
    valid = truth != IGNORE
    if not bool(valid.any()):
        zero = logits.sum() * 0
        return Loss(zero, zero, zero)
    ce = F.cross_entropy(logits, truth, ignore_index=IGNORE)
    coefficients = soft_dice(logits.softmax(dim=1), truth)
    present = torch.bincount(truth[valid], minlength=logits.shape[1]) > 0
    dice = 1 - coefficients[present].mean()
    return Loss(ce_weight * ce + dice_weight * dice, ce, dice)
