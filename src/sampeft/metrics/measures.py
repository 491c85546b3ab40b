"""What is known of a case once it is scored: its pixel counts, and what counts cannot give, per class."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sampeft.metrics.counts import Counts

Scores = npt.NDArray[np.float64]


VOLUME = "truth_volume_ml"
"""Kept beside the metrics: what the truth of a class amounts to, by which scores are sorted into sizes."""


@dataclass(frozen=True, eq=False)
class Measures:
    """Name -> (K,) numbers of one case, NaN where a class has none. Names outside METRICS are counts to be pooled."""

    values: dict[str, Scores] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Measures):
            return NotImplemented
        return self.values.keys() == other.values.keys() and all(
            np.array_equal(values, other.values[name], equal_nan=True) for name, values in self.values.items()
        )

    __hash__ = None  # type: ignore[assignment]  # equal by content, as arrays are

    def __getitem__(self, name: str) -> Scores:
        return self.values[name]


@dataclass(frozen=True)
class CaseScore:
    """Everything that is known of one case: its pixel counts and the measures that counts cannot give."""

    counts: Counts
    measures: Measures
