"""What `sampeft info` is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """How to tell.

    Args:
        json: print one JSON object on stdout.
    """

    json: bool = False
