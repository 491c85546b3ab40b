"""A model and labelled cases in, the temperature of its probabilities and how far they can be believed out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.data.cache import Preparation, PreparedVolume
from sampeft.data.case import Case, Dataset
from sampeft.data.check import read_labels
from sampeft.io import read_volume
from sampeft.metrics.calibration import Calibration, fit_temperature, sample_pixels
from sampeft.model import SemanticSam
from sampeft.prediction.inference import predict_slices, slice_logits
from sampeft.prediction.test_time import View
from sampeft.refine import Refiner

Array = npt.NDArray[Any]

PIXELS = 20_000  # of a slice: a share of all suffices, and costs little beside the network
AS_TRAINED = "as trained"


@dataclass
class CalibratedPredictor:
    """A predictor for `score_cases` that also holds its probabilities against the truth.

    temperatures: reading -> what the logits are divided by. found: reading -> sums over a sample of the pixels seen so
    far, inside the part of each slice that the network sees. refiner: what mends the class maps; it does not change the
    probabilities that are read. shown: the views of each slice that are averaged.
    """

    model: SemanticSam
    temperatures: dict[str, float] = field(default_factory=lambda: {AS_TRAINED: 1.0})
    found: dict[str, Calibration] = field(default_factory=dict)
    refiner: Refiner | None = None
    shown: Sequence[View] = (View(),)

    def __call__(self, prepared: PreparedVolume, truth_SHW: Array) -> Iterator[tuple[int, Array]]:
        from scipy.special import softmax

        top, left, bottom, right = prepared.frame.box

        def read(s: int, logits_Khw: torch.Tensor) -> None:
            truth = truth_SHW[s, top:bottom, left:right]
            logits_KN, truth_N = sample_pixels(logits_Khw.numpy(), truth, PIXELS, np.random.default_rng(s))
            for reading, temperature in self.temperatures.items():
                found = Calibration.of(softmax(logits_KN / temperature, axis=0), truth_N)
                self.found[reading] = self.found[reading] + found if reading in self.found else found

        yield from predict_slices(self.model.eval(), prepared, refiner=self.refiner, read=read, shown=self.shown)


def temperature_on(
    model: SemanticSam,
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    progress: Callable[[int, int], None] | None = None,
    shown: Sequence[View] = (View(),),
) -> float:
    """The temperature that fits a sample of the pixels of these cases best; never give the cases that are scored.

    Every slice lends equally many pixels, so that classes as rare as they are weigh as they do in the calibration.
    """
    logits, truths = [], []
    for done, case in enumerate(cases):
        for file in case.files:
            prepared = PreparedVolume.of(read_volume(file.image), preparation)
            truth_SHW = prepared.view.slices(read_labels(file, dataset, prepared.volume).array)
            top, left, bottom, right = prepared.frame.box
            for s, logits_Khw in slice_logits(model.eval(), prepared, shown=shown, least_share=0.0):
                truth = truth_SHW[s, top:bottom, left:right]
                sample = sample_pixels(
                    prepared.frame.logits(logits_Khw).numpy(), truth, PIXELS // 10, np.random.default_rng(s)
                )
                logits.append(sample[0])
                truths.append(sample[1])
        if progress:
            progress(done + 1, len(cases))
    return fit_temperature(np.concatenate(logits, axis=1), np.concatenate(truths))
