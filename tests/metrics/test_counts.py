"""Counts worked by hand, and the laws that let slices and files be pooled."""

from __future__ import annotations

import numpy as np
import pytest

from sampeft.metrics import counts as module
from sampeft.metrics.counts import Counts, class_boxes, count, count_in_boxes, used_box
from sampeft.volume import IGNORE


def test_counts_worked_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [2, 2, 2, 0]])
    prediction = np.array([[0, 1, 1, 1], [2, 0, 1, 0]])
    found = count(prediction, truth, 4)
    assert found.tp.tolist() == [2, 2, 1, 0]
    assert found.fp.tolist() == [1, 2, 0, 0]
    assert found.fn.tolist() == [1, 0, 2, 0]
    assert found.truth.tolist() == [3, 2, 3, 0]
    assert found.prediction.tolist() == [3, 4, 1, 0]


def test_pixels_without_a_truth_change_nothing() -> None:
    generator = np.random.default_rng(0)
    truth, prediction = generator.integers(3, size=(2, 20, 20))
    ignored = generator.random((20, 20)) < 0.3
    counted = count(prediction, np.where(ignored, IGNORE, truth), 3)
    assert counted == count(prediction[~ignored], truth[~ignored], 3)
    scrambled = np.where(ignored, (prediction + 1) % 3, prediction)
    assert counted == count(scrambled, np.where(ignored, IGNORE, truth), 3)


def test_pooling_slices_is_counting_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(5, size=(6, 9, 7)).astype(np.int16)
    prediction = generator.integers(5, size=(6, 9, 7)).astype(np.uint8)
    total = Counts.zeros(5)
    for s in range(6):
        total = total + count(prediction[s], truth[s], 5)
    whole = count(prediction, truth, 5)
    assert total == whole
    monkeypatch.setattr(module, "_PIXELS_AT_ONCE", 10)  # in parts
    assert count(prediction, truth, 5) == whole
    assert count(prediction.transpose(2, 0, 1), truth.transpose(2, 0, 1), 5) == whole


@pytest.mark.parametrize("classes", [3, 16, 40])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_counting_in_boxes_is_counting(classes: int, dtype: type) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    generator = np.random.default_rng(classes)
    truth, prediction = np.zeros((2, 11, 12, 13), dtype=dtype)
    truth[2:8, 1:9, 3:7] = generator.integers(classes, size=(6, 8, 4))
    prediction[3:9, 1:9, 2:12] = generator.integers(classes, size=(6, 8, 10))
    prediction[prediction == classes // 2] = 0
    truth[truth == classes // 2] = 0  # a class without a pixel
    if dtype == np.int16:
        truth[0, 5:9], prediction[10, 0, :3] = IGNORE, IGNORE
    assert used_box(truth, prediction) == ndimage.find_objects(((truth != 0) | (prediction != 0)).astype(int))[0]
    boxes = class_boxes((prediction, truth), classes)
    assert count_in_boxes(prediction, truth, boxes) == count(prediction, truth, classes)
    for k, box in enumerate(boxes):
        expected = ndimage.find_objects(((truth == k) | (prediction == k)).astype(int))
        assert box == (expected[0] if expected else (slice(0, 0),) * 3)


def test_predicting_nothing_is_a_miss() -> None:
    found = count(np.array([IGNORE, 1]), np.array([1, 1]), 2)
    assert (found.tp.tolist(), found.fp.tolist(), found.fn.tolist()) == ([0, 1], [0, 0], [0, 1])


@pytest.mark.parametrize(
    ("prediction", "truth", "said"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"\(2, 3\) and truth \(3, 2\)"),
        (np.array([0, 4]), np.array([0, 0]), "prediction holds channel 4, expected 0..3"),
        (np.array([0, 0]), np.array([0, 3]), "truth holds channel 3, expected 0..2"),
        (np.array([-1, 0]), np.array([0, 0]), "prediction holds channel -1"),
    ],
)
def test_what_cannot_be_counted_is_refused(prediction: np.ndarray, truth: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        count(prediction, truth, 3)
    if prediction.shape == truth.shape:
        with pytest.raises(ValueError, match=said.replace("expected 0..3", "expected 0..2")):
            count_in_boxes(prediction, truth, [(slice(None),) * truth.ndim] * 3)


def test_counts_of_other_classes_do_not_add() -> None:
    with pytest.raises(ValueError, match="3 and 4 classes"):
        Counts.zeros(3) + Counts.zeros(4)
