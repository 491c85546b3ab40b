"""`sampeft refine`: fitted on held-out cases, kept in the run, used by predict and evaluate; mistakes in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fabricate import folder_dataset, write_png
from fabricate.backbones import architectures
from sampeft.backbones import BACKBONES
from sampeft.cli import main
from sampeft.commands import refine
from sampeft.io import sha256
from sampeft.metrics.scores import Evaluation
from sampeft.prediction.scene import Window, WindowLogits
from sampeft.prediction.tta import View
from sampeft.refine import REFINERS, Refiner
from sampeft.refine.stored import FILE

BEST = {"keep": "all", "least_size": 20.0, "fill_holes": False, "least_sizes": {}}


def bright(model: Any, windows: Iterable[Window], *_: Any) -> Iterator[WindowLogits]:
    """As a trained model to which every bright pixel is the class."""
    for window in windows:
        assert window.image
        level = window.image(View())[:1]
        yield WindowLogits(window, 20 * torch.cat([0.5 - level, level - 0.5]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data set whose images show a speck of four pixels far from the one true disc, run trained on it)."""
    root = tmp_path_factory.mktemp("refine")
    data = folder_dataset(root / "data", cases=5, files_per_case=1, size=(32, 32), classes=2)
    for path in (data / "images").iterdir():
        image = 200 * np.array(Image.open(data / "labels" / path.name))
        image[1:3, 1:3] = 200
        write_png(path, image)
    small = replace(architectures()["sam-vit-b"], name="tiny", native_side=64, side=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", small)
        patch.setenv("SAMPEFT_CACHE", str(root / "cache"))
        training = ["--training.steps", "1", "--training.head_first", "0", "--held_out", "2"]
        arguments = ["--backbone", "tiny", "--weights", "random", *training]
        assert main(["train", "--data", str(data), "--out", str(root / "run"), *arguments]) == 0
    return data, root / "run"


@pytest.fixture
def run(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run that predicts what is bright."""
    small = replace(architectures()["sam-vit-b"], name="tiny", native_side=64, side=64)
    monkeypatch.setitem(BACKBONES, "tiny", small)
    monkeypatch.setattr("sampeft.prediction.pipeline.predict_logits", bright)
    return Path(shutil.copytree(made[1], tmp_path / "run"))


@pytest.fixture
def data(made: tuple[Path, Path]) -> Path:
    return made[0]


DIGESTS = ("tensors_sha256", "description_sha256")


def fit(run: Path, data: Path, *more: str) -> int:
    return main(["refine", str(run), "--data", str(data), "--refiner", "components", *more])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return str(err.strip().splitlines()[-1])


def predicted(run: Path, data: Path, out: Path, *more: str) -> np.ndarray:
    assert main(["predict", str(run), str(data / "images" / "P05_1.png"), "--out", str(out), *more]) == 0
    return np.array(Image.open(out / "P05_1.png"))


def test_the_fitted_refiner_is_kept_and_used(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(run, data, "--json") == 0
    said = capsys.readouterr()
    tried = json.loads(said.out)["components"]
    assert tried["options"] == BEST
    assert tried["before"] < tried["after"] == 1.0
    assert "foreground DSC of 2 held-out cases 0." in said.err
    assert f"kept in {run / FILE}; use it with --refine fitted" in said.err
    content = json.loads((run / FILE).read_text())
    config = json.loads((run / "config.json").read_text())
    assert content["refiner"] == "components"
    assert content["options"] == BEST
    assert content["fitted_on"] == config["held_out_cases"]
    assert content["dsc_before"] == tried["before"]

    truth = np.array(Image.open(data / "labels" / "P05_1.png"))
    rough = predicted(run, data, tmp_path / "rough")
    assert (rough[1:3, 1:3] == 1).all()
    assert rough.sum() == truth.sum() + 4
    np.testing.assert_array_equal(predicted(run, data, tmp_path / "fitted", "--refine", "fitted"), truth)
    largest = ("--refine", "components", "--refine_options.keep", "largest")
    np.testing.assert_array_equal(predicted(run, data, tmp_path / "largest", *largest), truth)
    np.testing.assert_array_equal(predicted(run, data, tmp_path / "default", "--refine", "components"), rough)

    for name, more in (("plain", []), ("refined", ["--refine", "fitted"])):
        assert main(["evaluate", str(run), "--data", str(data), "--out", str(tmp_path / name), *more]) == 0
    plain, refined = (Evaluation.read(tmp_path / name) for name in ("plain", "refined"))
    pixels = int(truth.sum())
    assert plain.headline().mean == pytest.approx(2 * pixels / (2 * pixels + 4))
    assert refined.headline().mean == 1.0
    assert "refiner" not in plain.meta
    assert refined.meta["refiner"] == {"name": "components", **BEST}


def test_a_refiner_that_was_fitted_for_other_weights_is_refused(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a run that was trained on, or of another run from which the file was copied."""
    assert fit(run, data) == 0
    predicted(run, data, tmp_path / "fitted", "--refine", "fitted")
    content = json.loads((run / FILE).read_text())
    assert content["tensors_sha256"] == sha256(run / "adapter.safetensors")
    (run / FILE).write_text(json.dumps(content | {"tensors_sha256": "0" * 64}))
    for name, words in (("predict", [str(data / "images")]), ("evaluate", ["--data", str(data)])):
        assert main([name, str(run), *words, "--out", str(tmp_path / name), "--refine", "fitted"]) == 1
        assert last_line(capsys).endswith(
            f"{run / FILE}: was fitted for other weights than those of this run; run `sampeft refine` again"
        )
    del content["tensors_sha256"]  # older files do not say
    (run / FILE).write_text(json.dumps(content))
    predicted(run, data, tmp_path / "older", "--refine", "fitted")


def test_a_fitted_refiner_follows_the_last_weights_only_where_they_are_the_best(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(run, data) == 0
    predicted(run, data, tmp_path / "equal", "--refine", "fitted", "--last")  # after one step the last are the best
    weights, described = run / "last/adapter.safetensors", run / "last/adapter.json"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    older = {key: value for key, value in json.loads(described.read_text()).items() if key not in DIGESTS}
    described.write_text(json.dumps(older))
    for name, words in (("predict", [str(data / "images")]), ("evaluate", ["--data", str(data)])):
        command = [name, str(run), *words, "--out", str(tmp_path / name), "--last"]
        assert main([*command, "--refine", "fitted"]) == 2
        assert "was fitted for the best weights of" in (said := last_line(capsys))
        assert "leave --last out" in said
        assert main([*command, "--refine", "components"]) == 0


def test_only_held_out_cases_are_looked_at(run: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = refine.Rough.of

    def spy(segmenter: Any, dataset: Any, cases: Any, progress: Any) -> Any:
        seen.extend(case.id for case in cases)
        return real(segmenter, dataset, cases, progress)

    monkeypatch.setattr(refine.Rough, "of", spy)
    assert fit(run, data) == 0
    assert seen == json.loads((run / "config.json").read_text())["held_out_cases"]


class Nothing(Refiner):
    name = "nothing"


def test_of_all_refiners_the_best_is_kept(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for known in (refine.REFINERS, REFINERS):
        monkeypatch.setitem(known, "nothing", Nothing)
    monkeypatch.setattr(refine, "REFINERS", {"nothing": Nothing, "components": REFINERS["components"]})
    assert main(["refine", str(run), "--data", str(data)]) == 0
    err = capsys.readouterr().err
    assert [line.split()[0] for line in err.splitlines() if "foreground DSC of" in line] == ["nothing", "components"]
    assert json.loads((run / FILE).read_text())["refiner"] == "components"


def test_where_nothing_helps_nothing_is_kept_and_the_old_one_goes(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = Path(shutil.copytree(data, tmp_path / "clean"))
    for path in (clean / "images").iterdir():
        write_png(path, 200 * np.array(Image.open(clean / "labels" / path.name)))
    assert fit(run, data) == 0
    assert (run / FILE).is_file()
    assert fit(run, clean) == 0
    assert not (run / FILE).exists()
    assert last_line(capsys) == f"none helps the held-out cases; nothing is kept, and {FILE} of before is removed"
    assert fit(run, clean) == 0
    assert last_line(capsys) == "none helps the held-out cases; nothing is kept"
    assert main(["predict", str(run), str(data / "images"), "--out", str(tmp_path / "o"), "--refine", "fitted"]) == 2
    assert f"fit one first with `sampeft refine {run} --data DATASET`" in last_line(capsys)


def test_of_pictures_that_are_cut_only_class_maps_are_refined(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run says that its pictures had 8 pixels, these have 32."""
    description = json.loads((run / "adapter.json").read_text())
    (run / "adapter.json").write_text(json.dumps({**description, "pixels": 8, "most_pixels": 8}))
    capsys.readouterr()
    assert main(["refine", str(run), "--data", str(data)]) == 0
    said = capsys.readouterr().err
    assert "is cut into windows; the refiners that look at whole images are left out" in said
    assert re.findall(r"^(\S+) +foreground DSC of 2 held-out", said, re.MULTILINE) == ["components"]

    monkeypatch.setattr("sampeft.evaluation.fit_refiner.Rough.of", lambda *_: pytest.fail("was looked at"))
    monkeypatch.setattr("sampeft.workflows.evaluate.held_out_temperature", lambda *_: pytest.fail("was looked at"))
    assert main(["refine", str(run), "--data", str(data), "--refiner", "crf"]) == 2
    assert "the refiner crf looks at whole images" in last_line(capsys)
    out = ["--out", str(tmp_path / "scores"), "--refine", "crf"]
    assert main(["evaluate", str(run), "--data", str(data), *out]) == 2
    assert "the refiner crf looks at whole images" in last_line(capsys)
    monkeypatch.setattr("sampeft.prediction.sinks.free_bytes", lambda device: 1)
    assert main(["refine", str(run), "--data", str(data)]) == 2
    assert "needs the whole map of 32 x 32 pixels at once" in last_line(capsys)


def test_cases_that_must_not_be_fitted_on(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((run / "config.json").read_text())
    trained = config["training_cases"][0]
    assert fit(run, data, "--cases", f"[{trained}]") == 2
    assert last_line(capsys).endswith(f"was trained on {trained}; give --cases that it has not seen")
    assert fit(run, data, "--cases", "[P99]") == 2
    assert "has no case P99" in last_line(capsys)
    assert fit(run, data, "--cases", "[P05]") == 0
    err = capsys.readouterr().err
    assert "warning   P05: listed as test cases; do not score on them" in err
    assert "of 1 held-out case 0." in err
    (run / "config.json").write_text(json.dumps({**config, "held_out_cases": []}))
    (run / FILE).unlink()
    assert fit(run, data) == 2
    assert "held no cases out; name some that are never scored with --cases" in last_line(capsys)
    assert not (run / FILE).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refine_options.keep", "largest"], "options of a refiner go with its name; give --refine NAME"),
        (["--refine", "fitted", "--refine_options.keep", "largest"], "options of a refiner go with its name"),
        (["--refine", "componets"], "unknown refiner 'componets'; did you mean 'components'?"),
        (["--refine", "fited"], "unknown refiner 'fited'; did you mean 'fitted'?"),
        (["--refine", "components", "--refine_options.kep", "all"], "did you mean 'keep'?"),
        (["--refine", "components", "--refine_options.keep", "biggest"], "keep must be one of all, largest"),
    ],
)
def test_mistakes_of_predict_and_evaluate(
    arguments: list[str], message: str, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [str(data / "images"), "--out", str(tmp_path / "out")]
    assert main(["predict", str(run), *inputs, *arguments]) == 2
    assert message in last_line(capsys)
    assert main(["evaluate", str(run), "--data", str(data), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in last_line(capsys)
    assert not (tmp_path / "out").exists()


def test_an_unknown_refiner_is_told_before_the_run_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["refine", "nowhere", "--data", "nowhere", "--refiner", "levelset"]) == 2
    assert "unknown refiner 'levelset'; did you mean 'level-set'?" in last_line(capsys)


@pytest.mark.parametrize("content", ["{", "[]", '{"refiner": "components"}', '{"refiner": "crf", "options": {"x": 1}}'])
def test_a_damaged_file_is_named(
    content: str, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / FILE).write_text(content)
    assert main(["predict", str(run), str(data / "images"), "--out", str(tmp_path / "o"), "--refine", "fitted"]) == 1
    line = last_line(capsys)
    assert f"{run / FILE}: not a whole refiner" in line
    assert "run `sampeft refine` again" in line
