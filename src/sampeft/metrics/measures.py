"""What each number of an evaluation is called, its unit, its range and which way is better; numbers per class out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sampeft.metrics.counts import Counts

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """title: as a reader writes it. unit: empty for a share. better: `higher`, `lower` or `zero` (a signed error)."""

    title: str
    unit: str
    better: str
    bounds: tuple[float, float]

    @property
    def heading(self) -> str:
        """Title with unit, for axes and tables."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


_SHARE, _LENGTH, _ANY = (0.0, 1.0), (0.0, np.inf), (-np.inf, np.inf)

MEASURES: dict[str, Measure] = {
    "dsc": Measure("DSC", "", "higher", _SHARE),
    "iou": Measure("IoU", "", "higher", _SHARE),
    "precision": Measure("precision", "", "higher", _SHARE),
    "sensitivity": Measure("sensitivity", "", "higher", _SHARE),
    "nsd": Measure("NSD", "", "higher", _SHARE),
    "hd95_mm": Measure("HD95", "mm", "lower", _LENGTH),
    "assd_mm": Measure("ASSD", "mm", "lower", _LENGTH),
    "nsd_px": Measure("NSD with a tolerance in pixels", "", "higher", _SHARE),
    "hd95_px": Measure("HD95", "px", "lower", _LENGTH),
    "assd_px": Measure("ASSD", "px", "lower", _LENGTH),
    "volume_error_ml": Measure("volume error", "ml", "zero", _ANY),
    "volume_error_percent": Measure("volume error", "%", "zero", _ANY),
    "pd": Measure("Pd", "", "higher", _SHARE),
    "fa": Measure("Fa", "", "lower", _SHARE),
}
"""Numbers per case and class; the first four come from counts (`overlap.METRICS`), the others from `Measures`."""


VOLUME = "truth_volume_ml"
"""Kept beside the measures: what the truth of a class amounts to, by which scores are sorted into sizes."""


@dataclass(frozen=True, eq=False)
class Measures:
    """Name -> (K,) numbers of one case, NaN where a class has none. Names outside MEASURES are counts to be pooled."""

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
