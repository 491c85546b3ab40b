"""Prompt a slice of a prediction with boxes and points; few slices are kept encoded."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from http import HTTPStatus

import numpy as np
import numpy.typing as npt

from sampeft.data.slice_cache import PreparedVolume
from sampeft.io import read_volume
from sampeft.prediction.prompting import Prompter
from sampeft.prediction.segmenter import Segmenter
from sampeft.viewer.errors import RequestError
from sampeft.viewer.predictions import Prediction

_MOST_IMAGES, _MOST_SLICES = 2, 16


class Prompts:
    """Images and encoded slices that were used last; they go one by one as others are needed."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, PreparedVolume] = OrderedDict()
        self._slices: OrderedDict[tuple[str, int, bool], Prompter] = OrderedDict()
        self._lock = threading.Lock()

    def mask(
        self,
        prediction: Prediction,
        segmenter: Segmenter,
        s: int,
        boxes: Sequence[Sequence[float]],
        points: Sequence[Sequence[Sequence[float]]],
        adapted: bool = False,
    ) -> tuple[npt.NDArray[np.bool_], float]:
        """(H, W) union of the masks of all prompts, and the milliseconds that the network took.

        Raises RequestError (422) for a slice that is not there, UsageError for prompts that do not go together.
        """
        found, _ = prediction.done()
        if not 0 <= s < found.slices:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, f"the image has slices 0..{found.slices - 1}, not {s}")
        with self._lock:  # the network serves one at a time anyway
            prompter = self._prompter(prediction, segmenter, s, adapted)
            started = time.perf_counter()
            logits_NHW = prompter(boxes, points)
            mask_HW: npt.NDArray[np.bool_] = np.any(logits_NHW > 0, axis=0)
            return mask_HW, 1000 * (time.perf_counter() - started)

    def forget(self, id: str) -> None:
        """Drop what is kept of a prediction."""
        with self._lock:
            self._drop(id)

    def _prompter(self, prediction: Prediction, segmenter: Segmenter, s: int, adapted: bool) -> Prompter:
        key = prediction.id, s, adapted
        if prediction.id not in self._images:
            while len(self._images) >= _MOST_IMAGES:
                self._drop(next(iter(self._images)))
            volume = read_volume(prediction.source.path)
            self._images[prediction.id] = PreparedVolume.of(volume, segmenter.preparation, quiet=True)
        self._images.move_to_end(prediction.id)
        if key not in self._slices:
            self._slices[key] = Prompter(segmenter.model, self._images[prediction.id], s, adapted)
        self._slices.move_to_end(key)
        while len(self._slices) > _MOST_SLICES:
            self._slices.popitem(last=False)
        return self._slices[key]

    def _drop(self, id: str) -> None:
        self._images.pop(id, None)
        for key in [key for key in self._slices if key[0] == id]:
            del self._slices[key]
