"""`sampeft compare` as a user meets it: every file from evaluation folders, and each mistake as one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from fabricate.evaluations import evaluation_of
from sampeft.cli import main
from sampeft.metrics.scores import Evaluation
from sampeft.workflows.compare import distinct_names

FILES = {
    "comparison.md",
    "comparison.csv",
    "comparison.tex",
    "comparison.json",
    "tests.csv",
    "per_class.png",
    "ranks.png",
}
BASE = np.linspace(0.5, 0.6, 8)[:, None] + [[0.0, 0.1]]
STEP = np.arange(1, 9)[:, None] / 100


def folder(root: Path, evaluation: Evaluation) -> str:
    evaluation.write(root)
    return str(root)


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two seeds of one method and the oracle; the first is higher in each of 8 cases."""
    return [
        folder(tmp_path / "seed0", evaluation_of((BASE + STEP).round(3), model="LoRA r=4")),
        folder(tmp_path / "seed1", evaluation_of(BASE.round(3), model="LoRA r=4")),
        folder(tmp_path / "oracle", evaluation_of(np.full((8, 2), 0.95), model="boxes", oracle=True)),
    ]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """What stderr says of a command that must fail."""
    assert main(["compare", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err.strip().splitlines()[-1]


def test_writes_every_file_with_the_evaluations_numbers(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compare", *folders, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES
    printed = capsys.readouterr()
    assert printed.out.strip() == (out / "comparison.md").read_text(encoding="utf-8").strip()
    assert f"results in {out}" in printed.err
    with (out / "comparison.csv").open(newline="") as file:
        rows = {(row["method"], row["class"]): row for row in csv.DictReader(file)}
    for path, name in zip(folders, ("LoRA r=4 (seed0)", "LoRA r=4 (seed1)", "boxes"), strict=True):
        headline = Evaluation.read(Path(path)).headline()
        read = rows[name, "foreground mean"]
        assert [float(read[part]) for part in ("mean", "low", "high")] == [headline.mean, headline.low, headline.high]
    with (out / "tests.csv").open(newline="") as file:
        tests = {(row["class"], row["a"], row["b"]): row for row in csv.DictReader(file)}
    seeds = tests["foreground mean", "LoRA r=4 (seed0)", "LoRA r=4 (seed1)"]
    assert (float(seeds["p_holm"]), float(seeds["difference"])) == (2 / 256, pytest.approx(0.045))
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("per_class.png", "ranks.png"))


def test_json_alone_on_stdout_and_names_in_order(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            ["compare", *folders, "--out", str(tmp_path / "o"), "--names", "A, B, C", "--metrics", "iou,dsc", "--json"]
        )
        == 0
    )
    content = json.loads(capsys.readouterr().out)
    assert (content["methods"], content["oracles"]) == (["A", "B"], ["C"])
    assert list(content["metrics"]) == ["iou", "dsc"]
    assert content["metrics"]["iou"]["rows"]["organ_1"]["best"] == ["A"]


def test_missing_cases_are_said_on_stderr_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = folder(tmp_path / "a", evaluation_of(BASE.round(3), model="a"))
    b = folder(tmp_path / "b", evaluation_of(BASE[1:].round(3), [f"case_{i}" for i in range(1, 8)], model="b"))
    assert main(["compare", a, b, "--out", str(tmp_path / "o")]) == 0
    said = "Only the cases that all have are compared (7); left out: 1 of a (case_0)."
    captured = capsys.readouterr()
    assert f"note: {said}" in captured.err
    assert said in captured.out


def test_without_two_methods_there_is_no_figure_of_ranks(folders: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["compare", *folders, "--out", str(out)]) == 0
    assert main(["compare", folders[0], folders[2], "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES - {"ranks.png"}


def test_mistakes_are_one_line(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = ["--out", str(tmp_path / "out")]
    a, b, _ = folders
    assert "at least two evaluation folders, got 1" in refused([a, *to], capsys)
    assert "seed0 is given 2 times" in refused([a, b, a + "/", *to], capsys)
    assert "is one of the evaluations" in refused([a, b, "--out", a], capsys)
    other, run = folder(tmp_path / "other", evaluation_of(BASE.round(3))), tmp_path / "run"
    assert f"{other}: holds an evaluation, whose figures would be replaced" in refused([a, b, "--out", other], capsys)
    run.mkdir()
    (run / "adapter.json").write_text("{}")
    assert f"{run}: holds a trained run" in refused([a, b, "--out", str(run)], capsys)
    assert "--names has 1 names (x) for 2 evaluations" in refused([a, b, "--names", "x", *to], capsys)
    assert "gives 'x' to more than one" in refused([a, b, "--names", "x,x", *to], capsys)
    assert "did you mean 'dsc'" in refused([a, b, "--metrics", "dcs", *to], capsys)
    assert f"{a} has no 'nsd'" in refused([a, b, "--metrics", "nsd", *to], capsys)
    assert "none: no such file or folder" in refused([a, str(tmp_path / "none"), *to], capsys)
    assert not (tmp_path / "out").exists()


def test_a_refusal_names_folders_and_values(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["--out", str(tmp_path / "out")]
    other = folder(tmp_path / "pixels", evaluation_of(BASE.round(3), model="LoRA r=4", protocol="pixels"))
    said = refused([folders[0], other, *to], capsys)
    assert f"{folders[0]} was scored by protocol 'default', {other} by 'pixels'" in said
    classes = folder(tmp_path / "classes", evaluation_of(BASE.round(3), classes=("liver", "spleen")))
    said = refused([folders[0], classes, *to], capsys)
    assert f"{folders[0]} has the classes {{'background': 0, 'organ_1': 1" in said
    assert f"{classes} has {{'background': 0, 'liver': 1" in said


def test_equal_names_get_as_much_of_the_path_as_tells_them_apart() -> None:
    models = [evaluation_of(BASE.round(3), model=name) for name in ("A", "A", "B")]
    assert distinct_names([Path("x/eval"), Path("y/eval"), Path("z")], models) == ["A (x/eval)", "A (y/eval)", "B"]
    assert distinct_names([Path("x"), Path("y"), Path("z")], models) == ["A (x)", "A (y)", "B"]
    assert distinct_names([Path("x")], [evaluation_of(BASE.round(3))]) == ["x"]
