"""Land cover's figures: a matrix worked by hand, scikit-learn as oracle."""

from __future__ import annotations

import numpy as np
import pytest

from sampeft.metrics.counts import Counts, count
from sampeft.metrics.landcover import land_cover


def test_by_hand() -> None:
    """True x predicted [[4, 1], [1, 4]]: accuracy 0.8, chance 0.5, kappa 0.6, IoU 4/6, F1 0.8."""
    truth, prediction = np.repeat([0, 0, 1, 1], [4, 1, 1, 4]), np.repeat([0, 1, 0, 1], [4, 1, 1, 4])
    found = land_cover(count(prediction, truth, 2))
    assert [found.overall_accuracy, found.kappa, found.mean_iou, found.mean_f1] == pytest.approx([0.8, 0.6, 4 / 6, 0.8])


def test_agrees_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, prediction = np.random.default_rng(0).integers(5, size=(2, 500))
    prediction[::2] = truth[::2]
    found = land_cover(count(prediction, truth, 7))  # two classes never occur
    assert found.overall_accuracy == pytest.approx(sklearn.accuracy_score(truth, prediction))
    assert found.kappa == pytest.approx(sklearn.cohen_kappa_score(truth, prediction))
    assert found.mean_iou == pytest.approx(sklearn.jaccard_score(truth, prediction, average="macro"))
    assert found.mean_f1 == pytest.approx(sklearn.f1_score(truth, prediction, average="macro"))
    some = land_cover(count(prediction, truth, 7), [1, 2])
    assert some.mean_f1 == pytest.approx(sklearn.f1_score(truth, prediction, average="macro", labels=[1, 2]))


def test_pixels_without_a_class_are_wrong_and_none_give_no_score() -> None:
    assert land_cover(count(np.array([-100, 1]), np.array([1, 1]), 2)).overall_accuracy == 0.5
    assert np.isnan(land_cover(Counts.zeros(3)).kappa)
    assert land_cover(count(np.zeros(4, int), np.zeros(4, int), 1)).kappa == 1.0
