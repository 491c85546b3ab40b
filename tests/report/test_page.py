"""The page needs no other file, escapes what it is given, says what the evaluations say, hides no failure, stays small."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampeft.labels import LabelSet
from sampeft.metrics.counts import Counts
from sampeft.metrics.scores import Evaluation
from sampeft.report import page as module
from sampeft.report.failures import MOST_ROWS, worst_found
from sampeft.report.figures import Example, figure_examples
from sampeft.report.page import MAX_BYTES, write_page
from sampeft.report.sections import size_table

pytest.importorskip("matplotlib")

VOID = {"meta", "img", "br", "link", "input", "hr"}
DIGEST = "79d8c9dc" * 8


class Page(HTMLParser):
    """sections: id -> (rows of its tables as texts, all its text); images: (src, alt); unbalanced: tags left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {"": []}
        self.texts: dict[str, str] = {"": ""}
        self.images: list[tuple[str, str]] = []
        self.anchors: list[str] = []
        self.titles: list[str] = []
        self.open: list[str] = []
        self._at, self._cell = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._at = given["id"]
            self.rows[self._at], self.texts[self._at] = [], ""
        elif tag == "tr":
            self.rows[self._at].append([])
        elif tag in ("td", "th"):
            self.rows[self._at][-1].append("")
            self._cell = True
        elif tag == "img":
            self.images.append((given["src"], given["alt"]))
        elif tag == "a":
            self.anchors.append(given["href"])
        if "title" in given:
            self.titles.append(given["title"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.texts[self._at] += data
        if self._cell:
            self.rows[self._at][-1][-1] += data


def render(
    out: Path, evaluations: dict[str, Evaluation], examples: list[Example], history: Any = (), **given: Any
) -> str:
    run = {"backbone": "lite-medsam", "trainable": 1234567, "options": {"rank": 4}, "weights_sha256": DIGEST}
    path = write_page(
        out,
        title="LoRA <r=4> & co",
        evaluations=evaluations,
        examples=examples,
        history=history,
        config=given.get("config", {"side": 256, "description": run}),
        notes=given.get("notes", ["RANDOM WEIGHTS: <b>nothing</b> was pretrained"]),
        resources=given.get("resources", {"training (minutes)": 27.5, "device": "CPU", "peak memory (MiB)": 12345}),
    )
    assert path == out / "report.html"
    assert [p.name for p in out.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with empty pictures, for what is said in words."""

    def pictures(evaluations: dict[str, Evaluation], *_: Any) -> dict[str, Any]:
        calibrated = next(iter(evaluations.values())).calibration
        drawn = {"per_class": "data:,", "case_means": "data:,", "by_size": "data:,", "examples": [], "learning": None}
        return {**drawn, "reliability": "data:," if calibrated else None}

    monkeypatch.setattr(module, "_pictures", pictures)


HISTORY = [{"step": 1, "minutes": 0.1, "loss": 1.0, "ce": 1.0, "dice": 1.0, "lr": 0.1}]


def test_page_is_self_contained_and_its_pictures_open(measured: Evaluation, example: Example, tmp_path: Path) -> None:
    text = render(tmp_path, {"LoRA": measured}, [replace(example, predictions={})], HISTORY)
    page = Page(text)
    assert page.open == []
    assert list(page.rows)[1:] == [
        "scores", "cases", "classes", "failures", "sizes", "calibration", "learning", "origin", "resources",
    ]  # fmt: skip
    assert page.anchors == [f"#{name}" for name in list(page.rows)[1:]]
    assert len(page.images) == 6  # example, per class, per case, by size, reliability, learning curve
    for source, alternative in page.images:
        head, content = source.split(",", 1)
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        Image.open(io.BytesIO(base64.b64decode(content))).load()
        assert len(alternative) > 20
    references = re.findall(r"""(?:src|href|srcset|data|action)\s*=\s*["']([^"']*)""", text)
    assert all(reference.startswith(("data:image/", "#")) for reference in references)
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)


def test_names_are_escaped(evaluations: dict[str, Evaluation], example: Example, tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">'
    first = evaluations["LoRA r=4"]
    counts = {(evil if case == "case_1" else case): c for case, c in first.counts.items()}
    renamed = Evaluation(counts, first.labels, {"data": evil})
    shown = Example(evil, evil, example.image_HW, example.truth_HW, example.predictions, 0.5)
    text = render(tmp_path, {evil: renamed}, [shown], notes=[evil])
    assert evil not in text
    assert text.count(html.escape(evil, quote=False).split('"')[0]) >= 5
    assert "<title>LoRA &lt;r=4&gt; &amp; co</title>" in text
    assert all(source.startswith("data:") for source, _ in Page(text).images)


@pytest.mark.usefixtures("without_pictures")
def test_the_headline_and_every_class_are_those_of_the_evaluations(
    evaluations: dict[str, Evaluation], tmp_path: Path
) -> None:
    page = Page(render(tmp_path, evaluations, [], HISTORY))
    header, *rows = page.rows["classes"]
    assert header == ["class", "method", "DSC [95 %]", "n", "missed", "false"]
    found: dict[tuple[str, str], list[str]] = {}
    name = ""
    for row in rows:
        if len(row) == len(header):
            name = row.pop(0)
        found[name, row[0].removesuffix(" oracle")] = row[1:]
    for method, evaluation in evaluations.items():
        mean = evaluation.headline()
        assert f"{mean.mean:.3f}DSC" in page.texts["scores"]
        assert f"{mean.low:.3f} to {mean.high:.3f}" in page.texts["scores"]
        assert (
            f"{evaluation.with_background_mean():.3f} with background (as the paper averages)" in page.texts["scores"]
        )
        assert found["foreground mean", method][0] == f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
        assert found["with background (as the paper averages)", method][0] == f"{evaluation.with_background_mean():.3f}"
        for score in evaluation.per_class():
            i = score.interval
            text = f"{i.mean:.3f} [{i.low:.3f}, {i.high:.3f}]" if score.n > 1 else "0.000" if score.n else "not scored"
            assert found[score.name, method] == [text, str(score.n), str(score.n_missed), str(score.n_false)]
    assert "oracle (uses the truth)" in page.texts["scores"]
    assert page.texts["scores"].count("Protocol default: ") == 1
    assert "too few to conclude anything" not in page.texts["scores"]


@pytest.mark.usefixtures("without_pictures")
def test_notes_and_purpose_come_first(evaluations: dict[str, Evaluation], tmp_path: Path) -> None:
    page = Page(render(tmp_path, evaluations, []))
    assert "RANDOM WEIGHTS: <b>nothing</b> was pretrained" in page.texts[""]
    assert "research software, not a medical device" in page.texts[""]
    assert "not for diagnosis or treatment" in page.texts[list(page.texts)[-1]]


@pytest.mark.usefixtures("without_pictures")
def test_surfaces_sizes_and_probabilities_are_those_of_the_evaluation(measured: Evaluation, tmp_path: Path) -> None:
    page = Page(render(tmp_path, {"LoRA": measured}, []))
    classes = {row[0]: row[1:] for row in page.rows["classes"]}
    assert classes["class"] == ["DSC [95 %]", "NSD", "HD95 mm", "n", "missed", "false"]
    assert classes["big organ"][1:] == ["0.950", "5.5", "12", "0", "0"]
    assert classes["node"][2:] == ["25.7 + 1 inf", "12", "1", "0"]  # (20 + ... + 31 - 23) / 11 = 283 / 11
    assert "inf: cases of which no surface distance" in page.texts["classes"]
    assert "NSD 0.819 [" in page.texts["scores"]  # (0.95 + 0.75 x 11 / 12) / 2
    wanted = [["size of the truth", "DSC [95 %]", "cases", "class x case", "missed"]]
    for name, (row,) in size_table({"LoRA": measured}).items():
        wanted.append([name, row.text, str(row.cases), str(row.pairs), str(row.missed)])
    assert page.rows["sizes"] == wanted
    calibration = {row[0]: row[1:] for row in page.rows["calibration"]}
    assert calibration["node"] == ["0.0400", "0.0250"]
    assert calibration["all classes"][0] == "0.1000"
    assert "right in 0.650 of the pixels, so it is overconfident" in page.texts["calibration"]


@pytest.mark.usefixtures("without_pictures")
def test_failures_and_worst_cases_are_listed(measured: Evaluation, tmp_path: Path) -> None:
    page = Page(render(tmp_path, {"LoRA": measured}, []))
    assert ["missed", "node", "in 1 of 12 cases that have it: p03"] in page.rows["failures"]
    organ = next(worst for worst in worst_found(measured) if worst.name == "big_organ")
    assert ["big organ", f"{organ.dsc:.3f}", "p00", "11.0 mm", "p11"] in page.rows["failures"]


@pytest.mark.usefixtures("without_pictures")
def test_long_lists_of_failures_are_cut_and_counted(tmp_path: Path) -> None:
    classes = 30
    labels = LabelSet(("background", *(f"c{k}" for k in range(1, classes))), tuple(range(classes)))
    some = np.full(classes, 5)
    counts = {
        "a": Counts(some, np.zeros(classes, np.int64), some),
        "b": Counts(np.zeros(classes, np.int64), np.zeros(classes, np.int64), some),
    }
    page = Page(render(tmp_path, {"x": Evaluation(counts, labels)}, []))
    assert len(page.rows["failures"]) == 2 * (MOST_ROWS + 1)
    assert page.texts["failures"].count(f"{classes - 1 - MOST_ROWS} more; all numbers are in scores.csv.") == 2


@pytest.mark.usefixtures("without_pictures")
def test_the_run_and_what_it_took_are_said_in_words(evaluations: dict[str, Evaluation], tmp_path: Path) -> None:
    page = Page(render(tmp_path, evaluations, []))
    origin = dict(row for row in page.rows["origin"])
    assert origin["trained parameters"] == "1,234,567"
    assert origin["options of the method"] == "rank 4"
    assert origin["pretrained weights, SHA-256"] == "79d8c9dc79d8…"
    assert origin["side"] == "256"
    assert DIGEST in page.titles
    assert page.rows["resources"] == [
        ["training (minutes)", "27.5"], ["device", "CPU"], ["peak memory (MiB)", "12,345"],
    ]  # fmt: skip


def test_page_without_training_or_examples(evaluations: dict[str, Evaluation], tmp_path: Path) -> None:
    first = evaluations["LoRA r=4"]
    one = Evaluation({"only": first.counts["case_0"]}, first.labels)
    page = Page(render(tmp_path, {"one": one}, [], config={}, resources={}))
    assert list(page.rows)[1:] == ["scores", "classes", "failures", "sizes"]
    assert "no interval from 1 case" in page.texts["scores"]
    assert "too few to conclude anything" in page.texts["scores"]
    assert "Too few pairs of class and case" in page.texts["sizes"]
    assert page.rows["classes"][0] == ["class", "DSC [95 %]", "n", "missed", "false"]  # one method needs no column
    with pytest.raises(ValueError, match="at least one evaluation"):
        render(tmp_path, {}, [])


def test_page_stays_small_with_pictures_that_do_not_compress(
    evaluations: dict[str, Evaluation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = evaluations["boxes"].labels
    noise = np.random.default_rng(0).integers(256, size=(400, 400, 3), dtype=np.uint8)
    truth = np.zeros((400, 400), np.int16)
    examples = [Example(f"c{i}", f"c{i}", noise, truth, {"LoRA r=4": truth}) for i in range(2)]
    monkeypatch.setattr(module, "_PICTURES_BYTES", 800_000)
    text = render(tmp_path, evaluations, examples)
    assert "data:image/jpeg" in text
    assert len(text) < 800_000 * 4 / 3 + 40_000 < MAX_BYTES
    figure = figure_examples(examples[:1], labels)
    assert module._inline(figure, 10**7).startswith("data:image/png")


@pytest.mark.usefixtures("without_pictures")
def test_failing_to_write_leaves_nothing(
    evaluations: dict[str, Evaluation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("the old report")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        render(tmp_path, evaluations, [])
    assert (tmp_path / "report.html").read_text() == "the old report"
    assert len(list(tmp_path.iterdir())) == 1
