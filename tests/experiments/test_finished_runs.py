"""Whether a training was done before: settings that did not exist then count as what was done without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sampeft.commands.train import Config
from sampeft.errors import UsageError
from sampeft.experiments.memo import DONE, finish, finished, plain_settings, write_json
from sampeft.training.settings import Training


def settings(unchanged: float, ema: float = 0.0) -> dict[str, object]:
    training = Training(ema=ema)
    return plain_settings(
        Config(
            Path("data"),
            Path("run"),
            training=replace(training, augmentation=replace(training.augmentation, unchanged=unchanged)),
        )
    )


def test_a_run_from_before_a_setting_is_of_what_was_done_then(tmp_path: Path) -> None:
    old = settings(0.25)
    del old["training"]["augmentation"]["unchanged"]  # type: ignore[index]
    del old["training"]["ema"]  # type: ignore[index]
    write_json(tmp_path / DONE, {"settings": old})
    assert finished(tmp_path, settings(0.0, ema=Training().ema))  # every view was changed then, no average was kept
    with pytest.raises(UsageError, match=r"\(training\.augmentation\.unchanged was 0\.0, is 0\.25\)"):
        finished(tmp_path, settings(0.25, ema=Training().ema))


def test_a_run_is_found_by_its_own_settings_alone(tmp_path: Path) -> None:
    assert not finished(tmp_path, settings(0.25))
    finish(tmp_path, settings(0.25), steps=3)
    assert finished(tmp_path, settings(0.25))
    with pytest.raises(UsageError, match=r"ema was 0\.0, is 0\.5"):
        finished(tmp_path, settings(0.25, ema=0.5))
