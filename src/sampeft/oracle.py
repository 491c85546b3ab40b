"""The zero-shot upper bound: the truth's own boxes prompt the pretrained model. Always to be labelled as an oracle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.data.cache import PreparedVolume
from sampeft.evaluation import Predictor
from sampeft.model import SemanticSam

NAME = "truth's boxes, zero-shot"


def boxes_of(channels_HW: npt.NDArray[Any], classes: tuple[int, ...]) -> dict[int, tuple[int, int, int, int]]:
    """Class -> (x0, y0, x1, y1), the box of all its pixels, last pixel included."""
    found = {}
    for k in classes:
        rows, columns = np.nonzero(channels_HW == k)
        if len(rows):
            found[k] = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))
    return found


def box_oracle(model: SemanticSam) -> Predictor:
    """A predictor: per slice and class one box round the class's pixels; where masks overlap, the surest wins.

    Classes that the truth does not hold are never predicted, which no automatic model can know.
    """

    def predict(prepared: PreparedVolume, truth_SHW: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        device = next(model.parameters()).device
        for s in range(len(prepared)):
            boxes = boxes_of(truth_SHW[s], model.labels.foreground)
            if not boxes:
                yield s, np.zeros(truth_SHW.shape[1:], dtype=np.uint8)
                continue
            # From the outer edge of the first pixel to that of the last.
            outer = np.array([-0.5, -0.5, 0.5, 0.5])
            corners = (np.array(list(boxes.values())) + outer).reshape(-1, 2)
            placed = torch.from_numpy(prepared.frame.points(corners).reshape(1, -1, 4)).float().to(device)
            with model.original(), torch.inference_mode():
                masks = model.segment_prompted(prepared.image(s)[None].to(device), boxes_BN4=placed)[0].float().cpu()
            background = torch.zeros_like(masks[:1])  # a mask covers where its logit is above 0
            surest = prepared.frame.class_map(torch.cat([background, masks]))
            yield s, np.array([0, *boxes], dtype=np.uint8)[surest]

    return predict
