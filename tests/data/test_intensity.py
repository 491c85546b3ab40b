"""Levels and body box: what a recipe makes of stored values, with and without HU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sampeft.data.intensity import PRESETS, Intensity, choose, measure, preset
from sampeft.errors import UsageError
from sampeft.volume import Volume


def abdomen(air: float, body: float, padding: float, table: float) -> np.ndarray:
    """A disc of body in air, a thin table below it, and a scanner's padding in the corners."""
    y, x = np.mgrid[:128, :128]
    picture = np.full((128, 128), air)
    picture[(x - 64) ** 2 + (y - 64) ** 2 > 80**2] = padding
    picture[110, 20:110] = table
    picture[(x - 70) ** 2 / 40**2 + (y - 60) ** 2 / 30**2 < 1] = body
    return picture


def test_ct_window_maps_hu_and_clips() -> None:
    levels = measure(PRESETS["ct-abdomen"], np.full((1, 8, 8), 40, dtype=np.int16))
    values = levels.apply(np.array([[-1000, -160, 40, 240, 3000]], dtype=np.int16))
    assert values.shape == (3, 1, 5)
    assert values[0, 0].tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert np.array_equal(values[0], values[2])


@pytest.mark.parametrize(("air", "body", "padding", "table"), [(-1000, 40, -1000, -100), (-1000, 40, -3024, -100)])
def test_body_box_of_hu_leaves_table_and_padding_out(air: float, body: float, padding: float, table: float) -> None:
    top, left, bottom, right = measure(PRESETS["ct-abdomen"], abdomen(air, body, padding, table)[None]).box
    assert abs(top - 31) <= 3
    assert abs(bottom - 90) <= 3
    assert abs(left - 31) <= 3
    assert abs(right - 110) <= 3


@pytest.mark.parametrize(("air", "padding"), [(3, 0), (120, 0)])  # the second: padded with -2000, air far above it
def test_body_box_without_hu_survives_a_scanners_padding(air: float, padding: float) -> None:
    picture = abdomen(air, 180, padding, 130).astype(np.uint8)
    levels = measure(PRESETS["ct-8bit"], picture[None])
    assert abs(levels.box[0] - 31) <= 3
    assert abs(levels.box[3] - 110) <= 3
    assert levels.low >= 130  # percentiles of the body, not of the air


def test_box_of_a_volume_holds_the_body_of_every_slice() -> None:
    slices = np.full((40, 64, 64), -1000, dtype=np.int16)
    slices[:20, 10:40, 10:40] = 50
    slices[20:, 20:60, 15:50] = 50
    top, left, bottom, right = measure(PRESETS["ct-abdomen"], slices).box
    assert top <= 10
    assert left <= 10
    assert bottom >= 60
    assert right >= 50


def test_an_empty_slice_is_looked_at_whole() -> None:
    assert measure(PRESETS["ct-abdomen"], np.full((1, 50, 60), -1000)).box == (0, 0, 50, 60)
    assert measure(PRESETS["ct-8bit"], np.zeros((1, 50, 60), dtype=np.uint8)).box == (0, 0, 50, 60)


def test_percentiles_leave_zeros_out() -> None:
    values = np.concatenate([np.zeros(900), np.arange(1, 102)]).reshape(1, 7, 143)
    levels = measure(Intensity("percentile", 10, 90), values)
    assert (levels.low, levels.high) == (11, 91)


def test_constant_images_do_not_divide_by_zero() -> None:
    levels = measure(PRESETS["percentile"], np.full((1, 8, 8), 7.0))
    assert np.isfinite(levels.apply(np.full((8, 8), 7.0))).all()


def test_colour_keeps_its_channels() -> None:
    picture = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    picture[..., 0] = 255
    shown = measure(PRESETS["8bit"], picture).apply(picture[0])
    assert shown[:, 0, 0].tolist() == [1, 0, 0]


def test_the_recipe_is_chosen_by_values_and_the_sets_own_word() -> None:
    def volume(array: np.ndarray, is_nifti: bool) -> Volume:
        return Volume(array, np.eye(4) if is_nifti else None, Path("x"))

    assert choose(volume(np.array([[[-1000, 100]]]), True))[0] == "ct-abdomen"
    assert choose(volume(np.array([[[0, 900]]]), True))[0] == "percentile"
    assert choose(volume(np.zeros((4, 4, 1), np.uint8), False), "CT, 8-bit grey")[0] == "ct-8bit"
    assert choose(volume(np.zeros((4, 4, 1), np.uint8), False), "infrared")[0] == "8bit"
    with pytest.raises(UsageError, match="did you mean 'ct-abdomen'"):
        preset("ct_abdomen")
