"""Figures of a comparison: every case by class and method, and the methods' ranks."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sampeft.metrics.comparison import Comparison, MetricComparison
from sampeft.metrics.paired import ALPHA
from sampeft.metrics.statistics import Interval, Scores
from sampeft.report.comparison import heading
from sampeft.report.style import DPI, plain, saved, shown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0b4f8a", "#c2410c", "#047857", "#7c3aed", "#525252", "#a16207", "#0891b2", "#be185d", "#111111", "#6b8e23")
MARKERS = "osD^vPX<>*"
"""Ten of each, so that colour is never all that tells two methods apart."""


def figure_classes(comparison: Comparison, path: Path | None = None) -> Figure:
    """Every case as a point, the mean with its interval above it, per class and method; a column per metric.

    Methods of a row are in the order of the legend, oracles hollow. Infinite scores lie on a line of their own at the right.
    """
    from matplotlib.figure import Figure

    n_rows, n_names, columns = len(comparison.metrics[0].rows), len(comparison.names), len(comparison.metrics)
    legend_columns = max(1, min(n_names, round(columns * 1.6)))
    notes = textwrap.wrap(" ".join(comparison.notes), 105 + 75 * (columns - 1))
    head = 0.24 * -(-n_names // legend_columns) + 0.17 * len(notes) + 0.3
    figure = Figure(
        figsize=(2.2 + 5.0 * columns, head + 0.8 + n_rows * (0.14 + 0.14 * n_names)), dpi=DPI, layout="constrained"
    )
    all_axes: Any = np.atleast_1d(figure.subplots(1, columns, sharey=True))
    for axes, found in zip(all_axes, comparison.metrics, strict=True):
        _classes(axes, comparison, found)
    first, labels = all_axes[0], [shown_name(row.name) for row in comparison.metrics[0].rows]
    counts = ["  |  ".join(dict.fromkeys(found.rows[r].n for found in comparison.metrics)) for r in range(n_rows)]
    shown = [
        f"{name}\n(n = {n})" if len(n) > 9 else f"{name}  (n = {n})" for name, n in zip(labels, counts, strict=True)
    ]
    first.set_yticks(range(n_rows), shown)
    first.get_yticklabels()[-1].set_fontweight("bold")
    first.set_ylim(n_rows - 0.5, -0.5)
    handles, named = first.get_legend_handles_labels()
    title = "\n".join(notes) or None
    figure.legend(handles, named, loc="outside upper left", frameon=False, fontsize=9, ncols=legend_columns, title=title,
                  alignment="left", title_fontsize=8.5)  # fmt: skip
    return saved(figure, path)


def _classes(axes: Axes, comparison: Comparison, found: MetricComparison) -> None:
    step = 0.84 / len(comparison.names)
    beneath = 0.19 * step  # points lie just under the interval, so that neither hides the other
    edge = _edge(found)
    for r in range(0, len(found.rows), 2):
        axes.axhspan(r - 0.5, r + 0.5, color="#f3f4f6", linewidth=0, zorder=0)
    for m, name in enumerate(comparison.names):
        color, marker = COLORS[m % len(COLORS)], MARKERS[m % len(MARKERS)]
        offset = (m - (len(comparison.names) - 1) / 2) * step
        face = "white" if name in comparison.oracles else color
        for r, row in enumerate(found.rows):
            values = found.case_means_N[name] if row is found.mean else found.values_NK[name][:, r]
            values = np.where(np.isposinf(values), edge, values)[~np.isnan(values)]
            axes.scatter(values, np.full(len(values), r + offset + beneath), s=8, color=color, alpha=0.45, linewidths=0,
                         clip_on=False, zorder=2)  # fmt: skip
        intervals = [row.intervals[name] for row in found.rows]
        _means(axes, intervals, offset - beneath, color, marker, face, heading(comparison, name))
    axes.axhline(len(found.rows) - 1.5, color="#999999", linewidth=0.9)
    low, high = found.measure.bounds
    if (low, high) == (0.0, 1.0) and _largest(found) > 0.1:
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks(np.linspace(0, 1, 6))
    else:
        axes.set_xlim(-0.02 * edge, 1.04 * edge)
    if found.has_infinite:
        axes.axvline(edge, color="#999999", linewidth=0.7, linestyle=":")
        axes.text(edge, 1.0, "∞", transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=10)
    without = "\n(without an interval: mean of the finite cases)" if found.has_infinite else ""
    axes.set_xlabel(f"{found.measure.heading}\npoints: cases; markers: mean with 95 % interval{without}", fontsize=9)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    plain(axes)


def _means(axes: Axes, intervals: list[Interval], shift: float, color: str, marker: str, face: str, label: str) -> None:
    """Means that are infinite show the mean of the finite cases, without an interval."""
    shown = [i.mean if not i.n_infinite else np.nan if i.finite_mean is None else i.finite_mean for i in intervals]
    spread = [
        [np.nan_to_num(max(m - i.low, 0.0)) for m, i in zip(shown, intervals, strict=True)],
        [np.nan_to_num(max(i.high - m, 0.0)) for m, i in zip(shown, intervals, strict=True)],
    ]
    axes.errorbar(shown, np.arange(len(shown)) + shift, xerr=spread, fmt=marker, color=color, markersize=4.6,
                  markerfacecolor=face, markeredgecolor=color, markeredgewidth=0.8, elinewidth=1.5, capsize=0, label=label,
                  zorder=3)  # fmt: skip


def _largest(found: MetricComparison) -> float:
    """Largest finite score of a case or end of an interval."""
    ends = [end for row in found.rows for i in row.intervals.values() for end in (i.mean, i.high)]
    values = np.concatenate([*(v.ravel() for v in found.values_NK.values()), np.array(ends)])
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 1.0


def _edge(found: MetricComparison) -> float:
    """Where infinite scores are drawn: beyond every finite one."""
    return (_largest(found) or 1.0) * (1.08 if found.has_infinite else 1.0)


def figure_ranks(comparison: Comparison, path: Path | None = None) -> Figure:
    """Per metric: mean rank of each method over cases; which were not told apart; how often each rank holds in resamples.

    Bars join the methods with a dot on them: no test of that group shows a difference (Wilcoxon, Holm over all pairs).
    Raises ValueError for fewer than two methods that are no oracles.
    """
    from matplotlib.figure import Figure

    n = len(comparison.methods)
    if n < 2:
        raise ValueError(f"ranks need at least two methods that are no oracles, got {n}")
    notes = textwrap.wrap(" ".join(comparison.notes), 120)
    bars = max(1, *(len(found.groups) for found in comparison.metrics))
    each = 1.25 + 0.34 * n
    widths = [4.2, max(1.3, 0.26 * bars), max(2.4, 0.62 * n)]
    figure = Figure(
        figsize=(2.9 + sum(widths), each * len(comparison.metrics) + 0.18 * len(notes) + 0.2),
        dpi=DPI,
        layout="constrained",
    )
    grid: Any = figure.subplots(len(comparison.metrics), 3, squeeze=False, width_ratios=widths)
    for (ranks, groups, shares), found in zip(grid, comparison.metrics, strict=True):
        order = sorted(comparison.methods, key=lambda name: found.mean_rank[name])
        _ranks(ranks, comparison, found, order)
        _groups(groups, found, order)
        _shares(shares, found, order)
    if notes:
        figure.suptitle("\n".join(notes), fontsize=8.5, x=0.01, ha="left")
    return saved(figure, path)


def _ranks(axes: Axes, comparison: Comparison, found: MetricComparison, order: list[str]) -> None:
    y = np.arange(len(order))
    ranks = [found.mean_rank[name] for name in order]
    axes.hlines(y, 1, ranks, color="#bbbbbb", linewidth=1.0)
    for place, (name, rank) in enumerate(zip(order, ranks, strict=True)):
        m = comparison.names.index(name)
        axes.plot(rank, place, MARKERS[m % len(MARKERS)], color=COLORS[m % len(COLORS)], markersize=7, clip_on=False)
        axes.annotate(f"{rank:.2f}", (rank, place), (8, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(y, ["\n".join(textwrap.wrap(name, 30)) for name in order])
    axes.set_xlim(0.9, len(order) + 0.1)
    axes.set_xticks(range(1, len(order) + 1))
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.7)
    n = found.ranking.n if found.ranking else 0
    axes.set_title(f"{found.measure.title}, {found.mean.name}, {n} cases", fontsize=10, loc="left", weight="bold")
    axes.set_xlabel("mean rank over cases (1 is best)", fontsize=9)
    _rows(axes, len(order))
    plain(axes)


def _groups(axes: Axes, found: MetricComparison, order: list[str]) -> None:
    by_place = sorted(sorted(order.index(name) for name in group) for group in found.groups)
    for g, places in enumerate(by_place):
        axes.plot([g, g], [places[0], places[-1]], color="#333333", linewidth=3.0, solid_capstyle="round")
        axes.plot([g] * len(places), places, "o", color="#333333", markersize=6.5)
    axes.set_xlim(-0.9, max(1, len(found.groups)) - 0.1)
    axes.set_xticks([])
    axes.set_yticks([])
    few = found.mean.too_few
    said = "too few cases\nto tell apart" if few else "not told\napart" if found.groups else "all told\napart"
    axes.set_title(said, fontsize=9, color="#b91c1c" if few else "black")
    axes.set_xlabel(f"Wilcoxon, Holm\nover all pairs, {ALPHA:.0%}", fontsize=7.5)
    _rows(axes, len(order))
    axes.spines[:].set_visible(False)


def _shares(axes: Axes, found: MetricComparison, order: list[str]) -> None:
    assert found.ranking is not None, "two or more methods are ranked"
    share: Scores = found.ranking.share[[found.ranking.names.index(name) for name in order]]
    axes.imshow(share, cmap="Greys", vmin=0, vmax=1.25, aspect="auto")
    for (row, column), value in np.ndenumerate(share):
        if not np.isnan(value) and round(100 * value):
            axes.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=8,
                      color="white" if value > 0.72 else "black")  # fmt: skip
    axes.set_xticks(range(len(order)), [str(place + 1) for place in range(len(order))])
    axes.set_yticks([])
    axes.set_title("share of resamples at each rank", fontsize=9)
    axes.set_xlabel("rank by the mean in 10,000\nresamples of the cases", fontsize=8.5)
    _rows(axes, len(order))
    axes.tick_params(labelsize=8.5)
    axes.spines[:].set_color("#999999")


def _rows(axes: Axes, n: int) -> None:
    axes.set_ylim(n - 0.5, -0.5)
