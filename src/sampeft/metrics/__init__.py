"""Metrics: scores per case and class, with intervals.

Name -> metric: its title, unit, range, which way is better, and how counts give it where they do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sampeft.metrics import overlap
from sampeft.metrics.counts import Counts


@dataclass(frozen=True)
class Metric:
    """title: as a reader writes it. unit: empty for a share. better: `higher`, `lower` or `zero` (a signed error).

    of_counts: the counts of a case -> (K,) scores, NaN where a class has none; None: a protocol measures it on the maps.
    beside_dsc: whether tables and pages show it, where it was measured, beside DSC. short: title and unit at the head of a
    narrow column, where they are others than the metric's own.
    """

    title: str
    unit: str
    better: str
    bounds: tuple[float, float]
    of_counts: Callable[[Counts], npt.NDArray[np.float64]] | None = None
    beside_dsc: bool = False
    short: tuple[str, str] | None = None

    @property
    def heading(self) -> str:
        """Title with unit, for axes and tables."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


_SHARE, _LENGTH, _ANY = (0.0, 1.0), (0.0, np.inf), (-np.inf, np.inf)

METRICS: dict[str, Metric] = {
    "dsc": Metric("DSC", "", "higher", _SHARE, overlap.dsc),
    "iou": Metric("IoU", "", "higher", _SHARE, overlap.iou),
    "precision": Metric("precision", "", "higher", _SHARE, overlap.precision),
    "sensitivity": Metric("sensitivity", "", "higher", _SHARE, overlap.sensitivity),
    "nsd": Metric("NSD", "", "higher", _SHARE, beside_dsc=True),
    "hd95_mm": Metric("HD95", "mm", "lower", _LENGTH, beside_dsc=True),
    "assd_mm": Metric("ASSD", "mm", "lower", _LENGTH),
    "nsd_px": Metric("NSD with a tolerance in pixels", "", "higher", _SHARE, beside_dsc=True, short=("NSD", "px")),
    "hd95_px": Metric("HD95", "px", "lower", _LENGTH, beside_dsc=True),
    "assd_px": Metric("ASSD", "px", "lower", _LENGTH),
    "volume_error_ml": Metric("volume error", "ml", "zero", _ANY),
    "volume_error_percent": Metric("volume error", "%", "zero", _ANY),
    "pd": Metric("Pd", "", "higher", _SHARE),
    "fa": Metric("Fa", "", "lower", _SHARE),
}
"""Numbers per case and class, in the order of tables; those without `of_counts` come from `Protocol.finish`."""


def counted() -> dict[str, Callable[[Counts], npt.NDArray[np.float64]]]:
    """Name -> how counts give it, of the metrics that they give."""
    return {name: metric.of_counts for name, metric in METRICS.items() if metric.of_counts}
