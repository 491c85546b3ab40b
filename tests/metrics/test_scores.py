"""Averaging (case D32), absent and never found classes (D24, D30), and the files of an evaluation."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sampeft.errors import DataError, UsageError
from sampeft.labels import LabelSet
from sampeft.metrics import METRICS, counted
from sampeft.metrics.counts import Counts, count
from sampeft.metrics.measures import Measures
from sampeft.metrics.protocols import PROTOCOLS
from sampeft.metrics.scores import Evaluation

# Table 2 of the paper: columns SAM, Adapter, LoRA of rank 1, 4 and 8. Its own "Average" takes the first row in.
TABLE_2 = np.array([
    [0.4678, 0.9973, 0.9944, 0.9961, 0.9953],  # background
    [0.5418, 0.7328, 0.6758, 0.7191, 0.7093],
    [0.7789, 0.5536, 0.5260, 0.5224, 0.4828],
    [0.8002, 0.4130, 0.3901, 0.4406, 0.4417],
    [0.2321, 0.4307, 0.3826, 0.4010, 0.3985],
    [0.7915, 0.7985, 0.7759, 0.7975, 0.7872],
    [0.4659, 0.6611, 0.5818, 0.6342, 0.6309],
    [0.0253, 0.1777, 0.1778, 0.1914, 0.1850],
    [0.1891, 0.1993, 0.1761, 0.1874, 0.1538],
    [0.4196, 0.2674, 0.2546, 0.2802, 0.2578],
    [0.2759, 0.3530, 0.3368, 0.3650, 0.3654],
    [0.4558, 0.6076, 0.6270, 0.6897, 0.6554],
    [0.2937, 0.7392, 0.6792, 0.7519, 0.7192],
    [0.8049, 0.9367, 0.9265, 0.9580, 0.9333],
])  # fmt: skip
FOREGROUND = [0.4673, 0.5285, 0.5008, 0.5337, 0.5169]
WITH_BACKGROUND = [0.4673, 0.5620, 0.5360, 0.5668, 0.5511]


def labels_of(classes: int) -> LabelSet:
    return LabelSet(("background", *(f"class {k}" for k in range(1, classes))), tuple(range(classes)))


def counts_of(tp: list[int], fp: list[int], fn: list[int]) -> Counts:
    return Counts(*(np.array(values, dtype=np.int64) for values in (tp, fp, fn)))


@pytest.mark.parametrize("column", range(5))
def test_d32_the_papers_table_without_background(column: int) -> None:
    tp = np.round(TABLE_2[:, column] * 10_000).astype(int).tolist()
    misses = [10_000 - value for value in tp]  # so that the DSC is tp / 10000
    evaluation = Evaluation({"all": counts_of(tp, misses, misses)}, labels_of(14))
    assert evaluation.headline().mean == pytest.approx(FOREGROUND[column], abs=5.1e-5)
    assert evaluation.with_background_mean() == pytest.approx(WITH_BACKGROUND[column], abs=5.1e-5)


def test_d32_a_volume_is_not_the_mean_of_its_slices() -> None:
    slices = [counts_of([0, 10], [0, 0], [0, 0]), counts_of([0, 0], [0, 2], [0, 2])]
    volume = Evaluation({"case": slices[0] + slices[1]}, labels_of(2))
    assert volume.headline().mean == pytest.approx(20 / 24)
    as_slices = Evaluation({"slice 1": slices[0], "slice 2": slices[1]}, labels_of(2))
    assert as_slices.headline().mean == 0.5


def test_headline_weighs_classes_not_cases() -> None:
    """Class 1 scores 1, 1, 1 in three cases, class 2 scores 0 in the only case that has it: 0.5, not 0.75."""
    evaluation = Evaluation(
        {
            "a": counts_of([9, 5, 0], [0, 0, 0], [0, 0, 4]),
            "b": counts_of([9, 5, 0], [0, 0, 0], [0, 0, 0]),
            "c": counts_of([9, 5, 0], [0, 0, 0], [0, 0, 0]),
        },
        labels_of(3),
    )
    assert (evaluation.headline().mean, evaluation.headline().n) == (0.5, 3)
    assert evaluation.with_background_mean() == pytest.approx(2 / 3)
    assert [c.n for c in evaluation.per_class()] == [3, 1]


def test_without_a_background_class_every_class_counts() -> None:
    labels = LabelSet(("built-up", "water"), (1, 2))
    evaluation = Evaluation({"tile": counts_of([3, 0], [1, 0], [1, 4])}, labels)
    assert evaluation.headline().mean == evaluation.with_background_mean() == 0.375


def test_missed_false_absent_and_never_found() -> None:
    labels = LabelSet(("background", "found", "missed", "false", "absent", "elsewhere"), (0, 1, 2, 3, 4, 5))
    evaluation = Evaluation(
        {
            "a": counts_of([50, 4, 0, 0, 0, 0], [5, 0, 0, 2, 0, 3], [5, 0, 6, 0, 0, 3]),
            "b": counts_of([50, 4, 0, 2, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 6, 0, 0, 0]),
        },
        labels,
    )
    assert evaluation.missed() == {"found": [], "missed": ["a", "b"], "false": [], "absent": [], "elsewhere": ["a"]}
    assert evaluation.false() == {"found": [], "missed": [], "false": ["a"], "absent": [], "elsewhere": []}
    rows = {c.name: (c.interval.mean, c.n, c.n_truth, c.n_missed, c.n_false) for c in evaluation.per_class()}
    assert rows["found"] == (1.0, 2, 2, 0, 0)
    assert rows["missed"] == (0.0, 2, 2, 2, 0)
    assert rows["false"] == (0.5, 2, 1, 0, 1)
    assert np.isnan(rows["absent"][0])
    assert rows["absent"][1:] == (0, 0, 0, 0)
    assert [c.name for c in evaluation.per_class() if c.never_found] == ["missed", "elsewhere"]
    assert evaluation.headline().mean == pytest.approx((1 + 0 + 0.5 + 0) / 4)


def test_order_of_cases_does_not_move_the_interval() -> None:
    """Several processes hand cases back in another order than one does."""
    generator = np.random.default_rng(0)
    counts = {f"case {i}": count(*generator.integers(3, size=(2, 100)), 3) for i in range(9)}
    other = {case: counts[case] for case in sorted(counts, key=lambda c: (int(c[-1]) % 2, c))}
    assert list(other) != list(counts)
    assert Evaluation(other, labels_of(3)).headline() == Evaluation(counts, labels_of(3)).headline()


def example() -> Evaluation:
    """Ids with gaps, a name and a case that need quoting, an absent class."""
    labels = LabelSet(
        ("background", "kidney, right", 'the "left" kidney', "Milz", "absent"),
        (0, 3, 7, 20, 300),
        ignore=255,
        pairs=(("kidney, right", 'the "left" kidney'),),
    )
    counts = {
        "z, 1": counts_of([90, 4, 0, 7, 0], [3, 1, 0, 3, 0], [4, 0, 2, 1, 0]),
        "a ä": counts_of([10**12, 1, 1, 0, 0], [3, 1, 2, 0, 0], [0, 0, 2, 1, 0]),
    }
    meta = {"model": "LoRA r=4", "oracle": False, "seeds": [0, 1], "seconds": 1.5, "note": None}
    return Evaluation(counts, labels, meta)


def test_writing_and_reading_gives_the_same_back(tmp_path: Path) -> None:
    evaluation = example()
    evaluation.write(tmp_path / "new" / "folder")
    again = Evaluation.read(tmp_path / "new" / "folder")
    assert again == evaluation
    assert list(again.counts) == list(evaluation.counts)
    again.write(tmp_path / "twice")
    for file in (tmp_path / "twice").iterdir():
        assert file.read_bytes() == (tmp_path / "new" / "folder" / file.name).read_bytes()
    assert len(list((tmp_path / "twice").iterdir())) == 3


def test_scores_csv_has_one_row_per_case_class_and_metric(tmp_path: Path) -> None:
    evaluation = example()
    evaluation.write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(encoding="utf-8")))
    assert len(rows) == 2 * 5 * len(counted())
    assert list(rows[0]) == ["case", "class", "metric", "value", "n_truth_pixels", "n_pred_pixels"]
    for row in rows:
        i, k = evaluation.cases.index(row["case"]), evaluation.labels.names.index(row["class"])
        np.testing.assert_equal(float(row["value"]), evaluation.matrix(row["metric"])[i, k])
        counts = evaluation.counts[row["case"]]
        assert (int(row["n_truth_pixels"]), int(row["n_pred_pixels"])) == (counts.truth[k], counts.prediction[k])


def test_summary_is_strict_json_with_the_headline(tmp_path: Path) -> None:
    evaluation = example()
    evaluation.meta["strange"] = float("nan")
    evaluation.write(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["foreground_mean"]["dsc"]["mean"] == evaluation.headline().mean
    assert summary["foreground_mean"]["dsc"]["n"] == summary["n_cases"] == 2
    assert summary["too_few_cases"] is True
    assert summary["classes"]["absent"]["dsc"] == {
        "mean": None,
        "low": None,
        "high": None,
        "n": 0,
        "n_infinite": 0,
        "finite_mean": None,
    }
    assert summary["meta"]["strange"] is None


def test_what_is_not_an_evaluation_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"summary.json: cannot be read .*`sampeft evaluate` writes"):
        Evaluation.read(tmp_path)
    example().write(tmp_path)
    lines = (tmp_path / "counts.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "counts.csv").write_text("\n".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match="9 rows for 2 cases of 5 classes"):
        Evaluation.read(tmp_path)
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(DataError, match="not a whole evaluation"):
        Evaluation.read(tmp_path)


def test_failing_to_write_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        example().write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_metric_and_other_class_counts() -> None:
    with pytest.raises(UsageError, match=r"unknown metric 'dice'.*dsc"):
        example().matrix("dice")
    with pytest.raises(ValueError, match="counts 3 classes, the label map has 2"):
        Evaluation({"a": Counts.zeros(3)}, labels_of(2))


def measured(protocol: str = "default") -> Evaluation:
    """Two cases of three classes; class 1 is missed in the second."""
    counts = {
        "b": counts_of([9, 5, 0], [0, 1, 0], [0, 1, 0]),
        "a": counts_of([9, 0, 0], [3, 0, 0], [0, 3, 0]),
    }
    nan = np.nan
    measures = {
        "b": Measures({"hd95_mm": np.array([nan, 4.0, nan]), "nsd": np.array([nan, 0.75, nan])}),
        "a": Measures({"hd95_mm": np.array([nan, np.inf, nan]), "nsd": np.array([nan, 0.0, nan])}),
    }
    return Evaluation(counts, labels_of(3), {"protocol": protocol}, measures)


def test_d30_a_miss_is_infinite_beside_the_finite_mean(tmp_path: Path) -> None:
    evaluation = measured()
    assert evaluation.metrics == ("dsc", "iou", "precision", "sensitivity", "nsd", "hd95_mm")
    assert set(evaluation.metrics) < set(METRICS)
    for found in (evaluation.headline("hd95_mm"), evaluation.per_class("hd95_mm")[0].interval):
        assert (found.mean, found.n, found.n_infinite, found.finite_mean) == (np.inf, 2, 1, 4.0)
        assert np.isnan([found.low, found.high]).all()
    assert evaluation.headline("nsd").mean == 0.375
    evaluation.write(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["classes"]["class 1"]["hd95_mm"]["mean"] == "inf"
    assert summary["classes"]["class 1"]["hd95_mm"]["finite_mean"] == 4.0
    assert "hd95_mm" not in summary["with_background_mean"]
    again = Evaluation.read(tmp_path)
    assert again == evaluation
    assert np.isinf(again.matrix("hd95_mm")[1, 1])
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(encoding="utf-8")))
    assert len(rows) == 2 * 3 * 6
    assert [row["value"] for row in rows if row["metric"] == "hd95_mm" and row["class"] == "class 1"] == ["4.0", "inf"]


def test_a_lost_row_of_scores_is_noticed(tmp_path: Path) -> None:
    measured().write(tmp_path)
    lines = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "scores.csv").write_text("\n".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match="35 rows of scores"):
        Evaluation.read(tmp_path)


def test_protocol_paper_averages_with_background_and_says_so() -> None:
    """Background DSC: b 1, a 18 / 21; class 1: b 10 / 12, a 0."""
    paper, default = measured("paper"), measured()
    with_background = ((1 + 18 / 21) / 2 + (10 / 12 + 0) / 2) / 2
    assert paper.headline().mean == pytest.approx(with_background)
    assert default.headline().mean == pytest.approx(10 / 24)
    assert default.with_background_mean() == pytest.approx(with_background)
    assert paper.headline_name == "mean with background (as the paper averages)"
    assert default.headline_name == "foreground mean"
    assert paper.summary()["foreground_mean"]["dsc"]["mean"] == pytest.approx(10 / 24)
    assert paper.summary()["headline"]["dsc"]["mean"] == pytest.approx(with_background)


def test_land_cover_is_pooled_over_cases() -> None:
    found = measured().summary()["all_pixels"]
    assert found["overall_accuracy"] == 23 / 27  # all tp over all pixels
    assert found["mean_iou"] == 5 / 10  # class 1: 5 of 5 + 1 + 4; class 2 does not occur


def test_sizes_are_of_the_truth_in_ml_or_pixels() -> None:
    truth = np.zeros((10, 10, 10), dtype=np.uint8)
    truth[2:6, 2:6, 2:6] = 1  # 64 voxels of 1 x 2 x 2.5 mm
    score = PROTOCOLS["default"].score(np.roll(truth, 1, axis=0), truth, (1.0, 2.0, 2.5), labels_of(3))
    sizes, unit = Evaluation.of({"a": score}, labels_of(3), {}).sizes()
    assert unit == "ml"
    assert sizes[0, 1] == pytest.approx(0.32)
    assert np.isnan(sizes[0, [0, 2]]).all()  # a scan's own volume and an absent class are no sizes
    sizes, unit = Evaluation({"a": score.counts}, labels_of(3)).sizes()
    assert (unit, sizes[0, 1]) == ("px", 64)
