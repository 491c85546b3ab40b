"""The page needs no other file, escapes what it is given, hides no failure and stays small."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampeft.metrics.scores import Evaluation
from sampeft.report import page as module
from sampeft.report.figures import Example, figure_examples
from sampeft.report.page import MAX_BYTES, failures, write_page

pytest.importorskip("matplotlib")


def render(
    out: Path, evaluations: dict[str, Evaluation], examples: list[Example], history: Any = (), **given: Any
) -> str:
    config = {"side": 256, "description": {"backbone": "lite-medsam", "trainable": 1234567, "options": {"rank": 4}}}
    path = write_page(
        out,
        title="LoRA <r=4> & co",
        evaluations=evaluations,
        examples=examples,
        history=history,
        config=config,
        notes=given.get("notes", ["RANDOM WEIGHTS: <b>nothing</b> was pretrained"]),
        resources={"minutes": 27.5, "device": "CPU"},
    )
    assert path == out / "report.html"
    assert [p.name for p in out.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


HISTORY = [{"step": 1, "minutes": 0.1, "loss": 1.0, "ce": 1.0, "dice": 1.0, "lr": 0.1}]


def test_page_is_self_contained_and_its_pictures_open(
    evaluations: dict[str, Evaluation], example: Example, tmp_path: Path
) -> None:
    text = render(tmp_path, evaluations, [example], HISTORY)
    references = re.findall(r"""(?:src|href|srcset|data|action)\s*=\s*["']([^"']*)""", text) + re.findall(
        r"url\(", text
    )
    assert len(references) == 3  # example, per class, learning curve
    for reference in references:
        head, content = reference.split(",", 1)
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        Image.open(io.BytesIO(base64.b64decode(content))).load()
    assert not re.search(r"https?://|<script|<link|@import", text)


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


def test_every_class_and_number_appears(evaluations: dict[str, Evaluation], example: Example, tmp_path: Path) -> None:
    text = html.unescape(render(tmp_path, evaluations, [example], HISTORY))
    for evaluation in evaluations.values():
        mean = evaluation.headline()
        assert f'<div class="figure">{mean.mean:.3f}</div>' in text
        assert f"{mean.low:.3f} to {mean.high:.3f}" in text
        assert f"{evaluation.with_background_mean():.3f} with background (as the paper averages)" in text
        for score in evaluation.per_class():
            assert f"{score.name}</th>" in text
            if score.n > 1:
                i = score.interval
                assert f"{i.mean:.3f} [{i.low:.3f}, {i.high:.3f}]" in text
    assert '<span class="tag">oracle (uses the truth)</span>' in text
    assert "RANDOM WEIGHTS" in text
    assert "not a medical device" in text
    assert "1,234,567" in text
    assert "too few to conclude anything" not in text


def test_failures_are_listed_worst_kind_first(evaluations: dict[str, Evaluation]) -> None:
    found = [(f.kind, f.name, f.text) for f in failures(evaluations["LoRA r=4"])]
    assert found == [
        ("never found", "missed", "scores 0 in all 6 cases that have it; check labels and training"),
        ("false", "stray", "in 1 of 6 cases without it: case_1"),
        ("absent", "stray", "in the truth of no case, so nothing is known about how well it is found"),
        ("absent", "absent", "in the truth of no case, so nothing is known about how well it is found"),
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


def test_page_without_training_or_examples(evaluations: dict[str, Evaluation], tmp_path: Path) -> None:
    first = evaluations["LoRA r=4"]
    one = Evaluation({"only": first.counts["case_0"]}, first.labels)
    text = render(tmp_path, {"one": one}, [])
    assert "Learning curves" not in text
    assert "Best, median" not in text
    assert "no interval from 1 case<" in text
    assert "too few to conclude anything" in text
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
    assert len(text) < 800_000 * 4 / 3 + 30_000 < MAX_BYTES
    figure = figure_examples(examples[:1], labels)
    assert module._inline(figure, 10**7).startswith("data:image/png")


def test_failing_to_write_leaves_nothing(
    evaluations: dict[str, Evaluation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("the old report")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        render(tmp_path, evaluations, [])
    assert (tmp_path / "report.html").read_text() == "the old report"
    assert len(list(tmp_path.iterdir())) == 1
