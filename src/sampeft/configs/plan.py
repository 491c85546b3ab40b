"""What `sampeft plan` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sampeft.configs.train import Config as TrainConfig


@dataclass(frozen=True)
class Config(TrainConfig):
    """The training to plan, with the options of `sampeft train`.

    Args:
        out: where the run would go; nothing is written there.
        resume: changes nothing here: the whole training is planned.
        force: changes nothing here: nothing is written.
        plan: changes nothing here: to plan is all that is done.
    """

    out: Path = Path("run")
