"""Names that a console cannot show, and file names that are no text: characters are replaced, nothing is lost (N06)."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabricate import folder_dataset
from fabricate.backbones import tiny_sam
from sampeft.cli import main
from sampeft.io import write_atomically

NAMES = {"background": 0, "左肾": 1, "Größe ≥ 5": 2}
NO_TEXT = os.fsdecode(b"P01_\xe4")
TINY = "--backbone tiny --weights random --method none --training.steps 2 --training.batch 1 --held_out 1 --plan false"


@pytest.fixture(params=["ascii", "cp1252"])
def console(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.BytesIO]:
    """What is printed, by a console that knows few characters."""
    shown = io.BytesIO()
    with io.TextIOWrapper(shown, request.param, "strict", write_through=True) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        yield shown


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of which one file's name is not UTF-8."""
    if sys.platform != "linux":
        pytest.skip("file names are text there")
    root = folder_dataset(tmp_path / "Bilder ≥ 1", described={"labels": NAMES, "splits": None})
    for name in ("train.txt", "test.txt"):
        (root / name).unlink()
    for part in ("images", "labels"):
        (root / part / "P01_1.png").rename(root / part / f"{NO_TEXT}.png")
    return root


def printed(console: io.BytesIO) -> str:
    """Since the last time."""
    text = console.getvalue().decode(getattr(sys.stdout, "encoding", "ascii"))
    console.seek(0)
    console.truncate()
    return text


def test_check_shows_what_it_can_and_writes_all(data: Path, tmp_path: Path, console: io.BytesIO) -> None:
    assert main(["check", str(data), "--out", str(tmp_path / "out")]) == 0
    assert r"\u5de6\u80be" in printed(console)
    assert [c["name"] for c in json.loads((tmp_path / "out/check.json").read_text())["classes"]] == list(NAMES)
    assert (tmp_path / "out/contact.png").stat().st_size > 1000


def test_a_whole_run(data: Path, tmp_path: Path, console: io.BytesIO) -> None:
    run, scored, maps = (tmp_path / name for name in ("run", "eval", "maps"))
    with tiny_sam(64, tmp_path / "cache"):
        assert main(["train", "--data", str(data), "--out", str(run), *TINY.split()]) == 0
        assert main(["evaluate", str(run), "--data", str(data), "--split", "all", "--out", str(scored)]) == 0
        assert r"\u5de6\u80be" in printed(console)
        assert main(["predict", str(run), str(data / "images"), "--out", str(maps), "--engine", "torch"]) == 0
        assert NO_TEXT.encode("ascii", "backslashreplace").decode() in printed(console)
        again = [
            "evaluate",
            "--pred",
            str(maps),
            "--truth",
            str(data / "labels"),
            "--labels",
            str(data / "dataset.json"),
        ]
        assert main([*again, "--out", str(tmp_path / "again"), "--json"]) == 0
        assert set(NAMES) & set(json.loads(printed(console))["labels"]["labels"]) == set(NAMES)
    assert (maps / f"{NO_TEXT}.png").is_file()
    cases = json.loads((maps / "predictions.json").read_text(encoding="utf-8"))["cases"]
    assert cases[NO_TEXT]["status"] == "done"
    assert NO_TEXT in json.loads((tmp_path / "again/summary.json").read_text(encoding="utf-8"))["cases"]
    assert "左肾" in (scored / "table.md").read_text(encoding="utf-8")


def test_text_that_is_none_survives_a_json_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", json.dumps({NO_TEXT: "ä"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {NO_TEXT: "ä"}
