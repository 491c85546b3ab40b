"""What `sampeft compare` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import READ

POSITIONAL = {"evaluations": {"type": Path, "nargs": "+", "help": "folders that `sampeft evaluate` or `oracle` wrote"}}


@dataclass(frozen=True)
class Config:
    """What to compare.

    Args:
        out: folder for the table and the figures.
        metrics: metrics joined by commas, such as dsc,hd95_mm; nothing: DSC, and NSD where all have it.
        names: what to call the evaluations, in their order, joined by commas; nothing: the model of each.
        json: print comparison.json on stdout instead of the table.
    """

    evaluations: list[Path] = field(metadata=READ)
    out: Path
    metrics: list[str] | str | None = None
    names: list[str] | str | None = None
    json: bool = False
