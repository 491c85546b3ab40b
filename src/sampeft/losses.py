"""Losses by name; the paper's is 0.3 cross-entropy + 0.7 Dice (its eq. 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from sampeft.heads.given import Output
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


def soft_iou(sums_3K: torch.Tensor, eps: float = 1.0) -> torch.Tensor:
    """(K,) intersection over union of every class, pooled over the batch."""
    overlap_K, found_K, truth_K = sums_3K
    shares_K: torch.Tensor = (overlap_K + eps) / (found_K + truth_K - overlap_K + eps)
    return shares_K


def tversky(sums_3K: torch.Tensor, missed: float = 0.7, eps: float = 1e-5) -> torch.Tensor:
    """(K,) Tversky index, pooled over the batch: misses weigh `missed`, false pixels the rest (Salehi et al. 2017)."""
    overlap_K, found_K, truth_K = sums_3K
    misses_K, false_K = truth_K - overlap_K, found_K - overlap_K
    index_K: torch.Tensor = (overlap_K + eps) / (overlap_K + missed * misses_K + (1 - missed) * false_K + eps)
    return index_K


def cross_entropy(logits_BKHW: torch.Tensor, truth_BHW: torch.Tensor, weights_K: torch.Tensor | None) -> torch.Tensor:
    """Sum over the valid pixels."""
    return F.cross_entropy(logits_BKHW, truth_BHW, weights_K, ignore_index=IGNORE, reduction="sum")


def focal(
    logits_BKHW: torch.Tensor, truth_BHW: torch.Tensor, weights_K: torch.Tensor | None, gamma: float = 2.0
) -> torch.Tensor:
    """Sum over the valid pixels of the cross-entropy times (1 - p)^gamma, p being the probability of the true class."""
    costs_BHW = F.cross_entropy(logits_BKHW, truth_BHW, ignore_index=IGNORE, reduction="none")
    scaled_BHW = costs_BHW * (1 - torch.exp(-costs_BHW)) ** gamma
    if weights_K is not None:
        scaled_BHW = scaled_BHW * weights_K[truth_BHW.clamp_min(0)]
    return scaled_BHW.sum()


@dataclass(frozen=True)
class LossTerms:
    """pixels: (logits, truth, class weights) -> sum over pixels. regions: sums (3, K) -> coefficient of each class, 1 where
    the map is right."""

    pixels: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
    regions: Callable[[torch.Tensor], torch.Tensor]


LOSSES: dict[str, LossTerms] = {
    "ce+dice": LossTerms(cross_entropy, soft_dice),
    "focal+dice": LossTerms(focal, soft_dice),
    "ce+tversky": LossTerms(cross_entropy, tversky),
    "ce+iou": LossTerms(cross_entropy, soft_iou),
}


def segmentation_loss(
    logits_BKHW: torch.Tensor,
    truth_BHW: torch.Tensor,
    ce_weight: float = 0.3,
    dice_weight: float = 0.7,
    reduce: Reduce | None = None,
    terms: LossTerms = LOSSES["ce+dice"],
    class_weights: Sequence[float] = (),
) -> Loss:
    """Loss of logits against class channels of the same height and width (IGNORE pixels left out).

    The term of regions is 1 minus the mean over the classes that the batch's truth holds: a class that is absent has no
    overlap to gain, and the term of pixels already charges its false ones. Without any valid pixel the loss is 0.
    reduce: for a batch that several processes share. Neither term is a mean over slices (Dice is a ratio of the batch's
    sums, cross-entropy a mean over its valid pixels), so that it is these sums that are added up, not losses averaged.
    class_weights: of the term of pixels, one for each class; none: 1 for all.
    """
    logits = logits_BKHW.float()
    truth = truth_BHW.long()
    weights_K = torch.tensor(class_weights, device=logits.device) if class_weights else None
    ce_sum = terms.pixels(logits, truth, weights_K)
    sums = torch.cat([ce_sum[None], dice_sums(logits.softmax(dim=1), truth).flatten()])
    if reduce:
        sums = reduce(sums)
    sums_3K = sums[1:].reshape(3, -1)
    present = sums_3K[2] > 0
    if not bool(present.any()):
        zero = logits.sum() * 0
        return Loss(zero, zero, zero)
    valid = sums_3K[2] if weights_K is None else sums_3K[2] * weights_K  # every valid pixel is of one class
    ce = sums[0] / valid.sum().clamp_min(1e-12)  # 0 where all classes that are present weigh nothing
    dice = 1 - terms.regions(sums_3K)[present].mean()
    return Loss(ce_weight * ce + dice_weight * dice, ce, dice)


def presence_loss(presence_BK: torch.Tensor, truth_BHW: torch.Tensor, reduce: Reduce | None = None) -> torch.Tensor:
    """Mean binary cross-entropy of which classes each whole picture holds; a picture without any valid pixel counts not."""
    holds_BK = torch.stack([(truth_BHW == k).flatten(1).any(dim=1) for k in range(presence_BK.shape[1])], dim=1).float()
    known_B1 = holds_BK.amax(dim=1, keepdim=True)
    costs_BK = F.binary_cross_entropy_with_logits(presence_BK.float(), holds_BK, reduction="none") * known_B1
    sums = torch.stack([costs_BK.sum(), known_B1.sum() * presence_BK.shape[1]])
    if reduce:
        sums = reduce(sums)
    total: torch.Tensor = sums[0] / sums[1].clamp_min(1)
    return total


@dataclass(frozen=True)
class Objective:
    """The loss of what a head says: that of its logits, with presence as it is at prediction; half as much of each coarser
    level as of the one before; `presence_weight` times that of presence, which alone trains it; and where the logits are of
    windows `whole_weight` times that of the mask head's logits of the whole pictures.

    spread_foreground: where there is one class of it, a cell of a coarser level is foreground where any of its pixels is, so
    that targets of a few pixels do not vanish there.
    """

    name: str = "ce+dice"
    weights: tuple[float, float] = (0.3, 0.7)
    class_weights: tuple[float, ...] = ()
    presence_weight: float = 0.1
    whole_weight: float = 0.0
    spread_foreground: bool = False

    def __call__(
        self,
        output: Output,
        truth_BHW: torch.Tensor,
        whole_truth_BHW: torch.Tensor | None = None,
        reduce: Reduce | None = None,
    ) -> Loss:
        """whole_truth: of the whole pictures, where the logits are those of windows."""
        terms = partial(
            segmentation_loss,
            ce_weight=self.weights[0],
            dice_weight=self.weights[1],
            reduce=reduce,
            terms=LOSSES[self.name],
            class_weights=self.class_weights,
        )
        logits = output.logits_BKHW.float()
        if output.presence_BK is not None:
            logits = logits + F.logsigmoid(output.presence_BK.float()).detach()[:, :, None, None]
        if logits.shape[-2:] != truth_BHW.shape[-2:]:
            logits = F.interpolate(logits, truth_BHW.shape[-2:], mode="bilinear", align_corners=False)
        loss = terms(logits, truth_BHW)
        total = loss.total
        for level, coarser in enumerate(output.coarser, 1):
            total = total + 0.5**level * terms(coarser, self._coarse(truth_BHW, coarser)).total
        whole = truth_BHW if whole_truth_BHW is None else whole_truth_BHW
        if output.presence_BK is not None:
            total = total + self.presence_weight * presence_loss(output.presence_BK, whole, reduce)
        if output.whole_BKHW is not None and self.whole_weight:
            total = total + self.whole_weight * terms(output.whole_BKHW, self._coarse(whole, output.whole_BKHW)).total
        return Loss(total, loss.ce, loss.dice)

    def _coarse(self, truth_BHW: torch.Tensor, logits_BKhw: torch.Tensor) -> torch.Tensor:
        values, (classes, *size) = truth_BHW[:, None].float(), logits_BKhw.shape[1:]
        if self.spread_foreground and classes == 2:
            return F.adaptive_max_pool2d(values, size)[:, 0].long()
        return F.interpolate(values, size, mode="nearest-exact")[:, 0].long()
