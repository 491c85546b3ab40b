"""Levels and body box: what a recipe makes of stored values, with and without HU."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sampeft.data.intensity import (
    PRESETS,
    Intensity,
    choose,
    count_no_numbers,
    measure,
    preset,
    select_bands,
    with_bands,
)
from sampeft.data.values import Quantiles, Seen, examine, is_constant, odd_values
from sampeft.errors import DataError, UsageError
from sampeft.volume import Volume

CT = PRESETS["ct-abdomen"]


def raster(array: np.ndarray, name: str = "x.tif", **header: Any) -> Volume:
    return Volume(array, None, Path(name), SimpleNamespace(**header) if header else None)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


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


@pytest.mark.parametrize("padding", [-1000, -2000, -3024, -32768])
def test_padding_is_the_window_floor_and_changes_nothing_else(padding: int) -> None:
    """D13, D15: after the window 0, 0, 0.5, 1; more padding changes no other pixel."""
    row = np.array([[padding, -1000, 40, 3000]], dtype=np.int16)
    assert measure(CT, row[None]).apply(row)[0, 0].tolist() == pytest.approx([0, 0, 0.5, 1])
    body = abdomen(-1000, 40, -1000, -100).astype(np.int16)
    padded = abdomen(-1000, 40, padding, -100).astype(np.int16)
    plain, other = measure(CT, body[None]), measure(CT, padded[None])
    assert other.box == plain.box
    assert np.array_equal(other.apply(padded), plain.apply(body))


def test_nan_and_infinity_become_0_and_count_in_no_statistics() -> None:
    """D14: percentiles 10 and 90 of 1..101 are 11 and 91, whatever else the file holds."""
    values = np.concatenate([np.arange(1.0, 102.0), [np.nan, np.inf, -np.inf]]).reshape(1, 8, 13)
    levels = measure(Intensity("percentile", 10, 90), values)
    assert (levels.low, levels.high) == (11, 91)
    shown = levels.apply(values[0])[0].ravel()
    assert shown[-3:].tolist() == [0, 0, 0]
    assert shown[50] == pytest.approx(0.5)


def test_nan_moves_no_body_box_and_changes_no_other_pixel() -> None:
    """D14."""
    body = abdomen(-1000.0, 40, -1000, -100)
    spoilt = body.copy()
    spoilt[3, 4], spoilt[0, 0], spoilt[60, 60] = np.nan, np.inf, -np.inf
    plain, other = measure(CT, body[None]), measure(CT, spoilt[None])
    assert other.box == plain.box
    same = np.isfinite(spoilt)
    assert np.array_equal(other.apply(spoilt)[:, same], plain.apply(body)[:, same])
    assert not other.apply(spoilt)[:, ~same].any()


def test_odd_values_are_told_once_with_file_and_count(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """D14: one warning with the count 2; a file without any value is refused."""
    array = np.full((4, 5, 6), -1000.0)
    array[3, 4, 5], array[0, 0, 0], array[1, 1, 1] = np.nan, np.inf, 40
    volume = Volume(array, np.eye(4), tmp_path / "scan.nii.gz")
    assert count_no_numbers(volume) == 2
    for _ in range(3):
        examine(volume, CT)
    (told,) = warnings_of(caplog)
    assert "scan.nii.gz: 2 values are NaN, infinite" in told
    with pytest.raises(DataError, match="no pixel has a value"):
        examine(Volume(np.full((2, 2, 2), np.nan), np.eye(4), tmp_path / "empty.nii.gz"), CT)


@pytest.mark.parametrize(
    ("values", "recipe", "warned"),
    [
        ((0.0, 1.0), "ct-abdomen", True),  # D15: scaled already
        ((0.0, 255.0), "ct-abdomen", True),  # a picture of a CT
        ((0.0, 1.0), "ct-brain", True),
        ((-1024.0, 1.0), "ct-abdomen", False),
        ((0.0, 255.0), "8bit", False),
        ((0.0, 1.0), "percentile", False),
    ],
)
def test_an_image_in_other_units_than_the_window_is_told(
    values: tuple[float, float], recipe: str, warned: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    examine(Volume(np.array(values).reshape(2, 1, 1), np.eye(4), tmp_path / "a.nii"), PRESETS[recipe])
    assert [f"its values are {values[0]:g}..{values[1]:g}" in text for text in warnings_of(caplog)] == [True] * warned


def test_values_near_the_end_of_32_bits_measure_nothing(tmp_path: Path) -> None:
    """D14: fill values of +-3e38 are no measurements, whatever holds them: levels are those of 10..110, and never NaN."""
    grey = np.array([[10.0, 110.0, 3e38, -3e38, 60.0]], dtype=np.float32)
    assert count_no_numbers(Volume(grey[..., None], None, tmp_path / "a.tif")) == 2
    assert Quantiles.of(Volume(grey[..., None], None, tmp_path / "a.tif"))[::4] == (10, 110)
    for recipe in (PRESETS["minmax"], Intensity("window", 10, 110)):
        assert measure(recipe, grey[None]).apply(grey)[0].tolist() == [[0, 1, 0, 0, 0.5]]
    colour = np.repeat(grey[..., None], 3, axis=2)
    assert np.isfinite(measure(PRESETS["minmax"], colour[None]).apply(colour)).all()
    with pytest.raises(DataError, match="no pixel has a value"):
        count_no_numbers(Volume(np.full((2, 2, 1), 3e38, np.float32), None, tmp_path / "a.tif"))


_CT_SEEN, _PICTURES_SEEN = Seen(-1010, 50), Seen(20, 250)


@pytest.mark.parametrize(
    ("values", "recipe", "seen", "odd"),
    [
        ((0, 255), "8bit", _PICTURES_SEEN, None),
        ((60, 90), "8bit", _PICTURES_SEEN, None),  # a dark one: 30 of 230
        ((0, 255 * 257), "8bit", _PICTURES_SEEN, "its values are 0..65535"),
        ((0, 255 * 40), "8bit", _PICTURES_SEEN, "those of training were 20..250"),
        ((0, 1), "8bit", _PICTURES_SEEN, "its values are 0..1"),
        ((0, 255), "16bit", Seen(100, 60000), "the recipe is window 0..65535"),
        ((-1024, 400), "ct-abdomen", _CT_SEEN, None),
        ((-50, 1010), "ct-abdomen", _CT_SEEN, "its values are -50..1010"),  # inverted
        ((14, 1074), "ct-abdomen", _CT_SEEN, "where air is -1000"),
        ((0, 600), "ct-abdomen", _CT_SEEN, "where air is -1000"),  # MR
        ((0, 3000), "mr", Seen(0, 800), None),  # scanners differ, percentiles follow
        ((0, 30000), "mr", Seen(0, 800), "its values are 0..30000"),
        ((0, 3), "mr", Seen(0, 800), "its values are 0..3"),
        ((-1000, 400), "mr", Seen(0, 800), "its values are -1000..400"),  # CT
        ((7, 7), "mr", None, "all its pixels have one value (7)"),
        ((0, 0), "8bit", _PICTURES_SEEN, "all its pixels have one value (0)"),
    ],
)
def test_another_range_than_that_of_training_is_told(
    values: tuple[int, int], recipe: str, seen: Seen | None, odd: str | None, tmp_path: Path
) -> None:
    """N02: both directions; evenly spread values of that range."""
    array = np.linspace(*values, 400).round().reshape(20, 20, 1)
    told = odd_values(Volume(array, np.eye(4), tmp_path / "a.nii"), PRESETS[recipe], seen)
    assert told is None if odd is None else odd in str(told)


def test_each_band_counts_for_a_constant_image() -> None:
    plain = np.full((4, 4, 1, 3), (1, 2, 3), np.uint8)
    assert is_constant(raster(plain))
    plain[0, 0, 0, 2] = 4
    assert not is_constant(raster(plain))
    assert is_constant(raster(plain[..., 2], nodata=4))


def test_16_bit_is_scaled_over_its_whole_range_and_never_clipped_to_8() -> None:
    """D16: 0, 256, 32896, 65535 of 16 bits are 0, 1, 128, 255 of 8."""
    stored = np.array([[0, 256, 32896, 65535]], dtype=np.uint16)
    shown = measure(PRESETS["16bit"], stored[None]).apply(stored)[0, 0] * 255
    assert shown.round().tolist() == [0, 1, 128, 255]
    assert shown[1] == pytest.approx(0.996, abs=1e-3)
    # The default of 16-bit infrared is the range that the file uses.
    name, recipe = choose(raster(stored[..., None]), "infrared, 14 bits")
    dim = np.array([[1000, 1500, 2000]], dtype=np.uint16)
    assert name == "infrared"
    assert measure(recipe, dim[None]).apply(dim)[0, 0].tolist() == [0, 0.5, 1]


def test_bands_are_counted_from_1_and_come_in_the_order_asked_for() -> None:
    """D17: five bands; which are looked at is chosen, and by default said."""
    five = raster(np.arange(5, dtype=np.float32).reshape(1, 1, 1, 5) * 10)
    assert select_bands(five, (3, 2, 1)).ravel().tolist() == [20, 10, 0]
    assert select_bands(five, (5,)).tolist() == [[[40]]]
    with pytest.raises(DataError, match=r"x\.tif: has 5 bands.*--bands, such as 3,2,1"):
        select_bands(five, None)
    with pytest.raises(DataError, match="has 5 bands, but the recipe looks at bands 6"):
        select_bands(five, (6,))
    name, recipe = choose(five)
    assert (name, recipe.bands) == ("percentile", (1, 2, 3))
    assert str(recipe) == "percentile 0.5..99.5 %, crop none, bands 1,2,3"
    assert choose(raster(np.zeros((1, 1, 1, 4), np.uint8)))[1].bands == (1, 2, 3)
    assert choose(raster(np.zeros((1, 1, 1, 3), np.uint8)))[1].bands is None
    assert choose(raster(np.zeros((1, 1, 1, 2), np.uint16)))[1].bands == (1,)
    for wrong in ("0", "1,2", "red", "1,2,3,4", ""):
        with pytest.raises(UsageError, match="bands are"):
            with_bands(recipe, wrong)


def test_each_band_is_stretched_on_its_own_and_without_nodata() -> None:
    """D17: bands of 1..101, 10 times and 100 times that, -9999 in a tenth; percentiles 10 and 90 of each."""
    ramp = np.concatenate([np.arange(1.0, 102.0), np.full(11, -9999.0)])
    bands = np.stack([ramp, np.where(ramp > 0, ramp * 10, ramp), np.where(ramp > 0, ramp * 100, ramp)], axis=-1)
    levels = measure(Intensity("percentile", 10, 90, bands=(1, 2, 3)), bands.reshape(1, 8, 14, 3), nodata=-9999.0)
    assert levels.low == (11, 110, 1100)
    assert levels.high == (91, 910, 9100)
    shown = levels.apply(bands.reshape(8, 14, 3)).reshape(3, -1)
    assert shown[:, 50].tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert not shown[:, 101:].any()


def test_declared_nodata_is_no_fault() -> None:
    """NaN that a GeoTIFF declares as its no-data value is not counted, an infinity beside it is."""
    array = np.array([[1.0, np.nan, np.inf, 2.0]])[..., None]
    missing = np.isnan(array)
    assert count_no_numbers(raster(array, nodata=np.nan, missing=missing)) == 1
    assert count_no_numbers(raster(array, nodata=None, missing=None)) == 2
    assert measure(PRESETS["minmax"], array[None, ..., 0], np.nan).high == 2


def test_a_recipe_comes_back_from_json_and_an_old_one_too() -> None:
    for recipe in (*PRESETS.values(), Intensity("percentile", 1, 99, bands=(3, 2, 1))):
        assert Intensity(**json.loads(json.dumps(asdict(recipe)))) == recipe
    old = {"kind": "window", "low": -160.0, "high": 240.0, "crop": "body"}
    assert Intensity(**old) == CT  # type: ignore[arg-type]


def test_the_recipe_is_chosen_by_values_and_the_sets_own_word() -> None:
    def volume(array: np.ndarray, is_nifti: bool) -> Volume:
        return Volume(array, np.eye(4) if is_nifti else None, Path("x"))

    assert choose(volume(np.array([[[-1000, 100]]]), True))[0] == "ct-abdomen"
    assert choose(volume(np.array([[[np.nan, -1000, 100]]]), True))[0] == "ct-abdomen"
    assert choose(volume(np.array([[[-1000, 100]]]), True), "CT of the chest")[0] == "ct-lung"
    assert choose(volume(np.array([[[-1000, 100]]]), True), "MR, T1")[0] == "mr"
    assert choose(volume(np.array([[[0, 900]]]), True), "MRI")[0] == "mr"
    assert choose(volume(np.array([[[0, 900]]]), True))[0] == "percentile"
    assert choose(volume(np.zeros((4, 4, 1), np.uint8), False), "CT, 8-bit grey")[0] == "ct-8bit"
    assert choose(volume(np.zeros((4, 4, 1), np.uint8), False), "infrared")[0] == "8bit"
    assert choose(volume(np.zeros((4, 4, 1), np.uint16), False))[0] == "percentile"
    with pytest.raises(UsageError, match="did you mean 'ct-abdomen'"):
        preset("ct_abdomen")


def test_a_tiny_slice_without_a_body_is_looked_at_whole() -> None:
    assert measure(CT, np.full((2, 5, 7), -1000)).box == (0, 0, 5, 7)


def test_thin_parts_are_cut_off_as_scipys_opening_does() -> None:
    from scipy import ndimage

    from sampeft.data.intensity import largest_object

    rng = np.random.default_rng(0)
    for size, steps in (((40, 60), 1), ((300, 257), 2), ((520, 512), 4)):
        mask = ndimage.gaussian_filter(rng.normal(size=size), 3) > 0
        objects, _ = ndimage.label(ndimage.binary_opening(mask, iterations=steps))
        assert np.array_equal(largest_object(mask), objects == np.bincount(objects.ravel())[1:].argmax() + 1)
