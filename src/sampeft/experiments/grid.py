"""The runs of a sweep: every combination of options, folds and seeds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from sampeft.errors import UsageError
from sampeft.io import portable_name

FIXED = ("data", "out", "task", "layout", "map", "split", "held_out", "training.seed", "resume", "force", "json")
"""Options of a training that all runs share: what is trained on and scored must be the same for all settings."""

AS_GIVEN = "as_given"
"""Name of the only setting where nothing is varied."""

_LONGEST = 200  # of a folder's name; most file systems end at 255 bytes
_OPENING, _CLOSING = "[({", "])}"


@dataclass(frozen=True)
class Axis:
    """An option and the values that it takes, as the command line writes them."""

    option: str
    values: tuple[str, ...]


def axis_of(text: str) -> Axis:
    """`training.lr=1e-3,3e-4` -> Axis('training.lr', ('0.001', '0.0003')). A comma in brackets is part of a value.

    Raises UsageError for another form, an option of FIXED, and a value that is there twice.
    """
    option, equals, rest = text.partition("=")
    option = option.strip().removeprefix("--")
    values = tuple(plain(value) for value in _split(rest))
    if not (option and equals and values) or "" in values:
        raise UsageError(f"--set wants an option and its values such as options.rank=1,4,8, got '{text}'")
    if option in FIXED:
        more = "; seeds are varied by --seeds" if option == "training.seed" else ""
        raise UsageError(f"--set {option}: is the same for all runs of a sweep{more}")
    if twice := [value for value, times in Counter(values).items() if times > 1]:
        raise UsageError(f"--set {option}: has the value {twice[0]} twice")
    return Axis(option, values)


def plain(value: str) -> str:
    """One way to write a number: `1e-3` and `.001` are `0.001`; other text is as it was."""
    value = value.strip()
    try:
        return value if re.fullmatch(r"[+-]?\d+", value) else repr(float(value))
    except ValueError:
        return value


def _split(text: str) -> list[str]:
    """At commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


@dataclass(frozen=True)
class Run:
    """One training and the scores of the cases that it leaves out.

    setting: name of its settings. values: option -> value, of the options that are varied. part: which cases are left out
    and scored: `fold2of5`, `held_out` or `test`.
    """

    setting: str
    values: Mapping[str, str]
    part: str
    seed: int

    @property
    def name(self) -> str:
        """Also its folder: `options.rank=4,training.lr=0.001/fold2of5-seed1`."""
        return f"{self.setting}/{self.part}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """The grid of all values, each with all parts and seeds."""

    axes: tuple[Axis, ...]
    parts: tuple[str, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for option, times in Counter(axis.option for axis in self.axes).items():
            if times > 1:
                raise UsageError(f"--set {option}: is given {times} times; give its values in one")
        if len(self.settings) < len(list(product(*(axis.values for axis in self.axes)))):
            raise UsageError("two values would share a folder's name; write them so that letters and digits differ")

    @cached_property
    def settings(self) -> dict[str, dict[str, str]]:
        """Name -> option -> value, the last axis changing fastest."""
        options = [axis.option for axis in self.axes]
        grid = [dict(zip(options, values, strict=True)) for values in product(*(axis.values for axis in self.axes))]
        return {setting_name(values): values for values in grid}

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The settings change fastest, so that what is done of a sweep that was stopped compares all of them."""
        return tuple(
            Run(setting, values, part, seed)
            for seed in self.seeds
            for part in self.parts
            for setting, values in self.settings.items()
        )

    def share(self, only: str | None) -> tuple[Run, ...]:
        """`3/8`: the third of eight equal shares, every eighth run; nothing: all runs. Raises UsageError for other forms."""
        if only is None:
            return self.runs
        match = re.fullmatch(r"(\d+)/(\d+)", only)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--only wants a share such as 3/8, the third of eight, counted from 1, got '{only}'")
        return self.runs[int(match[1]) - 1 :: int(match[2])]

    def of(self, setting: str, seed: int) -> list[Run]:
        """The runs that together score every case once, in the order of the parts."""
        return [run for run in self.runs if run.setting == setting and run.seed == seed]


def setting_name(values: Mapping[str, str]) -> str:
    """`options.rank=4,training.lr=0.001`, with what no file system minds; a long one ends in a digest of all of it."""
    from hashlib import sha256

    name = ",".join(f"{option}={value}" for option, value in values.items()) or AS_GIVEN
    safe = re.sub(r"[^\w.=,+\[\]-]+", "-", name)
    if len(safe.encode()) > _LONGEST:
        safe = f"{safe[: _LONGEST // 4]}-{sha256(name.encode()).hexdigest()[:12]}"
    return portable_name(safe)


def flags(values: Mapping[str, str]) -> list[str]:
    """The same as arguments of `sampeft train`."""
    return [f"--{option}={value}" for option, value in values.items()]


def left_out(plan: Plan, done: Sequence[Run]) -> dict[str, list[Run]]:
    """Setting -> its runs that are not done; only settings that lack some."""
    known = {run.name for run in done}
    lacking: dict[str, list[Run]] = {}
    for run in plan.runs:
        if run.name not in known:
            lacking.setdefault(run.setting, []).append(run)
    return lacking
