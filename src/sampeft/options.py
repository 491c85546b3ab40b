"""Options as a user names them -> the frozen dataclass of what they belong to, each number within its range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from sampeft.errors import UsageError, unknown_name

_RANGE, _READ = "range", "read"
READ = {_READ: True}
"""Metadata of the field of a dataclass for a path, or paths, to read: what is there already."""
MOST = 2.0**53
"""No number goes beyond it, whatever its range: whole numbers are then no longer told apart by floats."""
MAX_SEED = 2**32 - 1  # as NumPy takes them
MAX_SIDE = 8192  # pixels of a square network input
MAX_TILE = 65_536  # pixels of a window's side
MAX_BATCH = 4096  # slices at a time
MAX_VIEWS = 32  # of a slice
MAX_MINUTES = 525_600  # a year

Batch = int | Literal["auto"]
"""Slices at a time, or by the free memory."""


@dataclass(frozen=True)
class Range:
    """low..high, both of them inside unless `above` and `below` say otherwise. Infinity and what is no number are outside."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        inside = self.low < value if self.above else self.low <= value
        return -MOST <= value <= MOST and inside and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        """In words, such as `0 to below 1`."""
        low, high = short(self.low), short(self.high)
        if self.high == math.inf:
            return f"above {low}" if self.above else f"{low} or more"
        return f"{'above ' if self.above else ''}{low} to {'below ' if self.below else ''}{high}"


def short(value: float) -> str:
    """A number in few digits: 0.25, 525600, inf; whole numbers of any length."""
    if isinstance(value, int) or (math.isfinite(value) and value == int(value)):
        return str(int(value)) if abs(value) < 1e12 else f"a number of {len(str(abs(int(value))))} digits"
    return f"{value:g}"


def number(default: Any, low: float = -math.inf, high: float = math.inf, **ends: bool) -> Any:
    """The field of a dataclass for a number, or numbers, of a `Range`; ends: its `above` and `below`."""
    return field(**_default(default), metadata={_RANGE: Range(low, high, **ends)})


def range_of(option: Any) -> Range | None:
    """Of a field that `number` made."""
    found: Range | None = option.metadata.get(_RANGE)
    return found


def check_paths(options: Any) -> None:
    """Raises UsageError for the first path to read that is not there; a link whose content was not fetched is there."""
    for option in fields(options):
        value = getattr(options, option.name)
        if not option.metadata.get(_READ) or value is None:
            continue
        for path in value if isinstance(value, list) else (value,):
            if not (path.exists() or path.is_symlink()):
                raise UsageError(f"{path}: no such file or folder; it was given as {option.name}")


def _default(value: Any) -> dict[str, Any]:
    """As `field` takes it; a list is made anew for each dataclass."""
    return {"default_factory": lambda: list(value)} if isinstance(value, list) else {"default": value}


def check_ranges(options: Any, owner: str = "") -> None:
    """Raises UsageError for the first field that is out of its range. owner: before its name, such as `training.`.

    A word instead of a number, such as `auto`, has no range.
    """
    for option in fields(options):
        allowed, value = option.metadata.get(_RANGE), getattr(options, option.name)
        if allowed is None or value is None:
            continue
        for one in value if isinstance(value, Iterable) and not isinstance(value, str) else (value,):
            if not isinstance(one, str) and one not in allowed:
                raise UsageError(f"{owner}{option.name} is {short(one)}; give {allowed}")


def check_tile(tile: str) -> None:
    """Raises UsageError unless it is auto, off, or pixels of a window's side."""
    if tile not in ("auto", "off") and not (tile.isdecimal() and 0 < int(tile) <= MAX_TILE):
        raise UsageError(f"--tile is '{tile}'; give auto, off, or the pixels of a window's side, 1 to {MAX_TILE}")


def read_options(kind: type[Any], options: Mapping[str, Any] | None, owner: str) -> Any:
    """The dataclass `kind` with these values; lists, as YAML has them, become tuples. Raises UsageError for an unknown name.

    owner: what has the options, for the error.
    """
    known = {field.name for field in fields(kind)}
    for key in options or {}:
        if key not in known:
            raise unknown_name(f"option of {owner}", key, known)
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()})


def options_by_name(registry: Mapping[str, Any], what: str, name: str, options: Mapping[str, Any] | None) -> Any:
    """The options of an entry of a registry. Raises UsageError for a name that is not in it, and as `read_options` does.

    what: that the registry holds, such as `method`.
    """
    if name not in registry:
        raise unknown_name(what, name, registry)
    return read_options(registry[name].options, options, name)
