"""Two small evaluations of the same cases, an oracle among them, and slices to show."""

from __future__ import annotations

import numpy as np
import pytest

from sampeft.labels import LabelSet
from sampeft.metrics.counts import Counts
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
