"""Paired tests, effect sizes and the stability of a ranking."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sampeft.metrics.statistics import Scores, mean_over_classes, means, resamples

ALPHA = 0.05
_EXACT = 50  # up to so many pairs the distribution of the rank sum is counted out, beyond it is as good as normal


@dataclass(frozen=True)
class PairedTest:
    """Method a against method b in one class, case by case.

    n: pairs of scores. n_equal: pairs without a difference; they count neither for nor against.
    difference: mean of a - b over the pairs; NaN without pairs, inf when one of them is infinite.
    effect: matched-pairs rank-biserial correlation, -1 (b higher in every pair) .. 1 (a higher in every pair).
    p: two-sided Wilcoxon signed-rank. p_holm: the same after Holm's correction over the columns tested together.
    smallest_p: what p_holm would be if every column differed in one direction in every pair.
    """

    n: int
    n_equal: int
    difference: float
    effect: float
    p: float
    p_holm: float
    smallest_p: float

    @property
    def too_few(self) -> bool:
        """Whether so few pairs cannot show any difference at 5 %, however large; no pair at all is too few."""
        return not self.smallest_p <= ALPHA

    @property
    def differs(self) -> bool:
        return self.p_holm <= ALPHA

    @property
    def verdict(self) -> str:
        """One phrase for a reader."""
        if not self.n:
            return "no case has a score for both"
        if self.too_few:
            return f"n = {self.n} pairs are too few to conclude (the smallest p they can give is {self.smallest_p:.3g})"
        if self.differs:
            return f"differs (p = {self.p_holm:.3g})"
        return f"no difference shown (p = {self.p_holm:.3g})"


def paired_tests(a_NK: Scores, b_NK: Scores) -> list[PairedTest]:
    """Test each class of two methods on the same cases in the same order, Holm's correction over all of them.

    Columns need not be classes of one pair: side by side the classes of many pairs of methods are one family.
    A case that has no score (NaN) for one of the methods is left out of that class. Infinite scores take the outer ranks.
    A class without any pair has p = NaN and does not enter the correction. Raises ValueError for unequal shapes.
    """
    if a_NK.shape != b_NK.shape or a_NK.ndim != 2:
        raise ValueError(f"scores {a_NK.shape} and {b_NK.shape} are not of the same cases and classes")
    singles = [_single(_differences(a_NK[:, k], b_NK[:, k])) for k in range(a_NK.shape[1])]
    p_K = np.array([p for *_, p, _ in singles])
    lowest_K = np.array([lowest for *_, lowest in singles])
    adjusted, reachable = holm(p_K), holm(lowest_K)
    return [
        PairedTest(n, equal, difference, effect, p, float(adjusted[k]), float(reachable[k]))
        for k, (n, equal, difference, effect, p, _) in enumerate(singles)
    ]


def holm(p_K: Sequence[float] | Scores) -> Scores:
    """Holm's step-down adjustment of p values; NaN stays NaN and does not count."""
    p = np.asarray(p_K, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def signed_rank_p(differences: Scores) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; zeros are left out, ties share their rank.

    Up to 50 pairs exact, ties or not: every choice of signs is counted. Beyond, scipy's normal approximation.
    1 when no pair differs.
    """
    from scipy.stats import rankdata, wilcoxon

    used = differences[differences != 0]
    if not used.size:
        return 1.0
    if len(used) > _EXACT:
        finite = rankdata(np.abs(used)) * np.sign(used)  # infinite differences as ranks; the test sees ranks only
        return float(wilcoxon(finite, method="asymptotic").pvalue)
    doubled = np.rint(2 * rankdata(np.abs(used))).astype(int)
    ways = np.ones(1)  # number of sign choices by the doubled sum of positive ranks
    for rank in doubled:
        longer = np.zeros(len(ways) + rank)
        longer[: len(ways)] += ways
        longer[rank:] += ways
        ways = longer
    positive = int(doubled[used > 0].sum())
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))


@dataclass(frozen=True)
class Ranking:
    """Methods by their mean score and how often the order holds when cases are drawn anew.

    share: (methods, ranks) share of resamples in which a method has a rank, best first; equal means share a rank's
    place evenly. mean_rank: (M,) 1 is best. first: (M,) share of resamples in which a method is best.
    n: cases that all methods were scored on.
    """

    names: tuple[str, ...]
    share: Scores
    mean_rank: Scores
    first: Scores
    n: int


def ranking(
    scores: dict[str, Scores], higher_is_better: bool = True, n_resamples: int = 10_000, seed: int = 0
) -> Ranking:
    """Rank methods by the mean over classes of the mean over cases in each resample of the cases.

    scores: name -> (cases, classes) of the same cases in the same order; NaN for no score; inf counts as the largest
    finite score of all plus 1, so that a miss is worse than any hit. Where a method has no score at all, shares and ranks
    are NaN. Raises ValueError for unequal shapes.
    """
    from scipy.stats import rankdata

    if len({values.shape for values in scores.values()}) != 1:
        raise ValueError(f"scores of {', '.join(scores)} are not of the same cases and classes")
    stack = misses_as_worst(np.stack(list(scores.values())))
    means_BM = np.concatenate(
        [
            np.stack([mean_over_classes(means(times_BN, values)) for values in stack], axis=1)
            for times_BN in resamples(stack.shape[1], n_resamples, seed)
        ]
    )
    means_BM = means_BM[~np.isnan(means_BM).any(axis=1)]
    signed = -means_BM if higher_is_better else means_BM
    lowest, highest = (rankdata(signed, method=m, axis=1).astype(int) for m in ("min", "max"))
    places = np.arange(1, len(scores) + 1)
    held = (lowest[..., None] <= places) & (places <= highest[..., None])
    parts = held / (highest - lowest + 1)[..., None]
    share_MR = parts.mean(axis=0) if len(parts) else np.full(parts.shape[1:], np.nan)
    return Ranking(tuple(scores), share_MR, share_MR @ places, share_MR[:, 0], stack.shape[1])


def misses_as_worst(scores: Scores) -> Scores:
    """Infinite scores as the largest finite one of all plus 1, so that methods with misses can be put in order."""
    finite = scores[np.isfinite(scores)]
    return np.where(np.isposinf(scores), (finite.max() if finite.size else 0.0) + 1, scores)


def mean_ranks(scores_MN: Scores, higher_is_better: bool = True) -> Scores:
    """(M,) the mean over cases of each method's rank in a case, 1 is best; equal scores share their ranks.

    scores_MN: one score per method and case. A case without a score (NaN) for one of the methods is left out; without
    any case the ranks are NaN.
    """
    from scipy.stats import rankdata

    whole_MN = scores_MN[:, ~np.isnan(scores_MN).any(axis=0)]
    if not whole_MN.shape[1]:
        return np.full(len(scores_MN), np.nan)
    ranks_M: Scores = rankdata(-whole_MN if higher_is_better else whole_MN, axis=0).mean(axis=1)
    return ranks_M


def groups_not_told_apart(n: int, told_apart: Collection[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The largest groups of two or more of the items 0..n-1 of which no two were told apart; an item may be in several.

    told_apart: pairs of items in either order. Groups come in the order of their members. Source: Bron and Kerbosch.
    """
    apart = {frozenset(pair) for pair in told_apart}
    alike = {i: {j for j in range(n) if j != i and frozenset((i, j)) not in apart} for i in range(n)}
    groups: list[tuple[int, ...]] = []

    def grow(group: tuple[int, ...], candidates: set[int], done: set[int]) -> None:
        if not candidates and not done and len(group) > 1:
            groups.append(tuple(sorted(group)))
        for i in sorted(candidates):
            grow((*group, i), candidates & alike[i], done & alike[i])
            candidates, done = candidates - {i}, done | {i}

    grow((), set(range(n)), set())
    return sorted(groups)


def _differences(a: Scores, b: Scores) -> Scores:
    """a - b of the cases that both have a score for; equal infinities differ by 0."""
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    equal = a == b
    return np.where(equal, 0.0, a - np.where(equal, 0.0, b))


def _single(differences: npt.NDArray[np.float64]) -> tuple[int, int, float, float, float, float]:
    """n, n_equal, mean difference, effect, p and the smallest p that n pairs can give."""
    from scipy.stats import rankdata

    n = len(differences)
    if not n:
        return 0, 0, np.nan, np.nan, np.nan, np.nan
    used = differences[differences != 0]
    ranks = rankdata(np.abs(used))
    effect = float((ranks * np.sign(used)).sum() / ranks.sum()) if used.size else 0.0
    with np.errstate(invalid="ignore"):
        mean = float(differences.mean())
    return n, n - used.size, mean, effect, signed_rank_p(differences), min(1.0, 2.0 ** (1 - n))
