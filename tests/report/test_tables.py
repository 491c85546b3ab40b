"""Tables say what the evaluations say, label oracles and keep background beside."""

from __future__ import annotations

import csv
import io
import math

import pytest

from sampeft.labels import LabelSet
from sampeft.metrics.counts import Counts
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Interval
from sampeft.report.tables import (
    FOREGROUND,
    WITH_BACKGROUND,
    distance_metric,
    interval_text,
    legend,
    markdown_table,
    rules,
    second_metrics,
    short_heading,
    short_text,
    table_csv,
    table_md,
)


def parse(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in [lines[0], *lines[2:]]]


def test_numbers_are_those_of_the_evaluations(evaluations: dict[str, Evaluation]) -> None:
    header, *rows = parse(table_md(evaluations))
    assert [row[0] for row in rows] == ["liver & <portal> vein", "missed", "stray", "absent", f"**{FOREGROUND}**"]
    for m, (name, evaluation) in enumerate(evaluations.items()):
        assert header[1 + 4 * m].startswith(name)
        for row, score in zip(rows, evaluation.per_class(), strict=False):
            assert row[1 + 4 * m : 5 + 4 * m] == [
                interval_text(score.interval), str(score.n), str(score.n_missed), str(score.n_false),
            ]  # fmt: skip
        mean = evaluation.headline()
        assert rows[-1][1 + 4 * m] == f"**{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]**"
    assert rows[1][1:5] == ["0.000 [0.000, 0.000]", "6", "6", "0"]
    assert rows[2][1:5] == ["0.000", "1", "0", "1"]  # one case: a score, no interval
    assert rows[3][1:5] == ["not scored", "0", "0", "0"]


def test_oracle_is_labelled_and_background_only_beside(evaluations: dict[str, Evaluation]) -> None:
    text = table_md(evaluations)
    assert "boxes, oracle (uses the truth): DSC" in text
    assert "LoRA r=4, oracle" not in text
    beside = [line for line in text.splitlines() if WITH_BACKGROUND in line]
    assert len(beside) == 1
    assert not beside[0].startswith("|")
    for evaluation in evaluations.values():
        assert f"{evaluation.with_background_mean():.3f}" in beside[0]


def test_without_background_nothing_is_beside() -> None:
    evaluation = Evaluation({"a": Counts.zeros(2)}, LabelSet(("field", "water"), (1, 2)))
    assert WITH_BACKGROUND not in table_md({"x": evaluation})


def test_a_class_that_only_one_method_knows_is_kept(evaluations: dict[str, Evaluation]) -> None:
    other = Evaluation({"a": Counts.zeros(2)}, LabelSet(("background", "spleen"), (0, 1)))
    rows = parse(table_md({**evaluations, "other": other}))
    assert [row[9] for row in rows[1:5]] == ["not scored"] * 4
    assert rows[5][:2] == ["spleen", "not scored"]


def test_csv_has_the_same_numbers_unrounded(evaluations: dict[str, Evaluation]) -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(evaluations))))
    for name, evaluation in evaluations.items():
        mine = {row["class"]: row for row in rows if row["method"] == name}
        assert {row["oracle"] for row in mine.values()} == {str(evaluation.is_oracle).lower()}
        assert float(mine[FOREGROUND]["mean"]) == evaluation.headline().mean
        assert float(mine[FOREGROUND]["high"]) == evaluation.headline().high
        assert float(mine[WITH_BACKGROUND]["mean"]) == evaluation.with_background_mean()
        assert math.isnan(float(mine["absent"]["mean"]))
        assert int(mine["missed"]["missed"]) == 6


def test_markdown_escapes_and_refuses_ragged_rows() -> None:
    assert markdown_table(["a|b", "c"], [["x\ny", "|"]]) == "| a\\|b | c |\n| --- | ---: |\n| x y | \\| |\n"
    with pytest.raises(ValueError, match="does not have the 2 columns"):
        markdown_table(["a", "b"], [["x"]])


def test_few_cases_are_said_to_be_few(evaluations: dict[str, Evaluation]) -> None:
    assert not any("too few" in line for line in legend(evaluations))
    few = Evaluation(dict(list(evaluations["boxes"].counts.items())[:3]), evaluations["boxes"].labels)
    assert any("too few" in line for line in legend({"few": few}))


def test_second_metrics_are_those_that_were_measured(evaluations: dict[str, Evaluation], measured: Evaluation) -> None:
    assert second_metrics(evaluations) == []
    assert distance_metric(evaluations["boxes"]) is None
    assert second_metrics({**evaluations, "LoRA": measured}) == ["nsd", "hd95_mm"]
    assert distance_metric(measured) == "hd95_mm"
    assert [short_heading(metric) for metric in ("nsd", "nsd_px", "hd95_px")] == [
        ("NSD", ""), ("NSD", "px"), ("HD95", "px"),
    ]  # fmt: skip


def test_short_texts_say_how_many_have_no_distance() -> None:
    nan = math.nan
    assert short_text(Interval(0.9126, 0.9, 0.93, 9), "nsd") == "0.913"
    assert short_text(Interval(4.26, 4, 5, 9), "hd95_mm") == "4.3"
    assert short_text(Interval(math.inf, nan, nan, 9, 2, 4.26), "hd95_mm") == "4.3 + 2 inf"
    assert short_text(Interval(math.inf, nan, nan, 2, 2, None), "hd95_mm") == "2 inf"
    assert short_text(Interval(nan, nan, nan, 0), "hd95_mm") == ""


def test_the_rules_of_each_protocol_are_said_once(evaluations: dict[str, Evaluation]) -> None:
    (rule,) = rules(evaluations)
    assert rule == f"Protocol default: {evaluations['boxes'].protocol.about}."
    assert legend(evaluations).count(rule) == 1
