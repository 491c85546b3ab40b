"""Example slices, evaluations and training records in, matplotlib figures out; no window is ever opened."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sampeft.io import write_atomically
from sampeft.labels import LabelSet
from sampeft.metrics.scores import Evaluation
from sampeft.report.tables import FOREGROUND, class_rows, column_name, metric_name
from sampeft.volume import IGNORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

DPI = 130
METHODS = ("#0b4f8a", "#c2410c", "#047857", "#7c3aed", "#525252")  # dark enough for white paper
MARKERS = "osD^v"
FILL = 0.38  # opacity of a class over the image
PANEL_INCH = 2.9


@dataclass(frozen=True)
class Example:
    """A slice to look at.

    image_HW: (H, W) or (H, W, 3); uint8 0..255, or float, shown from 0 to 1 if it lies there, else from its minimum
        to its maximum. truth_HW: (H, W) class channels or IGNORE, or None. predictions: method -> (H, W) class channels.
    score: DSC of the case in 0..1, or None. Raises ValueError when channels and image differ in size.
    """

    case: str
    title: str
    image_HW: Array  # noqa: N815
    truth_HW: Array | None = None  # noqa: N815
    predictions: dict[str, Array] = field(default_factory=dict)
    score: float | None = None

    def __post_init__(self) -> None:
        for heading, channels_HW in self.panels.items():
            if channels_HW.shape != self.image_HW.shape[:2]:
                raise ValueError(
                    f"{self.case}: {heading} of {channels_HW.shape} pixels does not fit the image of {self.image_HW.shape[:2]}"
                )

    @property
    def panels(self) -> dict[str, Array]:
        """Heading -> class channels, truth first."""
        return ({} if self.truth_HW is None else {"truth": self.truth_HW}) | self.predictions


def encode(figure: Figure, kind: Literal["png", "jpeg"] = "png", dpi: int = DPI) -> bytes:
    """The figure as a picture file, on white."""
    content = io.BytesIO()
    options: dict[str, Any] = {"pil_kwargs": {"quality": 88, "optimize": True}} if kind == "jpeg" else {}
    figure.savefig(content, format=kind, dpi=dpi, facecolor="white", **options)
    return content.getvalue()


def figure_examples(examples: Sequence[Example], labels: LabelSet, path: Path | None = None) -> Figure:
    """One row per example: image, truth, each prediction; classes filled, outlined and numbered by their ids.

    The whole slice is shown. Raises ValueError without examples.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not examples:
        raise ValueError("a figure of examples needs at least one")
    headings = list(dict.fromkeys(heading for example in examples for heading in example.panels))
    columns = 1 + len(headings)
    gap, strip, top = 0.06, 0.30, 0.30  # inches: between panels, above each row, for the headings
    width = columns * PANEL_INCH + (columns + 1) * gap
    heights = [PANEL_INCH * min(2.0, e.image_HW.shape[0] / e.image_HW.shape[1]) for e in examples]
    present = _present(examples, labels)
    per_line = max(1, int(width / (0.55 + 0.085 * max((len(labels.names[k]) for k in present), default=1))))
    has_ignored = any((panel == IGNORE).any() for e in examples for panel in e.panels.values())
    below = 0.22 * math.ceil((len(present) + has_ignored) / per_line) + 0.12
    height = top + sum(strip + h for h in heights) + below
    figure = Figure(figsize=(width, height), dpi=DPI)

    y = height - top
    for c, heading in enumerate(["image", *headings]):
        x = (gap + c * (PANEL_INCH + gap)) / width
        figure.text(x + PANEL_INCH / 2 / width, (y + 0.08) / height, heading, ha="center", fontsize=10, weight="bold")
    for example, row_inch in zip(examples, heights, strict=True):
        score = "" if example.score is None or math.isnan(example.score) else f"   DSC {example.score:.3f}"
        figure.text(gap / width, (y - 0.2) / height, example.title + score, fontsize=10)
        y -= strip + row_inch
        for c, heading in enumerate(["image", *headings]):
            if c and heading not in example.panels:
                continue
            x = gap + c * (PANEL_INCH + gap)
            axes = figure.add_axes((x / width, y / height, PANEL_INCH / width, row_inch / height))
            axes.set_axis_off()
            axes.set_anchor("N")
            show_image(axes, example.image_HW)
            if c:
                show_classes(axes, example.panels[heading], labels)
    handles: list[Any] = [
        Patch(facecolor=rgb(labels, k), edgecolor="black", linewidth=0.4, label=f"{labels.ids[k]}  {labels.names[k]}")
        for k in present
    ]
    if has_ignored:
        handles.append(Patch(facecolor="white", edgecolor="black", hatch="////", linewidth=0.4, label="no truth"))
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=per_line, fontsize=8.5, frameon=False,
                      handlelength=1.1, handleheight=1.0, columnspacing=1.4, borderaxespad=0.3)  # fmt: skip
    return _saved(figure, path)


def _present(examples: Sequence[Example], labels: LabelSet) -> list[int]:
    """Foreground channels that any panel shows."""
    shown = {int(k) for example in examples for panel in example.panels.values() for k in np.unique(panel)}
    return [k for k in labels.foreground if k in shown]


def rgb(labels: LabelSet, k: int) -> tuple[float, float, float]:
    red, green, blue = labels.colors[k]
    return red / 255, green / 255, blue / 255


def show_image(axes: Axes, image_HW: Array) -> None:
    low, high = 0.0, 1.0
    if image_HW.dtype == np.uint8:
        high = 255.0
    elif image_HW.size and not 0.0 <= float(np.min(image_HW)) <= float(np.max(image_HW)) <= 1.0:
        low, high = float(np.min(image_HW)), float(np.max(image_HW))
    levels = (image_HW.astype(np.float32) - low) / max(high - low, 1e-6)
    axes.imshow(levels, cmap="gray", vmin=0.0, vmax=1.0, interpolation="antialiased")


def show_classes(axes: Axes, channels_HW: Array, labels: LabelSet) -> None:
    """Translucent fill, an outline drawn twice (dark under coloured) and the class id on regions with room for it."""
    from matplotlib.patheffects import Normal, Stroke

    height, width = channels_HW.shape
    over_HWC = np.zeros((height, width, 4), dtype=np.float32)
    for k in labels.foreground:
        over_HWC[channels_HW == k] = (*rgb(labels, k), FILL)
    axes.imshow(over_HWC, interpolation="nearest")
    if (channels_HW == IGNORE).any():
        axes.contourf(_bordered(channels_HW == IGNORE), levels=[0.5, 1.5], colors=["#ffffff44"], hatches=["////"],
                      extent=(-1.5, width + 0.5, -1.5, height + 0.5))  # fmt: skip
    grid_x, grid_y = np.arange(-1, width + 1), np.arange(-1, height + 1)
    for k in labels.foreground:
        mask = channels_HW == k
        if not mask.any():
            continue
        color = rgb(labels, k)
        outline = axes.contour(grid_x, grid_y, _bordered(mask), levels=[0.5], colors=[color], linewidths=1.0)
        outline.set_path_effects([Stroke(linewidth=1.9, foreground="#000000aa"), Normal()])
        if mask.sum() > 0.0035 * mask.size:
            y, x = _inmost(mask)
            number = axes.text(
                x, y, str(labels.ids[k]), color="white", fontsize=6.5, weight="bold", ha="center", va="center"
            )
            number.set_path_effects([Stroke(linewidth=1.6, foreground="black"), Normal()])
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _bordered(mask_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """With an empty border, so that outlines close at the edge of the image."""
    return np.pad(mask_HW.astype(np.float32), 1)


def _inmost(mask_HW: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """(row, column) of the pixel deepest inside."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask_HW, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), mask_HW.shape)
    return int(row), int(column)


def figure_per_class(evaluations: dict[str, Evaluation], metric: str = "dsc", path: Path | None = None) -> Figure:
    """Every case as a point, the mean with its interval beside, per class and method; the foreground mean below."""
    from matplotlib.figure import Figure

    rows = class_rows(evaluations, metric)
    room = max(0.34, 0.20 * len(evaluations))  # inches per class
    figure = Figure(
        figsize=(8.2, 1.3 + room * (len(rows) + 1) + 0.22 * len(evaluations)), dpi=DPI, layout="constrained"
    )
    axes = figure.add_subplot()
    step = 0.8 / len(evaluations)
    below = 0.2 * step  # points lie just under the interval, so that neither hides the other
    for m, (method, evaluation) in enumerate(evaluations.items()):
        color, marker = METHODS[m % len(METHODS)], MARKERS[m % len(MARKERS)]
        offset = (m - (len(evaluations) - 1) / 2) * step
        matrix = evaluation.matrix(metric)
        shown = [(y, scores[m]) for y, scores in enumerate(rows.values())]
        intervals = [(y, c.interval) for y, c in shown if c is not None]
        for y, c in shown:
            values = matrix[:, evaluation.labels.names.index(c.name)] if c else np.empty(0)
            values = values[~np.isnan(values)]
            axes.scatter(
                values,
                np.full(len(values), y + offset + below),
                s=13,
                color=color,
                alpha=0.5,
                linewidths=0,
                clip_on=False,
            )
        intervals.append((len(rows), evaluation.headline(metric)))
        _means(axes, [(y + offset - below, i) for y, i in intervals], color, marker, column_name(method, evaluation))
    axes.axhline(len(rows) - 0.5, color="#999999", linewidth=0.8)
    counts = {name: "/".join(str(c.n if c else 0) for c in scores) for name, scores in rows.items()}
    counts = {name: n if len(set(n.split("/"))) > 1 else n.split("/")[0] for name, n in counts.items()}
    axes.set_yticks(range(len(rows) + 1), [*(f"{name}  (n = {counts[name]})" for name in rows), FOREGROUND])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(len(rows) + 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"{metric_name(metric)}: points are cases, markers are means with 95 % interval over cases")
    axes.set_xticks(np.linspace(0, 1, 11))
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    _plain(axes)
    figure.legend(loc="outside upper left", frameon=False, fontsize=9, ncols=1)
    return _saved(figure, path)


def _means(axes: Axes, shown: list[tuple[float, Any]], color: str, marker: str, label: str) -> None:
    y = np.array([position for position, _ in shown])
    mean, low, high = (np.array([getattr(i, part) for _, i in shown]) for part in ("mean", "low", "high"))
    axes.errorbar(mean, y, xerr=np.nan_to_num([np.maximum(mean - low, 0), np.maximum(high - mean, 0)]), fmt=marker,
                  color=color, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6, elinewidth=1.6, capsize=0,
                  label=label, zorder=3)  # fmt: skip


def figure_learning_curve(
    records: Sequence[dict[str, Any]], path: Path | None = None, labels: LabelSet | None = None
) -> Figure:
    """Loss and its parts, learning rate, and DSC of the held-out cases, against minutes of training.

    records: lines of metrics.jsonl. labels: colours for the single classes, grey without. Raises ValueError when there
    is nothing to draw.
    """
    from matplotlib.figure import Figure

    steps = [r for r in records if "loss" in r]
    checks = [r for r in records if "val_dsc" in r]
    if not steps and not checks:
        raise ValueError("no training records to draw")
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
                axes.plot(*zip(*line, strict=True), color=color, linewidth=width, label=name) if line else None
            axes.set_title("training loss", fontsize=10, loc="left")
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False, fontsize=8)
        elif panel == "rate":
            axes.plot([r["minutes"] for r in steps], [r["lr"] for r in steps], color=METHODS[4], linewidth=1.4)
            axes.set_title("learning rate", fontsize=10, loc="left")
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter("{x:.1e}")
        else:
            _held_out(axes, checks, labels)
        axes.set_xlabel("minutes")
        axes.grid(color="#e5e5e5", linewidth=0.7)
        _plain(axes)
    return _saved(figure, path)


def _held_out(axes: Axes, checks: Sequence[dict[str, Any]], labels: LabelSet | None) -> None:
    """Mean DSC of the held-out cases over time, bold, each class thin."""
    names = dict.fromkeys(name for r in checks for name in r.get("val_per_class", {}))
    for name in names:
        line = [(r["minutes"], v) for r in checks if (v := r.get("val_per_class", {}).get(name)) is not None]
        color: Any = rgb(labels, labels.names.index(name)) if labels and name in labels.names else "#bbbbbb"
        axes.plot(
            *zip(*line, strict=True), color=color, linewidth=1.0, marker=".", markersize=3, label=name
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


def _plain(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)


def _saved(figure: Figure, path: Path | None) -> Figure:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode(figure))
    return figure
