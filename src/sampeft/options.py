"""Options as a user names them -> the frozen dataclass of what they belong to, each number within its range."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from sampeft.errors import UsageError, unknown_name

_RANGE, _READ, _WRITTEN, _APART = "range", "read", "written", "apart"
READ = {_READ: True}
"""Metadata of the field of a dataclass for a path, or paths, to read: what is there already."""
WRITTEN = {_WRITTEN: True}
"""Metadata of the field of a dataclass for a folder to write to, which is made if need be."""
_HOLDS = {"adapter.json": "a trained run", "dataset.json": "a data set"}
RESULTS = {**WRITTEN, _APART: tuple(_HOLDS)}
"""The same of a folder of results, which is none that is read, nor that of any run or data set."""
RUN = {**WRITTEN, _APART: ("dataset.json",)}
"""The same of the folder of a run, which is none that is read, nor that of any data set."""
MOST = 2.0**53
"""No number goes beyond it, whatever its range: whole numbers are then no longer told apart by floats."""
MAX_SEED = 2**32 - 1  # as NumPy takes them
MAX_SIDE = 8192  # pixels of a square network input
MAX_TILE = 65_536  # pixels of a window's side
MAX_BATCH = 4096  # slices at a time
MAX_VIEWS = 32  # of a slice
MAX_MINUTES = 525_600  # a year
_SLIP = 100_000

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

    @property
    def usual(self) -> Range:
        """Without an upper end that only guards against slips of the keyboard, for help."""
        return self if self.high < _SLIP else replace(self, high=math.inf)


@dataclass(frozen=True)
class ShareOrCount(Range):
    """A share of all cases, or a number of them: 0.2, 3, but not 1.5."""

    low: float = 0
    high: float = 1_000_000

    def __contains__(self, value: float) -> bool:
        return super().__contains__(value) and (value < 1 or value == int(value))

    def __str__(self) -> str:
        return "a share of 0 to below 1, or a whole number of cases"

    @property
    def usual(self) -> Range:
        return self


def short(value: float) -> str:
    """A number in few digits: 0.25, 525600, inf; whole numbers of any length."""
    if isinstance(value, int) or (math.isfinite(value) and value == int(value)):
        return str(int(value)) if abs(value) < 1e12 else f"a number of {len(str(abs(int(value))))} digits"
    return f"{value:g}"


def number(default: Any = MISSING, low: float = -math.inf, high: float = math.inf, **ends: bool) -> Any:
    """The field of a dataclass for a number, or numbers, of a `Range`; without a default one must be given. ends: its `above`
    and `below`."""
    return field(**_default(default), metadata={_RANGE: Range(low, high, **ends)})


def share_or_count(default: float) -> Any:
    """The field of a dataclass for how many cases, as a share below 1 or as a number."""
    return field(default=default, metadata={_RANGE: ShareOrCount()})


def range_of(option: Any) -> Range | None:
    """Of a field that `number` made."""
    found: Range | None = option.metadata.get(_RANGE)
    return found


def check_paths(options: Any) -> None:
    """Raises UsageError for the first path to read that is not there, or folder to write to that cannot be written; a link
    whose content was not fetched is there."""
    for option in fields(options):
        value = getattr(options, option.name)
        if option.metadata.get(_WRITTEN) and value is not None:
            _check_folder(value, option.name)
            if _APART in option.metadata:
                _check_apart(value, option, options)
        if not option.metadata.get(_READ) or value is None:
            continue
        for path in value if isinstance(value, list) else (value,):
            if not (path.exists() or path.is_symlink()):
                raise UsageError(f"{path}: no such file or folder; it was given as {option.name}")


def _check_folder(folder: Path, name: str) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"{there}: is a file, but {name} is a folder to write to; give another --{name}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{there}: you may not write there; give another --{name}")


def _check_apart(folder: Path, option: Any, options: Any) -> None:
    """Raises UsageError where what is written would be mixed with what is read, or with a run or data set that lies there."""
    for other in fields(options):
        paths = getattr(options, other.name) if other.metadata.get(_READ) else None
        for path in paths if isinstance(paths, list) else [paths] if paths else []:
            if path.resolve() == folder.resolve():
                raise UsageError(
                    f"{folder}: is given as {other.name}, too, and would be written into; give another --{option.name}"
                )
    check_apart(folder, option.name, option.metadata[_APART])


def check_apart(folder: Path, name: str = "out", files: Iterable[str] = tuple(_HOLDS)) -> None:
    """Raises UsageError for a folder that holds one of these files, of a run or a data set. name: of the option."""
    for file in files:
        if (folder / file).is_file():
            raise UsageError(
                f"{folder}: holds {_HOLDS[file]}, with whose files the results would be mixed; give another --{name}"
            )


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
    """The dataclass `kind` with these values, of its fields' types. Raises UsageError as `typed_options` does, for one that is
    not there but has to be, and what the dataclass itself raises.

    owner: what has the options, for the error.
    """
    values = typed_options(kind, options, owner)
    if missing := [f.name for f in fields(kind) if f.default is f.default_factory is MISSING and f.name not in values]:
        raise UsageError(f"{owner} lacks {', '.join(missing)}")
    return kind(**values)


def typed_options(kind: type[Any], options: Mapping[str, Any] | None, owner: str) -> dict[str, Any]:
    """The values as the fields of the dataclass `kind` have them: lists, as YAML and JSON have them, as tuples.

    Raises UsageError for an unknown name, or a value of another type than its field's, NaN and infinity among them.
    """
    if not isinstance(options, Mapping | None):
        raise UsageError(f"{owner} is {_short(options)}; give names and values")
    types = get_type_hints(kind)
    for key in options or {}:
        if key not in types:
            raise unknown_name(f"option of {owner}", str(key), types)
    return {key: _typed(value, types[key], f"{key} of {owner}") for key, value in (options or {}).items()}


_IN_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _typed(value: Any, kind: Any, name: str) -> Any:
    """The value as that type has it. Raises UsageError where it is of another."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in parts:
            return None
        kind = next(part for part in parts if part is not NoneType)  # fields have one type, or it and None
        return _typed(value, kind, name)
    if is_dataclass(kind):
        return read_options(cast(type[Any], kind), value, name)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = parts[:1] * len(value) if Ellipsis in parts else parts
        if len(kinds) != len(value):
            raise UsageError(f"{name} is {_short(value)}; give {len(kinds)} values")
        return tuple(_typed(one, part, name) for one, part in zip(value, kinds, strict=True))
    if origin is Literal:
        if value in parts and type(value) in map(type, parts):
            return value
        raise UsageError(f"{name} is {_short(value)}; give one of {', '.join(map(str, parts))}")
    if origin is list and isinstance(value, list):
        return [_typed(one, parts[0], name) for one in value]
    if origin is dict and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _typed(one, parts[1], name) for key, one in value.items()}
    if kind is Any or (kind in (bool, str) and isinstance(value, kind)):
        return value
    counts = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind in (int, float) and counts and abs(value) < math.inf:
        return value
    words = _IN_WORDS.get(kind, "names and values" if origin is dict else "a list")
    raise UsageError(f"{name} is {_short(value)}; give {words}")


def _short(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def options_by_name(registry: Mapping[str, Any], what: str, name: str, options: Mapping[str, Any] | None) -> Any:
    """The options of an entry of a registry. Raises UsageError for a name that is not in it, and as `read_options` does.

    what: that the registry holds, such as `method`.
    """
    if name not in registry:
        raise unknown_name(what, name, registry)
    return read_options(registry[name].options, options, name)


def parse_map(text: str | None) -> dict[int, int] | None:
    """`4:3,255:1` -> {4: 3, 255: 1}."""
    if text is None:
        return None
    try:
        return {int(old): int(new) for old, new in (pair.split(":") for pair in text.split(","))}
    except ValueError:
        raise UsageError(f"--map wants pairs of ids such as --map=4:3,255:1, got '{text}'") from None
