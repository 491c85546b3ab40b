"""Find files unlike all the others: each with its own value, that of the others, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from sampeft.data.file_statistics import FileFacts
from sampeft.data.slices import PICTURE
from sampeft.errors import counted

_ENOUGH = 5  # files of which one can be unlike the others
_SHARE = 20  # one in so many may be, or one of fewer; where more are, it is how the data are
_VALUES, _SPACING = 10.0, 3.0
"""Factors from which a file's values, or its spacing, are apart from those of the nearest other file."""
_BELOW_0 = 0.05  # of the largest value: interpolation takes zeros a little below
_STEPS = ("from slice to slice", "from row to row", "from column to column")


class Outlier(NamedTuple):
    """A file, what is odd about it, and how to mend it."""

    file: Path
    problem: str
    fix: str


def outliers(facts: Sequence[FileFacts]) -> list[Outlier]:
    """Files that are alone, or nearly, with their values, channels, plane, spacing or with rows for columns.

    Values of MR differ by orders of magnitude from scanner to scanner: a file is apart when it is farther from the others than
    they are from each other.
    """
    volumes = [f for f in facts if f.plane != PICTURE]
    pictures = [f for f in facts if f.plane == PICTURE]
    found = [*_odd_kind(facts), *_odd_channels(facts)]
    for alike in (volumes, pictures):
        found += [*_odd_values(alike), *_odd_plane(alike), *_odd_spacing(alike), *_transposed(alike)]
    place = {one.file.image: number for number, one in enumerate(facts)}
    return sorted(found, key=lambda one: place[one.file])


def _odd_kind(facts: Sequence[FileFacts]) -> Iterator[Outlier]:
    kinds = ["a picture" if f.plane == PICTURE else "a volume" for f in facts]
    for i, rest in _unlike(kinds):
        problem = f"is {kinds[i]}, {_are(rest)} {kinds[rest[0]].removeprefix('a ')}s"
        yield Outlier(facts[i].file.image, problem, "give the image in the form of the others, or leave it out")


def _odd_channels(facts: Sequence[FileFacts]) -> Iterator[Outlier]:
    for i, rest in _unlike([f.bands for f in facts]):
        problem = f"has {counted(facts[i].bands, 'channel')}, {_others(rest)} {facts[rest[0]].bands}"
        fix = "save it like the others, choose bands that all files have with --bands, or leave it out"
        yield Outlier(facts[i].file.image, problem, fix)


def _odd_values(facts: Sequence[FileFacts]) -> Iterator[Outlier]:
    facts = [f for f in facts if f.levels.p1 < f.levels.p99]  # blank files have no range, which is said elsewhere
    largest = [max(abs(f.levels.p1), abs(f.levels.p99)) for f in facts]
    signed = [f.levels.p1 < -_BELOW_0 * f.levels.p99 for f in facts]
    odd = dict([*_unlike(signed), *_apart(largest, _VALUES, by_spread=True)])
    for i, rest in odd.items():
        low, high = min(facts[k].levels.p1 for k in rest), max(facts[k].levels.p99 for k in rest)
        own = f"its values are {facts[i].levels.p1:g}..{facts[i].levels.p99:g}"
        problem = f"{own}, those of {_others(rest)} {low:g}..{high:g} (1st to 99th percentile)"
        fix = (
            "give it in the units of the others, or leave it out; where only the scanner's scale is another, a recipe by "
            "percentiles, such as --intensity mr, makes up for it"
        )
        yield Outlier(facts[i].file.image, problem, fix)


def _odd_plane(facts: Sequence[FileFacts]) -> Iterator[Outlier]:
    for i, rest in _unlike([f.plane for f in facts]):
        problem = f"its slices are {facts[i].plane} by its spacing, those of {_others(rest)} {facts[rest[0]].plane}"
        fix = "correct the spacing or the axes in its header where they are wrong, or leave it out"
        yield Outlier(facts[i].file.image, problem, fix)


def _odd_spacing(facts: Sequence[FileFacts]) -> Iterator[Outlier]:
    spacings = [f.spacing_mm for f in facts if f.spacing_mm is not None]
    said: dict[int, list[str]] = {}
    for axis, step in enumerate(_STEPS if spacings else ()):
        along = [spacing[axis] for spacing in spacings]
        for i, rest in _apart(along, _SPACING):
            others = _span(min(along[k] for k in rest), max(along[k] for k in rest))
            said.setdefault(i, []).append(f"{along[i]:.4g} mm {step}, that of {_others(rest)} {others} mm")
    for i, parts in said.items():
        fix = (
            "correct it in the header where it is wrong, or leave the file out: lengths and volumes are measured by it"
        )
        yield Outlier(facts[i].file.image, f"its spacing is {' and '.join(parts)}", fix)


def _transposed(facts: Sequence[FileFacts]) -> Iterator[Outlier]:
    """Where the others have one size, of which this file has the sides, but not as its rows and columns."""
    for i, rest in _unlike([f.size[1:] for f in facts]):
        (rows, columns), usual = facts[i].size[1:], facts[rest[0]].size[1:]
        if not Counter(usual) - Counter(facts[i].size):
            problem = f"is {rows} x {columns} (rows x columns), {_are(rest)} {usual[0]} x {usual[1]}: it seems to be transposed"
            fix = "turn the image and its label like the others, or correct the axes in its header"
            yield Outlier(facts[i].file.image, problem, fix)


def _unlike(values: Sequence[Hashable]) -> Iterator[tuple[int, list[int]]]:
    """Places of values that are not the usual one, where they are few, each with the places of the usual one."""
    if len(values) >= _ENOUGH:
        usual = Counter(values).most_common(1)[0][0]
        yield from _few([i for i, value in enumerate(values) if value != usual], len(values))


def _apart(values: Sequence[float], factor: float, by_spread: bool = False) -> Iterator[tuple[int, list[int]]]:
    """The same of values above 0 that lie more than a factor from the nearest of the largest group without such gaps in it, and
    by_spread also farther than its own ends are from each other. Others, such as NaN, are left out."""
    known = sorted((value, i) for i, value in enumerate(values) if value > 0)
    if len(known) < _ENOUGH:
        return
    groups = [[known[0]]]
    for (before, _), one in pairwise(known):
        if one[0] > factor * before:
            groups.append([])
        groups[-1].append(one)
    group = max(groups, key=len)
    low, high = group[0][0], group[-1][0]
    gap = max(factor, high / low) if by_spread else factor
    if len(known) - len(group) <= _most(len(values)):
        yield from _few([i for value, i in known if value * gap < low or value > high * gap], len(values))


def _few(odd: Collection[int], count: int) -> Iterator[tuple[int, list[int]]]:
    if len(odd) <= _most(count):
        rest = [i for i in range(count) if i not in odd]
        yield from ((i, rest) for i in odd)


def _most(count: int) -> int:
    """Of so many files those that may be unlike the others."""
    return max(1, count // _SHARE)


def _others(rest: Sequence[int]) -> str:
    return f"the other {counted(len(rest), 'file')}"


def _are(rest: Sequence[int]) -> str:
    return f"{_others(rest)} are"


def _span(low: float, high: float) -> str:
    return f"{low:.4g}" if low == high else f"{low:.4g}..{high:.4g}"
