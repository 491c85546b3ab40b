"""Prompt the promptable model with boxes and points in pixels of a slice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import Features
from sampeft.data.slice_cache import PreparedVolume
from sampeft.errors import UsageError
from sampeft.model import SemanticSam
from sampeft.prediction.model_lock import lock_of


class Prompter:
    """Boxes and points in pixels of one slice -> mask logits (N, H, W) on its grid, far below 0 outside the box that the
    network sees. The slice is encoded once, when it is first asked for.

    adapted: with the trained adapter in place; else by the pretrained model, which knows any object.
    """

    def __init__(self, model: SemanticSam, prepared: PreparedVolume, index: int, adapted: bool = False) -> None:
        self.model, self.prepared, self.index, self.adapted = model, prepared, index, adapted
        self._features: Features | None = None

    def __call__(
        self,
        boxes: Sequence[Sequence[float]] = (),
        points: Sequence[Sequence[Sequence[float]]] = (),
    ) -> npt.NDArray[np.float32]:
        """boxes: (x0, y0, x1, y1) each. points: lists of (x, y, inside). With as many of both, each pair makes one mask.
        Raises UsageError for others."""
        if not (boxes or points) or (boxes and points and len(boxes) != len(points)):
            raise UsageError(f"give boxes, lists of points or as many of both, got {len(boxes)} and {len(points)}")
        device = next(self.model.parameters()).device
        frame = self.prepared.frame

        def placed(corners: Any) -> torch.Tensor:
            corners_N2 = np.asarray(corners, dtype=np.float64).reshape(-1, 2)
            return torch.from_numpy(frame.points(corners_N2)).float().to(device)

        prompt: dict[str, Any] = {}
        if boxes:
            prompt["boxes_BN4"] = placed(boxes).reshape(1, len(boxes), 4)
        if points:
            most = max(map(len, points))
            # -10 is the kind of a point that is only there to make lists equally long.
            full = np.array([[*map(tuple, p), *[(0, 0, -10)] * (most - len(p))] for p in points], dtype=np.float64)
            prompt["points_BNP2"] = placed(full[..., :2]).reshape(1, len(points), most, 2)
            prompt["point_labels_BNP"] = torch.from_numpy(full[..., 2]).to(torch.int32)[None].to(device)
        with lock_of(self.model), nullcontext() if self.adapted else self.model.original(), torch.inference_mode():
            if self._features is None:
                self._features = self.model.encode(self.prepared.image(self.index)[None].to(device))
            found = self.model.segment_prompted(features=self._features, **prompt)[0].float().cpu()
        logits_NHW = np.full((len(found), *frame.size), -32.0, dtype=np.float32)
        top, left, bottom, right = frame.box
        logits_NHW[:, top:bottom, left:right] = frame.logits(found).numpy()
        return logits_NHW
