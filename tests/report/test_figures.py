"""Figures of slices show every pixel in the colours of the label map, and the truth's outlines on what was predicted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampeft.evaluation.score import Look
from sampeft.labels import LabelSet
from sampeft.metrics.scores import Evaluation
from sampeft.report.figures import FILL, Example, encode, figure_examples
from sampeft.report.overlays import show_outlines
from sampeft.report.results import examples
from sampeft.volume import IGNORE

pytest.importorskip("matplotlib")


def area(vertices: np.ndarray) -> float:
    x, y = vertices.T
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2


def test_import_needs_no_heavy_library() -> None:
    code = "import sampeft.report.page, sys; assert not {'matplotlib', 'torch', 'jinja2', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_examples_show_the_whole_slice_in_the_colours_of_the_labels(example: Example, labels: LabelSet) -> None:
    figure = figure_examples([example], labels)
    image, truth, prediction = figure.axes
    np.testing.assert_array_equal(image.images[0].get_array(), example.image_HW)
    for axes, channels in ((truth, example.truth_HW), (prediction, example.predictions["LoRA r=4"])):
        assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 39.5), (29.5, -0.5))
        over = axes.images[1].get_array()
        for k in (1, 2):
            expected = [*(value / 255 for value in labels.colors[k]), FILL]
            np.testing.assert_allclose(over[channels == k], np.tile(expected, ((channels == k).sum(), 1)), atol=1e-6)
        assert not over[channels <= 0].any()  # background and pixels without a truth keep the bare image


def test_legend_names_the_classes_present_by_id(example: Example, labels: LabelSet) -> None:
    (legend,) = figure_examples([example], labels).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "10  liver & <portal> vein", "20  missed", "no truth", "outline of the truth",
    ]  # fmt: skip


def test_outlines_enclose_what_they_outline(example: Example, labels: LabelSet) -> None:
    """Also at the edge of the image; half a pixel is cut from each corner of a rectangle, 1/8 in area."""
    axes = figure_examples([example], labels).axes[1]
    (outline,) = [c for c in axes.collections if not c.filled]
    (polygon,) = outline.get_paths()[0].to_polygons()
    assert area(np.asarray(polygon)) == pytest.approx((example.truth_HW == 1).sum() - 4 / 8)


def length(axes: Any) -> float:
    """Of all outlines that are not filled, in pixels."""
    lines = [c for c in axes.collections if not c.filled]
    paths = [line for c in lines for path in c.get_paths() for line in path.to_polygons(closed_only=False)]
    return sum(float(np.hypot(*np.diff(line, axis=0).T).sum()) for line in paths)


def test_predictions_carry_the_outlines_of_the_truth(labels: LabelSet) -> None:
    truth = np.zeros((80, 80), np.int16)
    truth[20:60, 20:60] = 1
    nothing = Example("a", "a", np.zeros((80, 80, 3), np.uint8), truth, {"empty": np.zeros_like(truth)})
    axes = figure_examples([nothing], labels).axes[2]
    (outline,) = [c for c in axes.collections if not c.filled]
    (polygon,) = outline.get_paths()[0].to_polygons()
    assert area(np.asarray(polygon)) == pytest.approx(1600 - 4 / 8)
    assert outline.get_linestyle()[0][1] is not None  # dashed
    bare = Example("a", "a", nothing.image_HW, None, {"empty": np.zeros_like(truth)})
    assert not figure_examples([bare], labels).axes[1].collections


def test_a_border_of_the_truth_is_drawn_once_and_ends_with_the_truth() -> None:
    """Three rows of land: left half field, right half water, the lowest two rows without a truth: a line of 7 pixels."""
    from matplotlib.figure import Figure

    channels = np.zeros((10, 10), np.int16)
    channels[:, 5:], channels[8:] = 1, IGNORE
    axes = Figure().add_subplot()
    show_outlines(axes, channels, LabelSet(("field", "water"), (1, 2), ignore=255))
    assert length(axes) == pytest.approx(7)


def test_grey_levels_do_not_depend_on_how_they_are_stored(example: Example, labels: LabelSet) -> None:
    stored = np.round(example.image_HW * 255).astype(np.uint8)
    shown = [
        figure_examples([Example("a", "a", image)], labels).axes[0].images[0].get_array()
        for image in (stored, stored / 255.0)
    ]
    np.testing.assert_allclose(shown[0], shown[1], atol=1e-6)
    raw = figure_examples([Example("a", "a", stored * 8.0 - 1024)], labels).axes[0].images[0].get_array()
    assert (raw.min(), raw.max()) == (0, 1)


def test_each_example_is_a_row_and_missing_predictions_leave_a_gap(example: Example, labels: LabelSet) -> None:
    bare = Example("b", "no prediction", np.zeros((60, 20, 3), np.uint8), example.truth_HW[:20, :20].repeat(3, axis=0))
    figure = figure_examples([example, bare], labels)
    assert len(figure.axes) == 3 + 2
    assert [t.get_text() for t in figure.texts if "case" in t.get_text()] == ["best case case_0   DSC 0.800"]
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= b.x0 < b.x1 <= 1 and 0 <= b.y0 < b.y1 <= 1 for b in boxes)
    assert boxes[3].y1 < boxes[0].y0
    with pytest.raises(ValueError, match=r"truth of \(30, 40\) pixels does not fit the image of \(60, 20\)"):
        Example("b", "other size", bare.image_HW, example.truth_HW)
    with pytest.raises(ValueError, match="at least one"):
        figure_examples([], labels)


def test_saving_gives_a_picture_and_nothing_else(
    example: Example, labels: LabelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figure_examples([example], labels, tmp_path / "new" / "look.png")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["look.png"]
    with Image.open(tmp_path / "new" / "look.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert np.abs(np.array(picture.size) - 130 * figure.get_size_inches()).max() <= 1
    assert len(encode(figure, "jpeg", 40)) < len(encode(figure))
    (tmp_path / "full").mkdir()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        figure_examples([example], labels, tmp_path / "full" / "look.png")
    assert list((tmp_path / "full").iterdir()) == []


def test_best_and_worst_are_different_cases_and_one_case_is_shown_once(evaluations: dict[str, Evaluation]) -> None:
    found = evaluations["LoRA r=4"]  # of 10 pixels of class 1: 8, 6, 7, 9, 5, 8 found; case_1 has a stray class as well
    picture = np.zeros((4, 4), np.float32)
    looks = [
        Look(case, case, 0, 1, picture, np.zeros((4, 4), np.int16), np.zeros((4, 4), np.int16)) for case in found.cases
    ]

    def titles(*numbers: int) -> list[str]:
        return [example.title for example in examples(found, [looks[n] for n in numbers])]

    assert titles(*range(6)) == ["best case case_3, case_3", "median case case_2, case_2", "worst case case_1, case_1"]
    assert titles(0, 3) == ["best case case_3, case_3", "worst case case_0, case_0"]
    assert titles(0) == titles(0, 0) == ["the only case case_0, case_0"]
    assert titles() == []
