"""Small targets by SIRST's definitions: centroid distances, corners, one partner each, false pixels."""

from __future__ import annotations

import numpy as np
import pytest

from sampeft.labels import LabelSet
from sampeft.metrics.protocols import PROTOCOLS
from sampeft.metrics.targets import TargetCounts, count_targets


def picture(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(40, 50) with boxes of rows and columns."""
    mask = np.zeros((40, 50), dtype=bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_counts_by_hand() -> None:
    """Two targets, the first found 2 pixels off, the second missed; a false one of 6 pixels."""
    truth = picture((5, 8, 5, 8), (20, 22, 20, 22))
    prediction = picture((5, 8, 7, 10), (30, 32, 40, 43))
    found = count_targets(prediction, truth)
    assert found == TargetCounts(targets=2, found=1, false_targets=1, false_pixels=6, pixels=2000)
    assert (found.pd, found.fa) == (0.5, 6 / 2000)


@pytest.mark.parametrize(("shift", "hit"), [(2, 1), (3, 0)])
def test_centroids_must_be_less_than_3_pixels_apart(shift: int, hit: int) -> None:
    found = count_targets(picture((5, 6, 5 + shift, 6 + shift)), picture((5, 6, 5, 6)))
    assert (found.found, found.false_targets) == (hit, 1 - hit)


def test_pixels_that_touch_by_a_corner_are_one_target() -> None:
    assert count_targets(picture(), picture((5, 7, 5, 7), (7, 9, 7, 9))).targets == 1
    assert count_targets(picture(), picture((5, 7, 5, 7), (8, 9, 7, 9))).targets == 2


def test_a_prediction_finds_one_target_only_and_most_pairs_are_made() -> None:
    """Targets at columns 10 and 14; a prediction at 12 reaches both, one at 16 the second only: both are found."""
    truth = picture((5, 6, 10, 11), (5, 6, 14, 15))
    assert count_targets(picture((5, 6, 12, 13)), truth).found == 1
    assert count_targets(picture((5, 6, 12, 13), (5, 6, 16, 17)), truth).found == 2
    assert count_targets(picture((5, 6, 8, 9), (5, 6, 12, 13)), truth).found == 2


def test_nothing_predicted_and_nothing_there() -> None:
    assert count_targets(picture(), picture()) == TargetCounts(pixels=2000)
    assert np.isnan(count_targets(picture(), picture()).pd)
    assert count_targets(picture(), picture((1, 2, 1, 2))).pd == 0.0
    assert np.isnan(TargetCounts().fa)


def test_ignored_pixels_count_for_nothing() -> None:
    ignored = picture((0, 40, 25, 50))
    found = count_targets(picture((5, 8, 30, 33)), picture((20, 22, 20, 22), (1, 3, 40, 42)), ignored)
    assert found == TargetCounts(targets=1, pixels=1000)


def test_images_add_up() -> None:
    one = count_targets(picture((5, 6, 5, 6)), picture((5, 6, 5, 6), (20, 22, 20, 22)))
    assert (one + one).pd == one.pd == 0.5
    assert (one + one).targets == 4


def test_volumes_are_refused() -> None:
    with pytest.raises(ValueError, match="pictures of equal size"):
        count_targets(np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool))


def test_targets_256_scores_on_a_square_of_256_pixels() -> None:
    """A picture of 512 x 128: a target 8 pixels tall and 2 wide is 4 x 4 there."""
    truth = np.zeros((512, 128, 1), dtype=np.int16)
    truth[100:108, 40:42] = 1
    labels = LabelSet(("background", "target"), (0, 1))
    scored = PROTOCOLS["targets-256"].score(truth, truth, (1, 1, 1), labels, "px")
    assert scored.counts.truth.sum() == 256 * 256
    assert scored.counts.tp[1] == 16
    assert scored.measures["pixels"][1] == 256 * 256
