"""The command line as a user meets it: whole runs on tiny data, and every foreseeable mistake as one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import sampeft
from fabricate import flare22_dataset, folder_dataset, write_png
from sampeft.backbones import BACKBONES
from sampeft.cli import main, parser_of
from sampeft.peft import METHODS

TRAIN = ["--weights", "random", "--side", "56", "--training.steps", "6", "--training.batch", "1", "--held_out", "1"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data set of NIfTI volumes, run trained on it)."""
    root = tmp_path_factory.mktemp("trained")
    data = flare22_dataset(root / "data")
    assert main(["train", "--data", str(data), "--out", str(root / "run"), *TRAIN]) == 0
    return data, root / "run"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of stderr, which says what is wrong; there is no traceback."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


def test_train_writes_a_self_describing_run(trained: tuple[Path, Path]) -> None:
    _, run = trained
    assert {p.name for p in run.iterdir()} == {
        "adapter.json",
        "adapter.safetensors",
        "checkpoint.safetensors",
        "config.json",
        "last",
        "metrics.jsonl",
    }
    content = json.loads((run / "adapter.json").read_text())
    assert content["weights_sha256"] == "random"
    assert content["preparation"]["intensity"]["kind"] == "window"
    assert content["preparation"]["plane"] == "axial"  # what `auto` came to
    seen = content["preparation"]["seen"]
    assert seen["planes"] == ["axial"]
    assert seen["low"] < 0 < seen["high"]
    assert content["label_map"]["labels"]["liver"] == 1
    config = json.loads((run / "config.json").read_text())
    assert set(config["training_cases"]).isdisjoint(config["held_out_cases"])
    assert config["description"]["data"]["fingerprint"]
    assert config["training"]["minutes"] is None  # --training.steps alone is the whole end


def test_evaluate_writes_scores_table_and_report(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = trained
    assert main(["evaluate", str(run), "--data", str(data), "--out", str(tmp_path / "e"), "--maps"]) == 0
    assert {"scores.csv", "summary.json", "table.md", "report.html", "examples.png", "per_class.png", "maps"} <= {
        p.name for p in (tmp_path / "e").iterdir()
    }
    report = (tmp_path / "e/report.html").read_text()
    assert "RANDOM WEIGHTS" in report
    # Scoring the written maps as anybody's label maps gives the same numbers.
    (tmp_path / "labels.json").write_text(json.dumps(json.loads((run / "adapter.json").read_text())["label_map"]))
    (tmp_path / "truth").mkdir()
    name_of_map = next((tmp_path / "e/maps").iterdir()).name
    (tmp_path / "truth" / name_of_map).write_bytes((data / "labels" / name_of_map).read_bytes())
    arguments = [
        "--pred",
        str(tmp_path / "e/maps"),
        "--truth",
        str(tmp_path / "truth"),
        "--labels",
        str(tmp_path / "labels.json"),
    ]
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "m")]) == 0
    first, second = ((tmp_path / d / "scores.csv").read_text() for d in ("e", "m"))
    assert first == second
    # The folder of another evaluation is left as it is, and with --force nothing of it stays.
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "e").iterdir()}
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "e")]) == 2
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "e").iterdir()} == before
    said = capsys.readouterr().err
    assert f"{tmp_path / 'e'}: holds another evaluation (run was {run}, is None; data was {data}, is None; " in said
    assert f"pred was None, is {tmp_path / 'e/maps'}" in said
    assert "choose another --out or overwrite it with --force" in said
    for name in ("table.md", "calibration.json", "learning.png"):
        (tmp_path / "m" / name).write_text("of before")
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "m")]) == 0  # the same again
    assert {"calibration.json", "learning.png"}.isdisjoint(p.name for p in (tmp_path / "m").iterdir())
    assert (tmp_path / "m/table.md").read_text() != "of before"
    assert main(["evaluate", str(run), "--data", str(data), "--out", str(tmp_path / "m")]) == 2
    shutil.copytree(tmp_path / "e", tmp_path / "taken")
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "taken"), "--force"]) == 0
    assert {p.name for p in (tmp_path / "taken").iterdir()} == {p.name for p in (tmp_path / "m").iterdir()}
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "e"), "--force"]) == 0
    assert (tmp_path / "e/maps" / name_of_map).is_file()  # which were scored
    assert main(["evaluate", *arguments, "--protocol", "pixels", "--out", str(tmp_path / "m")]) == 2
    assert "protocol was default, is pixels" in capsys.readouterr().err
    (tmp_path / "m/origin.json").unlink()
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "m")]) == 2
    assert "holds an evaluation that does not say of what it is" in capsys.readouterr().err
    # And so do the functions of these names.
    found = sampeft.evaluate(run, data, tmp_path / "f", calibrate=False)
    assert (tmp_path / "f/scores.csv").read_text() == first
    beside = sampeft.compare([tmp_path / "m", tmp_path / "f"])
    assert len(beside.names) == 2
    for shown in (found, beside, sampeft.check(data)):
        assert repr(shown).startswith(type(shown).__name__)
        assert len(repr(shown).splitlines()) <= 3


def test_predict_needs_no_labels_and_keeps_the_grid(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = trained
    source = next(iter(sorted((data / "images").iterdir())))
    lonely = tmp_path / "with space ü" / "scan.nii.gz"
    lonely.parent.mkdir()
    lonely.write_bytes(source.read_bytes())
    command = ["predict", str(run), str(lonely), "--out", str(tmp_path / "out"), "--engine", "torch"]
    assert main(command) == 0
    written = Path(capsys.readouterr().out.strip())
    image, label = nib.load(lonely), nib.load(written)
    assert label.shape == image.shape
    assert np.allclose(label.affine, image.affine)
    assert nib.aff2axcodes(label.affine) == nib.aff2axcodes(image.affine)
    assert label.get_data_dtype() == np.uint8
    segmenter = sampeft.load(run)
    assert np.array_equal(np.asarray(label.dataobj), segmenter.labels.to_ids(segmenter.predict(lonely)))
    assert main(command) == 0
    assert one_line(capsys) == "1 of 1 cases were finished before and are left as they are"
    assert main([*command, "--views", "2"]) == 2
    assert "is already there" in one_line(capsys)


def test_a_bad_file_among_good_ones_is_named_and_the_others_are_done(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = trained
    good = sorted((data / "images").iterdir())[0]
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(good.read_bytes()[:200])
    assert main(["predict", str(run), str(bad), str(good), "--out", str(tmp_path / "out"), "--engine", "torch"]) == 1
    assert "bad.nii.gz" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        good.name.replace("_0000", ""),
        "predictions.json",
        "cases.csv",
        "classes.csv",
    }


def test_pictures_go_the_same_way_and_come_back_with_the_palette(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_dataset(
        tmp_path / "data", described={"colors": {"background": [0, 0, 0], "c1": [255, 0, 0], "c2": [0, 0, 255]}}
    )
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), "--method", "decoder", *TRAIN]) == 0
    assert main(["predict", str(tmp_path / "run"), str(data / "images"), "--out", str(tmp_path / "out")]) == 0
    picture = Image.open(tmp_path / "out/P01_1.png")
    assert picture.size == (32, 24)
    assert picture.mode == "P"
    assert picture.getpalette()[:9] == [0, 0, 0, 255, 0, 0, 0, 0, 255]
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *TRAIN]) == 2
    assert "holds a trained run" in one_line(capsys)


def test_oracle_is_marked_as_such(tmp_path: Path) -> None:
    data = folder_dataset(tmp_path / "data")
    assert (
        main(["oracle", "--data", str(data), "--weights", "random", "--side", "56", "--out", str(tmp_path / "o")]) == 0
    )
    assert json.loads((tmp_path / "o/summary.json").read_text())["meta"]["oracle"] is True
    assert "oracle" in (tmp_path / "o/table.md").read_text()


@pytest.mark.real_weights
@pytest.mark.usefixtures("real_weights")
def test_demo_runs_the_whole_job_on_a_users_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_dataset(tmp_path / "data")
    out = tmp_path / "out"
    assert main(["demo", "--data", str(data), "--out", str(out), "--minutes", "0.3", "--side", "56"]) == 0
    said = capsys.readouterr().out
    assert "automatic" in said
    assert "not a medical device" in said
    for path in ("report.html", "table.md", "examples.png", "labels/P04_1.png", "run/adapter.safetensors"):
        assert (out / path).is_file(), path
    assert "oracle" in (out / "table.md").read_text()


def test_the_public_names_are_listed_and_imported_when_asked_for() -> None:
    script = (
        "import sys, sampeft; print(' '.join(dir(sampeft))); print('torch' in sys.modules);"
        "print(all(getattr(sampeft, name) is not None for name in dir(sampeft)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names = "Segmenter TrainConfig __version__ check compare evaluate load train"
    assert done.stdout.split("\n")[:3] == [names, "False", "True"]


def test_params_and_info_print_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", "--method", "lora,decoder", "--json"]) == 0
    lora, decoder = json.loads(capsys.readouterr().out)["counts"]
    assert lora["parts"]["added"] == {"total": 53248, "trainable": 53248}
    assert decoder["parts"]["decoder transformer"]["trainable"] == 3_291_264
    assert lora["trainable"] == sum(part["trainable"] for part in lora["parts"].values())
    beside = lora["saved_bytes"] - 4 * lora["trainable"]  # names, and the scales of what the head reads
    assert 8 * (614 + 1228) < beside < 60_000
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["backbones"]) == list(BACKBONES)
    assert list(found["methods"]) == list(METHODS)


FILE = "set/images/P01_1.png"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "did you mean 'train'"),
        (["train", "--data", "nowhere", "--out", "run"], 2, "nowhere: no such file or folder"),
        (["train", "--data", "set", "--out", "run", "--backbone", "lite_medsam"], 2, "did you mean 'lite-medsam'"),
        (
            ["train", "--data", "set", "--out", "run", "--method", "lorra", "--weights", "random"],
            2,
            "did you mean 'lora'",
        ),
        (["train", "--data", "set", "--out", "run", "--side", "57"], 2, "such as 56"),
        (["train", "--data", "set", "--out", "run", "--intensity", "ct"], 2, "unknown intensity recipe 'ct'"),
        (["train", "--data", "set", "--out", "run", "--weights", "no.pth"], 2, "no.pth: no such weights file"),
        (["train", "--data", "set", "--out", "run", "--held_out", "9"], 2, "cannot hold out 9"),
        (["train", "--data", "set", "--out", "run", "--map", "4-3"], 2, "--map wants pairs"),
        (["predict", "run", "nowhere.png", "--out", "out"], 2, "nowhere.png: no such file"),
        (["predict", "set", "set/images", "--out", "out"], 2, "no trained model here"),
        (["evaluate", "--out", "out"], 2, "give a run and --data, or"),
        (["train", "set", "--out", "run"], 2, "'set' is one argument too many; did you mean --data set?"),
        (["train", "--data", "set/dataset.json", "--out", "run"], 2, "is a file; give the folder of a data set"),
        (
            ["train", "--data", "set", "--out", FILE],
            2,
            f"{FILE}: is a file, but out is a folder to write to; give another",
        ),
        (
            ["train", "--data", "set", "--out", "/proc/x"],
            2,
            "/proc/x: No such file or directory; it cannot be made there",
        ),
        (["train", "--data", "set", "--out", "run", "--backbone", "sam-vit-h"], 2, "`sampeft fetch sam-vit-h`"),
        (
            ["train", "--data", "set", "--out", "run", "--epochs", "9"],
            2,
            "--training.steps (a whole number, 1 or more)?",
        ),
        (["train", "--data", "set", "--out", "run", "--config", FILE], 2, f"{FILE}: is not a YAML file with options"),
        (["train", "--data", "set", "--out", "run", "--config", "set"], 2, "set: is not a YAML file with options"),
        (["train", "--data", "set", "--out", "run", "--training", "set/x.yaml"], 2, "set/x.yaml: line 2: expected ','"),
        (["predict", "run", "set/images", "--out", FILE], 2, f"{FILE}: is a file"),
        (["check", "set", "--out", FILE], 2, f"{FILE}: is a file"),
        (["demo", "--out", FILE], 2, f"{FILE}: is a file"),
        (["fetch", "flare22", "--out", FILE], 2, f"{FILE}: is a file"),
        (["fetch"], 2, "give the name of what to fetch"),
        (["compare", "set", "set/images", "--out", "out"], 2, "an evaluation folder is what `sampeft evaluate` writes"),
        (["evaluate", "--pred", "set/labels", "--out", "out"], 2, "give --truth and --labels, too"),
        (
            ["evaluate", "--pred", "none", "--truth", "set/labels", "--labels", "set/dataset.json", "--out", "out"],
            2,
            "none: no image here",
        ),
        (["reproduce", "table6", "--data_root", "set"], 2, "`sampeft fetch --list` says where to get them"),
    ],
)
def test_mistakes_are_one_line_with_the_right_exit_code_and_leave_nothing(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder_dataset(tmp_path / "set")
    (tmp_path / "set/x.yaml").write_text("steps: [1, 2\n")
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert message in one_line(capsys)
    assert {p.name for p in tmp_path.iterdir()} <= {"set", "none", "cache"}


def test_images_and_labels_that_are_swapped_are_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_dataset(tmp_path / "data", size=(60, 80))
    (data / "images").rename(data / "were images")
    (data / "labels").rename(data / "images")
    (data / "were images").rename(data / "labels")
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *TRAIN]) == 1
    assert "are images and labels swapped?" in one_line(capsys)


def test_unknown_options_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "x", "--out", "y", "--learning_rate", "1"]) == 2
    told = capsys.readouterr().err
    assert "unknown option --learning_rate; did you mean --training.lr (a number, above 0 to 10)?" in told
    assert len(told.splitlines()) == 1


def test_a_stray_label_stops_the_training_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_dataset(tmp_path / "data")
    label = np.array(Image.open(data / "labels/P01_1.png"))
    label[0, :5] = 7
    write_png(data / "labels/P01_1.png", label)
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *TRAIN]) == 1
    line = one_line(capsys)
    assert "P01_1.png" in line
    assert "7" in line
    assert not (tmp_path / "run").exists()
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), "--map", "7:1", *TRAIN]) == 0


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sampeft.io.os.fsync", full)
    data, run = trained
    image = str(sorted((data / "images").iterdir())[0])
    assert main(["predict", str(run), image, "--out", str(tmp_path / "out"), "--engine", "torch"]) == 1
    line = one_line(capsys)
    assert "case_01.nii.gz: No space left on device; free some space" in line
    assert not (tmp_path / "out").exists()


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from sampeft.cli import main; main(['--help']);"
        "heavy = {'torch', 'transformers', 'timm', 'peft', 'matplotlib', 'nibabel', 'scipy'} & set(sys.modules);"
        "sys.exit(len(heavy))"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 1.0
    for command in ("demo", "train", "evaluate", "predict", "params", "info"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("command", "words", "name", "wanted"),
    [
        ("refine", ["run", "--data", "d", "--cases", "a"], "cases", ["a"]),
        ("refine", ["run", "--data", "d", "--cases", "a", "--cases", "b"], "cases", ["a", "b"]),
        ("refine", ["run", "--data", "d", "--cases", "[a, b]"], "cases", ["a", "b"]),
        ("evaluate", ["run", "--data", "d", "--out", "o", "--beside", "x"], "beside", [Path("x")]),
        ("serve", ["run", "--evals", "x"], "evals", [Path("x")]),
        ("reproduce", ["table1", "--data", "d", "--out", "o", "--strengths", "0.1"], "strengths", [0.1]),
        ("reproduce", ["table1", "--data", "d", "--out", "o", "--strengths", "[0.1,0]"], "strengths", [0.1, 0.0]),
        ("compare", ["a", "b", "--out", "o", "--metrics", "dsc"], "metrics", "dsc"),
    ],
)
def test_an_option_that_takes_several_values_takes_one(command: str, words: list[str], name: str, wanted: Any) -> None:
    assert getattr(parser_of(command).read(words), name) == wanted
