"""How far probabilities can be believed, and the temperature that makes them so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Case, Dataset
from sampeft.evaluation.score import read_case
from sampeft.metrics.calibration import Calibration, fit_temperature, sample_pixels
from sampeft.prediction.network import InferenceOptions
from sampeft.prediction.pipeline import predict_scenes
from sampeft.prediction.scene import SliceScene, WindowLogits
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.sinks import Sink

Array = npt.NDArray[Any]

PIXELS = 20_000  # of a slice: a share of all suffices, and costs little beside the network
AS_TRAINED = "as trained"


class _PixelSamples(Sink):
    """Hands on (logits (K, N), truth (N,)) of a sample of the pixels that the network sees of each slice; of what is cut into
    windows nothing."""

    def __init__(self, truth_SHW: Array, pixels: int, use: Callable[[Array, Array], None]) -> None:
        self.truth_SHW, self.pixels, self.use = truth_SHW, pixels, use

    def see_window(self, said: WindowLogits) -> None:
        scene, s = said.window.scene, said.window.index
        if not isinstance(scene, SliceScene):
            return
        assert said.logits_Khw is not None
        top, left, bottom, right = scene.frame.box
        truth = self.truth_SHW[s, top:bottom, left:right]
        logits = scene.frame.logits(said.logits_Khw).numpy()
        self.use(*sample_pixels(logits, truth, self.pixels, np.random.default_rng(s)))


@dataclass
class Readings:
    """Probabilities held against the truth.

    temperatures: reading -> what the logits are divided by. found: reading -> sums over a sample of the pixels seen so far.
    """

    temperatures: dict[str, float] = field(default_factory=lambda: {AS_TRAINED: 1.0})
    found: dict[str, Calibration] = field(default_factory=dict)

    def sink(self, truth_SHW: Array) -> Sink:
        """What reads the logits of a file with that truth."""
        return _PixelSamples(truth_SHW, PIXELS, self._add)

    def _add(self, logits_KN: Array, truth_N: Array) -> None:
        from scipy.special import softmax

        for reading, temperature in self.temperatures.items():
            found = Calibration.of(softmax(logits_KN / temperature, axis=0), truth_N)
            self.found[reading] = self.found[reading] + found if reading in self.found else found


def temperature_on(
    segmenter: Segmenter,
    dataset: Dataset,
    cases: Sequence[Case],
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """The temperature that fits a sample of the pixels of these cases best; never give the cases that are scored.

    Every slice lends equally many pixels, so that classes as rare as they are weigh as they do in the calibration.
    """
    logits: list[Array] = []
    truths: list[Array] = []

    def keep(logits_KN: Array, truth_N: Array) -> None:
        logits.append(logits_KN)
        truths.append(truth_N)

    options = InferenceOptions(batch=4, views=segmenter.shown, least_share=0.0)
    for done, case in enumerate(cases):
        for _, prepared, _, truth_SHW in read_case(dataset, case, segmenter.preparation):
            watched = [(SliceScene(prepared), [_PixelSamples(truth_SHW, PIXELS // 10, keep)])]
            for _ in predict_scenes(segmenter.model, watched, len(segmenter.labels), options):
                pass
        if progress:
            progress(done + 1, len(cases))
    return fit_temperature(np.concatenate(logits, axis=1), np.concatenate(truths))
