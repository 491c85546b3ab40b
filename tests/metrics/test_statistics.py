"""Laws of the bootstrap over cases: exact means, width, coverage, determinism, too few cases."""

from __future__ import annotations

import numpy as np
import pytest

from sampeft.metrics import statistics as module
from sampeft.metrics.statistics import bootstrap_interval, bootstrap_per_class

NAN = np.nan


def test_mean_over_classes_of_the_mean_over_cases() -> None:
    values = np.array([[1.0, 0.0, NAN], [0.5, NAN, NAN], [0.0, NAN, NAN], [NAN, NAN, NAN]])
    found = bootstrap_interval(values)
    assert found.mean == 0.25  # classes 0.5 and 0.0; not 0.375, the mean of the four values
    assert found.n == 3
    assert [(c.mean, c.n) for c in bootstrap_per_class(values)[:2]] == [(0.5, 3), (0.0, 1)]
    nothing = bootstrap_per_class(values)[2]
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    assert nothing.n == 0


def test_two_cases_by_hand() -> None:
    """Of two cases 0 and 1 a resample's mean is 0, 1/2 or 1 with chance 1/4, 1/2, 1/4."""
    values = np.array([[0.0], [1.0]])
    assert (bootstrap_interval(values).low, bootstrap_interval(values).high) == (0.0, 1.0)
    half = bootstrap_interval(values, level=0.4)  # 30 % .. 70 %
    assert (half.low, half.high) == (0.5, 0.5)


def test_constant_scores_have_no_width() -> None:
    found = bootstrap_interval(np.full((7, 3), 0.7))
    assert [found.mean, found.low, found.high] == pytest.approx([0.7] * 3, abs=1e-12)


def test_one_case_has_no_interval() -> None:
    found = bootstrap_interval(np.array([[0.4, 0.8], [NAN, NAN]]))
    assert found.mean == pytest.approx(0.6)
    assert np.isnan([found.low, found.high]).all()
    assert (found.n, found.too_few) == (1, True)
    assert np.isnan(bootstrap_interval(np.empty((0, 3))).mean)


def test_few_cases_are_flagged() -> None:
    assert [bootstrap_interval(np.random.rand(n, 2)).too_few for n in (2, 4, 5, 30)] == [True, True, False, False]


def test_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((11, 4))
    first = bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) == first
    assert bootstrap_interval(values, seed=4) != first
    monkeypatch.setattr(module, "_DRAWS_AT_ONCE", 1000)  # in parts
    assert bootstrap_interval(values, seed=3) == first


def test_cases_stay_whole() -> None:
    """Two classes that always sum to 1 within a case: their mean cannot vary, whatever cases are drawn."""
    first = np.random.default_rng(0).random((9, 1))
    found = bootstrap_interval(np.hstack([first, 1 - first]))
    assert found.low == pytest.approx(found.high, abs=1e-12)


def test_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        values = generator.beta(4, 2, size=(30, 3))  # mean 2/3
        found = bootstrap_interval(values, n_resamples=800)
        hits += found.low <= 2 / 3 <= found.high
    assert 0.90 <= hits / 400 <= 0.98


def test_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).random(25)
    ours = bootstrap_interval(values[:, None], n_resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=3e-3)


def test_infinite_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="infinite"):
        bootstrap_interval(np.array([[np.inf]]))
