"""What `sampeft compare` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import READ, WRITTEN

POSITIONAL = {"evaluations": {"type": Path, "nargs": "+", "help": "folders that `sampeft evaluate` or `oracle` wrote"}}


@dataclass(frozen=True)
class Config:
    """What to compare.

    Args:
        out: folder for the tables and figures.
        metrics: metrics joined by commas, such as dsc,hd95_mm. Default: DSC, and NSD where every evaluation has it.
        names: names for the evaluations, in their order, joined by commas. Default: the model of each.
        json: print comparison.json on stdout instead of the table.
    """

    evaluations: list[Path] = field(metadata=READ)
    out: Path = field(metadata=WRITTEN)
    metrics: list[str] | str | None = None
    names: list[str] | str | None = None
    json: bool = False
