"""Masks of everything that the promptable model finds in an image, as SAM's automatic mask generator.

Prompts on a grid, three masks each, kept where the model is sure of them (predicted IoU, stability) and, of masks in
nearly the same box, only the surest. No truth is used here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import Backbone, Features
from sampeft.data.slices import Frame
from sampeft.errors import UsageError
from sampeft.model import SemanticSam

_PROMPTS_AT_ONCE = 32
_STABILITY_OFFSET = 1.0  # in logits, as in SAM
_TRAINED_ON_BOXES = ("lite-medsam", "medsam-vit-b")


@dataclass(frozen=True)
class MaskSettings:
    """What is asked and what is kept; the defaults are SAM's.

    points_per_side: the grid has as many columns and rows, spread over the part of the slice that the network sees.
    box_shares: instead of points, squares round the points of a grid, their sides as shares of the longer side of that
        part, with no more columns than 2 / share; empty: points. For models that were trained on boxes only.
    masks_per_prompt: 3, or 1 for the mask that a model gives for a prompt without ambiguity.
    predicted_iou, stability: masks with less are dropped (0: none are). Stability is the IoU of the mask drawn at a
        logit of +1 and of -1.
    nms: of two masks whose boxes have a larger IoU, the one with the lower predicted IoU is dropped.
    Raises UsageError for values out of range.
    """

    points_per_side: int = 32
    box_shares: tuple[float, ...] = ()
    masks_per_prompt: int = 3
    predicted_iou: float = 0.88
    stability: float = 0.95
    nms: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= self.points_per_side <= 256:
            raise UsageError(f"points per side are {self.points_per_side}; give 1 to 256 (SAM: 32)")
        if self.masks_per_prompt not in (1, 3):
            raise UsageError(f"masks per prompt are {self.masks_per_prompt}; a model gives 1 or 3")
        for name in ("predicted_iou", "stability", "nms"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UsageError(f"{name.replace('_', ' ')} is {value:g}; it is a share, 0 to 1")
        if wrong := [share for share in self.box_shares if not 0 < share <= 1]:
            raise UsageError(
                f"box share {wrong[0]:g} is not above 0 and at most 1; it is a share of the picture's side"
            )

    @classmethod
    def suited_to(cls, spec: Backbone) -> MaskSettings:
        """SAM's own; for models trained on boxes only: boxes of four sizes, one mask each, none dropped for its score.

        Such models answer a lone point with next to nothing, and their predicted IoU says little (measured: ADR 0010).
        """
        if spec.name in _TRAINED_ON_BOXES:
            return cls(16, (0.0625, 0.125, 0.25, 0.5), masks_per_prompt=1, predicted_iou=0.0, stability=0.0)
        return cls()

    def __str__(self) -> str:
        squares = ", ".join(f"{share:g}" for share in self.box_shares)
        size = f"{self.points_per_side} x {self.points_per_side} points"
        return (
            f"{f'boxes of {squares} of the side round a grid of up to' if squares else 'a grid of'} {size}, "
            f"{self.masks_per_prompt} mask{'s' if self.masks_per_prompt > 1 else ''} a prompt, "
            f"predicted IoU above {self.predicted_iou:g}, stability above {self.stability:g}, NMS at {self.nms:g}"
        )

    def prompts(self, frame: Frame) -> npt.NDArray[np.float64]:
        """(N, 2) points or (N, 4) boxes in pixels of the slice; a box that passes the edge of what is seen ends there."""
        if not self.box_shares:
            return _grid(frame, self.points_per_side)
        top, left, bottom, right = frame.box
        boxes = []
        for share in self.box_shares:
            # Neighbours overlap by half: a denser grid of large boxes asks nearly the same again.
            points_N2 = _grid(frame, min(self.points_per_side, max(1, round(2 / share))))
            half = share * max(frame.box_size) / 2
            low = np.maximum(points_N2 - half, [left - 0.5, top - 0.5])
            boxes.append(np.hstack([low, np.minimum(points_N2 + half, [right - 0.5, bottom - 0.5])]))
        return np.concatenate(boxes)


def _grid(frame: Frame, per_side: int) -> npt.NDArray[np.float64]:
    """(per_side^2, 2) positions (x, y), row by row, in the middle of equal tiles of what is seen."""
    top, left, bottom, right = frame.box
    steps = (np.arange(per_side) + 0.5) / per_side
    x, y = np.meshgrid(left + steps * (right - left) - 0.5, top + steps * (bottom - top) - 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)


@dataclass(frozen=True)
class FoundMasks:
    """masks_NHW on the grid of the slice, the surest first; predicted_iou_N: how sure the model is of each."""

    masks_NHW: npt.NDArray[np.bool_]
    predicted_iou_N: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.masks_NHW)


def answer(
    model: SemanticSam, features: Features, frame: Frame, prompts: npt.NDArray[Any], several: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask logits (N, M, h, w) of the square and predicted IoU (N, M); M is 3 with `several`, else 1.

    prompts: (N, 2) points, each inside its object, or (N, 4) boxes (x0, y0, x1, y1), in pixels of the slice.
    """
    device = next(model.parameters()).device
    placed = torch.from_numpy(frame.points(prompts.reshape(-1, 2))).float().to(device)
    asked: dict[str, torch.Tensor]
    if prompts.shape[1] == 4:
        asked = {"input_boxes": placed.reshape(1, -1, 4)}
    else:
        inside = torch.ones(1, len(prompts), 1, dtype=torch.int32, device=device)
        asked = {"input_points": placed.reshape(1, -1, 1, 2), "input_labels": inside}
    image = model.spec.family.promptable_input(features)
    output = model.sam(image_embeddings=image, multimask_output=several, **asked)
    return output.pred_masks[0].float(), output.iou_scores[0].float()


def stability(logits_NHW: torch.Tensor) -> torch.Tensor:
    """(N,) area above a logit of +1 over the area above -1, which holds the former; NaN for masks without any."""
    inner, outer = ((logits_NHW > offset).sum((-2, -1)) for offset in (_STABILITY_OFFSET, -_STABILITY_OFFSET))
    return inner / outer


def automatic_masks(
    model: SemanticSam,
    features: Features,
    frame: Frame,
    settings: MaskSettings,
    progress: Callable[[float], None] | None = None,
) -> FoundMasks:
    """All masks of an image that `model.encode` gave features for. To be called within `model.original()`.

    progress: gets the share of the prompts that are answered, 0 to 1. Empty masks are never kept.
    """
    from torchvision.ops import masks_to_boxes, nms

    prompts = settings.prompts(frame)
    masks, scores, boxes = [], [], []
    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        some = prompts[start : start + _PROMPTS_AT_ONCE]
        logits, predicted = answer(model, features, frame, some, settings.masks_per_prompt > 1)
        logits_Nhw, score_N = logits.flatten(0, 1), predicted.flatten()
        sure = score_N > settings.predicted_iou if settings.predicted_iou > 0 else torch.ones_like(score_N).bool()
        if sure.any():
            logits_NHW, score_N = frame.logits(logits_Nhw[sure]), score_N[sure]
            kept = (logits_NHW > 0).any(-1).any(-1)
            if settings.stability > 0:
                kept &= stability(logits_NHW) > settings.stability
            found_NHW = logits_NHW[kept] > 0
            masks.append(found_NHW.cpu())
            scores.append(score_N[kept].cpu())
            boxes.append(masks_to_boxes(found_NHW).cpu())
        if progress:
            progress(min(1.0, (start + len(some)) / len(prompts)))
    if not masks or not sum(map(len, masks)):
        return FoundMasks(np.zeros((0, *frame.size), dtype=bool), np.zeros(0, dtype=np.float32))
    score_N = torch.cat(scores)
    kept = nms(torch.cat(boxes), score_N, settings.nms)
    top, left, bottom, right = frame.box
    whole_NHW = np.zeros((len(kept), *frame.size), dtype=bool)
    whole_NHW[:, top:bottom, left:right] = torch.cat(masks)[kept].numpy()
    return FoundMasks(whole_NHW, score_N[kept].numpy())
