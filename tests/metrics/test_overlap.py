"""The policy for classes that are absent (case D30), values by hand, and other libraries as oracles."""

from __future__ import annotations

import numpy as np
import pytest

from sampeft.metrics import METRICS, counted
from sampeft.metrics.counts import count


def pair(truth: int, prediction: int, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    """(prediction, truth) of 64 pixels whose class 1 has so many pixels."""
    true, predicted = np.zeros(64, int), np.zeros(64, int)
    true[:truth] = 1
    predicted[truth - overlap : truth - overlap + prediction] = 1
    return predicted, true


def test_values_worked_by_hand() -> None:
    counts = count(*pair(truth=10, prediction=6, overlap=4), 2)
    assert counted()["dsc"](counts)[1] == 8 / 16
    assert counted()["iou"](counts)[1] == 4 / 12
    assert counted()["precision"](counts)[1] == 4 / 6
    assert counted()["sensitivity"](counts)[1] == 4 / 10


@pytest.mark.parametrize("metric", counted())
def test_d30_absent_classes(metric: str) -> None:
    score = counted()[metric]
    worst, best = METRICS[metric].bounds if METRICS[metric].better == "higher" else METRICS[metric].bounds[::-1]
    assert np.isnan(score(count(*pair(0, 0, 0), 2))[1])  # in neither: no score
    assert score(count(*pair(8, 0, 0), 2))[1] == worst  # missed
    assert score(count(*pair(0, 8, 0), 2))[1] == worst  # falsely found
    assert score(count(*pair(8, 8, 8), 2))[1] == best


def test_dice_and_iou_obey_their_identity() -> None:
    truth, prediction = np.random.default_rng(3).integers(6, size=(2, 500))
    counts = count(prediction, truth, 6)
    dsc, iou = counted()["dsc"](counts), counted()["iou"](counts)
    np.testing.assert_allclose(iou, dsc / (2 - dsc), rtol=1e-12)
    np.testing.assert_allclose(
        dsc, 2 / (1 / counted()["precision"](counts) + 1 / counted()["sensitivity"](counts)), rtol=1e-12
    )


def test_agrees_with_scipy() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    truth, prediction = np.random.default_rng(4).integers(4, size=(2, 200))
    counts = count(prediction, truth, 4)
    for k in range(4):
        assert counted()["dsc"](counts)[k] == pytest.approx(1 - distance.dice(truth == k, prediction == k), rel=1e-12)
        assert counted()["iou"](counts)[k] == pytest.approx(
            1 - distance.jaccard(truth == k, prediction == k), rel=1e-12
        )


def test_agrees_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, prediction = np.random.default_rng(5).integers(5, size=(2, 300))
    truth[truth == 3] = 0  # class 3 only predicted
    prediction[prediction == 4] = 0  # class 4 only in the truth
    counts = count(prediction, truth, 5)
    options = {"labels": range(5), "average": None, "zero_division": 0}
    np.testing.assert_allclose(counted()["dsc"](counts), sklearn.f1_score(truth, prediction, **options))
    np.testing.assert_allclose(counted()["iou"](counts), sklearn.jaccard_score(truth, prediction, **options))
    np.testing.assert_allclose(counted()["precision"](counts), sklearn.precision_score(truth, prediction, **options))
    np.testing.assert_allclose(counted()["sensitivity"](counts), sklearn.recall_score(truth, prediction, **options))
