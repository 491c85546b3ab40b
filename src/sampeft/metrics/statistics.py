"""Scores per case and class in, mean with a bootstrap interval over cases out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

FEW = 5
"""Fewer cases than this are too few to conclude anything from."""

_DRAWS_AT_ONCE = 1 << 22  # bounds memory: resamples x cases


@dataclass(frozen=True)
class Interval:
    """A mean with the percentile bootstrap interval over cases.

    n: cases that have a score. low and high are NaN for n < 2, where cases cannot be resampled; all are NaN for n = 0.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def too_few(self) -> bool:
        """Whether n is too small to conclude from; an interval of so few cases is too narrow."""
        return self.n < FEW


def bootstrap_interval(values_NK: Scores, n_resamples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """Mean over classes of the mean over cases, with its interval. For one class give (n, 1).

    values_NK: finite, or NaN where a case has no score for a class. Cases (rows) are drawn with replacement and whole,
    so classes of one patient stay together; a class that no drawn case has is left out of that resample's mean.
    Raises ValueError for another form and for infinite values.
    """
    n = int((~np.isnan(_checked(values_NK))).any(axis=1).sum())
    mean = np.array([mean_of_means(values_NK)])
    means = _mean_over_classes(_resampled_means(values_NK, n_resamples, seed))
    return _interval(mean, means, n, level)


def bootstrap_per_class(
    values_NK: Scores, n_resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> list[Interval]:
    """The mean over cases of each class, with its interval, from the same resamples; n counts the scored cases."""
    n_K = (~np.isnan(_checked(values_NK))).sum(axis=0)
    mean_K = _means(np.ones((1, len(values_NK))), values_NK)
    means_BK = _resampled_means(values_NK, n_resamples, seed)
    return [_interval(mean_K[:, k], means_BK[:, k], int(n), level) for k, n in enumerate(n_K)]


def mean_of_means(values_NK: Scores) -> float:
    """Mean over classes of the mean over cases, without an interval; NaN when nothing has a score."""
    return float(_mean_over_classes(_means(np.ones((1, len(values_NK))), values_NK))[0])


def _checked(values_NK: Scores) -> Scores:
    if values_NK.ndim != 2 or np.isinf(values_NK).any():
        raise ValueError(f"expected a (cases, classes) matrix without infinite values, got shape {values_NK.shape}")
    return values_NK


def _interval(mean: Scores, means_B: Scores, n: int, level: float) -> Interval:
    known = means_B[~np.isnan(means_B)]
    if n < 2 or not known.size:
        return Interval(float(mean[0]), np.nan, np.nan, n)
    low, high = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(mean[0]), float(low), float(high), n)


def _resampled_means(values_NK: Scores, n_resamples: int, seed: int) -> Scores:
    """(B, K) mean over cases of each class in each resample of the cases; NaN where the resample has no score."""
    generator = np.random.default_rng(seed)
    n = len(values_NK)
    at_once = max(1, _DRAWS_AT_ONCE // max(1, n))
    parts = [np.empty((0, values_NK.shape[1]))]
    for start in range(0, n_resamples if n else 0, at_once):
        rows = min(at_once, n_resamples - start)
        drawn_BN = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times_BN = np.bincount(drawn_BN.ravel(), minlength=rows * n).reshape(rows, n)
        parts.append(_means(times_BN.astype(np.float64), values_NK))
    return np.concatenate(parts)


def _means(times_BN: Scores, values_NK: Scores) -> Scores:
    """(B, K) mean over cases of each class, when case i is taken times_BN[b, i] times; NaN where none has a score."""
    scored = ~np.isnan(values_NK)
    taken_BK = times_BN @ scored
    means_BK = (times_BN @ np.where(scored, values_NK, 0.0)) / np.maximum(taken_BK, 1.0)
    return np.where(taken_BK > 0, means_BK, np.nan)


def _mean_over_classes(means_BK: Scores) -> Scores:
    """(B,) mean over the classes that have a score; NaN where none has."""
    known = ~np.isnan(means_BK)
    n_B = known.sum(axis=1)
    return np.where(n_B > 0, np.where(known, means_BK, 0.0).sum(axis=1) / np.maximum(n_B, 1), np.nan)
