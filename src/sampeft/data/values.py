"""The range of images' values, and a warning where one does not go with a recipe or a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from sampeft.data.intensity import NO_NUMBERS, Intensity, count_no_numbers, extremes, nodata_value, without_value
from sampeft.volume import Volume

_SAMPLE = 200_000  # values of an image that its percentiles are taken from
_WIDER = {"window": 0.5, "percentile": 9.0}
"""How far an image may go beyond training's range, in widths of it: a window clips, percentiles follow the image."""
_LEAST_USED = 0.1  # of training's range that an image has to use
_BELOW_0 = 0.05  # of training's range: interpolation takes zeros a little below


class Quantiles(NamedTuple):
    """Minimum, percentiles and maximum of an image's values, those that measure nothing left out; NaN without any."""

    lowest: float
    p1: float
    median: float
    p99: float
    highest: float

    @classmethod
    def of(cls, volume: Volume) -> Quantiles:
        """The percentiles are those of every n-th value of a large image."""
        flat, nodata = volume.array.ravel(order="K"), nodata_value(volume)
        bands = volume.array.shape[3] if volume.array.ndim == 4 else 1
        step = max(1, flat.size // _SAMPLE)
        while math.gcd(step, bands) > 1:  # else some bands would be left out
            step += 1
        kept = flat[::step]
        known = kept[~without_value(kept, nodata)]
        p1, median, p99 = map(float, np.percentile(known, (1, 50, 99)) if known.size else [np.nan] * 3)
        lowest, highest = extremes(flat, nodata)
        return cls(lowest, p1, median, p99, highest)


@dataclass(frozen=True)
class Seen:
    """What a run was trained on.

    low, high: lowest first and highest 99th percentile of its images, in stored units. planes: those that its volumes ask for
    by their spacing, empty for pictures.
    """

    low: float
    high: float
    planes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "planes", tuple(self.planes))  # JSON has lists


def odd_values(volume: Volume, recipe: Intensity, seen: Seen | None = None) -> str | None:
    """What is wrong with the values of an image for a recipe; None where nothing is.

    seen: of the run that is to segment the image; without it only what the recipe itself tells.
    """
    levels = Quantiles.of(volume)
    if is_constant(volume):
        return f"{volume.path}: all its pixels have one value ({levels.highest:g}), so that nothing can be seen; export it again"
    shown = f"{volume.path}: its values are {levels.lowest:g}..{levels.highest:g} ({volume.array.dtype})"
    in_hu = recipe.low < 0
    positive = recipe.kind == "window" and levels.lowest >= 0 and (seen is None or seen.low < 0)
    if positive and (in_hu or (levels.highest <= 1 and recipe.high > 2)):
        unit = "Hounsfield units, where air is -1000" if in_hu else "stored units"
        return (
            f"{shown}, but the recipe is a window of {recipe.low:g}..{recipe.high:g} in {unit}; give the image as it was "
            "before any scaling"
        )
    if seen is None or _is_within(levels, recipe, seen):
        return None
    return (
        f"{shown}, those of training were {seen.low:g}..{seen.high:g}, and the recipe is {recipe}; give the image in the units "
        "of training's, or look at the result with care"
    )


def _is_within(levels: Quantiles, recipe: Intensity, seen: Seen) -> bool:
    """Whether an image's range of values is one that the run may know; what it was not trained on below 0 it does not."""
    width = seen.high - seen.low
    beyond = _WIDER[recipe.kind] * width
    least = seen.low - beyond if seen.low < 0 else -_BELOW_0 * width
    used = min(levels.highest, seen.high) - max(levels.lowest, seen.low)
    return levels.p99 <= seen.high + beyond and levels.p1 >= least and used >= _LEAST_USED * width


def is_constant(volume: Volume) -> bool:
    """Whether each band holds one value only, those that measure nothing aside."""
    array, nodata = volume.array, nodata_value(volume)
    bands = [array] if array.ndim == 3 else [array[..., band] for band in range(array.shape[3])]
    return all(low == high for low, high in (extremes(band, nodata) for band in bands))


def examine(volume: Volume, recipe: Intensity, seen: Seen | None = None) -> tuple[str, ...]:
    """Warn of values that are no numbers, and as `odd_values` says; what was said.

    Raises DataError when no pixel has a value.
    """
    told = []
    if count := count_no_numbers(volume):
        told.append(f"{volume.path}: {count} values are {NO_NUMBERS}; they are read as the lowest level")
    if volume.array.size and (odd := odd_values(volume, recipe, seen)):
        told.append(odd)
    warn(told)
    return tuple(told)


def warn(texts: Iterable[str]) -> None:
    """Warnings on stderr, each the first time only."""
    for text in texts:
        _warn_once(text)


@cache
def _warn_once(text: str) -> None:
    logging.getLogger("sampeft").warning("warning: %s", text)
