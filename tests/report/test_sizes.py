"""Scores by size: bins hold equally many, a patient counts once, and sizes are written as a reader would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sampeft.labels import LabelSet
from sampeft.metrics.counts import Counts
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import bootstrap_interval
from sampeft.report.size_strata import Sized, size_bins, size_text


def test_two_classes_of_different_size_are_two_bins(measured: Evaluation) -> None:
    sized = Sized.of(measured)
    assert (sized.unit, len(sized.size_P)) == ("ml", 24)
    small, large = size_bins(sized, sized.edges())
    scores = measured.matrix()
    for found, k in ((small, 2), (large, 1)):
        assert found.interval == bootstrap_interval(scores[:, [k]], bounds=(0, 1))
        assert found.pairs == 12
    assert (small.missed, large.missed) == (1, 0)
    assert (small.low, large.high) == (1.0, 111.0)


def test_a_patient_counts_once_in_a_bin() -> None:
    """Two classes of equal size in each of 12 patients, DSC 1 and 0: the mean of each patient is 0.5, n is 12."""
    labels = LabelSet(("background", "a", "b"), (0, 1, 2))
    nothing = np.zeros(3, np.int64)
    counts = {f"p{i}": Counts(np.array([0, 10 + i, 0]), nothing, np.array([0, 0, 10 + i])) for i in range(12)}
    sized = Sized.of(Evaluation(counts, labels))
    assert sized.unit == "px"
    bins = size_bins(sized, sized.edges())
    assert [(b.pairs, b.missed, b.interval.n, b.interval.mean) for b in bins] == [(12, 6, 6, 0.5)] * 2
    assert [b.name for b in bins] == ["10 to 16 px", "16 to 21 px"]  # between 15 and 16 pixels, whose even half is 16


def test_what_the_truth_lacks_has_no_size(evaluations: dict[str, Evaluation]) -> None:
    """A class that was falsely predicted scores 0, but there is no object to have found."""
    sized = Sized.of(evaluations["LoRA r=4"])
    assert set(sized.channel_P) == {1, 2}
    assert len(sized.size_P) == 12


def test_too_few_or_equal_sizes_have_no_bins(measured: Evaluation) -> None:
    few = {case: measured.counts[case] for case in measured.cases[:11]}
    assert not len(Sized.of(replace(measured, counts=few)).edges())
    equal = Sized.of(replace(measured, counts=dict.fromkeys(measured.cases, measured.counts["p05"]), measures={}))
    assert len(set(equal.size_P)) == 2
    assert len(Sized.of(replace(measured, labels=measured.labels)).edges()) == 3
    same = replace(equal, size_P=np.full(24, 7.0))
    assert size_bins(same, same.edges()) == []


def test_bins_hold_equal_numbers() -> None:
    generator = np.random.default_rng(0)
    cases = np.repeat(np.arange(40), 2)
    sized = Sized("px", cases, np.tile([1, 2], 40), generator.permutation(80) + 1.0, generator.random(80), cases < 0)
    bins = size_bins(sized, sized.edges())
    assert [b.pairs for b in bins] == [20] * 4
    pooled = sum(b.pairs for b in bins)
    assert pooled == len(sized.size_P)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0.0534, "0.053"), (0.1, "0.10"), (4.26, "4.3"), (9.96, "10"), (37.4, "37"), (1234.0, "1,200"), (0.0, "0")],
)
def test_sizes_have_two_digits(size: float, text: str) -> None:
    assert size_text(size) == text
