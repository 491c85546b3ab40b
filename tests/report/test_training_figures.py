"""The learning curves are the records, and nothing is drawn of what was not recorded."""

from __future__ import annotations

import pytest

from sampeft.labels import LabelSet
from sampeft.report.training_figures import figure_learning_curve

pytest.importorskip("matplotlib")

RECORDS = [
    {"step": 10, "minutes": 0.1, "loss": 1.5, "ce": 2.0, "dice": 1.2, "lr": 1e-4},
    {"step": 20, "minutes": 0.2, "loss": 1.1, "ce": 1.0, "dice": 1.1, "lr": 3e-4},
    {"step": 20, "minutes": 0.3, "val_dsc": 0.4, "val_per_class": {"missed": 0.3, "stray": None}},
    {"step": 30, "minutes": 0.5, "val_dsc": 0.6, "val_per_class": {"missed": 0.7, "stray": None}},
    {"step": 40, "minutes": 0.7, "val_dsc": float("nan"), "val_per_class": {}},
]


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
    # All panels show the same time, from the beginning.
    assert [axes.get_xlim() for axes in (loss, rate, dsc)] == [pytest.approx((0.0, 1.03 * 0.7))] * 3
    assert all(0 in axes.get_xticks() for axes in (loss, rate, dsc))
    assert [t.get_text() for t in dsc.texts] == ["best 0.600"]
    assert len(rate.get_yticks()) <= 6


def test_a_single_record_is_seen(labels: LabelSet) -> None:
    loss, rate = figure_learning_curve(RECORDS[:1], labels=labels).axes
    assert {line.get_marker() for axes in (loss, rate) for line in axes.lines} == {"."}
    many = [{**RECORDS[0], "minutes": 0.1 * n} for n in range(100)]
    assert figure_learning_curve(many, labels=labels).axes[0].lines[0].get_marker() == "None"


def test_learning_curve_without_validation_or_records() -> None:
    assert len(figure_learning_curve(RECORDS[:2]).axes) == 2
    assert len(figure_learning_curve(RECORDS[2:]).axes) == 1
    with pytest.raises(ValueError, match="no training records"):
        figure_learning_curve([{"step": 1}])
