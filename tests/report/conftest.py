"""Two small evaluations of the same cases, an oracle among them, and slices to show."""

from __future__ import annotations

import numpy as np
import pytest

from sampeft.labels import LabelSet
from sampeft.metrics.calibration import Calibration
from sampeft.metrics.counts import Counts
from sampeft.metrics.measures import VOLUME, Measures
from sampeft.metrics.scores import Evaluation
from sampeft.report.figures import Example
from sampeft.volume import IGNORE

NAMES = ("background", "liver & <portal> vein", "missed", "stray", "absent")


def evaluation(tp: list[int], **meta: object) -> Evaluation:
    """Cases in which class 1 has so many true positives of 10 and as many errors of either kind as are left."""
    labels = LabelSet(NAMES, (0, 10, 20, 30, 40), ignore=255)
    counts = {}
    for i, hit in enumerate(tp):
        fp, fn = [0, 10 - hit, 0, 3 if i == 1 else 0, 0], [0, 10 - hit, 5, 0, 0]
        counts[f"case_{i}"] = Counts(*(np.array(v, dtype=np.int64) for v in ([90, hit, 0, 0, 0], fp, fn)))
    return Evaluation(counts, labels, dict(meta))


@pytest.fixture
def evaluations() -> dict[str, Evaluation]:
    return {
        "LoRA r=4": evaluation([8, 6, 7, 9, 5, 8], protocol="default", data="toy", split="test"),
        "boxes": evaluation([9, 9, 9, 9, 9, 9], oracle=True),
    }


@pytest.fixture
def labels(evaluations: dict[str, Evaluation]) -> LabelSet:
    return evaluations["LoRA r=4"].labels


@pytest.fixture
def example() -> Example:
    """30 x 40 pixels: class 1 at the left edge in the truth, class 2 only predicted, a column without a truth."""
    image = np.random.default_rng(0).random((30, 40)).astype(np.float32)
    truth, prediction = np.zeros((30, 40), np.int16), np.zeros((30, 40), np.int16)
    truth[5:25, 0:10] = 1
    truth[:, 39] = IGNORE
    prediction[8:28, 2:10] = 1
    prediction[2:4, 20:24] = 2
    return Example("case_0", "best case case_0", image, truth, {"LoRA r=4": prediction}, 0.8)


@pytest.fixture
def measured() -> Evaluation:
    """Twelve cases with surfaces, volumes and probabilities.

    Case i: of the organ's 100 pixels (100 + i ml) 80 + i are found, HD95 is i mm; of the node's 10 pixels (1 + i / 10 ml)
    9, HD95 is 20 + i mm; of case 3's node nothing. Of 100 pixels whose most probable class has 0.9 and of another 100
    with 0.6 the model is right in 80 and 50.
    """
    labels = LabelSet(("background", "big_organ", "node"), (0, 1, 2))
    counts, measures = {}, {}
    for i in range(12):
        node = 0 if i == 3 else 9
        tp, missing = np.array([1000, 80 + i, node]), np.array([0, 20 - i, 10 - node])
        counts[f"p{i:02}"] = Counts(tp, np.zeros(3, np.int64), missing)
        hd95 = np.array([np.nan, i, np.inf if i == 3 else 20 + i], dtype=np.float64)
        nsd = np.array([np.nan, 0.95, 0.0 if i == 3 else 0.75])
        measures[f"p{i:02}"] = Measures({"nsd": nsd, "hd95_mm": hd95, VOLUME: np.array([9.0, 100 + i, 1 + i / 10])})
    found = Calibration.zeros(3, 10)
    found.top_n[[6, 9]] = 100
    found.top_confidence[[6, 9]] = 60, 90
    found.top_hits[[6, 9]] = 50, 80
    found.n[2, 0], found.confidence[2, 0], found.hits[2, 0], found.squares[2] = 200, 10, 2, 5
    return Evaluation(counts, labels, {"model": "LoRA", "data": "toy"}, measures, {"as trained": found})
