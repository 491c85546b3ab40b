"""Reliability, expected calibration error and Brier score of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.volume import IGNORE

Array = npt.NDArray[Any]
BINS = 15


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sums over pixels; sums of slices and cases add up, and no volume of probabilities is ever held.

    n, confidence, hits: (K, B) pixels, sum of probabilities and true pixels by class and bin of the class's
    probability. top_n, top_confidence, top_hits: (B,) the same of the most probable class. squares: (K,) sum of
    (probability - truth)^2. Bins are of equal width, [0, 1/B), ..., [1 - 1/B, 1].
    """

    n: Array
    confidence: Array
    hits: Array
    top_n: Array
    top_confidence: Array
    top_hits: Array
    squares: Array

    @classmethod
    def zeros(cls, classes: int, bins: int = BINS) -> Calibration:
        """No pixels, the start of a sum."""
        a, b, c = np.zeros((3, classes, bins))
        d, e, f = np.zeros((3, bins))
        return cls(a, b, c, d, e, f, np.zeros(classes))

    @classmethod
    def of(cls, probabilities_KHW: Array, truth_HW: Array, bins: int = BINS) -> Calibration:
        """A slice: probabilities 0..1 that sum to 1 over the classes, and true channels or IGNORE.

        Raises ValueError for unequal sizes and for what is no probability.
        """
        classes = len(probabilities_KHW)
        if probabilities_KHW.shape[1:] != truth_HW.shape:
            raise ValueError(f"probabilities {probabilities_KHW.shape} and truth {truth_HW.shape} differ in size")
        known = truth_HW != IGNORE
        values_KN, true_N = probabilities_KHW[:, known].astype(np.float64), truth_HW[known]
        if values_KN.size and not (values_KN.min() >= 0 and np.abs(values_KN.sum(axis=0) - 1).max() < 1e-3):
            raise ValueError("probabilities of a pixel must be 0 or more and sum to 1; give softmax, not logits")
        found = cls.zeros(classes, bins)
        for k, values_N in enumerate(values_KN):
            hit_N = true_N == k
            for sums, part in zip((found.n, found.confidence, found.hits), _bin(values_N, hit_N, bins), strict=True):
                sums[k] = part
            found.squares[k] = ((values_N - hit_N) ** 2).sum()
        top = values_KN.argmax(axis=0)
        best_N = np.take_along_axis(values_KN, top[None], axis=0)[0]
        for sums, part in zip(
            (found.top_n, found.top_confidence, found.top_hits), _bin(best_N, top == true_N, bins), strict=True
        ):
            sums[:] = part
        return found

    def __add__(self, other: Calibration) -> Calibration:
        if self.n.shape != other.n.shape:
            raise ValueError(f"cannot add calibrations of {self.n.shape} and {other.n.shape} classes and bins")
        return Calibration(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def to_json(self) -> dict[str, Any]:
        """The sums as lists; `from_json` reads them."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Calibration:
        """Raises KeyError or ValueError for what `to_json` did not give."""
        return cls(**{name: np.array(content[name], dtype=np.float64) for name in cls.__dataclass_fields__})

    @property
    def ece(self) -> float:
        """Expected calibration error of the most probable class, 0..1: mean over pixels of |accuracy - confidence| of
        their bin (Guo et al. 2017). NaN without a pixel."""
        return float(_error(self.top_n, self.top_confidence, self.top_hits))

    @property
    def ece_K(self) -> Array:
        """The same of each class's own probability. Small classes come out small: most pixels are not theirs."""
        return np.array([_error(*sums) for sums in zip(self.n, self.confidence, self.hits, strict=True)])

    @property
    def brier_K(self) -> Array:
        """Mean squared error of each class's probability, 0..1 (0 is perfect); their sum is the multi-class score."""
        n_K = self.n.sum(axis=1)
        return np.where(n_K > 0, self.squares / np.maximum(n_K, 1), np.nan)

    def reliability(self, channel: int | None = None) -> tuple[Array, Array, Array]:
        """(B,) mean probability, (B,) share of true pixels, (B,) pixels of each bin; NaN where a bin is empty.

        channel: a class, or nothing for the most probable class of each pixel.
        """
        n, confidence, hits = (
            (self.top_n, self.top_confidence, self.top_hits)
            if channel is None
            else (self.n[channel], self.confidence[channel], self.hits[channel])
        )
        some = np.maximum(n, 1)
        return np.where(n > 0, confidence / some, np.nan), np.where(n > 0, hits / some, np.nan), n


def fit_temperature(logits_KN: Array, truth_N: Array, bounds: tuple[float, float] = (0.05, 20.0)) -> float:
    """The temperature T for which softmax(logits / T) has the least cross entropy (Guo et al. 2017).

    logits_KN: a sample of pixels of validation cases, never of the cases that are scored (see `sample_pixels`).
    truth_N: their channels or IGNORE. Raises ValueError without a pixel that has a truth.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    known = truth_N != IGNORE
    if not known.any():
        raise ValueError("no pixel with a truth to fit a temperature on")
    logits_KM, true_M = logits_KN[:, known].astype(np.float64), truth_N[known].astype(np.int64)
    right_M = np.take_along_axis(logits_KM, true_M[None], axis=0)[0]

    def entropy(log_t: float) -> float:
        scale = np.exp(-log_t)
        return float(np.mean(logsumexp(logits_KM * scale, axis=0) - right_M * scale))

    found = minimize_scalar(entropy, bounds=tuple(np.log(bounds)), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def sample_pixels(
    logits_KHW: Array, truth_HW: Array, pixels: int, generator: np.random.Generator
) -> tuple[Array, Array]:
    """(K, M) logits and (M,) channels of at most so many pixels of a slice that have a truth, drawn without favour."""
    places = np.flatnonzero(truth_HW != IGNORE)
    chosen = np.sort(generator.choice(places, min(pixels, places.size), replace=False))
    return logits_KHW.reshape(len(logits_KHW), -1)[:, chosen], truth_HW.ravel()[chosen]


def _bin(values_N: Array, hit_N: Array, bins: int) -> tuple[Array, Array, Array]:
    place_N = np.minimum((values_N * bins).astype(np.int64), bins - 1)
    return (
        np.bincount(place_N, minlength=bins),
        np.bincount(place_N, values_N, minlength=bins),
        np.bincount(place_N, hit_N.astype(np.float64), minlength=bins),
    )


def _error(n_B: Array, confidence_B: Array, hits_B: Array) -> float:
    return float(np.abs(hits_B - confidence_B).sum() / n_B.sum()) if n_B.sum() else float("nan")
