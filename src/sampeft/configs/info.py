"""What `sampeft info` is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """How to print.

    Args:
        json: print the result as one JSON object on stdout.
    """

    json: bool = False
