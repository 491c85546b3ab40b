"""Paired tests: values by hand, scipy and statsmodels as oracles, what too few cases cannot show, and rankings."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sampeft.metrics.paired import (
    groups_not_told_apart,
    holm,
    mean_ranks,
    misses_as_worst,
    paired_tests,
    ranking,
    signed_rank_p,
)

NAN = np.nan


def test_exact_p_by_hand() -> None:
    assert signed_rank_p(np.array([1.0, 2.0, 3.0])) == 2 / 8  # all signs alike: 2 of 8
    assert signed_rank_p(np.array([-1.0, 2.0, 3.0])) == 4 / 8  # rank sum 1 or less: 2 of 8, and its mirror
    assert signed_rank_p(np.array([0.0, 0.0])) == 1.0


def test_exact_p_with_ties_counts_every_choice_of_signs() -> None:
    stats = pytest.importorskip("scipy.stats")
    differences = np.array([1.0, 1.0, -1.0, 2.0, 2.0, 3.0, -4.0, 0.0])
    used = differences[differences != 0]
    ranks = stats.rankdata(np.abs(used))
    sums = np.array([ranks @ signs for signs in product((0, 1), repeat=len(used))])
    seen = ranks[used > 0].sum()
    expected = min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))
    assert signed_rank_p(differences) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [5, 12, 40, 80])
def test_equal_to_scipy_and_statsmodels(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    generator = np.random.default_rng(n)
    a = generator.random((n, 6))
    b = a + generator.normal(np.linspace(0, 0.1, 6), 0.1, (n, 6))
    ours = paired_tests(a, b)
    raw = [stats.wilcoxon(a[:, k], b[:, k]).pvalue for k in range(6)]
    np.testing.assert_allclose([t.p for t in ours], raw, rtol=1e-9)
    np.testing.assert_allclose([t.p_holm for t in ours], multitest.multipletests(raw, method="holm")[1], rtol=1e-9)


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, NAN, 0.04, 0.03]), [0.03, NAN, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])


def test_effect_by_hand() -> None:
    """Differences 1, 2, -3, 0: ranks 1 + 2 for a, 3 for b, of 6."""
    a, b = np.array([[1.0], [2.0], [0.0], [5.0]]), np.array([[0.0], [0.0], [3.0], [5.0]])
    (found,) = paired_tests(a, b)
    assert (found.n, found.n_equal, found.effect, found.difference) == (4, 1, 0.0, 0.0)
    (won,) = paired_tests(b + 1, b)
    assert (won.effect, won.difference) == (1.0, 1.0)
    (lost,) = paired_tests(b, b + 1)
    assert lost.effect == -1.0


def test_too_few_pairs_are_said_to_be_too_few() -> None:
    """Five pairs can give 2/32 = 0.0625 at best, six 0.031; with 13 classes ten are needed: 13 x 2/1024 = 0.025."""
    generator = np.random.default_rng(0)
    for n, classes, few in ((5, 1, True), (6, 1, False), (9, 13, True), (10, 13, False)):
        b = generator.random((n, classes))
        tests = paired_tests(b + 0.1 + generator.random((n, classes)), b)
        assert {t.too_few for t in tests} == {few}
        assert {t.differs for t in tests} == {not few}
        assert tests[0].p_holm == pytest.approx(tests[0].smallest_p) == min(1.0, classes * 2.0 ** (1 - n))
    assert "too few to conclude" in paired_tests(np.ones((3, 1)), np.zeros((3, 1)))[0].verdict


def test_missing_and_infinite_scores() -> None:
    a = np.array([[np.inf, NAN], [np.inf, NAN], [3.0, NAN], [NAN, 1.0]])
    b = np.array([[np.inf, NAN], [4.0, NAN], [5.0, NAN], [1.0, NAN]])
    first, second = paired_tests(a, b)
    assert (first.n, first.n_equal) == (3, 1)
    assert first.effect == pytest.approx((2 - 1) / 3)
    assert first.difference == np.inf
    assert second.n == 0
    assert np.isnan([second.p, second.p_holm, second.smallest_p]).all()
    with pytest.raises(ValueError, match="not of the same cases"):
        paired_tests(a, b[:3])


def test_ranking_by_hand() -> None:
    """Of cases (1, 0) and (0, 1) a resample takes twice the first, twice the second, or one of each: 1/4, 1/4, 1/2."""
    found = ranking({"a": np.array([[1.0], [0.0]]), "b": np.array([[0.0], [1.0]])}, n_resamples=20_000)
    np.testing.assert_allclose(found.share, 0.5, atol=0.01)
    np.testing.assert_allclose(found.mean_rank, 1.5, atol=0.01)
    assert found.n == 2


def test_a_method_that_always_wins_ranks_first() -> None:
    base = np.random.default_rng(0).random((8, 3))
    found = ranking({"worse": base, "best": base + 0.2, "middle": base + 0.1})
    assert found.mean_rank.tolist() == [3.0, 1.0, 2.0]
    assert found.first.tolist() == [0.0, 1.0, 0.0]
    distances = ranking({"worse": base + 1, "missed": np.where(base > 0.5, np.inf, base)}, higher_is_better=False)
    assert distances.first[0] > 0.5


def test_no_pair_at_all_is_too_few() -> None:
    (none,) = paired_tests(np.full((3, 1), NAN), np.ones((3, 1)))
    assert none.too_few
    assert not none.differs
    assert none.verdict == "no case has a score for both"


def test_mean_ranks_by_hand() -> None:
    """Ranks 1, 2, 3 and 2.5, 1, 2.5 of two cases; the third lacks a score."""
    scores = np.array([[0.9, 0.5, 0.9], [0.8, 0.7, NAN], [0.1, 0.5, 0.1]])
    np.testing.assert_array_equal(mean_ranks(scores), [1.75, 1.5, 2.75])
    np.testing.assert_array_equal(mean_ranks(scores, higher_is_better=False), [2.25, 2.5, 1.25])
    assert np.isnan(mean_ranks(np.full((2, 3), NAN))).all()


def test_misses_are_worse_than_any_hit_and_nothing_else_changes() -> None:
    scores = np.array([[1.0, np.inf], [7.0, NAN]])
    np.testing.assert_array_equal(misses_as_worst(scores), [[1.0, 8.0], [7.0, NAN]])
    np.testing.assert_array_equal(misses_as_worst(np.array([np.inf])), [1.0])


def test_groups_by_hand() -> None:
    """0 and 2 were told apart, 1 from neither; 3 was told apart from all."""
    assert groups_not_told_apart(4, [(0, 2), (3, 0), (1, 3), (2, 3)]) == [(0, 1), (1, 2)]
    assert groups_not_told_apart(3, []) == [(0, 1, 2)]
    assert groups_not_told_apart(3, [(0, 1), (0, 2), (1, 2)]) == []
    assert groups_not_told_apart(4, [(0, 1), (2, 3)]) == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_groups_are_those_of_networkx() -> None:
    networkx = pytest.importorskip("networkx")
    generator = np.random.default_rng(0)
    for _ in range(20):
        alike = np.triu(generator.random((8, 8)) < 0.6, 1)
        apart = [(i, j) for j in range(8) for i in range(j) if not alike[i, j]]
        graph = networkx.from_numpy_array(alike | alike.T)
        expected = sorted(tuple(sorted(clique)) for clique in networkx.find_cliques(graph) if len(clique) > 1)
        assert groups_not_told_apart(8, apart) == expected
