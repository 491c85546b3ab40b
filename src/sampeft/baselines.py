"""Baselines that cost seconds, for classes that fill whole pictures: what a model must beat to be worth its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Case, Dataset
from sampeft.data.slice_cache import Preparation, PreparedVolume
from sampeft.evaluation.score import Predictor, read_case

Array = npt.NDArray[Any]
_RIDGE = 1.0  # weight of the penalty, on standardised statistics
_SCALES = (1, 2, 4, 8)  # pixels over which differences of neighbours are taken


@dataclass(frozen=True)
class Baseline:
    """fit: (data set, training cases, preparation) -> a predictor. is_oracle: whether that looks at the truth it is scored
    by."""

    about: str
    fit: Callable[[Dataset, Sequence[Case], Preparation], Predictor]
    is_oracle: bool = False


def majority(dataset: Dataset, cases: Sequence[Case], preparation: Preparation) -> Predictor:
    """Each picture is of the class that most of its pixels have in truth: the most that one class a picture can reach."""

    def predict(prepared: PreparedVolume, truth_SHW: Array) -> Array:
        found_SHW = np.zeros(truth_SHW.shape, dtype=np.uint8)
        for found_HW, truth_HW in zip(found_SHW, truth_SHW, strict=True):
            known = truth_HW[truth_HW >= 0]
            found_HW[:] = np.bincount(known).argmax() if known.size else 0
        return found_SHW

    return predict


def ridge(dataset: Dataset, cases: Sequence[Case], preparation: Preparation) -> Predictor:
    """Each picture is of the class whose share a ridge regression on the picture's statistics of colour and texture puts
    highest. Nothing is tuned."""
    rows, shares = [], []
    for case in cases:
        for _, prepared, _, truth_SHW in read_case(dataset, case, preparation):
            for s, truth_HW in enumerate(truth_SHW):
                known = truth_HW[truth_HW >= 0]
                if known.size:
                    rows.append(statistics(prepared, s))
                    shares.append(np.bincount(known, minlength=len(dataset.labels)) / known.size)
    x_ND, y_NK = np.stack(rows), np.stack(shares)
    mean_D, spread_D, base_K = x_ND.mean(axis=0), x_ND.std(axis=0) + 1e-9, y_NK.mean(axis=0)
    z_ND = (x_ND - mean_D) / spread_D
    weights_DK = np.linalg.solve(z_ND.T @ z_ND + _RIDGE * np.eye(z_ND.shape[1]), z_ND.T @ (y_NK - base_K))

    def predict(prepared: PreparedVolume, truth_SHW: Array) -> Array:
        found_SHW = np.zeros(truth_SHW.shape, dtype=np.uint8)
        for s, found_HW in enumerate(found_SHW):
            found_HW[:] = (base_K + (statistics(prepared, s) - mean_D) / spread_D @ weights_DK).argmax()
        return found_SHW

    return predict


def statistics(prepared: PreparedVolume, s: int) -> npt.NDArray[np.float64]:
    """Of a slice as the network would see it, for each channel: mean, deviation, the deciles 1, 5 and 9, and the mean
    absolute difference of pixels 1, 2, 4 and 8 apart; then the correlations of the channels."""
    image_CHW = prepared.image(s).numpy().astype(np.float64)
    found: list[float] = []
    for channel_HW in image_CHW:
        found += [channel_HW.mean(), channel_HW.std(), *np.quantile(channel_HW, (0.1, 0.5, 0.9))]
        for scale in _SCALES:
            down = np.abs(channel_HW[scale:] - channel_HW[:-scale]).mean()
            across = np.abs(channel_HW[:, scale:] - channel_HW[:, :-scale]).mean()
            found.append((down + across) / 2)
    flat = image_CHW.reshape(len(image_CHW), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1) + 1e-9
    found += [float(flat[i] @ flat[j] / (norms[i] * norms[j])) for i in range(len(flat)) for j in range(i)]
    return np.array(found)


BASELINES: dict[str, Baseline] = {
    "majority": Baseline("the most frequent true class of each picture", majority, is_oracle=True),
    "ridge": Baseline("ridge regression on statistics of colour and texture", ridge),
}
