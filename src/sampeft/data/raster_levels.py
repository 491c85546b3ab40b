"""Preprocessing of a raster too large for memory: levels measured from samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sampeft.data.intensity import NO_NUMBERS, Intensity, Levels, measure, nodata_value, select_bands
from sampeft.data.preprocessing import Preparation, PreparedVolume
from sampeft.errors import DataError
from sampeft.io.raster_windows import Source
from sampeft.volume import Volume

WHOLE = 1 << 22
"""Pixels up to which a raster is measured whole, as it would be if it were not cut into windows."""
_BLOCK, _GRID = 128, 12  # most pixels of a sample's side; samples each way


def prepared_sample(source: Source, preparation: Preparation) -> PreparedVolume:
    """What all windows of a raster share, so that a value means the same everywhere: levels, no-data value, denoiser.

    The levels are those of the whole raster up to 4 million pixels; else of 12 x 12 samples of 128 x 128 pixels spread
    evenly over it, those without any measurement left out. Minimum and maximum, where the recipe asks for them, are of
    all pixels.
    Raises DataError for bands that do not fit the recipe, and where no pixel has a value.
    """
    height, width = source.size
    if height * width <= WHOLE:
        return PreparedVolume.of(_volume(source, source.read(0, height)), preparation)
    prepared = PreparedVolume.of(_volume(source, _spread(source)), preparation)
    recipe = preparation.intensity
    if recipe.kind == "percentile" and (recipe.low == 0 or recipe.high == 100):
        lowest, highest = _extremes(source, recipe)
        levels = replace(
            prepared.levels,
            low=lowest if recipe.low == 0 else prepared.levels.low,
            high=highest if recipe.high == 100 else prepared.levels.high,
        )
        prepared = replace(prepared, levels=levels)
    return prepared


Part = tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]


def _volume(source: Source, part: Part) -> Volume:
    array, missing_HW = part
    header = source.header
    if header is not None:
        header = replace(header, missing=missing_HW[:, :, None] if missing_HW.any() else None)
    return Volume(array[:, :, None], None, source.path, header)


def _spread(source: Source) -> Part:
    """Samples from the middle of equal parts of the raster, one below the other; of a raster that is all but empty, the
    first rows that hold anything."""
    height, width = source.size
    rows, columns = (min(_BLOCK, max(1, n // _GRID)) for n in source.size)
    found: list[Part] = []
    for i, j in np.ndindex(_GRID, _GRID):
        top, left = int((i + 0.5) * height / _GRID - rows / 2), int((j + 0.5) * width / _GRID - columns / 2)
        found.append(source.read(top, top + rows, left, left + columns))
    found = [part for part in found if not part[1].all()]
    if found:
        return np.concatenate([array for array, _ in found]), np.concatenate([missing for _, missing in found])
    for top in range(0, height, _BLOCK):
        part = source.read(top, min(top + _BLOCK, height))
        if not part[1].all():
            return part
    raise DataError(f"{source.path}: no pixel has a value (all are {NO_NUMBERS}, or no data); leave the file out")


def _extremes(source: Source, recipe: Intensity) -> tuple[float | tuple[float, ...], float | tuple[float, ...]]:
    """Lowest and highest level of all pixels, strip by strip."""
    whole = replace(recipe, low=0.0, high=100.0)
    height = source.size[0]
    found: list[Levels] = []
    for top in range(0, height, _BLOCK):
        part = source.read(top, min(top + _BLOCK, height))
        volume = _volume(source, part)
        slices = np.moveaxis(select_bands(volume, recipe.bands), 2, 0)
        if slices[0][~part[1]].any():  # zeros count in no statistics
            found.append(measure(whole, slices, nodata_value(volume)))
    lows, highs = (np.array([getattr(levels, end) for levels in found]) for end in ("low", "high"))
    lowest, highest = lows.min(axis=0).tolist(), highs.max(axis=0).tolist()
    return (tuple(lowest), tuple(highest)) if isinstance(lowest, list) else (lowest, highest)
