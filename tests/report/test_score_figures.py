"""Plots of scores hold every case, and the means, intervals and probabilities of the evaluations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sampeft.metrics.measures import VOLUME, Measures
from sampeft.metrics.scores import Evaluation
from sampeft.report.score_figures import (
    case_means,
    figure_by_size,
    figure_case_means,
    figure_per_class,
    figure_reliability,
)

pytest.importorskip("matplotlib")


def points(axes: Any) -> np.ndarray:
    """(N, 2) of all scatter plots, sorted."""
    from matplotlib.collections import PathCollection

    drawn = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections if isinstance(c, PathCollection)])
    return drawn[np.lexsort(drawn.T)]


def test_every_scored_case_is_a_point(evaluations: dict[str, Evaluation]) -> None:
    (axes,) = figure_per_class(evaluations).axes
    of_classes = np.concatenate([e.matrix()[:, 1:].ravel() for e in evaluations.values()])
    of_cases = np.concatenate([np.nanmean(e.matrix()[:, 1:], axis=1) for e in evaluations.values()])
    expected = np.concatenate([of_classes[~np.isnan(of_classes)], of_cases])
    np.testing.assert_allclose(np.sort(points(axes)[:, 0]), np.sort(expected))
    means = [line.get_xdata() for line in axes.lines if line.get_marker() in "os"]
    for shown, evaluation in zip(means, evaluations.values(), strict=True):
        wanted = [c.interval.mean for c in evaluation.per_class()] + [evaluation.headline().mean]
        np.testing.assert_allclose(shown, wanted)
    ticks = [t.get_text() for t in axes.get_yticklabels()]
    assert ticks == [
        "liver & <portal> vein  (n = 6)", "missed  (n = 6)", "stray  (n = 1)", "absent  (n = 0)", "foreground mean",
    ]  # fmt: skip


def test_boxes_hold_the_middle_half_from_ten_cases_on(evaluations: dict[str, Evaluation], measured: Evaluation) -> None:
    """Twelve DSC of 160/180, 162/181 ... 182/191; the stripes behind the classes are rectangles too."""
    (few,) = figure_per_class(evaluations).axes
    (axes,) = figure_per_class({"LoRA": measured}).axes
    stripes = {round(r.get_height(), 6) for r in few.patches}
    assert stripes == {1.0}
    boxes = [r for r in axes.patches if r.get_height() < 0.9]
    quartiles = np.nanquantile(measured.matrix()[:, 1], (0.25, 0.75))
    assert (boxes[0].get_x(), boxes[0].get_x() + boxes[0].get_width()) == pytest.approx(tuple(quartiles))
    assert len(boxes) == 3  # two classes and the foreground mean


def test_distances_without_an_end_are_left_out_and_said_to_be(measured: Evaluation) -> None:
    figure = figure_per_class({"LoRA": measured}, "hd95_mm")
    (axes,) = figure.axes
    assert np.isfinite(points(axes)).all()
    assert len(points(axes)) == 12 + 11 + 12
    node = next(line for line in axes.lines if line.get_marker() == "o").get_xdata()[1]
    assert node == pytest.approx(np.mean([20 + i for i in range(12) if i != 3]))
    assert "left out" in figure.get_supxlabel()


def test_a_point_per_case_beside_the_headline(measured: Evaluation) -> None:
    (axes,) = figure_case_means({"LoRA": measured}).axes
    by_hand = [(2 * (80 + i) / (180 + i) + (0 if i == 3 else 18 / 19)) / 2 for i in range(12)]
    np.testing.assert_allclose(case_means(measured), by_hand)
    np.testing.assert_allclose(np.sort(points(axes)[:, 0]), np.sort(by_hand))
    (mean,) = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(mean.get_xdata(), [measured.headline().mean])


def test_points_lie_at_the_size_of_the_truth(measured: Evaluation) -> None:
    figure = figure_by_size({"LoRA": measured})
    assert figure is not None
    (axes,) = figure.axes
    expected = np.array(
        [(1 + i / 10, 0 if i == 3 else 18 / 19) for i in range(12)]
        + [(100 + i, 2 * (80 + i) / (180 + i)) for i in range(12)]
    )
    np.testing.assert_allclose(points(axes), expected[np.lexsort(expected.T)])
    assert (axes.get_xscale(), "volume" in axes.get_xlabel(), "(ml," in axes.get_xlabel()) == ("log", True, True)
    pixels = replace(measured, measures={case: Measures({}) for case in measured.cases})
    in_pixels = figure_by_size({"LoRA": pixels})
    assert in_pixels is not None
    assert "area" in in_pixels.axes[0].get_xlabel()
    assert set(points(in_pixels.axes[0])[:, 0]) == {10, 100}


@pytest.mark.parametrize(
    ("low", "high", "wanted"), [(56, 58, "40 50 60 70 80"), (3, 40, "2 5 10 20 50"), (0.2, 9000, None)]
)
def test_sizes_of_any_span_have_ticks_with_numbers(
    measured: Evaluation, low: float, high: float, wanted: str | None
) -> None:
    sizes = np.linspace(low, high, len(measured.cases))
    measures = {
        case: Measures({**measured.measures[case].values, VOLUME: np.array([9.0, size, size])})
        for case, size in zip(measured.cases, sizes, strict=True)
    }
    figure = figure_by_size({"LoRA": replace(measured, measures=measures)})
    assert figure is not None
    figure.canvas.draw()
    axes = figure.axes[0]
    first, last = axes.get_xlim()
    shown = [text.get_text() for text in axes.get_xticklabels() if first <= text.get_position()[0] <= last]
    if wanted is None:
        assert 4 <= len([text for text in shown if text]) <= 8
    else:
        assert shown == wanted.split()


def test_nothing_found_in_the_truth_is_no_figure(measured: Evaluation) -> None:
    assert figure_by_size({"none": replace(measured, counts={}, measures={})}) is None


def test_reliability_is_that_of_the_calibration(measured: Evaluation) -> None:
    """Bins at 0.6 and 0.9: right in 0.5 and 0.8, each half of the pixels."""
    above, below = figure_reliability(measured.calibration).axes
    line = above.lines[1]
    np.testing.assert_allclose(line.get_xydata(), [(0.6, 0.5), (0.9, 0.8)])
    assert line.get_label() == "as trained: ECE 0.100"
    assert [bar.get_height() for bar in below.patches if bar.get_height()] == [0.5, 0.5]
    with pytest.raises(ValueError, match="at least one calibration"):
        figure_reliability({})
