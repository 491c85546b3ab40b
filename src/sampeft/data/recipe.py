"""Find an intensity recipe by its name, or choose one from images."""

from __future__ import annotations

from collections.abc import Sequence

from sampeft.data.case import Case
from sampeft.data.intensity import Intensity, choose, preset, with_bands
from sampeft.errors import DataError
from sampeft.io import read_volume


def chosen_intensity(asked: str, bands: str | None, cases: Sequence[Case], modality: str) -> tuple[str, Intensity]:
    """Name and recipe: as asked, or with `auto` by the first image of the cases that can be read.

    Raises DataError where none can, UsageError for an unknown name or bands that are no numbers.
    """
    if asked != "auto":
        return asked, preset(asked, bands)
    faults: list[DataError] = []
    for file in (file for case in cases for file in case.files):
        try:
            name, recipe = choose(read_volume(file.image), modality)
        except DataError as error:
            faults.append(error)
            continue
        return name, with_bands(recipe, bands)
    raise faults[0]


def check_intensity(asked: str, bands: str | None) -> None:
    """Raises UsageError for an unknown recipe, or bands that are no numbers."""
    preset("percentile" if asked == "auto" else asked, bands)
