"""What a pretrained model gives with the truth's help: zero-shot oracles, labelled as such.

The truth draws the prompts, or chooses among masks that were found without it, as in the paper's tables 1 and 4. No
class is ever predicted in a slice whose truth does not hold it, which no automatic model can know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import Features
from sampeft.data.slice_cache import PreparedVolume
from sampeft.data.slices import Frame
from sampeft.errors import UsageError, unknown_name
from sampeft.model import SemanticSam
from sampeft.oracle.automatic_masks import MaskSettings, answer, automatic_masks

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OracleProtocol:
    """How the truth is used.

    title: what tables call it. apart: each class's mask is scored on its own, background as a class among them, so that
    overlaps do not matter; else one class map is, as for a prediction.
    """

    name: str
    title: str
    about: str
    apart: bool


ORACLE_PROTOCOLS: dict[str, OracleProtocol] = {
    protocol.name: protocol
    for protocol in (
        OracleProtocol(
            "boxes",
            "truth's boxes, zero-shot",
            "the box of each class in each slice prompts the model; of overlapping masks the surest wins",
            apart=False,
        ),
        OracleProtocol(
            "points",
            "truth's points, zero-shot",
            "one point in each class of each slice, the deepest of its largest part, prompts the model; of several masks "
            "for the point the one with the highest predicted IoU is taken, of overlapping masks the surest wins",
            apart=False,
        ),
        OracleProtocol(
            "masks",
            "masks chosen by the truth, zero-shot",
            "of all automatic masks of a slice each class, background among them, gets the one with the best Dice; each "
            "class's mask is scored on its own, whatever the others cover (the paper's tables 1 and 4)",
            apart=True,
        ),
        OracleProtocol(
            "union",
            "masks joined by the truth, zero-shot",
            "as masks, but more masks are joined to a class's best one while its Dice in the slice grows",
            apart=True,
        ),
    )
}
NAME = ORACLE_PROTOCOLS["boxes"].title


def protocols_of(names: str) -> tuple[OracleProtocol, ...]:
    """The protocols of a list such as `boxes,masks`, in its order. Raises UsageError for an unknown or repeated name."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in ORACLE_PROTOCOLS]:
        raise unknown_name("oracle protocol", unknown[0], ORACLE_PROTOCOLS)
    if not wanted or len(set(wanted)) < len(wanted):
        raise UsageError(
            f"oracle protocols are '{names}'; give each of {', '.join(ORACLE_PROTOCOLS)} once at most, one at least"
        )
    return tuple(ORACLE_PROTOCOLS[name] for name in wanted)


@dataclass(frozen=True)
class Chosen:
    """One slice. channels_HW: class map. masks: class -> (H, W) bool, each on its own, of protocols that score so."""

    channels_HW: npt.NDArray[np.uint8]
    masks: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)


def boxes_of(channels_HW: Array, classes: tuple[int, ...]) -> dict[int, tuple[int, int, int, int]]:
    """Class -> (x0, y0, x1, y1), the box of all its pixels, last pixel included."""
    found = {}
    for k in classes:
        rows, columns = np.nonzero(channels_HW == k)
        if len(rows):
            found[k] = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))
    return found


def points_of(channels_HW: Array, classes: tuple[int, ...]) -> dict[int, tuple[int, int]]:
    """Class -> (x, y) of the pixel of its largest part that is farthest from everything else, the picture's edge included.

    Parts touch by edges; of parts of one size and pixels of one depth the first by rows is taken.
    """
    from scipy import ndimage

    found = {}
    for k in classes:
        parts, count = ndimage.label(channels_HW == k)
        if count:
            largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
            depth = ndimage.distance_transform_edt(np.pad(parts == largest, 1))[1:-1, 1:-1]
            row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
            found[k] = (int(column), int(row))
    return found


def best_of(masks_NHW: npt.NDArray[np.bool_], truth_HW: Array, classes: Sequence[int]) -> dict[int, tuple[int, float]]:
    """Class -> (index of the mask with the best Dice, that Dice); of equal ones the first.

    Pixels without a truth count in no Dice; a class that is not in the truth or that no mask touches is left out.
    """
    known = truth_HW >= 0
    true_K = np.bincount(truth_HW[known], minlength=max(classes, default=0) + 1)
    if not len(masks_NHW):
        return {}
    shared_NK = np.stack([np.bincount(truth_HW[known & mask], minlength=len(true_K)) for mask in masks_NHW])
    dice_NK = 2 * shared_NK / np.maximum(shared_NK.sum(axis=1, keepdims=True) + true_K, 1)
    best = {k: int(np.argmax(dice_NK[:, k])) for k in classes}
    return {k: (n, float(dice_NK[n, k])) for k, n in best.items() if dice_NK[n, k] > 0}


def joined(
    masks_NHW: npt.NDArray[np.bool_], first: int, true_HW: npt.NDArray[np.bool_], known_HW: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """(H, W) the mask `first` with others joined to it, at each step that which raises the Dice most, while it grows."""
    touching = [n for n, mask in enumerate(masks_NHW) if (mask & true_HW).any()]
    # What a mask would still add; pixels without a truth add nothing to any Dice.
    left = [masks_NHW[n] & known_HW for n in touching]
    union: npt.NDArray[np.bool_] = masks_NHW[first].copy()
    true = int(true_HW.sum())
    shared, area = int((union & true_HW).sum()), int((union & known_HW).sum())
    while left:
        left = [mask & ~union for mask in left]
        gained = np.array([(int((mask & true_HW).sum()), int(mask.sum())) for mask in left])
        dice = 2 * (shared + gained[:, 0]) / (area + gained[:, 1] + true)
        n = int(np.argmax(dice))
        if dice[n] <= 2 * shared / (area + true):
            break
        union |= masks_NHW[touching[n]]
        shared, area = shared + int(gained[n, 0]), area + int(gained[n, 1])
    return union


def layered(
    masks: dict[int, npt.NDArray[np.bool_]], dice: dict[int, float], size: tuple[int, int], background: bool = True
) -> npt.NDArray[np.uint8]:
    """(H, W) class map: of masks that overlap, that of the class with the higher Dice lies on top, of equal ones the
    lower channel. What no mask covers is channel 0 where that is the background, else the class of the nearest mask."""
    from scipy import ndimage

    channels_HW = np.zeros(size, dtype=np.uint8)
    for k in sorted(masks, key=lambda k: (dice[k], -k)):
        channels_HW[masks[k]] = k
    if not background and masks:
        bare = ~np.logical_or.reduce(list(masks.values()))
        rows, columns = ndimage.distance_transform_edt(bare, return_distances=False, return_indices=True)
        channels_HW = channels_HW[rows, columns]
    return channels_HW


@dataclass(frozen=True)
class Oracle:
    """Chooses for slices by the protocols; the image is encoded once for all of them.

    model: its method, if there is one, is taken off. settings: of the automatic masks, and of how many masks a point gets.
    """

    model: SemanticSam
    protocols: tuple[OracleProtocol, ...]
    settings: MaskSettings

    def choose(
        self,
        prepared: PreparedVolume,
        index: int,
        truth_HW: Array,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[dict[str, Chosen], int | None]:
        """Protocol -> what it chooses, and the number of automatic masks, if any were made. Of a slice without any
        foreground everything is background, and it is not encoded."""
        labels, frame = self.model.labels, prepared.frame
        classes = tuple(k for k in labels.foreground if (truth_HW == k).any())
        if not classes:
            everywhere = {0: np.ones(frame.size, dtype=bool)} if labels.has_background else {}
            nothing = Chosen(np.zeros(frame.size, dtype=np.uint8), everywhere)
            return {protocol.name: nothing for protocol in self.protocols}, None
        device = next(self.model.parameters()).device
        names = {protocol.name for protocol in self.protocols}
        chosen: dict[str, Chosen] = {}
        count = None
        with self.model.original(), torch.inference_mode():
            features = self.model.encode(prepared.image(index)[None].to(device))
            if "boxes" in names:
                boxes = boxes_of(truth_HW, classes)
                # From the outer edge of the first pixel to that of the last.
                outer = np.array(list(boxes.values())) + np.array([-0.5, -0.5, 0.5, 0.5])
                chosen["boxes"] = self._prompted(features, frame, list(boxes), outer, False)
            if "points" in names:
                points = points_of(truth_HW, classes)
                several = self.settings.masks_per_prompt > 1
                chosen["points"] = self._prompted(
                    features, frame, list(points), np.array(list(points.values())), several
                )
            if names & {"masks", "union"}:
                found = automatic_masks(self.model, features, frame, self.settings, progress)
                count = len(found)
                chosen |= self._matched(found.masks_NHW, truth_HW, classes)
        return {protocol.name: chosen[protocol.name] for protocol in self.protocols}, count

    def _prompted(self, features: Features, frame: Frame, classes: list[int], prompts: Array, several: bool) -> Chosen:
        """One mask per class, by its own prompt. Without a background class every pixel goes to the surest class."""
        logits, predicted = answer(self.model, features, frame, prompts, several)
        surest = predicted.argmax(dim=1)
        logits_Khw = logits[torch.arange(len(logits), device=logits.device), surest].cpu()
        channels = np.array(classes, dtype=np.uint8)
        if self.model.labels.has_background:
            channels = np.array([0, *classes], dtype=np.uint8)
            logits_Khw = torch.cat([torch.zeros_like(logits_Khw[:1]), logits_Khw])  # a mask covers where it is above 0
        return Chosen(channels[frame.class_map(logits_Khw)])

    def _matched(
        self, masks_NHW: npt.NDArray[np.bool_], truth_HW: Array, classes: tuple[int, ...]
    ) -> dict[str, Chosen]:
        """What the truth makes of masks that were found without it."""
        known_HW, size = truth_HW >= 0, (truth_HW.shape[0], truth_HW.shape[1])
        has_background = self.model.labels.has_background
        background = (0,) if has_background and (truth_HW == 0).any() else ()
        best = best_of(masks_NHW, truth_HW, (*background, *classes))
        dice = {k: score for k, (_, score) in best.items()}
        found = {"masks": {k: masks_NHW[n] for k, (n, _) in best.items()}}
        if any(protocol.name == "union" for protocol in self.protocols):
            found["union"] = {k: joined(masks_NHW, n, truth_HW == k, known_HW) for k, (n, _) in best.items()}
        return {
            name: Chosen(layered({k: masks[k] for k in classes if k in masks}, dice, size, has_background), masks)
            for name, masks in found.items()
        }
