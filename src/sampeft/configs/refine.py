"""What `sampeft refine` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import READ

POSITIONAL = {"run": {"type": Path, "help": "folder of a trained run"}}


@dataclass(frozen=True)
class Config:
    """What to fit on what.

    Args:
        data: folder of the data set that the run was trained on.
        refiner: components, crf, level-set or outline-points; nothing: all are tried and the best is kept; of
            pictures that are cut into windows components alone.
        cases: cases to fit on, such as [P03,P07]; never cases that are scored later. Nothing: those that the run held out.
        layout: layout of the data set; nothing: recognised by its files.
        map: label ids to change on reading, such as --map=4:3.
        weights: file of the backbone's weights; nothing: found by name.
        json: print what was tried as one JSON object on stdout.
    """

    run: Path = field(metadata=READ)
    data: Path = field(metadata=READ)
    refiner: str | None = None
    cases: list[str] | None = None
    layout: str | None = None
    map: str | None = None
    weights: str | None = None
    json: bool = False
