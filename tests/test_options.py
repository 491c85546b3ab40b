"""Options: each number has a range, told with the value and what to give; names that are not known are told before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from sampeft.cli import main
from sampeft.data.augment import Augmentation
from sampeft.errors import UsageError
from sampeft.options import Range, check_ranges, number, options_by_name
from sampeft.peft import METHODS
from sampeft.training.settings import Training


@dataclass(frozen=True)
class Example:
    share: float = number(0.5, 0, 1, below=True)
    sizes: tuple[int, ...] = number((1, 2), 1)
    end: float | None = number(None, 0, above=True)
    word: str = "free"


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
        (Training, {"steps": 0}, "training.steps is 0; give 1 or more"),
        (Training, {"steps": -1}, "training.steps is -1; give 1 or more"),
        (Training, {"minutes": 0}, "training.minutes is 0; give above 0"),
        (Training, {"minutes": math.nan}, "training.minutes is nan; give above 0"),
        (Training, {"lr": 0}, "training.lr is 0; give above 0"),
        (Training, {"ema": 1.0}, "training.ema is 1; give 0 to below 1"),
        (Training, {"batch": 0}, "training.batch is 0; give 1 or more"),
        (Training, {"loss_weights": (0.0, 0.0)}, "training.loss_weights are both 0"),
        (Training, {"batch": 2, "accumulate": 3}, "training.accumulate is 3; a step of 2 slices has 1 to 2 parts"),
        (Augmentation, {"scale": 1.0}, "training.augmentation.scale is 1; give 0 to below 1"),
        (Augmentation, {"low_resolution": 0.5}, "training.augmentation.low_resolution is 0.5; give 1 or more"),
        (Augmentation, {"rotation_deg": 270.0}, "training.augmentation.rotation_deg is 270; give 0 to 180"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: type[Any], wrong: Mapping[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        kind(**wrong)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--training.steps", "0"], "training.steps is 0; give 1 or more"),
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


def test_a_registry_tells_what_it_does_not_have() -> None:
    assert options_by_name(METHODS, "method", "lora", {"rank": 2}).rank == 2
    with pytest.raises(UsageError, match="unknown option of lora 'rang'; did you mean 'rank'"):
        options_by_name(METHODS, "method", "lora", {"rang": 2})
