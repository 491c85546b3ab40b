"""What `sampeft fetch` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import WRITTEN

POSITIONAL = {"name": {"nargs": "?", "help": "data set or weights; --list shows them"}}


@dataclass(frozen=True)
class Config:
    """What to download.

    Args:
        name: data set or weights; left out with --list.
        out: folder to put it in. Default: the current folder for data; SAMPEFT_WEIGHTS, if it is a folder, or the
            cache for weights.
        list: print a table of all data sets and weights, as Markdown.
        yes: agree to the licence without being asked.
        json: print the result as one JSON object on stdout.
    """

    name: str | None = None
    out: Path | None = field(default=None, metadata=WRITTEN)
    list: bool = False
    yes: bool = False
    json: bool = False
