"""The label map: class names, their ids in files, colours, the ignore id and left/right pairs.

A model has one output channel per class, in the order of `names`; channel c is written to files as `ids[c]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from colorsys import hsv_to_rgb
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError, FormError
from sampeft.strict_json import read_object

BACKGROUND = "background"

# Okabe-Ito, then Tol's muted set: told apart by colour-blind readers; more classes go round the hue circle.
_PALETTE = (
    "E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7",
    "88CCEE", "44AA99", "DDCC77", "CC6677", "AA4499", "999933", "882255", "117733",
)  # fmt: skip


def default_color(index: int) -> tuple[int, int, int]:
    """Colour (0..255 each) of the index-th foreground class, counted from 0."""
    if index < len(_PALETTE):
        code = _PALETTE[index]
        return int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16)
    hue = (index * 0.61803398875) % 1.0
    red, green, blue = hsv_to_rgb(hue, 0.55 + 0.4 * (index % 2), 0.95 - 0.25 * (index % 3))
    return round(255 * red), round(255 * green), round(255 * blue)


_LEFT_OF = {"right": "left", "Right": "Left", "R": "L", "r": "l"}


def pairs_by_name(names: Iterable[str]) -> list[tuple[str, str]]:
    """(right, left) names that are equal but for that word: `right kidney` and `left kidney`, `lung_R` and `lung_L`.

    A mirror image swaps such classes even where a label map does not say so.
    """
    known = set(names)
    mirrored = {
        name: re.sub(r"(?<![A-Za-z])(right|Right|R|r)(?![A-Za-z])", lambda m: _LEFT_OF[m[1]], name) for name in known
    }
    return sorted((name, other) for name, other in mirrored.items() if other != name and other in known)


@dataclass(frozen=True)
class LabelSet:
    """Classes in channel order.

    names: class names; `background`, if the set has one, comes first.
    ids: the integer of each class in label files, 0..65535, ascending, so that files and models agree on the order.
    ignore: integer that marks pixels without a truth, or None; they count in neither loss nor metrics.
    pairs: (right, left) names of classes that a mirror image would swap.
    colors: one (red, green, blue) of 0..255 per class.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    ignore: int | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    colors: tuple[tuple[int, int, int], ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids) or len(set(self.names)) < len(self.names):
            raise DataError(f"label map needs one distinct name per id, got names {self.names} and ids {self.ids}")
        if list(self.ids) != sorted(set(self.ids)):
            raise DataError(f"ids of a label map must be distinct and ascend, got {self.ids}")
        if not all(0 <= i <= 65535 for i in self.ids):
            raise DataError(f"label ids must lie in 0..65535, got {self.ids}")
        if len(self.names) < 2:
            raise DataError(f"label map needs at least two classes (background and one more), got {self.names}")
        if BACKGROUND in self.names and self.names[0] != BACKGROUND:
            known = dict(zip(self.names, self.ids, strict=True))
            raise DataError(f"'{BACKGROUND}' must be the class with the lowest id, got {known}")
        if self.ignore is not None and not 0 <= self.ignore <= 65535:
            raise DataError(f"the ignore id must lie in 0..65535, got {self.ignore}")
        if self.ignore is not None and self.ignore in self.ids:
            raise DataError(f"ignore id {self.ignore} is also the id of a class")
        for pair in self.pairs:
            if missing := [name for name in pair if name not in self.names]:
                raise DataError(f"left/right pair {pair} names {missing}, not in the label map")
        if not self.colors:
            first = 1 if self.names[0] == BACKGROUND else 0
            colors = [default_color(i - first) if i >= first else (0, 0, 0) for i in range(len(self.names))]
            object.__setattr__(self, "colors", tuple(colors))
        elif len(self.colors) != len(self.names):
            raise DataError(f"label map has {len(self.names)} classes but {len(self.colors)} colours")
        if wrong := [color for color in self.colors if not all(0 <= part <= 255 for part in color)]:
            raise DataError(f"colours are three numbers of 0..255, got {wrong[0]}")

    def __len__(self) -> int:
        """Number of output channels."""
        return len(self.names)

    @property
    def has_background(self) -> bool:
        return self.names[0] == BACKGROUND

    @property
    def foreground(self) -> tuple[int, ...]:
        """Channels that a score is averaged over: all but `background`."""
        return tuple(range(1 if self.has_background else 0, len(self.names)))

    @cached_property
    def mirror_channels(self) -> npt.NDArray[np.int64]:
        """(K,) channel that each channel becomes when the image is mirrored left to right."""
        order = np.arange(len(self))
        for right, left in self.pairs:
            channels = [self.names.index(right), self.names.index(left)]
            order[channels] = channels[::-1]
        return order

    @property
    def dtype(self) -> npt.DTypeLike:
        """Smallest unsigned type that holds every id and the ignore id."""
        return np.uint8 if max(*self.ids, self.ignore or 0) <= 255 else np.uint16

    def to_ids(self, channels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Class channels (any shape, 0..K-1) -> ids as written to files, in the same order in memory."""
        if self.ids == tuple(range(len(self))):
            return channels.astype(self.dtype)
        if channels.flags.f_contiguous and not channels.flags.c_contiguous:
            return self.to_ids(channels.T).T
        table = np.asarray(self.ids, dtype=self.dtype)
        if channels.ndim < 2:
            return np.take(table, channels)
        found = np.empty(channels.shape, dtype=self.dtype)
        # `take` makes eight bytes of every pixel that it is given
        for part, given in zip(found, channels, strict=True):
            part[...] = np.take(table, given)
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "labels": dict(zip(self.names, self.ids, strict=True)),
            "ignore": self.ignore,
            "pairs": [list(pair) for pair in self.pairs],
            "colors": {name: list(color) for name, color in zip(self.names, self.colors, strict=True)},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], source: Path | str = "label map") -> LabelSet:
        """Read `{"labels": {name: id, ...}, "ignore", "pairs", "colors"}` or just `{name: id, ...}`.

        Raises FormError naming `source` when a value has the wrong form.
        """
        whole: dict[str, Any] = content if "labels" in content else {"labels": content}
        ignore, colors, pairs = (whole.get(key) for key in ("ignore", "colors", "pairs"))
        try:
            by_id = sorted((_id(i, f"the id of '{name}'"), str(name)) for name, i in _ids_by_name(whole["labels"]))
            names = tuple(name for _, name in by_id)
            return cls(
                names=names,
                ids=tuple(i for i, _ in by_id),
                ignore=None if ignore is None else _id(ignore, "ignore"),
                pairs=tuple(pairs_by_name(names)) if pairs is None else _pairs(pairs),
                colors=_colors(colors, names) if colors else (),
            )
        except DataError as error:
            raise FormError(f"{source}: {error}") from None

    @classmethod
    def read(cls, path: Path) -> LabelSet:
        """Read a `labels.json` or `dataset.json`."""
        return cls.from_json(read_object(path), path)


def _ids_by_name(value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise DataError(f'labels is {value!r}; expected names and ids, {{"background": 0, "liver": 1}}')
    return list(value.items())


def _id(value: Any, what: str) -> int:
    try:
        return whole_number(value)
    except (TypeError, ValueError):
        raise DataError(f"{what} is {value!r}; expected a whole number of 0..65535") from None


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(name, str) for name in pair)
        for pair in value
    ):
        raise DataError(f'pairs is {value!r}; expected names of classes, [["right kidney", "left kidney"]]')
    return tuple((right, left) for right, left in value)


def _colors(value: Any, names: Iterable[str]) -> tuple[tuple[int, int, int], ...]:
    if not isinstance(value, dict):
        raise DataError(f'colors is {value!r}; expected names and colours, {{"forest": [0, 255, 255]}}')
    if missing := [name for name in names if name not in value]:
        raise DataError(f"colors has none for '{missing[0]}'; give each class its own")
    return tuple(_color(value[name], name) for name in names)


def _color(value: Any, name: str) -> tuple[int, int, int]:
    try:
        red, green, blue = map(whole_number, value)
    except (TypeError, ValueError):
        raise DataError(f"colors has {value!r} for '{name}'; expected three numbers of 0..255") from None
    return red, green, blue


def whole_number(value: Any) -> int:
    """A whole number, or a text that is one, as people write them. Raises ValueError for anything else."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)
