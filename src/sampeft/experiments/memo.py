"""The one memory of what is done: trainings that finished (complete.json) and evaluations of the same cases and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sampeft.configs.train import Config
from sampeft.data.case import Case
from sampeft.errors import UsageError
from sampeft.io import write_atomically
from sampeft.metrics.scores import SUMMARY, Evaluation
from sampeft.provenance import differences, json_text

DONE = "complete.json"
_AT_FIRST = {"training": {"augmentation": {"unchanged": 0.0}}}
"""What was done before a setting existed, where that was other than the setting's default now."""


def plain_settings(config: Config) -> dict[str, Any]:
    """All fields as JSON holds them."""
    return dict(json.loads(json.dumps(asdict(config), default=str)))


def identity(config: Config, dataset: str) -> dict[str, Any]:
    """What a training must have in common with the one of before, wherever data and run lie. dataset: its name."""
    return {**plain_settings(config), "data": dataset, "out": None, "resume": False}


def finished(run: Path, settings: Mapping[str, Any]) -> bool:
    """Whether it was trained to its end before. Raises UsageError naming the settings that were others."""
    if not (run / DONE).is_file():
        return False
    before = json.loads((run / DONE).read_text(encoding="utf-8")).get("settings", {})
    if changed := differences(before, settings, settings_before()):
        raise UsageError(f"{run}: was trained with other settings ({', '.join(changed)}); choose another --out")
    return True


def settings_before() -> dict[str, Any]:
    """What counts for settings that a run of before does not tell, since they did not exist."""
    return merged(plain_settings(Config(Path(), Path())), _AT_FIRST)


def finish(run: Path, settings: Mapping[str, Any], **more: Any) -> None:
    write_json(run / DONE, {"settings": settings, **more})


def merged(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with others put in, nested ones within their own."""
    return {
        **settings,
        **{k: merged(settings[k], v) if isinstance(v, Mapping) else v for k, v in over.items()},
    }


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, json_text(content))


def scored_before(folder: Path, cases: Sequence[Case], asked: Mapping[str, Any]) -> Evaluation | None:
    """The evaluation of just these cases, if it is there. Raises UsageError where it was by other settings."""
    if not (folder / SUMMARY).is_file():
        return None
    known = Evaluation.read(folder)
    if changed := differences(known.meta, json.loads(json.dumps(asked))):
        raise UsageError(f"{folder}: was scored with other settings ({', '.join(changed)}); choose another --out")
    return known if known.cases == tuple(case.id for case in cases) else None
