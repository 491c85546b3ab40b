"""Check a data set and choose its intensity recipe."""

from __future__ import annotations

from contextlib import suppress

from sampeft.configs.check import Config
from sampeft.console import bar
from sampeft.data import open_dataset
from sampeft.data.case import Dataset
from sampeft.data.check import CheckReport, check_dataset
from sampeft.data.intensity import Intensity
from sampeft.data.recipe import check_intensity, chosen_intensity
from sampeft.errors import DataError
from sampeft.io.dicom_series import series_chosen
from sampeft.options import parse_map


def check_names(config: Config) -> None:
    check_intensity(config.intensity, config.bands)


def report_of(config: Config) -> tuple[Dataset, str, Intensity | None, CheckReport]:
    """The data set, name and recipe of its intensity, None where no image can be read, and what is to be said of it."""
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    name, recipe = config.intensity, None
    with series_chosen(config.series):
        with suppress(DataError):  # that no image can be read is told of each of them
            name, recipe = chosen_intensity(config.intensity, config.bands, dataset.cases, dataset.modality)
        with bar("checking", sum(len(case.files) for case in dataset.cases)) as shown:
            report = check_dataset(dataset, progress=shown, side=config.side, recipe=recipe, leaks=True)
    return dataset, name, recipe, report
