"""Options as a user names them -> the frozen dataclass of what they belong to, each number within its range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sampeft.errors import UsageError, unknown_name

_RANGE = "range"


@dataclass(frozen=True)
class Range:
    """low..high, both of them inside unless `above` and `below` say otherwise. Infinity and what is no number are outside."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        inside = self.low < value if self.above else self.low <= value
        return math.isfinite(value) and inside and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        """In words, such as `0 to below 1`."""
        if self.high == math.inf:
            return f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        return f"{'above ' if self.above else ''}{self.low:g} to {'below ' if self.below else ''}{self.high:g}"


def number(default: Any, low: float = -math.inf, high: float = math.inf, **ends: bool) -> Any:
    """The field of a dataclass for a number, or numbers, of a `Range`; ends: its `above` and `below`."""
    return field(default=default, metadata={_RANGE: Range(low, high, **ends)})


def check_ranges(options: Any, owner: str = "") -> None:
    """Raises UsageError for the first field that is out of its range. owner: before its name, such as `training.`."""
    for option in fields(options):
        allowed, value = option.metadata.get(_RANGE), getattr(options, option.name)
        if allowed is None or value is None:
            continue
        for one in value if isinstance(value, Iterable) else (value,):
            if one not in allowed:
                raise UsageError(f"{owner}{option.name} is {one:g}; give {allowed}")


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
