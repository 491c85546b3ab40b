"""Means over cases with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

FEW = 5
"""Fewer cases than this are too few to conclude anything from."""

_BOOTSTRAP_FROM = 10
"""Below so many cases a resample can hold nearly equal cases by chance, whose tiny error makes bootstrap-t's interval absurdly
wide (0.00 to 0.75 about a mean of 0.66 of five patients); Student's t is used there."""

METHOD = f"95 % interval over cases: bootstrap-t, 10,000 resamples; Student's t below {_BOOTSTRAP_FROM} cases"

_DRAWS_AT_ONCE = 1 << 22  # bounds memory: resamples x cases


@dataclass(frozen=True)
class Interval:
    """A mean over cases with its interval.

    n: cases that have a score. low and high are NaN for n < 2, where nothing can be said of the spread; all are NaN for
    n = 0. n_infinite: cases among them whose score is infinite (a surface distance of a class that was missed); then
    the mean is inf and has no interval, and finite_mean is the mean over the other n - n_infinite cases.
    """

    mean: float
    low: float
    high: float
    n: int
    n_infinite: int = 0
    finite_mean: float | None = None

    @property
    def too_few(self) -> bool:
        """Whether n is too small to conclude from."""
        return self.n < FEW


def bootstrap_interval(
    values_NK: Scores,
    n_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Mean over classes of the mean over cases, with its interval. For one class give (n, 1).

    values_NK: numbers, inf where a distance is not bounded, or NaN where a case has no score for a class. Cases (rows)
    are drawn with replacement and whole, so classes of one patient stay together; a class that no drawn case has is
    left out of that resample's mean. bounds: what values can be; the interval ends there.

    From 10 cases on the interval is the bootstrap-t: mean - standard error x quantile of (resampled mean - mean) / its
    standard error; below, Student's t. On simulated cases of known mean (normal, beta) 93 to 96 % of them held it with
    5, 10, 20 and 50 cases (92.9 % with five of a skewed beta(8, 2)); of the percentile bootstrap's and BCa's only 83 to
    85 % did with 5. Where one case in ten fails wholly (score 0), few cases often show no failure and no interval can
    know of it: of bootstrap-t's 76, 73, 87 and 97 % held the mean with 5, 10, 20 and 50.
    Raises ValueError for another form.
    """
    _check(values_NK)
    n = int((~np.isnan(values_NK)).any(axis=1).sum())
    if infinite := _without_infinite(values_NK):
        return Interval(np.inf, np.nan, np.nan, n, *infinite)
    mean, center_K = np.array([mean_of_means(values_NK)]), means(np.ones((1, len(values_NK))), values_NK)[0]
    if n < 2:
        return Interval(float(mean[0]), np.nan, np.nan, n)
    centered_NK = values_NK - np.where(np.isnan(center_K), 0.0, center_K)
    error = _error_of_mean_of_means(np.ones((1, len(values_NK))), centered_NK)
    shifts, errors = [], []
    for times_BN in resamples(len(values_NK), n_resamples if n >= _BOOTSTRAP_FROM else 0, seed):
        shifts.append(mean_over_classes(means(times_BN, values_NK)) - mean)
        errors.append(_error_of_mean_of_means(times_BN, centered_NK))
    return _interval(mean[0], error[0], _joined(shifts), _joined(errors), n, level, bounds)


def bootstrap_per_class(
    values_NK: Scores,
    n_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> list[Interval]:
    """The mean over cases of each class, with its interval, from the same resamples; n counts the scored cases."""
    _check(values_NK)
    n_K = (~np.isnan(values_NK)).sum(axis=0)
    finite_NK = np.where(np.isinf(values_NK), np.nan, values_NK)
    once = np.ones((1, len(values_NK)))
    mean_K = means(once, finite_NK)[0]
    centered_NK = finite_NK - np.where(np.isnan(mean_K), 0.0, mean_K)
    error_K = _errors(once, centered_NK)[0]
    shifts, errors = [], []
    for times_BN in resamples(len(values_NK), n_resamples if n_K.size and n_K.max() >= _BOOTSTRAP_FROM else 0, seed):
        shifts.append(means(times_BN, centered_NK))
        errors.append(_errors(times_BN, centered_NK))
    shift_BK, error_BK = (_joined(parts, values_NK.shape[1]) for parts in (shifts, errors))
    found = []
    for k, n in enumerate(n_K.tolist()):
        if infinite := _without_infinite(values_NK[:, k : k + 1]):
            found.append(Interval(np.inf, np.nan, np.nan, n, *infinite))
        else:
            found.append(_interval(mean_K[k], error_K[k], shift_BK[:, k], error_BK[:, k], n, level, bounds))
    return found


def mean_of_means(values_NK: Scores) -> float:
    """Mean over classes of the mean over cases, without an interval; NaN when nothing has a score, inf with one inf."""
    if np.isinf(values_NK).any():
        return np.inf
    return float(mean_over_classes(means(np.ones((1, len(values_NK))), values_NK))[0])


def _check(values_NK: Scores) -> None:
    if values_NK.ndim != 2 or (values_NK == -np.inf).any():
        raise ValueError(f"expected a (cases, classes) matrix without -inf, got shape {values_NK.shape}")


def _without_infinite(values_NK: Scores) -> tuple[int, float | None] | None:
    """Number of cases with an infinite score and the mean of means without them; None when there is none."""
    infinite = np.isinf(values_NK)
    if not infinite.any():
        return None
    mean = mean_of_means(np.where(infinite, np.nan, values_NK))
    return int(infinite.any(axis=1).sum()), None if np.isnan(mean) else mean


def _interval(
    mean: float,
    error: float,
    shift_B: Scores,
    error_B: Scores,
    n: int,
    level: float,
    bounds: tuple[float, float],
) -> Interval:
    if n < 2:
        return Interval(float(mean), np.nan, np.nan, n)
    usable = ~np.isnan(shift_B) & (error_B > 0)  # of equal cases alone no spread can be told
    if error == 0:
        low_t = high_t = 0.0
    elif n < _BOOTSTRAP_FROM or not usable.any():
        from scipy.special import stdtrit

        high_t = float(stdtrit(n - 1, (1 + level) / 2))
        low_t = -high_t
    else:
        low_t, high_t = np.quantile(shift_B[usable] / error_B[usable], ((1 - level) / 2, (1 + level) / 2))
    low, high = np.clip((mean - high_t * error, mean - low_t * error), *bounds)
    return Interval(float(mean), float(low), float(high), n)


def _joined(parts: list[Scores], classes: int | None = None) -> Scores:
    return np.concatenate(parts) if parts else np.empty((0,) if classes is None else (0, classes))


def resamples(n: int, n_resamples: int, seed: int) -> Iterator[Scores]:
    """(B, N) how often each case is taken in each resample, in parts of bounded size."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // max(1, n))
    for start in range(0, n_resamples if n else 0, at_once):
        rows = min(at_once, n_resamples - start)
        drawn_BN = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn_BN.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def means(times_BN: Scores, values_NK: Scores) -> Scores:
    """(B, K) mean over cases of each class, when case i is taken times_BN[b, i] times; NaN where none has a score."""
    scored = ~np.isnan(values_NK)
    taken_BK = times_BN @ scored
    means_BK = (times_BN @ np.where(scored, values_NK, 0.0)) / np.maximum(taken_BK, 1.0)
    return np.where(taken_BK > 0, means_BK, np.nan)


def mean_over_classes(means_BK: Scores) -> Scores:
    """(B,) mean over the classes that have a score; NaN where none has."""
    known = ~np.isnan(means_BK)
    n_B = known.sum(axis=1)
    return np.where(n_B > 0, np.where(known, means_BK, 0.0).sum(axis=1) / np.maximum(n_B, 1), np.nan)


def _errors(times_BN: Scores, centered_NK: Scores) -> Scores:
    """(B, K) standard error of each class's mean; the values should be centred, so that no digits cancel."""
    scored = ~np.isnan(centered_NK)
    taken_BK = times_BN @ scored
    n_BK = np.maximum(taken_BK, 1.0)
    values_NK = np.where(scored, centered_NK, 0.0)
    spread_BK = times_BN @ values_NK**2 / n_BK - (times_BN @ values_NK / n_BK) ** 2
    errors_BK: Scores = np.sqrt(np.maximum(spread_BK, 0.0) / np.maximum(n_BK - 1, 1.0))
    return errors_BK


def _error_of_mean_of_means(times_BN: Scores, centered_NK: Scores) -> Scores:
    """(B,) standard error of the mean over classes of the mean over cases, by each case's pull on it."""
    scored = ~np.isnan(centered_NK)
    taken_BK = times_BN @ scored
    share_BK = np.where(taken_BK > 0, 1 / np.maximum(taken_BK, 1.0), 0.0)
    share_BK = share_BK / np.maximum((taken_BK > 0).sum(axis=1, keepdims=True), 1)
    values_NK = np.where(scored, centered_NK, 0.0)
    means_BK = times_BN @ values_NK / np.maximum(taken_BK, 1.0)
    pull_BN = share_BK @ values_NK.T - (share_BK * means_BK) @ scored.T
    n_B = times_BN @ scored.any(axis=1)
    errors_B: Scores = np.sqrt((times_BN * pull_BN**2).sum(axis=1) * n_B / np.maximum(n_B - 1, 1.0))
    return errors_B
