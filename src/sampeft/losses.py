"""Class logits and the truth in, the training loss out: 0.3 cross-entropy + 0.7 Dice (the paper's eq. 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from sampeft.volume import IGNORE


class Loss(NamedTuple):
    """total = ce_weight * ce + dice_weight * dice, all scalars in float32."""

    total: torch.Tensor
    ce: torch.Tensor
    dice: torch.Tensor


Reduce = Callable[[torch.Tensor], torch.Tensor]
"""Sums of one process's share of a batch -> those of the whole batch, with the gradient of the whole batch."""


def dice_sums(probabilities_BKHW: torch.Tensor, truth_BHW: torch.Tensor) -> torch.Tensor:
    """(3, K) sums over the batch's pixels: of p t, of p and of t; plain, not squared. IGNORE pixels count in none."""
    valid = truth_BHW != IGNORE
    one_hot = F.one_hot(truth_BHW.clamp_min(0), probabilities_BKHW.shape[1]).movedim(-1, 1)
    truth = one_hot * valid[:, None]
    p = probabilities_BKHW * valid[:, None]
    return torch.stack([term.sum(dim=(0, 2, 3)) for term in (p * truth, p, truth)])


def soft_dice(sums_3K: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """(K,) Dice coefficient of every class, pooled over the batch: (2 sum(p t) + eps) / (sum p + sum t + eps)."""
    overlap_K, found_K, truth_K = sums_3K
    coefficients_K: torch.Tensor = (2 * overlap_K + eps) / (found_K + truth_K + eps)
    return coefficients_K


def segmentation_loss(
    logits_BKHW: torch.Tensor,
    truth_BHW: torch.Tensor,
    ce_weight: float = 0.3,
    dice_weight: float = 0.7,
    reduce: Reduce | None = None,
) -> Loss:
    """Loss of logits against class channels of the same height and width (IGNORE pixels left out).

    The Dice term is 1 minus the mean over the classes that the batch's truth holds: a class that is absent has no
    overlap to gain, and cross-entropy already charges its false pixels. Without any valid pixel the loss is 0.
    reduce: for a batch that several processes share. Neither term is a mean over slices (Dice is a ratio of the batch's
    sums, cross-entropy a mean over its valid pixels), so that it is these sums that are added up, not losses averaged.
    """
    logits = logits_BKHW.float()
    truth = truth_BHW.long()
    ce_sum = F.cross_entropy(logits, truth, ignore_index=IGNORE, reduction="sum")
    sums = torch.cat([ce_sum[None], dice_sums(logits.softmax(dim=1), truth).flatten()])
    if reduce:
        sums = reduce(sums)
    sums_3K = sums[1:].reshape(3, -1)
    present = sums_3K[2] > 0
    if not bool(present.any()):
        zero = logits.sum() * 0
        return Loss(zero, zero, zero)
    ce = sums[0] / sums_3K[2].sum()  # every valid pixel is of one class
    dice = 1 - soft_dice(sums_3K)[present].mean()
    return Loss(ce_weight * ce + dice_weight * dice, ce, dice)
