"""Figures of example slices: image, truth and predictions side by side; no window is ever opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.labels import LabelSet
from sampeft.report.closeups import CloseUp
from sampeft.report.overlays import FILL, OUTLINE_DASHES, show_classes, show_image, show_outlines
from sampeft.report.score_figures import figure_per_class
from sampeft.report.style import DPI, MARKERS, METHODS, encode, rgb, saved, shown_name
from sampeft.report.training_figures import figure_learning_curve
from sampeft.volume import IGNORE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "DPI", "FILL", "MARKERS", "METHODS", "Example", "encode", "figure_examples", "figure_learning_curve",
    "figure_per_class", "rgb", "show_classes", "show_image",
]  # fmt: skip

Array = npt.NDArray[Any]

PANEL_INCH = 2.9
_TITLE_LETTERS = 34  # that fit over a panel in full size


@dataclass(frozen=True)
class Example:
    """A slice to look at.

    image_HW: (H, W) or (H, W, 3); uint8 0..255, or float, shown from 0 to 1 if it lies there, else from its minimum
        to its maximum. truth_HW: (H, W) class channels or IGNORE, or None. predictions: method -> (H, W) class channels.
    score: DSC of the case in 0..1, or None. Raises ValueError when channels and image differ in size.
    """

    case: str
    title: str
    image_HW: Array
    truth_HW: Array | None = None
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


def figure_examples(examples: Sequence[Example], labels: LabelSet, path: Path | None = None) -> Figure:
    """One row per example: image, truth, each prediction; classes filled, outlined and numbered by their ids.

    The whole slice is shown. Predictions also carry the truth's outlines, thin and dashed. Where the truth's foreground
    is no more than a few pixels, every panel has the same close-up of it in its emptiest corner, and what else there is
    gets a ring. Raises ValueError without examples.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
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
    has_outlines = any(e.truth_HW is not None and e.predictions for e in examples) and bool(present)
    below = 0.22 * math.ceil((len(present) + has_ignored + has_outlines) / per_line) + 0.12
    height = top + sum(strip + h for h in heights) + below
    figure = Figure(figsize=(width, height), dpi=DPI)

    y = height - top
    for c, heading in enumerate(["image", *headings]):
        x = (gap + c * (PANEL_INCH + gap)) / width
        size = 10 * min(1.0, _TITLE_LETTERS / len(heading))
        figure.text(x + PANEL_INCH / 2 / width, (y + 0.08) / height, heading, ha="center", fontsize=size, weight="bold")
    for example, row_inch in zip(examples, heights, strict=True):
        score = "" if example.score is None or math.isnan(example.score) else f"   DSC {example.score:.3f}"
        figure.text(gap / width, (y - 0.2) / height, example.title + score, fontsize=10)
        y -= strip + row_inch
        close_up = CloseUp.of(example.truth_HW, example.predictions.values(), labels)
        for c, heading in enumerate(["image", *headings]):
            if c and heading not in example.panels:
                continue
            x = gap + c * (PANEL_INCH + gap)
            axes = figure.add_axes((x / width, y / height, PANEL_INCH / width, row_inch / height))
            axes.set_axis_off()
            axes.set_anchor("N")
            with_truth = example.truth_HW is not None and heading in example.predictions
            parts = [axes] if close_up is None else [axes, close_up.axes(axes)]
            for part in parts:
                show_image(part, example.image_HW)
                if c:
                    show_classes(part, example.panels[heading], labels, numbers=close_up is None)
                if with_truth:
                    assert example.truth_HW is not None
                    show_outlines(part, example.truth_HW, labels)
            if close_up is not None:
                close_up.finish(parts[0], parts[1], example.panels[heading] if c else None, labels)
    handles: list[Any] = [
        Patch(
            facecolor=rgb(labels, k),
            edgecolor="black",
            linewidth=0.4,
            label=f"{labels.ids[k]}  {shown_name(labels.names[k])}",
        )
        for k in present
    ]
    if has_ignored:
        handles.append(Patch(facecolor="white", edgecolor="black", hatch="////", linewidth=0.4, label="no truth"))
    if has_outlines:
        handles.append(
            Line2D([], [], color="black", linewidth=0.9, linestyle=OUTLINE_DASHES, label="outline of the truth")
        )
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=per_line, fontsize=8.5, frameon=False,
                      handlelength=1.1, handleheight=1.0, columnspacing=1.4, borderaxespad=0.3)  # fmt: skip
    return saved(figure, path)


def _present(examples: Sequence[Example], labels: LabelSet) -> list[int]:
    """Foreground channels that any panel shows."""
    shown = {int(k) for example in examples for panel in example.panels.values() for k in np.unique(panel)}
    return [k for k in labels.foreground if k in shown]
