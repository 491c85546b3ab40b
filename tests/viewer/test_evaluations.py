"""Runs, evaluations and comparisons over HTTP: the numbers of `evaluate` and `compare`, from their own folders only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.metrics.comparison import compare
from sampeft.metrics.counts import count
from sampeft.metrics.scores import Evaluation
from sampeft.viewer.evaluations import Evaluations
from sampeft.viewer.runs import distinct
from viewer.clients import Serve

rng = np.random.default_rng(3)


@pytest.fixture
def evals(tmp_path: Path, classes: LabelSet) -> Path:
    """Two evaluations of six cases; the second one flips more pixels."""
    truths = {f"case{n}": rng.integers(0, 3, (12, 12, 1)) for n in range(6)}
    for name, wrong in (("good", 0.05), ("bad", 0.4)):
        counts = {}
        for case, truth in truths.items():
            flipped = np.where(rng.random(truth.shape) < wrong, rng.integers(0, 3, truth.shape), truth)
            counts[case] = count(flipped.astype(np.int16), truth.astype(np.int16), 3)
        meta = {"model": name, "data": "made", "split": "test", "oracle": False, "protocol": "default"}
        Evaluation(counts, classes, meta).write(tmp_path / "evals" / name)
    (tmp_path / "evals" / "good" / "report.html").write_text("<!doctype html><p>good</p>")
    return tmp_path / "evals"


def test_headlines_and_cases_are_those_of_the_evaluation(serve: Serve, evals: Path) -> None:
    good = Evaluation.read(evals / "good")
    with serve(evals=(evals,)) as client:
        listed = {e["id"]: e for e in client.get("/api/evaluations").json()}
        detail = client.get("/api/evaluations/good").json()
    assert set(listed) == {"good", "bad"}
    assert listed["good"]["headline"]["dsc"]["mean"] == pytest.approx(good.headline().mean)
    assert (listed["good"]["report"], listed["bad"]["report"]) == (True, False)
    assert detail["by_case"]["case3"]["dsc"]["c2"] == pytest.approx(good.matrix("dsc")[good.cases.index("case3"), 2])
    assert detail["classes"]["c1"]["dsc"]["low"] == pytest.approx(good.per_class()[0].interval.low)


def test_a_comparison_has_the_intervals_of_compare_and_the_worst_case_first(serve: Serve, evals: Path) -> None:
    wanted = compare({name: Evaluation.read(evals / name) for name in ("bad", "good")}).metrics[0]
    with serve(evals=(evals,)) as client:
        found = client.get("/api/compare", params={"ids": ["bad", "good"]}).json()
        one = client.get("/api/compare", params={"ids": ["bad", "bad"]})
        unknown = client.get("/api/compare", params={"ids": ["bad", "ugly"]})
        metric = client.get("/api/compare", params={"ids": ["bad", "good"], "metrics": "dcs"})
    row = found["metrics"]["dsc"]["rows"]["foreground mean"]
    for name, interval in wanted.mean.intervals.items():
        assert row["scores"][name]["mean"] == pytest.approx(interval.mean)
        assert row["scores"][name]["high"] == pytest.approx(interval.high)
    cases = found["metrics"]["dsc"]["by_case"]
    worst = [min(case["mean"].values()) for case in cases]
    assert worst == sorted(worst)
    assert {c["case"]: c["mean"]["good"] for c in cases} == pytest.approx(
        dict(zip([f"case{n}" for n in range(6)], wanted.case_means_N["good"].tolist(), strict=True))
    )
    assert found["reports"] == {"bad": False, "good": True}
    assert (one.status_code, unknown.status_code, metric.status_code) == (422, 404, 422)
    assert "did you mean 'dsc'?" in metric.json()["error"]


def test_the_report_comes_from_its_folder_alone_and_runs_no_script(serve: Serve, evals: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.html").write_text("secret")
    (evals / "bad" / "report.html").symlink_to(tmp_path / "secret.html")
    (evals / "outside").symlink_to(shutil.copytree(evals / "good", tmp_path / "elsewhere"))
    with serve(evals=(evals,)) as client:
        answer = client.get("/api/evaluations/good/report.html")
        assert answer.text == "<!doctype html><p>good</p>"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert client.get("/api/evaluations/bad/report.html").status_code == 404
        assert client.get("/api/evaluations/outside").status_code == 404


def test_evaluations_beside_a_run_are_its_own_when_they_say_so(
    serve: Serve, evals: Path, run: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(run, tmp_path / "lab" / "run")
    shutil.copytree(evals / "good", own / "evaluation")
    shutil.copytree(evals / "bad", own.parent / "eval-other")
    ours = shutil.copytree(evals / "bad", own.parent / "eval-ours")
    summary = json.loads((ours / "summary.json").read_text())
    summary["meta"]["model"] = "lite-medsam lora r=2, mask head"
    (ours / "summary.json").write_text(json.dumps(summary))
    with serve(runs=(own,)) as client:
        body = client.get("/api/runs/run").json()
        assert client.get("/api/runs").json() == [body]
    assert body["evaluations"] == ["evaluation", "eval-ours"]
    assert body["headline"]["dsc"]["mean"] == pytest.approx(Evaluation.read(evals / "good").headline().mean)
    assert (body["model"], body["random_weights"]) == ("lite-medsam lora r=2, mask head", True)
    assert body["labels"][1] == {"name": "c1", "id": 1, "color": [230, 159, 0], "foreground": True}


def test_cases_and_their_splits(serve: Serve) -> None:
    with serve() as client:
        whole, test = (client.get("/api/cases", params=p).json() for p in ({}, {"split": "test"}))
        assert client.get("/api/cases", params={"split": "tset"}).status_code == 404
    assert [c["id"] for c in whole["cases"]] == ["P01", "P02", "P03", "P04"]
    assert whole["splits"] == {"train": 3, "test": 1}
    assert [(c["id"], c["splits"], c["has_labels"]) for c in test["cases"]] == [("P04", ["test"], True)]
    assert [i["id"] for i in test["cases"][0]["images"]] == ["P04_1", "P04_2"]


def test_equal_names_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "other"]
    assert list(distinct(folders)) == ["a.run", "b.run", "other"]


def test_a_folder_without_evaluations_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no evaluation here or one level below"):
        Evaluations([tmp_path], {})
