"""Comparisons: exact p by hand, symmetry, who is best and who is not told apart, and tables that say the same."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fabricate.evaluations import evaluation_of
from sampeft.errors import UsageError
from sampeft.metrics.comparison import Comparison, Pair, compare
from sampeft.metrics.scores import Evaluation
from sampeft.report.comparison import (
    comparison_csv,
    comparison_json,
    comparison_md,
    comparison_tex,
    decimals,
    escape,
    pair_text,
    paired_tests_csv,
)
from sampeft.report.comparison_figures import figure_classes, figure_ranks
from sampeft.report.comparison_files import write_comparison

MEAN = "foreground mean"
BASE = np.linspace(0.6, 0.75, 8)[:, None] + [[0.0, 0.1]]
FIRST = np.array([1, 2, 3, 4, 5, 6, 7, 8]) / 100  # all of one sign: 2 of 256 sign choices are as extreme
SECOND = np.array([1, 2, -3, 4, 5, 6, 7, 8]) / 100  # rank 3 alone is negative: sums to 3 or less are 5, so 10 of 256


def two() -> dict[str, Evaluation]:
    return {
        "high": evaluation_of(BASE.round(3) + np.stack([FIRST, SECOND], axis=1)),
        "low": evaluation_of(BASE.round(3)),
    }


def random_scores(n: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.3, 0.9, (n, classes)).round(3)


def pair_of(comparison: Comparison, row: str, a: str, b: str) -> Pair:
    (found,) = [p for p in comparison.metrics[0].pairs if (p.row, p.a, p.b) == (row, a, b)]
    return found


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_eight_cases_by_hand() -> None:
    """p = 2/256 and 10/256; Holm: twice the smaller, once the larger. The mean: differences 1, 2, 0, 4 ... 8, one equal."""
    comparison = compare(two())
    first, second, mean = (pair_of(comparison, row, "high", "low") for row in ("organ_1", "organ_2", MEAN))
    assert (first.test.p, second.test.p) == (2 / 256, 10 / 256)
    assert (first.test.p_holm, second.test.p_holm) == (4 / 256, 10 / 256)
    assert (first.n_family, second.n_family, mean.n_family) == (2, 2, 1)
    assert first.test.effect == 1.0
    assert second.test.effect == pytest.approx((36 - 2 * 3) / 36)
    assert first.difference.mean == pytest.approx(FIRST.mean())
    assert mean.test.p_holm == 2 / 128
    assert mean.test.n_equal == 1
    assert mean.difference.mean == pytest.approx((FIRST + SECOND).mean() / 2)
    assert [row.best for row in comparison.metrics[0].rows] == [("high",)] * 3
    assert [row.standing("low") for row in comparison.metrics[0].rows] == ["worse"] * 3


def test_means_and_intervals_are_those_of_the_evaluations() -> None:
    scores = {name: evaluation_of(random_scores(12, 3, seed)) for seed, name in enumerate("abc")}
    found = compare(scores).metrics[0]
    for name, evaluation in scores.items():
        assert found.mean.intervals[name] == evaluation.headline()
        assert [row.intervals[name] for row in found.rows[:-1]] == [c.interval for c in evaluation.per_class()]


def test_swapping_two_methods_flips_signs_and_keeps_p() -> None:
    scores = {name: evaluation_of(random_scores(11, 3, seed)) for seed, name in enumerate("ab")}
    there, back = compare(scores), compare({"b": scores["b"], "a": scores["a"]})
    for row in ("organ_1", "organ_2", "organ_3", MEAN):
        one, other = pair_of(there, row, "a", "b"), pair_of(back, row, "b", "a")
        assert (one.test.p, one.test.p_holm, one.test.effect) == (other.test.p, other.test.p_holm, -other.test.effect)
        assert one.difference.mean == pytest.approx(-other.difference.mean)
        assert (one.difference.low, one.difference.high) == pytest.approx(
            (-other.difference.high, -other.difference.low)
        )


def test_the_order_of_methods_and_of_cases_changes_no_number() -> None:
    scores = {name: random_scores(12, 2, seed) for seed, name in enumerate("abcd")}
    cases = [f"case_{i}" for i in range(12)]
    there = compare({name: evaluation_of(values, cases) for name, values in scores.items()}).metrics[0]
    back = compare({name: evaluation_of(scores[name][::-1], cases[::-1]) for name in "cadb"}).metrics[0]
    for one, other in zip(there.rows, back.rows, strict=True):
        assert one.intervals == other.intervals
        assert (set(one.best), set(one.not_worse)) == (set(other.best), set(other.not_worse))
    p_of = [{(p.row, frozenset((p.a, p.b))): p.test.p_holm for p in found.pairs} for found in (there, back)]
    assert p_of[0] == p_of[1]
    assert there.mean_rank == back.mean_rank
    assert there.ranking is not None
    assert back.ranking is not None
    firsts = [dict(zip(r.names, r.first.tolist(), strict=True)) for r in (there.ranking, back.ranking)]
    assert firsts[0] == firsts[1]


def test_equal_evaluations_do_not_differ_and_are_both_best() -> None:
    values = random_scores(10, 2, 0)
    found = compare({"a": evaluation_of(values), "b": evaluation_of(values)}).metrics[0]
    assert {pair.test.p_holm for pair in found.pairs} == {1.0}
    assert {row.best for row in found.rows} == {("a", "b")}
    assert found.groups == (("a", "b"),)
    assert found.mean_rank == {"a": 1.5, "b": 1.5}


def test_five_cases_never_mark_anything() -> None:
    """Five pairs give 2/32 = 0.0625 at best, so that even 0.9 against 0.1 shows nothing."""
    base = np.linspace(0, 0.05, 5)[:, None]
    comparison = compare({"a": evaluation_of(0.9 + base), "b": evaluation_of(0.1 + base)})
    assert all(row.too_few and not row.best and not row.not_worse for row in comparison.metrics[0].rows)
    assert comparison.metrics[0].groups == (("a", "b"),)
    text = comparison_md(comparison)
    assert "n = 5: n = 5" not in text
    assert text.count("5 (too few)") == 2
    assert "too few to conclude" in text
    assert "†" not in "".join(line for line in text.splitlines() if line.startswith("| organ"))
    assert r"\textbf" not in comparison_tex(comparison)
    assert {row["standing"] for row in rows_of(comparison_csv(comparison))} == {"too few"}


def test_holms_family_is_all_pairs_of_methods_in_all_classes() -> None:
    """Three methods and two classes are 6 tests, the mean 3: with 8 cases 12/256 still shows a difference, with 7 not."""
    steps = {"a": 0.2, "b": 0.1, "c": 0.0}
    for n, shown in ((8, True), (7, False)):
        base = np.linspace(0.4, 0.5, n)[:, None] + [[0.0, 0.2]]
        wiggle = np.arange(n)[:, None] * 0.001
        scores = {name: evaluation_of((base + step + step * wiggle * 10).round(3)) for name, step in steps.items()}
        found = compare(scores).metrics[0]
        assert {p.n_family for p in found.pairs if p.row != MEAN} == {6}
        assert {p.n_family for p in found.pairs if p.row == MEAN} == {3}
        assert min(p.test.p_holm for p in found.pairs if p.row != MEAN) == 6 * 2 / 2**n
        assert found.rows[0].too_few is not shown
        assert found.rows[0].best == (("a",) if shown else ())
        assert found.mean.best == ("a",)  # 3 x 2/128 = 0.047


def test_an_oracle_is_never_best_and_changes_nothing_between_the_methods() -> None:
    scores = {name: evaluation_of(random_scores(12, 2, seed)) for seed, name in enumerate("ab")}
    oracle = evaluation_of(np.full((12, 2), 0.99), oracle=True)
    without, beside = compare(scores), compare({"boxes": oracle, **scores})
    assert beside.methods == ("a", "b")
    for one, other in zip(without.metrics[0].rows, beside.metrics[0].rows, strict=True):
        assert (one.best, one.not_worse) == (other.best, other.not_worse)
        assert other.standing("boxes") == ""
    assert [p for p in beside.metrics[0].pairs if not p.with_oracle] == list(without.metrics[0].pairs)
    assert without.metrics[0].mean_rank == beside.metrics[0].mean_rank
    assert pair_of(beside, MEAN, "boxes", "a").test.differs
    assert "boxes, oracle (uses the truth)" in comparison_md(beside)
    assert {row["standing"] for row in rows_of(comparison_csv(beside)) if row["method"] == "boxes"} == {""}


def test_one_method_and_an_oracle_have_no_best() -> None:
    comparison = compare(
        {"a": evaluation_of(random_scores(9, 2, 0)), "o": evaluation_of(random_scores(9, 2, 1), oracle=True)}
    )
    assert all(not row.best and not row.too_few for row in comparison.metrics[0].rows)
    assert comparison.metrics[0].ranking is None
    assert any("none is best" in note for note in comparison.notes)
    with pytest.raises(ValueError, match="at least two methods"):
        figure_ranks(comparison)


def test_a_method_that_wins_most_cases_is_not_called_worse_than_one_with_a_higher_mean() -> None:
    """`mean` is lower in eleven of twelve cases and far higher in one: its mean is best, yet the test is for the other."""
    base = np.linspace(0.3, 0.4, 12).round(3)
    loses = base - np.arange(10, 22) / 1000
    loses[3] = base[3] + 0.5
    comparison = compare({"mean": evaluation_of(loses[:, None]), "cases": evaluation_of(base[:, None])})
    assert pair_of(comparison, "organ_1", "mean", "cases").test.differs
    assert comparison.metrics[0].rows[0].best == ("mean",)
    assert comparison.metrics[0].rows[0].not_worse == ("cases",)


def test_lower_is_better_for_distances_and_signed_errors_count_by_size() -> None:
    """Errors of +30 and -30 ml cancel in a mean, and are still worse than +5 ml in every case."""
    n = 10
    dsc, wiggle = random_scores(n, 1, 0), np.arange(n)[:, None] * 0.01
    signs = np.where(np.arange(n)[:, None] % 2, 1.0, -1.0)
    near = {"hd95_mm": 2 + wiggle, "volume_error_ml": 5 + wiggle}
    far = {"hd95_mm": 9 + 2 * wiggle, "volume_error_ml": signs * (30 + 2 * wiggle)}
    comparison = compare(
        {"far": evaluation_of(dsc, measures=far), "near": evaluation_of(dsc, measures=near)},
        ["hd95_mm", "volume_error_ml"],
    )
    for found in comparison.metrics:
        assert [row.best for row in found.rows] == [("near",)] * 2
        assert found.mean.standing("far") == "worse"
        assert found.mean_rank == {"far": 2.0, "near": 1.0}
    assert comparison.metrics[1].measure.heading == "absolute volume error (ml)"
    assert comparison.metrics[1].mean.intervals["far"].mean == pytest.approx(30 + 2 * wiggle.mean())


def test_a_finite_mean_goes_before_an_infinite_one() -> None:
    n = 10
    dsc, few = random_scores(n, 1, 0), np.linspace(1, 2, n)[:, None]
    missed = few.copy()
    missed[4] = np.inf
    comparison = compare(
        {
            "once": evaluation_of(dsc, measures={"hd95_mm": missed}),
            "never": evaluation_of(dsc, measures={"hd95_mm": few + 20}),
        },
        ["hd95_mm"],
    )
    row = comparison.metrics[0].rows[0]
    assert row.best == ("never",)
    assert row.not_worse == ("once",)
    assert np.isnan(pair_of(comparison, "organ_1", "once", "never").difference.mean)
    text = comparison_md(comparison)
    assert "inf (finite 1.51, 1 inf)" in text
    assert "= not finite" in text
    assert comparison_json(comparison)["metrics"]["hd95_mm"]["rows"]["organ_1"]["scores"]["once"]["mean"] == "inf"


def test_only_common_cases_are_compared_and_the_others_named_everywhere() -> None:
    scores = random_scores(10, 2, 0)
    cases = [f"c{i}" for i in range(10)]
    comparison = compare(
        {"a": evaluation_of(scores, cases), "b": evaluation_of(scores[2:].round(2), cases[2:], split="test")}
    )
    assert comparison.cases == tuple(cases[2:])
    assert comparison.left_out == {"a": ("c0", "c1"), "b": ()}
    assert comparison.metrics[0].mean.intervals["a"] == evaluation_of(scores[2:], cases[2:]).headline()
    splits = {"a": "test", "b": "test", "c": "train"}
    three = compare({name: evaluation_of(scores, cases, split=split) for name, split in splits.items()})
    assert three.notes == ["The evaluations are of different splits: 'test' of a, b; 'train' of c."]
    said = "Only the cases that all have are compared (8); left out: 2 of a (c0, c1)."
    for text in (comparison_md(comparison), comparison_tex(comparison), " ".join(comparison_json(comparison)["notes"])):
        assert said in text.replace("\n", " ")
    for text in (comparison_csv(comparison), paired_tests_csv(comparison)):
        assert {(row["cases_compared"], row["cases_left_out"]) for row in rows_of(text)} == {("8", "2")}


def test_cases_without_any_class_are_compared_and_drawn_without_a_score(tmp_path: Path) -> None:
    nothing = evaluation_of(np.full((6, 2), np.nan))
    comparison = compare({"a": nothing, "b": nothing})
    assert comparison.metrics[0].ranking is not None
    assert np.isnan(comparison.metrics[0].ranking.share).all()
    write_comparison(tmp_path, comparison)
    assert (tmp_path / "ranks.png").is_file()


def test_csv_reads_back_to_the_same_numbers() -> None:
    comparison = compare({name: evaluation_of(random_scores(12, 2, seed)) for seed, name in enumerate("abc")})
    found = comparison.metrics[0]
    rows = {(row["method"], row["class"]): row for row in rows_of(comparison_csv(comparison))}
    for row in found.rows:
        for name, interval in row.intervals.items():
            read = rows[name, row.name]
            assert [float(read[part]) for part in ("mean", "low", "high")] == [
                interval.mean,
                interval.low,
                interval.high,
            ]
            assert read["standing"] == row.standing(name)
    tests = {(row["class"], row["a"], row["b"]): row for row in rows_of(paired_tests_csv(comparison))}
    assert len(tests) == len(found.pairs) == 3 * 3
    for pair in found.pairs:
        read = tests[pair.row, pair.a, pair.b]
        assert [float(read[part]) for part in ("p", "p_holm", "rank_biserial", "difference")] == [
            pair.test.p, pair.test.p_holm, pair.test.effect, pair.difference.mean,
        ]  # fmt: skip


def test_markdown_marks_and_says_what_it_tested() -> None:
    comparison = compare(two())
    text = comparison_md(comparison)
    mean = comparison.metrics[0].mean.intervals["high"]
    assert f"| **foreground mean** | **{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]** |" in text
    assert "2 tests in the classes, 1 of the mean" in text
    assert f"- {pair_text(comparison.metrics[0].of_row(MEAN)[0])}" in text
    assert "high − low = +0.041 [" in text
    assert "differs (p = 0.0156)" in text
    alike = compare({"a": evaluation_of(random_scores(9, 1, 0)), "b": evaluation_of(random_scores(9, 1, 1))})
    assert " †" in comparison_md(alike)
    assert r"\underline{" in comparison_tex(alike)


def test_small_rates_keep_three_digits() -> None:
    rates = np.linspace(1.2e-5, 3e-5, 9)[:, None]
    scores = [evaluation_of(random_scores(9, 1, 0), measures={"fa": rates * factor}) for factor in (1, 2)]
    comparison = compare({"a": scores[0], "b": scores[1]}, ["fa"])
    assert decimals(comparison.metrics[0]) == 7
    assert "0.0000210" in comparison_md(comparison)


def test_latex_escapes_what_latex_would_read() -> None:
    assert escape("50 % & a_b #1 {x} $ ~ ^ \\") == (
        r"50~\% \& a\_b \#1 \{x\} \$ \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )


@pytest.mark.parametrize("n_methods", [2, 6])
def test_latex_compiles(n_methods: int, tmp_path: Path) -> None:
    """Names with everything that LaTeX reads as a command; no line may be wider than the page of `article`."""
    program = shutil.which("tectonic") or shutil.which("pdflatex")
    if program is None:
        pytest.skip("needs tectonic or pdflatex")
    names = [f"LoRA_r={r} & 50% of #{r} ~^{{}} \\x <α> ü" for r in range(n_methods)]
    scores = {name: evaluation_of(random_scores(9, 13, seed)) for seed, name in enumerate(names)}
    scores["boxes"] = evaluation_of(random_scores(10, 13, 99), oracle=True)
    (tmp_path / "comparison.tex").write_text(comparison_tex(compare(scores)), encoding="utf-8")
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{comparison.tex}\\end{document}\n"
    (tmp_path / "paper.tex").write_text(document)
    options = [] if "tectonic" in program else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([program, *options, "paper.tex"], cwd=tmp_path, capture_output=True, check=False)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, output[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 5000
    assert "Overfull" not in output
    assert "too large" not in output


def test_json_holds_every_test_and_is_plain() -> None:
    comparison = compare(two())
    content = json.loads(json.dumps(comparison_json(comparison), allow_nan=False))
    assert [t["p_holm"] for t in content["metrics"]["dsc"]["tests"]] == [4 / 256, 10 / 256, 2 / 128]
    assert content["metrics"]["dsc"]["rows"][MEAN]["best"] == ["high"]
    assert content["metrics"]["dsc"]["ranks"]["high"]["mean_rank"] == pytest.approx((7 * 1 + 1.5) / 8)


def test_figures_draw_every_case_and_rank_from_best_to_worst() -> None:
    base = np.linspace(0.4, 0.5, 12)[:, None] + [[0.0, 0.1]]
    steps = {"worst": 0.0, "best": 0.2, "near": 0.2}
    scores = {
        name: evaluation_of((base + step + 0.02 * random_scores(12, 2, i)).round(3))
        for i, (name, step) in enumerate(steps.items())
    }
    comparison = compare(scores)
    (axes,) = figure_classes(comparison).axes
    assert (
        sum(len(points.get_offsets()) for points in axes.collections if len(points.get_offsets()) == 12) == 12 * 3 * 3
    )
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == f"{MEAN}  (n = 12)"
    ranks, groups, shares = figure_ranks(comparison).axes
    found = comparison.metrics[0]
    order = sorted(found.mean_rank, key=lambda name: found.mean_rank[name])
    assert [label.get_text() for label in ranks.get_yticklabels()] == order
    assert order[-1] == "worst"
    dots = [line.get_ydata() for line in groups.lines if line.get_marker() == "o"]
    assert found.groups == (("best", "near"),)
    assert [list(d) for d in dots] == [sorted(order.index(m) for m in g) for g in found.groups]
    assert {t.get_text() for t in shares.texts if t.get_position() == (2, 2)} == {"100%"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": ("organ_1", "spleen")}, "{'background': 0, 'organ_1': 1, 'organ_2': 2}, b has .*'spleen': 2"),
        ({"protocol": "pixels"}, "a was scored by protocol 'default', b by 'pixels'"),
        ({"cases": [f"x{i}" for i in range(8)]}, r"no case is in all evaluations \(a: case_0, case_1, case_2"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_both_values(change: dict[str, object], said: str) -> None:
    scores = random_scores(8, 2, 0)
    with pytest.raises(UsageError, match=said):
        compare({"a": evaluation_of(scores), "b": evaluation_of(scores, **change)})  # type: ignore[arg-type]


def test_another_truth_of_the_same_case_is_refused() -> None:
    scores = random_scores(8, 2, 0)
    other = scores.copy()
    other[3, 1] = np.nan
    with pytest.raises(UsageError, match=r"case case_3: the truth has 1000 pixels of 'organ_2' in a and 0 in b"):
        compare({"a": evaluation_of(scores), "b": evaluation_of(other)})


def test_tolerances_matter_for_nsd_only() -> None:
    scores = random_scores(8, 1, 0)
    a, b = (evaluation_of(scores, measures={"nsd": scores}, nsd_tolerance_mm={"organ_1": mm}) for mm in (2.0, 3.0))
    with pytest.raises(UsageError, match=r"nsd's tolerance for 'organ_1' is 2.0 in a and 3.0 in b; .*--metrics dsc"):
        compare({"a": a, "b": b})
    assert [m.metric for m in compare({"a": a, "b": b}, ["dsc"]).metrics] == ["dsc"]
    assert [m.metric for m in compare({"a": a, "b": a}).metrics] == ["dsc", "nsd"]


def test_unknown_and_missing_metrics_are_refused() -> None:
    a, b = (evaluation_of(random_scores(8, 1, 0), measures=m) for m in ({"nsd": np.ones((8, 1))}, None))
    with pytest.raises(UsageError, match="unknown metric 'dcs'; did you mean 'dsc'"):
        compare({"a": a, "b": b}, ["dcs"])
    with pytest.raises(UsageError, match="b has no 'nsd'; all of them have: dsc, iou, precision, sensitivity"):
        compare({"a": a, "b": b}, ["nsd"])
    with pytest.raises(UsageError, match="at least two evaluations, got 1"):
        compare({"a": a})
