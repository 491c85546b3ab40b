"""Names that a console cannot show, and file names that are no text: characters are replaced, nothing is lost (N06)."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

from fabricate import folder_dataset
from fabricate.backbones import tiny_sam
from sampeft.cli import main
from sampeft.io import write_atomically

NAMES = {"background": 0, "左肾": 1, "Größe ≥ 5": 2}
NO_TEXT = os.fsdecode(b"P01_\xe4")
TINY = (
    "--backbone tiny --weights random --method decoder --training.steps 2 --training.batch 1 --held_out 1 --plan false"
)


@contextmanager
def console(encoding: str, errors: str = "strict") -> Iterator[Callable[[], str]]:
    """A console that knows few characters; called, it gives what was printed since the last time."""
    shown = io.BytesIO()

    def printed() -> str:
        text = shown.getvalue().decode(encoding)
        shown.seek(0)
        shown.truncate()
        return text

    with io.TextIOWrapper(shown, encoding, errors, write_through=True) as stream, redirect_stdout(stream):
        yield printed


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


@pytest.mark.parametrize(
    ("encoding", "errors"), [("ascii", "strict"), ("cp1252", "strict"), ("ascii", "surrogateescape")]
)
def test_check_shows_what_it_can_and_writes_all(encoding: str, errors: str, data: Path, tmp_path: Path) -> None:
    with console(encoding, errors) as printed:
        assert main(["check", str(data), "--out", str(tmp_path / "out")]) == 0
        assert r"\u5de6\u80be" in printed()
    assert [c["name"] for c in json.loads((tmp_path / "out/check.json").read_text())["classes"]] == list(NAMES)
    assert (tmp_path / "out/contact.png").stat().st_size > 1000


def test_a_whole_run(data: Path, tmp_path: Path) -> None:
    run, scored, maps, again = (tmp_path / name for name in ("run", "eval", "maps", "again"))
    folders = ["--pred", str(maps), "--truth", str(data / "labels"), "--labels", str(data / "dataset.json")]
    with tiny_sam(64, tmp_path / "cache"), console("ascii") as printed:
        assert main(["train", "--data", str(data), "--out", str(run), *TINY.split()]) == 0
        assert main(["evaluate", str(run), "--data", str(data), "--split", "all", "--out", str(scored)]) == 0
        assert r"\u5de6\u80be" in printed()
        assert main(["predict", str(run), str(data / "images"), "--out", str(maps), "--engine", "torch"]) == 0
        assert NO_TEXT.encode("ascii", "backslashreplace").decode() in printed()
        assert main(["evaluate", *folders, "--out", str(again), "--json"]) == 0
        assert set(json.loads(printed())["classes"]) >= set(NAMES) - {"background"}
    assert (maps / f"{NO_TEXT}.png").is_file()
    cases = json.loads((maps / "predictions.json").read_text(encoding="utf-8"))["cases"]
    assert cases[NO_TEXT]["status"] == "done"
    assert r"P01_\udce4" in (again / "scores.csv").read_text(encoding="utf-8")
    assert "左肾" in (scored / "table.md").read_text(encoding="utf-8")


def test_text_that_is_none_survives_a_json_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", json.dumps({NO_TEXT: "ä"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {NO_TEXT: "ä"}
