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
        refiner: components, crf, level-set or outline-points. Default: all are tried and the best is kept;
            components alone where pictures are cut into windows.
        cases: cases to fit on, such as [P03,P07]; never cases that are scored later. Default: those that the run
            held out.
        layout: layout of the data set; `sampeft info` lists layouts. Default: recognised by its files.
        map: label ids to change on reading, as OLD:NEW, such as --map=4:3,255:1.
        weights: file of the backbone's weights. Default: found by the name of the run's backbone.
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
