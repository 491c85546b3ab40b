"""Curves of foreground DSC against the strength of noise, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sampeft.metrics.statistics import Interval
from sampeft.report.style import DPI, MARKERS, METHODS, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_noise(found: dict[str, dict[float, Interval]], kind: str, data: str, path: Path | None = None) -> Figure:
    """One curve per way; intervals are drawn a little apart, so that none hides another."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 4.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    strengths = sorted({strength for by_strength in found.values() for strength in by_strength})
    step = 0.012 * (max(strengths) - min(strengths) or 1.0)
    for m, (way, by_strength) in enumerate(found.items()):
        shift = (m - (len(found) - 1) / 2) * step
        x = [strength + shift for strength in by_strength]
        mean = [interval.mean for interval in by_strength.values()]
        ends = [(i.mean - i.low, i.high - i.mean) for i in by_strength.values()]
        below, above = np.nan_to_num(np.maximum(np.array(ends).T, 0))  # no interval for one case
        axes.errorbar(x, mean, yerr=[below, above], color=METHODS[m % len(METHODS)], marker=MARKERS[m % len(MARKERS)],
                      markersize=5, linewidth=1.6, elinewidth=0.8, capsize=2, label=way)  # fmt: skip
    axes.set_xlabel(f"strength of {kind} noise, on levels of 0 to 1")
    axes.set_ylabel("foreground DSC, 95 % interval over cases")
    axes.set_xticks(strengths)
    axes.set_ylim(0, 1)
    axes.set_title(data, fontsize=10, loc="left")
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return saved(figure, path)
