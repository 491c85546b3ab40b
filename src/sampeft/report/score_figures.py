"""Plots of scores: per class, per case, by size of the truth, and of probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sampeft.metrics import METRICS
from sampeft.metrics.calibration import Calibration
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Interval
from sampeft.report.size_strata import Sized, size_bins
from sampeft.report.style import DPI, MARKERS, METHODS, plain, rgb, saved, shown_name
from sampeft.report.tables import class_rows, column_name, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOX_FROM = 10
"""From so many cases on quartiles are drawn; fewer points speak for themselves."""
_LINEAR = 10.0  # mm or pixels: distances beyond it are drawn logarithmically


def figure_per_class(evaluations: dict[str, Evaluation], metric: str = "dsc", path: Path | None = None) -> Figure:
    """Every case as a point over a box of the quartiles, the mean with its interval beside, per class and method.

    The last row is the foreground mean, where a point is a case's mean over the classes that it has.
    """
    from matplotlib.figure import Figure

    rows = class_rows(evaluations, metric)
    room = max(0.34, 0.21 * len(evaluations))  # inches per class
    figure = Figure(
        figsize=(8.2, 1.3 + room * (len(rows) + 1) + 0.22 * len(evaluations)), dpi=DPI, layout="constrained"
    )
    axes = figure.add_subplot()
    step = 0.84 / len(evaluations)
    below = 0.2 * step  # points lie just under the interval, so that neither hides the other
    limits = _limits(axes, evaluations, metric)
    for y in range(0, len(rows), 2):
        axes.axhspan(y - 0.5, y + 0.5, color="#f3f5f7", linewidth=0, zorder=0)
    for m, (method, evaluation) in enumerate(evaluations.items()):
        color, marker = METHODS[m % len(METHODS)], MARKERS[m % len(MARKERS)]
        offset = (m - (len(evaluations) - 1) / 2) * step
        matrix = evaluation.matrix(metric)
        shown = [(y, scores[m]) for y, scores in enumerate(rows.values())]
        points = [(y, matrix[:, evaluation.labels.names.index(c.name)]) for y, c in shown if c is not None]
        points.append((len(rows), case_means(evaluation, metric)))
        for y, values in points:
            _cases(axes, values[np.isfinite(values)], y + offset + below, 0.38 * step, color, limits)
        intervals = [(y, c.interval) for y, c in shown if c is not None]
        intervals.append((len(rows), evaluation.headline(metric)))
        _means(axes, [(y + offset - below, i) for y, i in intervals], color, marker, column_name(method, evaluation))
    axes.axhline(len(rows) - 0.5, color="#777777", linewidth=0.9)
    counts = {name: "/".join(str(c.n if c else 0) for c in scores) for name, scores in rows.items()}
    counts = {name: n if len(set(n.split("/"))) > 1 else n.split("/")[0] for name, n in counts.items()}
    averaged = " / ".join(sorted({evaluation.headline_name for evaluation in evaluations.values()}))
    names = [*(f"{shown_name(name)}  (n = {counts[name]})" for name in rows), averaged]
    axes.set_yticks(range(len(rows) + 1), names)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(len(rows) + 0.5, -0.5)
    finite = "" if np.isfinite(METRICS[metric].bounds).all() else "; cases without a distance (inf) are left out"
    axes.set_xlabel(metric_name(metric), fontsize=9)
    figure.supxlabel(
        f"points: cases; boxes: their middle half, from {BOX_FROM} cases on; markers: means with 95 % interval{finite}",
        fontsize=8,
    )
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    plain(axes)
    figure.legend(loc="outside upper left", frameon=False, fontsize=9, ncols=1)
    return saved(figure, path)


def case_means(evaluation: Evaluation, metric: str = "dsc") -> Any:
    """(cases,) mean of each case over the averaged classes that it has a score for; NaN where it has none."""
    scores = evaluation.matrix(metric)[:, list(evaluation.averaged)]
    known = np.isfinite(scores)
    n = known.sum(axis=1)
    return np.where(n > 0, np.where(known, scores, 0.0).sum(axis=1) / np.maximum(n, 1), np.nan)


def _limits(axes: Axes, evaluations: Mapping[str, Evaluation], metric: str) -> tuple[float, float]:
    """Ends of the scale: the metric's bounds, or what is found; long distances are drawn logarithmically."""
    low, high = METRICS[metric].bounds
    if np.isfinite([low, high]).all():
        axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
        axes.set_xticks(np.linspace(low, high, 11))
        return low, high
    values = np.concatenate([e.matrix(metric)[:, list(e.labels.foreground)].ravel() for e in evaluations.values()])
    values = values[np.isfinite(values)]
    found = (float(values.min(initial=0.0)), float(values.max(initial=1e-6)))
    if low == 0 and found[1] > _LINEAR:
        from matplotlib.ticker import FuncFormatter

        axes.set_xscale("symlog", linthresh=_LINEAR, linscale=1.0)
        axes.set_xlim(-0.3, 1.1 * found[1])
        ticks = [0, 2, 4, 6, 8, *(n * ten for ten in (10, 100, 1000) for n in (1, 2, 5))]
        axes.set_xticks([tick for tick in ticks if tick <= 1.1 * found[1]])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
    else:
        margin = 0.03 * (found[1] - found[0])
        axes.set_xlim(found[0] - margin, found[1] + margin)
    return found


def _cases(axes: Axes, values: Any, y: float, height: float, color: str, limits: tuple[float, float]) -> None:
    """The cases of a class and method as points, over a box from 10 cases on."""
    from matplotlib.patches import Rectangle

    if len(values) >= BOX_FROM:
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        width = max(high - low, 0.002 * (limits[1] - limits[0]))
        axes.add_patch(Rectangle((low, y - height / 2), width, height, fc=color, alpha=0.17, lw=0, zorder=1))
        axes.plot([middle, middle], [y - height / 2, y + height / 2], color=color, linewidth=1.3, zorder=2, alpha=0.8)
    axes.scatter(values, np.full(len(values), y), s=11, color=color, alpha=0.5, linewidths=0, clip_on=False, zorder=2.5)


def _means(axes: Axes, shown: list[tuple[float, Interval]], color: str, marker: str, label: str) -> None:
    y = np.array([position for position, _ in shown])
    mean, low, high = (np.array([getattr(i, part) for _, i in shown]) for part in ("mean", "low", "high"))
    finite = np.array([np.nan if i.finite_mean is None else i.finite_mean for _, i in shown])
    mean = np.where(np.isinf(mean), finite, mean)
    axes.errorbar(mean, y, xerr=np.nan_to_num([np.maximum(mean - low, 0), np.maximum(high - mean, 0)]), fmt=marker,
                  color=color, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6, elinewidth=1.6, capsize=0,
                  label=label, zorder=3)  # fmt: skip


def figure_case_means(evaluations: dict[str, Evaluation], metric: str = "dsc", path: Path | None = None) -> Figure:
    """How the cases' own means are spread, a row per method: points, and from 10 cases on a violin with quartiles.

    A case's mean is over the averaged classes that it has.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 0.9 + 0.62 * len(evaluations)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    limits = _limits(axes, evaluations, metric)
    for m, (method, evaluation) in enumerate(evaluations.items()):
        color, marker = METHODS[m % len(METHODS)], MARKERS[m % len(MARKERS)]
        values = case_means(evaluation, metric)
        values = np.sort(values[~np.isnan(values)])
        if len(values) >= BOX_FROM and np.ptp(values) > 0:
            for body in axes.violinplot(
                values, [m - 0.04], orientation="horizontal", side="low", widths=0.75, showextrema=False
            )["bodies"]:  # type: ignore[attr-defined]  # the stubs know collections only
                body.set(facecolor=color, alpha=0.22, linewidth=0)
        _cases(axes, values, m + 0.17, 0.2, color, limits)
        headline = evaluation.headline(metric)
        _means(axes, [(m - 0.04, headline)], color, marker, column_name(method, evaluation))
    axes.set_yticks(range(len(evaluations)), [_wrapped(column_name(n, e)) for n, e in evaluations.items()])
    axes.set_ylim(len(evaluations) - 0.5, -0.55)
    axes.set_xlabel(f"mean {metric_name(metric)} of each case over the classes that it has", fontsize=9)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    plain(axes)
    return saved(figure, path)


def _wrapped(name: str, width: int = 30) -> str:
    from textwrap import fill

    return fill(name, width, break_long_words=True)


def figure_by_size(evaluations: dict[str, Evaluation], metric: str = "dsc", path: Path | None = None) -> Figure | None:
    """Score against size of the truth: pairs of class and case of the first evaluation as points in the colours of the
    classes; over them, for every evaluation, the mean of each bin with its interval. None without a pair."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    first = next(iter(evaluations.values()))
    sized = Sized.of(first, metric)
    if not len(sized.size_P):
        return None
    edges = sized.edges()
    figure = Figure(figsize=(8.2, 4.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    handles = []
    for k in first.labels.foreground:
        mine = sized.channel_P == k
        if mine.any():
            style: dict[str, Any] = {"color": rgb(first.labels, k), "marker": MARKERS[k % len(MARKERS)]}
            axes.scatter(sized.size_P[mine], sized.score_P[mine], s=24, edgecolors="#333333", linewidths=0.4, alpha=0.8,
                         clip_on=False, zorder=2, **style)  # fmt: skip
            name = shown_name(first.labels.names[k])
            handles.append(Line2D([], [], linestyle="", mec="#333333", mew=0.4, markersize=5, label=name, **style))
    for edge in edges[1:-1]:
        axes.axvline(edge, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    means = []
    for m, (method, evaluation) in enumerate(evaluations.items()):
        own = sized if m == 0 else Sized.of(evaluation, metric)
        if own.unit != sized.unit:
            continue
        color = METHODS[m % len(METHODS)]
        for b, found in enumerate(size_bins(own, edges, metric)):
            if np.isnan(found.interval.mean):
                continue
            low, high = np.log(np.maximum(edges[b : b + 2], 1e-9))
            at = np.exp(low + (high - low) * (m + 1) / (len(evaluations) + 1))
            i = found.interval
            axes.hlines(i.mean, np.exp(low), np.exp(high), color=color, linewidth=2.0, zorder=3)
            ends = np.nan_to_num([[max(i.mean - i.low, 0.0)], [max(i.high - i.mean, 0.0)]])
            axes.errorbar(at, i.mean, yerr=ends, color=color, elinewidth=2.0, capsize=3,
                          marker=MARKERS[m % len(MARKERS)], mec="white", zorder=4)  # fmt: skip
        if len(edges):
            means.append(Line2D([], [], color=color, linewidth=2.0, marker=MARKERS[m % len(MARKERS)], mec="white",
                                label=f"mean of bin, {column_name(method, evaluation)}"))  # fmt: skip
    smallest, largest = float(sized.size_P.min()), float(sized.size_P.max())
    axes.set_xlim(smallest / 1.5, largest * 1.5)  # wide enough for a tick, however alike the sizes are
    axes.xaxis.set_major_locator(LogLocator(subs=_ticks_of_a_decade(largest / smallest)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = METRICS[metric].bounds
    if np.isfinite([low, high]).all():
        axes.set_ylim(low - 0.02, high + 0.02)
    of = "volume" if sized.unit == "ml" else "area"
    axes.set_xlabel(f"{of} of the class in the truth of a case ({sized.unit}, logarithmic)", fontsize=9)
    axes.set_ylabel(metric_name(metric), fontsize=9)
    axes.grid(color="#e5e5e5", linewidth=0.7)
    plain(axes)
    if means:
        figure.legend(handles=means, loc="outside upper left", frameon=False, fontsize=8.5)
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
    return saved(figure, path)


def _ticks_of_a_decade(span: float) -> tuple[float, ...]:
    """Times a power of ten, so that sizes of any span have a few of them."""
    if span >= 1e3:
        return (1.0,)
    return (1.0, 2.0, 5.0) if span >= 6 else tuple(float(n) for n in range(1, 10))


def figure_reliability(readings: Mapping[str, Calibration], path: Path | None = None) -> Figure:
    """Share of right pixels against the probability of the most probable class, a line per reading; below, the share of
    pixels in each bin. Raises ValueError without a reading."""
    from matplotlib.figure import Figure

    if not readings:
        raise ValueError("a reliability diagram needs at least one calibration")
    figure = Figure(figsize=(5.4, 5.4), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    above.plot(
        [0, 1],
        [0, 1],
        color="#777777",
        linewidth=1,
        linestyle=(0, (4, 3)),
        label="calibrated: right as often as it says",
    )
    for m, (name, calibration) in enumerate(readings.items()):
        color, marker = METHODS[m % len(METHODS)], MARKERS[m % len(MARKERS)]
        confidence_B, accuracy_B, n_B = calibration.reliability(None)
        full = n_B > 0
        above.plot(confidence_B[full], accuracy_B[full], color=color, marker=marker, markersize=5, linewidth=1.6,
                   mec="white", mew=0.5, label=f"{name}: ECE {calibration.ece:.3f}", clip_on=False)  # fmt: skip
        edges = np.linspace(0, 1, len(n_B) + 1)
        width = (edges[1] - edges[0]) * 0.84 / len(readings)
        left = edges[:-1] + (edges[1] - edges[0]) * 0.08 + m * width
        below.bar(left, n_B / max(n_B.sum(), 1), width, align="edge", color=color)
    above.set_ylabel("share of right pixels", fontsize=9)
    above.set(xlim=(0, 1), ylim=(0, 1))
    figure.legend(loc="outside upper left", frameon=False, fontsize=8.5)
    below.set_ylabel("share of pixels", fontsize=9)
    below.set(ylim=(0, 1), yticks=(0, 0.5, 1))
    below.set_xlabel("probability of the most probable class", fontsize=9)
    for axes in (above, below):
        axes.grid(color="#e5e5e5", linewidth=0.7)
        plain(axes)
    return saved(figure, path)
