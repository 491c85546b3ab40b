"""What `sampeft fetch` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

POSITIONAL = {"name": {"nargs": "?", "help": "data set or weights; --list shows them"}}


@dataclass(frozen=True)
class Config:
    """What to fetch.

    Args:
        name: data set or weights; nothing with --list.
        out: folder to put it in; nothing: this folder for data, SAMPEFT_WEIGHTS (if a folder) or the cache for weights.
        list: print the table of what there is, as Markdown.
        yes: do not ask whether the licence is agreed to.
        json: print one JSON object on stdout.
    """

    name: str | None = None
    out: Path | None = None
    list: bool = False
    yes: bool = False
    json: bool = False
