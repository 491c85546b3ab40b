"""DSC against noise: a line per way at its own numbers, strengths as ticks, intervals that hold what was computed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from sampeft.metrics.statistics import Interval
from sampeft.report.noise_figure import figure_noise
from sampeft.report.style import encode

NAN = float("nan")
FOUND = {
    "plain": {0.0: Interval(0.9, 0.85, 0.94, 8), 0.1: Interval(0.6, 0.5, 0.68, 8), 0.3: Interval(0.1, 0.02, 0.2, 8)},
    "nlm before it": {0.0: Interval(0.88, 0.8, 0.9, 8), 0.1: Interval(0.7, 0.6, 0.8, 8), 0.3: Interval(0.2, 0.1, 0.3, 8)},
    "trained on noise": {0.0: Interval(0.86, NAN, NAN, 1), 0.1: Interval(0.8, NAN, NAN, 1), 0.3: Interval(0.5, 0.4, 0.6, 2)},
}  # fmt: skip


def test_one_line_per_way_with_strengths_as_ticks(tmp_path: Path) -> None:
    figure = figure_noise(FOUND, "gaussian", "a data set", tmp_path / "new" / "noise.png")
    (axes,) = figure.axes
    assert list(axes.get_xticks()) == [0.0, 0.1, 0.3]
    assert axes.get_xlabel() == "strength of gaussian noise, on levels of 0 to 1"
    assert axes.get_ylabel() == "foreground DSC, 95 % interval over cases"
    assert axes.get_ylim() == (0, 1)
    assert axes.get_title(loc="left") == "a data set"
    containers, names = axes.get_legend_handles_labels()
    assert names == list(FOUND)
    for container, by_strength in zip(containers, FOUND.values(), strict=True):
        line, _, (bars,) = container
        np.testing.assert_allclose(line.get_ydata().tolist(), [i.mean for i in by_strength.values()])
        np.testing.assert_allclose(line.get_xdata().tolist(), list(by_strength), atol=0.3 * 0.013)
        for segment, interval in zip(bars.get_segments(), by_strength.values(), strict=True):
            ends = (interval.mean, interval.mean) if np.isnan(interval.low) else (interval.low, interval.high)
            np.testing.assert_allclose(segment[:, 1].tolist(), ends)
    places = [tuple(container[0].get_xdata()) for container in containers]
    assert len({x for line in places for x in line}) == 9  # no interval stands on another
    looks = {(c[0].get_color(), c[0].get_marker()) for c in containers}
    assert len({color for color, _ in looks}) == len({marker for _, marker in looks}) == 3
    assert Image.open(tmp_path / "new" / "noise.png").size == Image.open(BytesIO(encode(figure))).size


@pytest.mark.parametrize("low_scores", [True, False])
def test_the_legend_covers_no_point(low_scores: bool) -> None:
    """Wherever the curves lie: noise may leave everything or nothing."""
    at = (0.02, 0.05) if low_scores else (0.95, 0.98)
    found = {
        f"way {m}, with a heading of usual length": {s: Interval(at[m % 2], *at, 9) for s in (0.0, 0.1)}
        for m in range(5)
    }
    figure = figure_noise(found, "gaussian", "data")
    FigureCanvasAgg(figure).draw()
    legend = (figure.legends or [figure.axes[0].get_legend()])[0]
    box = legend.get_window_extent()
    assert figure.bbox.contains(box.x0, box.y0)
    assert figure.bbox.contains(box.x1, box.y1)
    for line in figure.axes[0].lines:
        for x, y in line.get_transform().transform(np.column_stack([line.get_xdata(), line.get_ydata()])):
            assert not box.contains(x, y)


def test_one_strength_and_one_way_are_drawn() -> None:
    figure = figure_noise({"plain": {0.0: Interval(0.5, 0.4, 0.6, 5)}}, "motion", "data")
    container = figure.axes[0].get_legend_handles_labels()[0][0]
    assert list(container[0].get_xdata()) == [0.0]
    assert list(figure.axes[0].get_xticks()) == [0.0]
