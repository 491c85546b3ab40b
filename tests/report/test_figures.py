"""Figures show every pixel, every case and every record, in the colours of the label map."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampeft.labels import LabelSet
from sampeft.metrics.scores import Evaluation
from sampeft.report.figures import (
    FILL,
    Example,
    encode,
    figure_examples,
    figure_learning_curve,
    figure_per_class,
)

pytest.importorskip("matplotlib")

RECORDS = [
    {"step": 10, "minutes": 0.1, "loss": 1.5, "ce": 2.0, "dice": 1.2, "lr": 1e-4},
    {"step": 20, "minutes": 0.2, "loss": 1.1, "ce": 1.0, "dice": 1.1, "lr": 3e-4},
    {"step": 20, "minutes": 0.3, "val_dsc": 0.4, "val_per_class": {"missed": 0.3, "stray": None}},
    {"step": 30, "minutes": 0.5, "val_dsc": 0.6, "val_per_class": {"missed": 0.7, "stray": None}},
    {"step": 40, "minutes": 0.7, "val_dsc": float("nan"), "val_per_class": {}},
]


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
    assert [text.get_text() for text in legend.get_texts()] == ["10  liver & <portal> vein", "20  missed", "no truth"]


def test_outlines_enclose_what_they_outline(example: Example, labels: LabelSet) -> None:
    """Also at the edge of the image; half a pixel is cut from each corner of a rectangle, 1/8 in area."""
    axes = figure_examples([example], labels).axes[1]
    (outline,) = [c for c in axes.collections if not c.filled]
    (polygon,) = outline.get_paths()[0].to_polygons()
    assert area(np.asarray(polygon)) == pytest.approx((example.truth_HW == 1).sum() - 4 / 8)


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


def test_every_scored_case_is_a_point(evaluations: dict[str, Evaluation]) -> None:
    (axes,) = figure_per_class(evaluations).axes
    drawn = np.sort(np.concatenate([c.get_offsets()[:, 0] for c in axes.collections if hasattr(c, "get_sizes")]))
    expected = np.concatenate([e.matrix()[:, 1:].ravel() for e in evaluations.values()])
    np.testing.assert_allclose(drawn, np.sort(expected[~np.isnan(expected)]))
    means = [line.get_xdata() for line in axes.lines if line.get_marker() in "os"]
    for shown, evaluation in zip(means, evaluations.values(), strict=True):
        wanted = [c.interval.mean for c in evaluation.per_class()] + [evaluation.headline().mean]
        np.testing.assert_allclose(shown, wanted)
    ticks = [t.get_text() for t in axes.get_yticklabels()]
    assert ticks == [
        "liver & <portal> vein  (n = 6)", "missed  (n = 6)", "stray  (n = 1)", "absent  (n = 0)", "foreground mean",
    ]  # fmt: skip


def test_learning_curve_draws_the_records(labels: LabelSet) -> None:
    loss, rate, dsc = figure_learning_curve(RECORDS, labels=labels).axes
    lines = {line.get_label(): line.get_xydata().tolist() for axes in (loss, dsc) for line in axes.lines}
    assert lines["loss"] == [[0.1, 1.5], [0.2, 1.1]]
    assert lines["cross-entropy"] == [[0.1, 2.0], [0.2, 1.0]]
    assert lines["Dice loss"] == [[0.1, 1.2], [0.2, 1.1]]
    assert lines["foreground mean"] == [[0.3, 0.4], [0.5, 0.6]]
    assert lines["missed"] == [[0.3, 0.3], [0.5, 0.7]]
    assert "stray" not in lines
    assert rate.lines[0].get_xydata().tolist() == [[0.1, 1e-4], [0.2, 3e-4]]
    assert [t.get_text() for t in dsc.texts] == ["best 0.600"]


def test_learning_curve_without_validation_or_records() -> None:
    assert len(figure_learning_curve(RECORDS[:2]).axes) == 2
    assert len(figure_learning_curve(RECORDS[2:]).axes) == 1
    with pytest.raises(ValueError, match="no training records"):
        figure_learning_curve([{"step": 1}])


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
