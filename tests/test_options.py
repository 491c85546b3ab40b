"""Options: each number has a range, told with the value and what to give; names that are not known are told before any work."""

from __future__ import annotations

import ast
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from fabricate import folder_dataset
from sampeft import options
from sampeft.arguments import OTHERS, described, numeric
from sampeft.cli import COMMANDS, main, parser_of, usage
from sampeft.data.augment import Augmentation
from sampeft.errors import UsageError
from sampeft.options import Range, ShareOrCount, check_ranges, number, options_by_name, short
from sampeft.peft import METHODS
from sampeft.training.settings import Training


@dataclass(frozen=True)
class Example:
    share: float = number(0.5, 0, 1, below=True)
    sizes: tuple[int, ...] = number((1, 2), 1)
    end: float | None = number(None, 0, above=True)
    word: str = "free"


def printed_commands() -> list[str]:
    """`sampeft train --data DATASET ...` in the texts of the source; what stands in braces is any word."""
    found: set[str] = set()
    for path in Path(options.__file__).parent.rglob("*.py"):
        text = re.sub(r"\"\s*\n\s*f?\"", "", path.read_text(encoding="utf-8"))
        found |= set(re.findall(r"`sampeft ([a-z]+ [^`\n]*?)`", text))
    return sorted(re.sub(r"\{[^}]*\}", "x", line) for line in found)


def test_ends_of_a_range_by_hand() -> None:
    half_open, above = Range(0, 1, below=True), Range(0, above=True)
    assert [value in half_open for value in (-0.1, 0, 0.5, 1)] == [False, True, True, False]
    assert [value in above for value in (0, 1e-9, 1e9, math.inf, math.nan)] == [False, True, True, False, False]
    assert [str(r) for r in (half_open, above, Range(1), Range(0, 1), Range(0, 2, above=True))] == [
        "0 to below 1", "above 0", "1 or more", "0 to 1", "above 0 to 2"]  # fmt: skip


def test_the_first_number_out_of_range_is_told_and_nothing_that_is_not_given() -> None:
    check_ranges(Example())
    for wrong, said in (
        ({"share": 1.0}, r"part\.share is 1; give 0 to below 1"),
        ({"sizes": (4, 0)}, r"part\.sizes is 0; give 1 or more"),
        ({"end": math.inf}, r"part\.end is inf; give above 0"),
    ):
        with pytest.raises(UsageError, match=said):
            check_ranges(Example(**wrong), "part.")


def test_every_number_of_a_training_and_its_augmentation_has_a_range() -> None:
    """But for those of choices, and pairs with a rule of their own."""
    for kind in (Training, Augmentation):
        bare = [f.name for f in fields(kind) if not f.metadata and not {"int", "float"}.isdisjoint(str(f.type).split())]
        assert bare == []


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        (Training, {"steps": 0}, "training.steps is 0; give 1 to 1000000000"),
        (Training, {"steps": -1}, "training.steps is -1; give 1 to 1000000000"),
        (Training, {"minutes": 0}, "training.minutes is 0; give above 0"),
        (Training, {"minutes": math.nan}, "training.minutes is nan; give above 0"),
        (Training, {"lr": 0}, "training.lr is 0; give above 0"),
        (Training, {"ema": 1.0}, "training.ema is 1; give 0 to below 1"),
        (Training, {"batch": 0}, "training.batch is 0; give 1 to 4096"),
        (Training, {"loss_weights": (0.0, 0.0)}, "training.loss_weights are both 0"),
        (Training, {"batch": 2, "accumulate": 3}, "training.accumulate is 3; a step of 2 slices has 1 to 2 parts"),
        (Augmentation, {"scale": 1.0}, "training.augmentation.scale is 1; give 0 to below 1"),
        (Augmentation, {"low_resolution": 0.5}, "training.augmentation.low_resolution is 0.5; give 1 to 64"),
        (Augmentation, {"rotation_deg": 270.0}, "training.augmentation.rotation_deg is 270; give 0 to 180"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: type[Any], wrong: Mapping[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        kind(**wrong)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--training.steps", "0"], "training.steps is 0; give 1 to 1000000000"),
        (["--training.minutes=-1"], "training.minutes is -1; give above 0"),
        (["--method", "lorra"], "unknown method 'lorra'; did you mean 'lora'"),
        (["--head", "pixels"], "unknown head 'pixels'; did you mean 'pixel'"),
        (["--options.rnak", "4"], "rnak"),
        (["--options.rank", "0"], "rank is 0; give 1 to 4096"),
        (["--head_options.widht", "4"], "widht"),
    ],
)
def test_the_command_line_tells_them_before_any_data_are_read(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run"), *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "nowhere" not in told
    assert "Traceback" not in told


def test_a_number_of_any_size_is_told_in_few_digits() -> None:
    with pytest.raises(UsageError, match=r"part\.sizes is a number of 401 digits; give 1 or more"):
        check_ranges(Example(sizes=(10**400,)), "part.")
    assert [short(value) for value in (525_600, 0.25, -3.0, math.inf)] == ["525600", "0.25", "-3", "inf"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_described_and_every_number_has_a_range(command: str) -> None:
    parser = parser_of(command)
    assert [a.dest for a in parser._actions if not (a.help or "").strip()] == []
    assert [name for name, kind, allowed in described(parser.config) if numeric(kind) and not allowed] == []
    shown = " ".join(parser.format_help().split())
    for action in parser._actions:
        assert " ".join((action.help or "").split())[:40] in shown, action.dest


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_window_and_breaks_no_name(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in COMMANDS:
        assert max(map(len, parser_of(command).format_help().splitlines())) < columns, command
    assert max(map(len, usage().splitlines())) < columns
    assert "lite-medsam)" in parser_of("train").format_help()


def test_help_says_what_an_option_does_that_is_not_given() -> None:
    told = " ".join(parser_of("train").format_help().split())
    assert "Default:" not in told
    assert "in pixels (1 to 8192; default: the backbone's own)" in told
    assert "(a share of 0 to below 1, or a whole number of cases; default: 0.15)" in told
    assert "augmentation (0 or more; default: 0)" in told  # not up to 4294967295, which a mistake is told
    asked = parser_of("sweep").format_help()
    assert asked.index("--out ") < asked.index("--set ") < asked.index("--backbone ")  # needed, its own, those of train


@pytest.mark.parametrize(
    ("value", "allowed"), [(0, True), (0.99, True), (1, True), (7, True), (1.5, False), (-1, False)]
)
def test_held_out_is_a_share_or_a_whole_number(value: float, allowed: bool) -> None:
    assert (value in ShareOrCount()) == allowed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    script = (
        f"import sys; from sampeft.cli import parser_of; parser_of('{command}').format_help();"
        "print({'torch', 'transformers', 'timm', 'peft', 'matplotlib', 'nibabel', 'scipy', 'fastapi'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("command", "wrong", "said"),
    [
        ("predict", ["--views", "-1"], "--views is -1; give 1 to 32"),
        ("predict", ["--batch", "-3"], "--batch is -3; give 1 to 4096"),
        ("predict", ["--batch", "many"], "--batch is 'many'; give a whole number, 1 to 4096, or auto"),
        ("predict", ["--overlap", "2"], "--overlap is 2; give 0 to 0.75"),
        ("predict", ["--overlap", "nan"], "--overlap is 'nan'; give a number, 0 to 0.75"),
        ("predict", ["--temperature", "1e400"], "--temperature is inf; give above 0 to 100"),
        ("predict", ["--tile", "0"], "--tile is '0'; give auto, off, or the pixels of a window's side, 1 to 65536"),
        ("predict", ["--engine", "onx"], "unknown engine 'onx'; did you mean 'onnx'?"),
        ("predict", ["--precision", "f16"], "unknown precision 'f16'"),
        ("predict", ["--refine", "cfr"], "unknown refiner 'cfr'; did you mean 'crf'?"),
        ("evaluate", ["--views", "1" * 400], "--views is a number of 400 digits; give 1 to 32"),
        ("evaluate", ["--processes", "0"], "--processes is 0; give 1 to 1024"),
        ("evaluate", ["--protocol", "flare"], "unknown protocol 'flare'; did you mean 'flare22'?"),
        ("compare", ["--metrics", "dcs"], "unknown metric 'dcs'; did you mean 'dsc'?"),
        ("refine", ["--refiner", "cfr"], "unknown refiner 'cfr'; did you mean 'crf'?"),
        ("oracle", ["--masks.nms", "3"], "--masks.nms is 3; give 0 to 1"),
        ("oracle", ["--protocols", "boxez"], "unknown oracle protocol 'boxez'"),
        ("export", ["--format", "onxx"], "--format is 'onxx'; give onnx, openvino or merged"),
        ("serve", ["--port", "70000"], "--port is 70000; give 0 to 65535"),
        ("serve", ["--keep_minutes", "0"], "--keep_minutes is 0; give 1 to 525600"),
        ("demo", ["--minutes", "0"], "--minutes is 0; give above 0 to 525600"),
        ("check", ["--side", "0"], "--side is 0; give 1 to 8192"),
        ("plan", ["--training.batch", "0"], "training.batch is 0; give 1 to 4096"),
        ("plan", ["--plane", "sagital"], "unknown slice plane 'sagital'; did you mean 'sagittal'?"),
        ("params", ["--classes", "0"], "--classes is 0; give 1 to 65534"),
        ("reproduce", ["--budget", "0"], "--budget is 0; give above 0 to 525600"),
        ("sweep", ["--folds", "1"], "--folds is 1; give 2 to 1000"),
        ("train", ["--map"], "one that begins with - is given as --map=VALUE"),
        ("train", ["--training.seed", "-1"], "training.seed is -1; give 0 to 4294967295"),
        ("train", ["--held_out", "1.5"], "--held_out is 1.5; give a share of 0 to below 1, or a whole number of cases"),
        (
            "train",
            ["--held_out", "inf"],
            "--held_out is 'inf'; give a number, a share of 0 to below 1, or a whole number of cases",
        ),
    ],
)
def test_what_no_command_can_do_is_one_line_before_any_data_are_read(
    command: str, wrong: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere, out = str(tmp_path / "nowhere"), ["--out", str(tmp_path / "out")]
    needed = {
        **{name: ["--data", nowhere, *out] for name in ("train", "plan", "sweep", "oracle")},
        "predict": [nowhere, nowhere, *out],
        "evaluate": [nowhere, "--data", nowhere, *out],
        "compare": [nowhere, *out],
        "refine": [nowhere, "--data", nowhere],
        "export": [nowhere, *out],
        "check": [nowhere],
        "serve": [nowhere],
        "reproduce": ["table1", "--data", nowhere],
        "params": [],
        "demo": ["--data", nowhere, *out],
    }[command]
    assert main([command, *needed, *wrong]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--data", "{}", "--out", "run"],
        ["train", "--data", "{}/file.txt", "--out", "run"],
        ["plan", "--data", "{}/nowhere"],
        ["sweep", "--data", "{}/nowhere", "--out", "out"],
        ["check", "{}/nowhere"],
        ["check", "{}/file.txt"],
        ["demo", "--data", "{}/nowhere", "--out", "{}/demo"],
        ["oracle", "--data", "{}/nowhere", "--out", "out"],
        ["evaluate", "{}/nowhere", "--data", "{}", "--out", "out"],
        ["evaluate", "--pred", "{}/nowhere", "--truth", "{}", "--labels", "{}/file.txt", "--out", "out"],
        ["predict", "{}/nowhere", "{}/file.txt", "--out", "out"],
        ["predict", "{}", "{}/nowhere.png", "--out", "out"],
        ["compare", "{}/nowhere", "{}/nowhere2", "--out", "out"],
        ["export", "{}/nowhere", "--out", "out"],
        ["refine", "{}/nowhere", "--data", "{}"],
        ["serve", "{}/nowhere"],
        ["reproduce", "table1", "--data", "{}/nowhere"],
        ["train", "--config", "{}/nowhere.yaml"],
    ],
)
def test_a_wrong_path_has_one_exit_code(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file.txt").write_text("no image, no data set")
    assert main([word.replace("{}", str(tmp_path)) for word in words]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert str(tmp_path) in told[-1]
    assert "Traceback" not in " ".join(told)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "run", "data/images", "--out", "run"], "run: holds a trained run, with whose files"),
        (["predict", "run", "data/images", "--out", "other"], "other: holds a trained run"),
        (["predict", "run", "data/images", "--out", "data"], "data: holds a data set"),
        (["evaluate", "run", "--data", "data", "--out", "run"], "run: is given as run, too, and would be written into"),
        (["evaluate", "run", "--data", "data", "--out", "other"], "other: holds a trained run"),
        (["evaluate", "run", "--data", "data", "--out", "data/"], "data: is given as data, too"),
        (
            [
                "evaluate",
                "--pred",
                "p",
                "--truth",
                "data/labels",
                "--labels",
                "data/dataset.json",
                "--out",
                "data/labels",
            ],
            "labels: is given as truth, too",
        ),
        (["evaluate", "run", "--data", "data", "--beside=[p]", "--out", "p"], "p: is given as beside, too"),
        (["oracle", "--data", "data", "--out", "run"], "run: holds a trained run"),
        (["check", "data", "--out", "data"], "data: is given as data, too"),
        (["train", "--data", "data", "--out", "data"], "data: is given as data, too"),
        (["train", "--data", "data", "--out", "other-data"], "other-data: holds a data set"),
        (
            ["train", "--data", "data", "--start_from", "run", "--out", "run", "--force"],
            "run: is given as start_from, too",
        ),
    ],
)
def test_results_are_not_mixed_with_what_is_read(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_dataset(tmp_path / "data", size=(8, 8))
    folder_dataset(tmp_path / "other-data", size=(8, 8))
    for name in ("run", "other", "p"):
        (tmp_path / name).mkdir()
    for name in ("run", "other"):
        (tmp_path / name / "adapter.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert main(words) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "called", "meant"),
    [
        *[("train", called, meant) for called, meant in (
            ("--lr", "--training.lr"),
            ("--learning-rate", "--training.lr"),
            ("--epochs", "--training.steps"),
            ("--imgsz", "--side"),
            ("--val", "--held_out"),
            ("--batch-size", "--training.batch"),
            ("--rank", "--options.rank"),
            ("--seed", "--training.seed"),
            ("--model", "--backbone"),
            ("--start-from", "--start_from"),
            ("--trainng.steps", "--training.steps"),
            ("--output", "--out"),
            ("--gpu", "CUDA_VISIBLE_DEVICES=0"),
        )],
        ("predict", "--batch_size", "--batch"),
        ("predict", "--tta", "--views"),
        ("predict", "--imgsz", "what `sampeft train` calls --side is not asked for here"),
        ("evaluate", "--splt", "--split"),
    ],
)  # fmt: skip
def test_what_other_programs_call_an_option_points_to_ours(
    command: str, called: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, called, "1"]) == 2
    told = capsys.readouterr().err.strip()
    assert f"unknown option {called}; " in told
    assert f"did you mean {meant}" in told or meant in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("words", [["--map", "-1:0"], ["--map=-1:0"]])
def test_a_value_may_begin_with_a_minus(words: list[str]) -> None:
    assert parser_of("train").read(["--data", "x", "--out", "y", *words]).map == "-1:0"


def test_every_option_that_a_message_names_exists() -> None:
    """In the texts of the source, but for options of the programs that it calls."""
    known = {name for command in COMMANDS for name, _, _ in described(parser_of(command).config)} | {
        "help",
        "config",
        "print_config",
    }
    free = ("options.", "head_options.", "refine_options.", "denoise_options.")
    foreign = {
        "like",
        "upgrade",
        "colorinterp",
        "use_fsdp",
        "use_deepspeed",
        "box",
        "detail",
        "levels",
        "training",
    }  # of rio, pip, accelerate, an old one, predict.py of an export
    strange = []
    for path in sorted(Path(options.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.startswith("--"):
                named = re.findall(r"(?<![\w-])--([a-z][a-z_.]*[a-z])(?![\w-])", node.value)
                strange += [f"{path.name}: --{n}" for n in named if n not in known | foreign and not n.startswith(free)]
    assert strange == []


@pytest.mark.parametrize("command", printed_commands(), ids=lambda line: line[:60])
def test_every_command_that_is_printed_can_be_typed(command: str) -> None:
    name, *words = shlex.split(command)
    if name in COMMANDS:  # with nothing but what is printed, as far as it goes
        parser = parser_of(name)
        needed = [a for a in parser._actions if a.required and a.option_strings and a.option_strings[0] not in words]
        given = [word for a in needed for word in (a.option_strings[0], "x")]
        positional = [a.dest.upper() for a in parser._actions if not a.option_strings and a.required]
        parser.read([*(positional if not words or words[0].startswith("-") else []), *words, *given])


def test_another_programs_words_lead_to_options_that_exist() -> None:
    known = {name for command in COMMANDS for name, _, _ in described(parser_of(command).config)}
    assert [ours for ours in OTHERS.values() if ours.removeprefix("options.") == ours and ours not in known] == []


def test_a_registry_tells_what_it_does_not_have() -> None:
    assert options_by_name(METHODS, "method", "lora", {"rank": 2}).rank == 2
    with pytest.raises(UsageError, match="unknown option of lora 'rang'; did you mean 'rank'"):
        options_by_name(METHODS, "method", "lora", {"rang": 2})
