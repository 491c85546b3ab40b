"""The sentences and rows of the page are those of the evaluations, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sampeft.labels import LabelSet
from sampeft.metrics.counts import Counts
from sampeft.metrics.measures import Measures
from sampeft.metrics.scores import Evaluation
from sampeft.report.sections import calibration_sentences, calibration_table, class_table, headline, size_table
from sampeft.report.tables import second_metrics


def test_second_metrics_stand_beside_the_headline(measured: Evaluation) -> None:
    metrics = second_metrics({"LoRA": measured})
    assert metrics == ["nsd", "hd95_mm"]
    found = headline("LoRA", measured, metrics)
    nsd = measured.headline("nsd")
    organ, node = np.arange(12), [20 + i for i in range(12) if i != 3]
    assert found.others == [
        f"NSD {nsd.mean:.3f} [{nsd.low:.3f}, {nsd.high:.3f}]",
        f"HD95 {(np.mean(organ) + np.mean(node)) / 2:.1f} mm where there is one; "
        "no distance (inf) for some class in 1 of 12 cases",
    ]
    assert found.seconds == [f"{nsd.mean:.3f}", f"{(np.mean(organ) + np.mean(node)) / 2:.1f} + 1 inf"]
    assert found.mean == f"{measured.headline().mean:.3f}"
    assert (found.n, found.missed, found.false) == (12, 1, 0)


def test_class_rows_have_the_second_metrics_that_an_evaluation_measured(measured: Evaluation) -> None:
    bare = replace(measured, measures={})
    rows = class_table({"LoRA": measured, "bare": bare}, ["nsd", "hd95_mm"])
    assert [row.seconds for row in rows["big_organ"]] == [["0.950", "5.5"], ["", ""]]
    assert rows["node"][0].seconds == ["0.688", f"{np.mean([20 + i for i in range(12) if i != 3]):.1f} + 1 inf"]
    assert {row.text for row in rows["node"]} == {rows["node"][0].text}


def test_a_size_bin_is_a_row_per_evaluation_in_the_same_unit(measured: Evaluation) -> None:
    pixels = replace(measured, measures={case: Measures({}) for case in measured.cases})
    rows = size_table({"LoRA": measured, "again": measured, "pixels": pixels})
    assert list(rows) == ["1.0 to 51 ml", "51 to 110 ml"]  # the middle of 2.1 and 100 ml is 51.05
    assert [row.method for row in rows["1.0 to 51 ml"]] == ["LoRA", "again"]
    assert [(row.cases, row.pairs, row.missed) for row in rows["1.0 to 51 ml"]] == [(12, 12, 1)] * 2


def test_calibration_is_said_in_a_sentence(measured: Evaluation) -> None:
    """Confident 0.75 on average, right in 0.65: overconfident by 0.1; a class of 200 pixels at 0.05, of which 0.01 are its."""
    assert calibration_sentences(measured.calibration) == [
        "as trained: its most probable class has a probability of 0.750 on average and is right in 0.650 of the pixels, "
        "so it is overconfident; expected calibration error (ECE) 0.100."
    ]
    assert calibration_table(measured)["node"] == [("0.0400", "0.0250")]
    found = measured.calibration["as trained"]
    modest = replace(found, top_hits=found.top_n * [0, 0, 0, 0, 0, 0, 0.7, 0, 0, 1])
    right = replace(found, top_hits=found.top_confidence)
    texts = calibration_sentences({"modest": modest, "right": right})
    assert "so it is underconfident;" in texts[0]
    assert "neither over- nor underconfident on average" in texts[1]


def test_land_cover_and_targets_have_their_own_figures() -> None:
    """Two classes without a background: 80 of 100 pixels right. Targets: 3 of 4 found, 2 false pixels of 100."""
    cover = Evaluation(
        {"a": Counts(np.array([50, 30]), np.array([10, 10]), np.array([10, 10]))}, LabelSet(("x", "y"), (1, 2))
    )
    (line,) = headline("a", cover, []).others
    assert line.startswith("all pixels together: overall accuracy 0.800, mean IoU 0.657")  # 50/70, 30/50
    counted = {"targets": 4, "targets_found": 3, "targets_false": 1, "targets_false_pixels": 2, "pixels": 100}
    measures = {"a": Measures({name: np.array([0.0, value]) for name, value in counted.items()})}
    counts = {"a": Counts(np.array([90, 5]), np.array([0, 5]), np.array([0, 0]))}
    targets = Evaluation(counts, LabelSet(("background", "plane"), (0, 1)), {"protocol": "targets"}, measures)
    assert headline("a", targets, []).others == ["plane: Pd 0.750 (3 of 4 targets found), Fa 0.02"]


def test_an_empty_evaluation_says_so() -> None:
    nothing = Evaluation({"a": Counts.zeros(2)}, LabelSet(("background", "a"), (0, 1)))
    found = headline("none", nothing, [])
    assert (found.mean, found.span, found.n) == ("not scored", "", 0)
    assert size_table({"none": nothing}) == {}
    assert calibration_sentences({}) == []


def test_rows_of_all_evaluations(evaluations: dict[str, Evaluation]) -> None:
    other = Evaluation({"a": Counts.zeros(2)}, LabelSet(("background", "spleen"), (0, 1)))
    rows = class_table({**evaluations, "other": other}, [])
    assert [row.score is None for row in rows["spleen"]] == [True, True, False]
    assert rows["spleen"][0].text == "not scored"
    for name, column in zip(evaluations, range(2), strict=True):
        means = {c.name: c.interval.mean for c in evaluations[name].per_class()}
        score = rows["liver & <portal> vein"][column].score
        assert score is not None
        assert score.interval.mean == means["liver & <portal> vein"]
