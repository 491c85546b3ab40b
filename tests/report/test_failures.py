"""What the means hide is listed, worst first, with the cases that it happened in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sampeft.labels import LabelSet
from sampeft.metrics.counts import Counts
from sampeft.metrics.scores import Evaluation
from sampeft.report.failures import failures, worst_found


def test_failures_are_listed_worst_kind_first(evaluations: dict[str, Evaluation]) -> None:
    found = [(f.kind, f.name, f.text) for f in failures(evaluations["LoRA r=4"])]
    assert found == [
        ("never found", "missed", "scores 0 in all 6 cases that have it; check labels and training"),
        ("false", "stray", "in 1 of 6 cases without it: case_1"),
        ("absent", "stray", "in the truth of no case, so nothing is known about how well it is found"),
        ("absent", "absent", "in the truth of no case, so nothing is known about how well it is found"),
    ]


def test_of_one_kind_the_larger_share_comes_first() -> None:
    """Class a is missed in 1 of 4 cases, b in 1 of the 2 that have it."""
    labels = LabelSet(("background", "a", "b"), (0, 1, 2))
    counts = {}
    for i in range(4):
        truth = np.array([9, 5, 5 if i < 2 else 0])
        tp = np.where(np.array([False, i == 0, i == 0]), 0, truth)
        counts[f"p{i}"] = Counts(tp, np.zeros(3, np.int64), truth - tp)
    assert [(f.name, f.text) for f in failures(Evaluation(counts, labels))] == [
        ("b", "in 1 of 2 cases that have it: p0"),
        ("a", "in 1 of 4 cases that have it: p0"),
    ]


def test_long_lists_of_cases_say_how_many_are_left_out(evaluations: dict[str, Evaluation]) -> None:
    counts = next(iter(evaluations["boxes"].counts.values()))
    stray = Evaluation({f"c{i:02}": counts for i in range(20)}, evaluations["boxes"].labels)
    for c in stray.counts.values():
        c.fp[3] = 2
    (text,) = [f.text for f in failures(stray) if f.kind == "false"]
    assert (
        text
        == f"in 20 of 20 cases without it: {', '.join(f'c{i:02}' for i in range(12))} and 8 more, all in scores.csv"
    )


def test_the_worst_case_of_a_class_is_one_in_which_it_was_found(measured: Evaluation) -> None:
    """The organ: lowest DSC in p00, farthest surface in p11; the node is missed in p03, which is told as missed."""
    organ, node = worst_found(measured)
    assert (organ.name, organ.dsc, organ.dsc_case) == ("big_organ", 160 / 180, "p00")
    assert (organ.distance, organ.distance_case, organ.unit) == (11.0, "p11", "mm")
    assert (node.name, node.dsc) == ("node", 18 / 19)
    assert node.dsc_case != "p03"
    assert (node.distance, node.distance_case) == (31.0, "p11")


def test_without_surfaces_and_without_finds(evaluations: dict[str, Evaluation], measured: Evaluation) -> None:
    (liver,) = worst_found(evaluations["LoRA r=4"])
    assert (liver.dsc, liver.dsc_case, liver.distance, liver.unit) == (0.5, "case_4", None, "")
    assert worst_found(replace(measured, counts={}, measures={})) == []
