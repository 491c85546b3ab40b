"""What `sampeft demo` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import MAX_MINUTES, MAX_SEED, MAX_SIDE, WRITTEN, check_ranges, number

PHANTOM = "phantom"


@dataclass(frozen=True)
class Config:
    """What to demonstrate.

    Args:
        out: folder for everything that is made.
        data: phantom (synthetic abdominal CT, made on the spot), or the folder of a labelled data set.
        minutes: minutes of training; scoring and the comparison come on top.
        side: side of the square network input, in pixels; small, so that a laptop without a GPU is done in minutes.
        seed: random seed of the phantom and of the training.
        json: print the result as one JSON object on stdout.
    """

    out: Path = field(default=Path("sampeft-demo"), metadata=WRITTEN)
    data: str = PHANTOM
    minutes: float = number(3.0, 0, MAX_MINUTES, above=True)
    side: int = number(224, 2, MAX_SIDE)
    seed: int = number(0, 0, MAX_SEED)
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
