"""Calibration: values by hand, laws of sums, a known temperature found again, scikit-learn as oracle."""

from __future__ import annotations

import numpy as np
import pytest

from sampeft.metrics.calibration import Calibration, fit_temperature, sample_pixels
from sampeft.volume import IGNORE


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def test_by_hand() -> None:
    """Four pixels said to be class 1 with 0.75, two of them are: 25 points off; Brier (2 x 0.0625 + 2 x 0.5625) / 4."""
    probabilities = np.tile(np.array([0.25, 0.75])[:, None, None], (1, 2, 2))
    found = Calibration.of(probabilities, np.array([[1, 1], [0, 0]]), bins=4)
    assert found.ece == pytest.approx(0.25)
    assert found.ece_K == pytest.approx([0.25, 0.25])
    assert found.brier_K == pytest.approx([0.3125, 0.3125])
    confidence, share, n = found.reliability(1)
    assert (confidence[3], share[3], n.tolist()) == (0.75, 0.5, [0, 0, 0, 4])
    assert np.isnan(confidence[:3]).all()


def test_sure_and_right_is_perfect() -> None:
    truth = np.random.default_rng(0).integers(3, size=(8, 9))
    found = Calibration.of(np.eye(3)[truth].transpose(2, 0, 1), truth)
    assert (found.ece, found.brier_K.tolist()) == (0.0, [0.0, 0.0, 0.0])


def test_slices_add_up_and_ignored_pixels_do_not_count() -> None:
    generator = np.random.default_rng(1)
    probabilities = softmax(generator.normal(size=(4, 20, 10)))
    truth = generator.integers(4, size=(20, 10))
    truth[generator.random(truth.shape) < 0.3] = IGNORE
    whole = Calibration.of(probabilities, truth)
    parts = Calibration.zeros(4)
    for row in range(0, 20, 5):
        parts = parts + Calibration.of(probabilities[:, row : row + 5], truth[row : row + 5])
    assert parts.ece == pytest.approx(whole.ece, abs=1e-12)
    np.testing.assert_allclose(parts.brier_K, whole.brier_K, atol=1e-12)
    known = truth != IGNORE
    assert whole.top_n.sum() == known.sum()
    assert Calibration.of(probabilities[:, known][..., None], truth[known][:, None]).ece == pytest.approx(whole.ece)


def test_agrees_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn")
    calibration = pytest.importorskip("sklearn.calibration")
    metrics = pytest.importorskip("sklearn.metrics")
    assert sklearn.__version__
    generator = np.random.default_rng(2)
    probabilities, truth = softmax(generator.normal(size=(3, 40, 40))), generator.integers(3, size=(40, 40))
    found = Calibration.of(probabilities, truth, bins=10)
    for k in range(3):
        hit, values = (truth == k).ravel(), probabilities[k].ravel()
        assert found.brier_K[k] == pytest.approx(metrics.brier_score_loss(hit, values))
        share, confidence = calibration.calibration_curve(hit, values, n_bins=10)
        ours = found.reliability(k)
        np.testing.assert_allclose(ours[0][ours[2] > 0], confidence)
        np.testing.assert_allclose(ours[1][ours[2] > 0], share)


def test_a_known_temperature_is_found_and_calibrates() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(scale=2, size=(3, 200, 200))
    draws = generator.random((200, 200))
    truth = (draws > np.cumsum(softmax(logits), axis=0)[:2]).sum(axis=0)
    sharpened = 2.5 * logits
    chosen_logits, chosen_truth = sample_pixels(sharpened, truth, 20_000, generator)
    temperature = fit_temperature(chosen_logits, chosen_truth)
    assert temperature == pytest.approx(2.5, rel=0.05)
    before, after = (Calibration.of(softmax(sharpened / t), truth).ece for t in (1.0, temperature))
    assert after < 0.015 < before


def test_sampling_takes_only_pixels_with_a_truth() -> None:
    truth = np.full((6, 6), IGNORE)
    truth[2, 3], truth[4, 1] = 1, 0
    logits = np.arange(72.0).reshape(2, 6, 6)
    values, channels = sample_pixels(logits, truth, 10, np.random.default_rng(0))
    assert channels.tolist() == [1, 0]
    np.testing.assert_array_equal(values, [[15, 25], [51, 61]])
    with pytest.raises(ValueError, match="no pixel"):
        fit_temperature(values, np.full(2, IGNORE))


def test_logits_and_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="give softmax"):
        Calibration.of(np.full((2, 2, 2), 3.0), np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="differ in size"):
        Calibration.of(np.full((2, 2, 2), 0.5), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="cannot add"):
        Calibration.zeros(2) + Calibration.zeros(3)
