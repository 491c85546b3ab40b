"""Read what torchrun, or `accelerate launch`, tells a process of its place among those that share a command."""

from __future__ import annotations

import os
from typing import NamedTuple

from sampeft.errors import UsageError

_FROM = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
"""Environment variable -> the lowest value that it may have, which it has where it is not set."""


class Launched(NamedTuple):
    """rank, world: number of this process from 0, and of all. local_rank: its number on this machine."""

    rank: int
    world: int
    local_rank: int


def launched() -> Launched:
    """The place of this process; (0, 1, 0) where nothing launched it. Raises UsageError for what is no such place."""
    rank, world, local_rank = (_number(name, low) for name, low in _FROM.items())
    if rank >= world:
        raise UsageError(
            f"the environment variable RANK is {rank}, but WORLD_SIZE is {world}: processes count from 0; start them with "
            "torchrun, which sets both, or unset both for one process alone"
        )
    return Launched(rank, world, local_rank)


def _number(name: str, low: int) -> int:
    text = os.environ.get(name, str(low))
    if not text.strip().isdecimal() or int(text) < low:
        raise UsageError(
            f"the environment variable {name} is '{text}', and must be a whole number of {low} or more; start the processes "
            "with torchrun, which sets it, or unset it for one process alone"
        )
    return int(text)
