"""Automatic masks: prompts in the right place, stability and NMS by hand, the same masks as the library keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sampeft.backbones import BACKBONES
from sampeft.data.slices import Frame
from sampeft.errors import UsageError
from sampeft.oracle.automatic_masks import MaskSettings, automatic_masks, stability


class Draws(torch.nn.Module):
    """A "promptable model" that gives the next of the logits (N, M, side, side) and scores (N, M) for each prompt."""

    def __init__(self, logits: torch.Tensor, scores: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.spec = SimpleNamespace(family=SimpleNamespace(promptable_input=lambda features: features))
        self.logits, self.scores, self.asked = logits, scores, []

    def sam(self, *, image_embeddings: Any, multimask_output: bool, **asked: torch.Tensor) -> Any:
        start = sum(self.asked)
        self.asked.append(next(iter(asked.values())).shape[1])
        some = slice(start, start + self.asked[-1])
        return SimpleNamespace(pred_masks=self.logits[some][None], iou_scores=self.scores[some][None])


def kept(settings: MaskSettings, logits: torch.Tensor, scores: torch.Tensor, frame: Frame) -> Any:
    model: Any = Draws(logits, scores)
    return automatic_masks(model, (), frame, settings)


def test_points_lie_in_the_middle_of_equal_tiles_of_what_is_seen() -> None:
    frame = Frame((40, 60), (10, 20, 30, 60), 64)
    assert MaskSettings(2).prompts(frame).tolist() == [[29.5, 14.5], [49.5, 14.5], [29.5, 24.5], [49.5, 24.5]]


def test_boxes_lie_round_their_points_and_end_at_the_edge_of_what_is_seen() -> None:
    frame = Frame((40, 60), (10, 20, 30, 60), 64)
    half, quarter = MaskSettings(2, (0.5,)), MaskSettings(2, (0.25, 0.5))
    assert half.prompts(frame)[0].tolist() == [19.5, 9.5, 39.5, 24.5]
    assert half.prompts(frame)[3].tolist() == [39.5, 14.5, 59.5, 29.5]
    assert quarter.prompts(frame)[:4, 2:].tolist() == [[34.5, 19.5], [54.5, 19.5], [34.5, 29.5], [54.5, 29.5]]
    # A box of half the side stands 4 times at most along a side, one of the whole side twice.
    assert len(MaskSettings(32, (0.5, 1.0)).prompts(frame)) == 4 * 4 + 2 * 2


def test_stability_by_hand() -> None:
    logits = torch.full((2, 4, 4), -9.0)
    logits[0, :2], logits[0, 2] = 3.0, 0.5  # 8 pixels above +1, 12 above -1
    assert stability(logits)[0] == pytest.approx(8 / 12)
    assert torch.isnan(stability(logits)[1])


def squares(*boxes: tuple[int, int, int, int], side: int = 32) -> torch.Tensor:
    logits = torch.full((len(boxes), 1, side, side), -8.0)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        logits[i, 0, y0:y1, x0:x1] = 8.0
    return logits


def test_of_overlapping_boxes_the_surest_stays() -> None:
    frame = Frame.whole((32, 32), 32)
    # Corners of the first and last pixel: 10 x 10, 10 x 9 inside it (IoU 0.9), and 10 x 5 (IoU 0.5).
    logits = squares((2, 2, 13, 13), (2, 2, 13, 12), (2, 2, 13, 8), (20, 20, 30, 30))
    scores = torch.tensor([[0.90], [0.95], [0.89], [0.92]])
    settings = MaskSettings(2, masks_per_prompt=1, stability=0.9)
    found = kept(settings, logits, scores, frame)
    assert found.predicted_iou_N.tolist() == pytest.approx([0.95, 0.92, 0.89])
    assert [int(mask.sum()) for mask in found.masks_NHW] == [110, 100, 66]
    strict = kept(MaskSettings(2, masks_per_prompt=1, stability=0.9, nms=0.45), logits, scores, frame)
    assert strict.predicted_iou_N.tolist() == pytest.approx([0.95, 0.92])
    sure = kept(MaskSettings(2, masks_per_prompt=1, stability=0.9, predicted_iou=0.91), logits, scores, frame)
    assert sure.predicted_iou_N.tolist() == pytest.approx([0.95, 0.92])


def test_masks_come_back_in_the_part_of_the_slice_that_is_seen() -> None:
    frame = Frame((50, 70), (10, 20, 42, 52), 32)
    found = kept(MaskSettings(1, masks_per_prompt=1, stability=0.0), squares((4, 6, 14, 16)), torch.ones(1, 1), frame)
    expected = np.zeros((50, 70), dtype=bool)
    expected[16:26, 24:34] = True
    assert (found.masks_NHW[0] == expected).all()


def test_nothing_found_is_no_mask() -> None:
    frame = Frame((20, 30), (0, 0, 20, 30), 32)
    empty = kept(MaskSettings(1, masks_per_prompt=1, stability=0.0), squares((0, 0, 0, 0)), torch.ones(1, 1), frame)
    unsure = kept(MaskSettings(1, masks_per_prompt=1), squares((4, 4, 9, 9)), torch.zeros(1, 1), frame)
    assert empty.masks_NHW.shape == unsure.masks_NHW.shape == (0, 20, 30)


def test_the_same_masks_stay_as_in_transformers() -> None:
    from transformers import SamImageProcessor

    generator = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    centre_x, centre_y, radius, slope = (torch.rand(4, 49, 3, 1, 1, generator=generator) + 0.05) * torch.tensor(
        [48.0, 48.0, 12.0, 3.0]
    ).reshape(4, 1, 1, 1, 1)
    logits = slope * (radius - torch.hypot(x - centre_x, y - centre_y))
    scores = torch.rand(49, 3, generator=generator)
    settings = MaskSettings(7, predicted_iou=0.4, stability=0.7, nms=0.6)
    model: Any = Draws(logits, scores)
    shares: list[float] = []
    found = automatic_masks(model, (), Frame.whole((48, 48), 48), settings, shares.append)
    assert model.asked == [32, 17]
    assert shares == [pytest.approx(32 / 49), 1.0]
    library = SamImageProcessor()
    rle, score, boxes = library.filter_masks(logits, scores, (48, 48), [0, 0, 48, 48], 0.4, 0.7)
    masks, score, _, _ = library.post_process_for_mask_generation(rle, score, boxes, 0.6)
    assert 10 < len(found) < 147
    assert found.predicted_iou_N.tolist() == pytest.approx(score.tolist())
    assert (found.masks_NHW == torch.stack(masks).numpy()).all()


def test_settings_suit_the_backbone() -> None:
    assert MaskSettings.suited_to(BACKBONES["sam-vit-b"]) == MaskSettings(32, (), 3, 0.88, 0.95, 0.7)
    for name in ("lite-medsam", "medsam-vit-b"):
        boxes = MaskSettings.suited_to(BACKBONES[name])
        assert boxes.box_shares
        assert boxes.masks_per_prompt == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"points_per_side": 0}, "points per side are 0"),
        ({"masks_per_prompt": 2}, "1 or 3"),
        ({"nms": 1.5}, "nms is 1.5"),
        ({"predicted_iou": -0.1}, "predicted iou is -0.1"),
        ({"box_shares": (0.5, 2.0)}, "box share 2"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MaskSettings(**wrong)
