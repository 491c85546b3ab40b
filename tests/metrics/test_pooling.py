"""Folds side by side and seeds averaged: numbers worked by hand, and nothing of one case in two places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabricate.evaluations import PIXELS, evaluation_of
from sampeft.errors import DataError
from sampeft.metrics.pooling import AVERAGED, mean_over_seeds, pooled

NAN = float("nan")


def test_folds_side_by_side_are_the_evaluation_of_all_cases() -> None:
    scores = np.random.default_rng(0).integers(0, 1000, (11, 2)) / 1000
    names = [f"case_{n}" for n in range(11)]
    whole = evaluation_of(scores, names, {"hd95_mm": scores * 9}, protocol="default", model="rank 4")
    folds = [
        evaluation_of(scores[n::3], names[n::3], {"hd95_mm": scores[n::3] * 9}, protocol="default", model=f"run {n}")
        for n in range(3)
    ]
    found = pooled(folds, model="rank 4")
    assert set(found.cases) == set(names)
    assert found.headline() == whole.headline()
    assert found.headline("hd95_mm") == whole.headline("hd95_mm")
    assert found.meta == {"protocol": "default", "model": "rank 4"}  # `run 0` is said by one fold alone


def test_a_case_in_two_folds_and_other_classes_are_refused() -> None:
    fold = evaluation_of([[0.5, 0.5]], ["P01"])
    with pytest.raises(DataError, match="case P01 was scored in two folds"):
        pooled([fold, fold])
    with pytest.raises(DataError, match="folds have other classes"):
        pooled([fold, evaluation_of([[0.5, 0.5]], ["P02"], classes=("liver", "spleen"))])


def test_seeds_are_averaged_case_by_case_by_hand() -> None:
    first = evaluation_of([[0.2, 0.4], [0.6, NAN]], ["a", "b"], {"hd95_mm": [[1.0, 3.0], [2.0, NAN]]}, seed=0, data="x")
    second = evaluation_of(
        [[0.8, NAN], [0.4, 0.8]], ["b", "a"], {"hd95_mm": [[4.0, 5.0], [np.inf, 1.0]]}, seed=1, data="x"
    )
    mean = mean_over_seeds([first, second], seeds="0, 1")
    np.testing.assert_allclose(mean.matrix()[:, 1:], [[0.3, 0.6], [0.7, NAN]])
    np.testing.assert_allclose(mean.matrix("hd95_mm")[:, 1:], [[np.inf, 2.0], [3.0, 5.0]])
    assert mean.headline().mean == pytest.approx(((0.3 + 0.7) / 2 + 0.6) / 2)
    # IoU is averaged itself, not made of averaged counts: DSC 0.2 and 0.4 are IoU 0.2 / 1.8 and 0.4 / 1.6.
    assert mean.matrix("iou")[0, 1] == pytest.approx((0.2 / 1.8 + 0.4 / 1.6) / 2)
    assert mean.meta == {"data": "x", AVERAGED: 2, "seeds": "0, 1"}


def test_the_truth_stays_and_one_find_among_the_seeds_is_a_find() -> None:
    never, once = evaluation_of([[0.0]], ["a"]), evaluation_of([[0.001]], ["a"])
    found = mean_over_seeds([never, never, once])
    assert found.counts["a"].truth[1] == PIXELS
    assert found.missed() == {"organ_1": []}
    assert mean_over_seeds([never, never]).missed() == {"organ_1": ["a"]}


def test_one_seed_is_itself_and_equal_seeds_have_its_scores() -> None:
    one = evaluation_of(np.linspace(0.1, 0.9, 12).round(3)[:, None], protocol="default")
    assert mean_over_seeds([one], model="m").counts is one.counts
    twice = mean_over_seeds([one, one])
    assert twice.headline().mean == pytest.approx(one.headline().mean)
    assert twice.headline().low == pytest.approx(one.headline().low)
    assert twice.counts == one.counts


def test_other_cases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="other cases or classes"):
        mean_over_seeds([evaluation_of([[0.5]], ["a"]), evaluation_of([[0.5]], ["b"])])
