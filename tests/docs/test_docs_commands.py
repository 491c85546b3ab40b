"""Every command line in README and docs is one that the program takes; those of quick start and tutorials are run."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fabricate import discs, flare22_dataset, folder_dataset, looks_like, write_png
from fabricate.backbones import tiny_sam
from fabricate.layouts import sirst_v1
from sampeft.backbones import Backbone
from sampeft.cli import COMMANDS, main

REPOSITORY = Path(__file__).parents[2]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
RUN = ("index.md", "tutorials/ct.md", "tutorials/satellite.md", "tutorials/infrared.md", "tutorials/report.md")
"""Pages whose commands are run, but for blocks after a line that begins with *Needs."""
SIDE = 64

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_STARTS = (re.compile(r"^sampeft (.*)"), re.compile(r"-m sampeft (.*)"), re.compile(r"\$\(which sampeft\) (.*)"))
_SYNTAX = re.compile(r" \.\.\.|\[--|\w\|\w")  # `predict ...`, `[--option]` and `a|b` describe commands


@dataclass(frozen=True)
class Block:
    """A block of shell lines. needs: the page says that it needs something that a test has not."""

    lines: tuple[str, ...]
    needs: bool


def blocks(page: Path, languages: tuple[str, ...]) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        if fence[2] in languages:
            before = text[: fence.start()].rstrip().rpartition("\n")[2]
            lines = re.sub(r"\\\n\s*", "", fence[3]).splitlines()
            found.append(Block(tuple(line.strip() for line in lines if line.strip()), before.startswith("*Needs")))
    return found


def arguments(line: str) -> list[str] | None:
    """What is given to sampeft on a line of shell; None where the line calls something else or describes a command."""
    found = next((match for start in _STARTS if (match := start.search(line))), None)
    if found is None:
        return None
    words = shlex.split(found[1], comments=True)
    return None if _SYNTAX.search(" " + " ".join(words)) else words


LINES = [
    pytest.param(words, id=f"{page.relative_to(REPOSITORY)} {' '.join(words)[:60]}")
    for page in PAGES
    for block in blocks(page, ("sh", "bash", ""))
    for line in block.lines
    if (words := arguments(line)) is not None
]


def test_the_pages_have_commands() -> None:
    assert len(LINES) > 60
    assert {str(param.values[0][0]) for param in LINES} >= {"check", "train", "evaluate", "predict", "serve", "export"}  # type: ignore[index]


@pytest.mark.parametrize("words", LINES)
def test_the_program_takes_the_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(Backbone, "find_weights", lambda spec: REPOSITORY)
    if words[0] in COMMANDS:
        monkeypatch.setattr(importlib.import_module(f"sampeft.commands.{words[0]}"), "run", lambda config: 0)
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    assert code == 0, capsys.readouterr().err


def crops(root: Path, count: int = 5) -> None:
    """GID-MTL5's layout, without lists, as it is given out."""
    for n in range(count):
        ids = discs((28, 28), 6, n)
        write_png(root / "images" / f"forest_{n:03d}.png", np.stack([looks_like(ids, 6, n)] * 3, axis=2))
        write_png(root / "labels" / f"forest_{n:03d}.png", ids)


def scene(path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the satellite tutorial needs the extra 'geo'")
    pytest.importorskip("pyogrio", reason="the satellite tutorial needs the extra 'geo'")
    levels = looks_like(discs((60, 60), 6, 1), 6, 1)
    profile = {"driver": "GTiff", "width": 60, "height": 60, "count": 3, "dtype": "uint8", "crs": "EPSG:32650"}
    with rasterio.open(path, "w", transform=rasterio.Affine(4, 0, 5e5, 0, -4, 3e6), **profile) as raster:
        raster.write(np.stack([levels] * 3))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a reader works in: recipes, and tiny data under the names of the pages."""
    (tmp_path / "recipes").symlink_to(REPOSITORY / "recipes")
    folder_dataset(tmp_path / "DATASET")
    flare22_dataset(tmp_path / "flare22", cases=5, grid=(28, 20, 3))
    shutil.copyfile(next((tmp_path / "flare22/images").iterdir()), tmp_path / "scan.nii.gz")
    crops(tmp_path / "gid-mtl5")
    sirst_v1(tmp_path / "sirst")
    for n in range(2):
        write_png(tmp_path / "pictures" / f"{n}.png", looks_like(discs((24, 32), 3, n), 3, n))
    monkeypatch.chdir(tmp_path)
    with tiny_sam(SIDE, tmp_path / "cache"):
        yield tmp_path


TINY = ["--backbone", "tiny", "--weights", "random", "--side", str(SIDE)]
LESS: dict[str, list[str]] = {
    "train": [*TINY, "--encoder_side", str(SIDE), "--plan", "false",
              "--held_out", "1", "--training.steps", "2", "--training.validations", "1",
              "--training.head_first", "0"],
    "plan": [*TINY, "--held_out", "1", "--training.head_first", "0"],
    "oracle": TINY,
    "evaluate": ["--calibrate", "false"],
    "predict": ["--engine", "torch"],
}  # fmt: skip
"""What a test adds to a command, so that it is done in a second or two. Figures are drawn for the first page only."""


@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_a_page_run_one_after_the_other(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[object] = []
    monkeypatch.setattr(
        importlib.import_module("sampeft.commands.serve"), "run", lambda config: served.extend(config.runs)
    )
    if name != "index.md":
        for drawn in ("figure_per_class", "figure_examples", "figure_learning_curve", "write_page"):
            monkeypatch.setattr(f"sampeft.report.results.{drawn}", lambda *_, **__: None)
    if "satellite" in name:
        scene(place / "scene.tif")
    for block in blocks(REPOSITORY / "docs" / name, ("sh",)):
        for line in block.lines if not block.needs else ():
            words = arguments(line)
            assert words is not None, f"not a command of sampeft, so say what it *Needs: {line}"
            assert main([*words, *LESS.get(words[0], [])]) == 0, (line, capsys.readouterr().err)
    assert all(Path(str(run), "adapter.json").is_file() for run in served)


@pytest.mark.parametrize("page", ["metrics.md"])
def test_the_worked_numbers_are_what_the_code_gives(page: str) -> None:
    before = np.get_printoptions()
    np.set_printoptions(legacy="1.25")  # numbers print as numbers
    try:
        failed, tried = doctest.testfile(str(REPOSITORY / "docs" / page), module_relative=False)
    finally:
        np.set_printoptions(legacy=before["legacy"])
    assert (failed, tried > 20) == (0, True)


def test_make_has_the_targets_that_the_pages_name() -> None:
    named = {
        line.split()[1]
        for page in PAGES
        for block in blocks(page, ("sh", ""))
        for line in block.lines
        if line.startswith("make ")
    }
    assert named == {"demo", "test"}
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in named)
