"""Learning curves from metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sampeft.labels import LabelSet
from sampeft.report.style import DPI, METHODS, plain, rgb, saved, shown_name
from sampeft.report.tables import FOREGROUND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEW = 20  # points whose line alone would be short, or of one point nothing


def figure_learning_curve(
    records: Sequence[dict[str, Any]], path: Path | None = None, labels: LabelSet | None = None
) -> Figure:
    """Loss and its parts, learning rate, and DSC of the held-out cases, against minutes of training.

    records: lines of metrics.jsonl. labels: colours for the single classes, grey without. Raises ValueError when there
    is nothing to draw.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps = [r for r in records if "loss" in r]
    checks = [r for r in records if "val_dsc" in r]
    if not steps and not checks:
        raise ValueError("no training records to draw")
    dots: dict[str, Any] = {"marker": ".", "markersize": 4} if len(steps) < _FEW else {}
    longest = max(r["minutes"] for r in (*steps, *checks))
    panels = [name for name, found in (("loss", steps), ("rate", steps), ("dsc", checks)) if found]
    ratios = {"loss": 3, "rate": 1.6, "dsc": 4.4}
    figure = Figure(figsize=(1.25 * sum(ratios[p] for p in panels), 3.5), dpi=DPI, layout="constrained")
    for axes, panel in zip(
        np.atleast_1d(figure.subplots(1, len(panels), width_ratios=[ratios[p] for p in panels])), panels, strict=True
    ):
        if panel == "loss":
            for key, name, color, width in (
                ("loss", "loss", METHODS[0], 1.8),
                ("ce", "cross-entropy", METHODS[1], 1.0),
                ("dice", "Dice loss", METHODS[2], 1.0),
            ):
                line = [(r["minutes"], r[key]) for r in steps if r.get(key) is not None]
                axes.plot(*zip(*line, strict=True), color=color, linewidth=width, label=name, **dots) if line else None
            axes.set_title("training loss", fontsize=10, loc="left")
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False, fontsize=8)
        elif panel == "rate":
            axes.plot([r["minutes"] for r in steps], [r["lr"] for r in steps], color=METHODS[4], linewidth=1.4, **dots)
            axes.set_title("learning rate", fontsize=10, loc="left")
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_formatter("{x:.1e}")
        else:
            _held_out(axes, checks, labels)
        axes.set_xlabel("minutes")
        axes.set_xlim(0, 1.03 * longest if longest else 1.0)  # the same time in all panels, from the beginning
        axes.xaxis.set_major_locator(MaxNLocator(3 if panel == "rate" else 6, steps=[1, 2, 5, 10]))
        axes.grid(color="#e5e5e5", linewidth=0.7)
        plain(axes)
    return saved(figure, path)


def _held_out(axes: Axes, checks: Sequence[dict[str, Any]], labels: LabelSet | None) -> None:
    """Mean DSC of the held-out cases over time, bold, each class thin."""
    names = dict.fromkeys(name for r in checks for name in r.get("val_per_class", {}))
    for name in names:
        line = [(r["minutes"], v) for r in checks if (v := r.get("val_per_class", {}).get(name)) is not None]
        color: Any = rgb(labels, labels.names.index(name)) if labels and name in labels.names else "#bbbbbb"
        axes.plot(
            *zip(*line, strict=True), color=color, linewidth=1.0, marker=".", markersize=3, label=shown_name(name)
        ) if line else None
    mean = [(r["minutes"], v) for r in checks if (v := r["val_dsc"]) is not None and not math.isnan(v)]
    if mean:
        axes.plot(*zip(*mean, strict=True), color="black", linewidth=2.2, marker="o", markersize=4, label=FOREGROUND)
        best = max(mean, key=lambda point: point[1])
        middle = (mean[0][0] + mean[-1][0]) / 2
        axes.annotate(
            f"best {best[1]:.3f}", best, (0, 7), textcoords="offset points", fontsize=8.5, weight="bold",
            ha="right" if best[0] > middle else "left", bbox={"fc": "#ffffffcc", "ec": "none", "pad": 0.5},
        )  # fmt: skip
    axes.set_title("DSC of held-out cases", fontsize=10, loc="left")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
