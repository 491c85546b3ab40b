"""Numbers of hand-made files, and notes that say what is so and are silent where it is not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sampeft.data.case import ImageFile
from sampeft.data.file_statistics import FileFacts, notes, summary
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE, Volume

ORGANS = LabelSet(("background", "liver", "spleen", "kidney_left", "stomach"), (0, 1, 2, 3, 4))
FILE = ImageFile("a", Path("a.png"), Path("b.png"))


def facts(array: np.ndarray, channels: np.ndarray | None = None, affine: np.ndarray | None = None) -> FileFacts:
    if channels is None:
        channels = np.zeros(array.shape[:3], np.int16)
    return FileFacts.of(FILE, Volume(array, affine, FILE.image), channels, len(ORGANS))


def abdomen(flipped: tuple[int, ...] = ()) -> FileFacts:
    """A picture seen from below: liver at the left, spleen at the right, stomach in front (above) of a kidney."""
    channels = np.zeros((40, 60), np.int16)
    channels[15:25, 5:20], channels[15:25, 45:55], channels[25:33, 40:48], channels[5:12, 35:50] = 1, 2, 3, 4
    channels = np.flip(channels, flipped)[..., None]
    grey = np.random.default_rng(0).integers(1, 250, channels.shape).astype(np.uint8)
    return facts(grey, channels)


def test_levels_and_positions_of_a_file() -> None:
    """0..100 once each: minimum 0, percentiles 1, 50, 99, maximum 100; NaN counts in none."""
    array = np.array([*range(101), np.nan], dtype=np.float32).reshape(1, 102, 1)
    channels = np.zeros((1, 102, 1), np.int16)
    channels[0, 4:7] = 1
    channels[0, 7] = IGNORE
    found = facts(array, channels)
    assert found.levels == (0, 1, 50, 99, 100)
    assert (found.row[1], found.column[1]) == (0, 5)
    assert np.isnan(found.row[2])
    assert (found.dtype, found.bands, found.spacing_mm) == ("float32", 1, None)


def test_no_band_is_left_out_of_the_percentiles_of_a_large_image() -> None:
    """1000 x 800 pixels of 3 bands with 10, 20 and 30: 3 bands and every 12th value would see one band only."""
    array = np.broadcast_to(np.array([10, 20, 30], np.uint8), (1000, 800, 1, 3)).copy()
    assert facts(array).levels == (10, 10, 20, 30, 30)


def test_sizes_and_spacing_are_summed_up_by_lowest_median_and_highest() -> None:
    """Coronal slices: 30 slices of 512 x 512, 5 mm apart, 0.7 mm in plane (D09); beside one of 20 and 3 mm."""
    thick = facts(np.zeros((51, 30, 52), np.int16), affine=np.diag([0.7, 5.0, 0.7, 1.0]))
    thin = facts(np.ones((40, 20, 41), np.int16), affine=np.diag([0.9, 3.0, 0.9, 1.0]))
    assert thick.size == (30, 52, 51)
    found = summary([thick, thin])
    assert found["spacing_mm"] == {"across": [3, 4, 5], "down": [0.7, 0.8, 0.9], "along": [0.7, 0.8, 0.9]}
    assert found["size"]["slices"] == [20, 25, 30]
    assert found["intensity"]["median"] == [0, 0.5, 1]
    assert found["types"] == {"int16": 2}
    assert summary([]) == {}


def test_equal_pixels_have_one_digest() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    assert facts(array).digest == facts(array.copy()).digest
    assert facts(array).digest != facts(array.reshape(6, 4, 1)).digest
    assert facts(array).digest != facts(array + np.uint8(1)).digest


def test_upright_pictures_have_no_note() -> None:
    assert notes([abdomen()] * 6, ORGANS, "") == []


@pytest.mark.parametrize(("axis", "word"), [(0, "upside down"), (1, "mirrored")])
def test_pictures_that_all_lie_the_wrong_way_are_told(axis: int, word: str) -> None:
    (note,) = notes([abdomen((axis,))] * 6, ORGANS, "")
    assert note.startswith(f"6 of 6 images seem to be {word}")


def test_nothing_is_said_of_few_or_mixed_pictures_or_of_other_classes() -> None:
    turned, upright = abdomen((0,)), abdomen()
    assert notes([turned] * 4, ORGANS, "") == []
    assert notes([turned] * 5 + [upright], ORGANS, "") == []  # 83 %
    land = LabelSet(("water", "forest", "meadow", "roads", "fields"), (0, 1, 2, 3, 4))
    assert notes([turned] * 6, land, "") == []


def test_8_bit_ct_and_slices_scaled_one_by_one() -> None:
    def picture(low: int, high: int) -> FileFacts:
        return facts(np.array([[low, 90, high]], np.uint8)[..., None])

    one_range = [picture(0, 254)] * 5
    assert [n.split(":")[0] for n in notes(one_range, ORGANS, "CT")] == [
        "5 CT slices are 8-bit pictures",
        "each of these 5 pictures has the same minimum 0 and maximum 254",
    ]
    assert len(notes([*one_range, picture(3, 254)], ORGANS, "CT")) == 1
    assert notes(one_range, ORGANS, "infrared") == []


def test_more_than_three_bands_are_told() -> None:
    (note,) = notes([facts(np.zeros((2, 2, 1, 5), np.uint16))], ORGANS, "satellite")
    assert note.startswith("images have 5 bands: bands 1, 2 and 3 are looked at")
