"""Components and holes: maps worked by hand, and scipy class by class as the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, label

from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.refine import UNMEASURED, refiner

LAND = LabelSet(("water", "forest", "field"), (1, 2, 3))
ONES = (1.0, 1.0, 1.0)


def drawn(text: str) -> np.ndarray:
    """(1, H, W) map of one digit per pixel, `.` for 0."""
    return np.array([[[int(c) for c in row.replace(".", "0")] for row in text.split()]], dtype=np.uint8)


ROUGH = drawn("""
    1111111..
    1.....1.2
    1.222.1.2
    1.2.2.1..
    1.222.111
    1.....1.1
    1111111.1
    ......111
    33.1.....
""")


def test_holes_are_filled_within_one_class_only(labels: LabelSet) -> None:
    """The hole of 2 becomes 2. The ring between 1 and 2 touches both and stays. The hole at the right becomes 1. A gap
    that only corners close is a hole; one at the edge is none."""
    expected = ROUGH.copy()
    expected[0, 3, 3] = 2
    expected[0, [5, 6], [7, 7]] = 1
    np.testing.assert_array_equal(refiner("components").refine_volume(ROUGH, ONES, labels), expected)
    corners = drawn(".1. 1.1 .1.")
    assert refiner("components").refine_volume(corners, ONES, labels)[0, 1, 1] == 1
    np.testing.assert_array_equal(refiner("components", fill_holes=False).refine_volume(ROUGH, ONES, labels), ROUGH)


def test_largest_and_least_size_in_a_picture(labels: LabelSet) -> None:
    largest = refiner("components", keep="largest", fill_holes=False).refine_volume(ROUGH, ONES, labels)
    expected = ROUGH.copy()
    expected[0, 1:3, 8] = expected[0, 8, 3] = 0
    np.testing.assert_array_equal(largest, expected)
    # 2 pixels of 0.5 x 3 mm2 are 3 mm2 each; the slice's thickness does not count.
    for least, gone in ((1.5, 0), (1.6, 1), (3.0, 1), (3.1, 5)):
        sized = refiner("components", least_size=least, fill_holes=False).refine_volume(ROUGH, (7.0, 0.5, 3.0), labels)
        assert (sized != ROUGH).sum() == gone
        assert (sized[sized != ROUGH] == 0).all()


def test_a_speck_in_a_hole_goes_before_the_hole_is_filled(labels: LabelSet) -> None:
    rough = drawn("11111 1...1 1.3.1 1...1 11111")
    result = refiner("components", least_size=2).refine_volume(rough, ONES, labels)
    np.testing.assert_array_equal(result, np.ones_like(rough))


def test_a_volume_hangs_together_by_corners_and_counts_mm3(labels: LabelSet) -> None:
    rough = np.zeros((4, 5, 5), dtype=np.uint8)
    rough[0, 0, 0] = rough[1, 1, 1] = rough[2, 2, 2] = 1  # one component of three voxels along the diagonal
    rough[3, 4, 0:2] = 1
    kept = refiner("components", keep="largest").refine_volume(rough, (2.0, 1.0, 1.0), labels)
    assert kept[(0, 1, 2), (0, 1, 2), (0, 1, 2)].tolist() == [1, 1, 1]
    assert kept.sum() == 3
    assert refiner("components", least_size=6.0).refine_volume(rough, (2.0, 1.0, 1.0), labels).sum() == 3
    assert refiner("components", least_size=6.1).refine_volume(rough, (2.0, 1.0, 1.0), labels).sum() == 0


def test_a_hole_of_a_volume_must_be_closed_on_all_sides(labels: LabelSet) -> None:
    shell = np.zeros((5, 5, 5), dtype=np.uint8)
    shell[1:4, 1:4, 1:4] = 2
    shell[2, 2, 2] = 0
    assert refiner("components").refine_volume(shell, ONES, labels)[2, 2, 2] == 2
    shell[1, 2, 2] = 0  # a hole in each slice, but a tunnel to the outside in space
    np.testing.assert_array_equal(refiner("components").refine_volume(shell, ONES, labels), shell)


@pytest.mark.parametrize("shape", [(1, 40, 41), (9, 20, 21)])
def test_agrees_with_scipy_class_by_class(shape: tuple[int, ...], labels: LabelSet) -> None:
    generator = np.random.default_rng(1)
    rough = np.kron(generator.integers(0, 4, shape), np.ones((1, 2, 2))).astype(np.uint8)
    rough[generator.random(rough.shape) < 0.1] = 0
    flat = rough[0] if shape[0] == 1 else rough
    touching = np.ones((3,) * flat.ndim)
    expected = flat.copy()
    for channel in (1, 2, 3):
        numbers, count = label(flat == channel, structure=touching)
        sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        for number in np.flatnonzero(sizes < 8) + 1:
            expected[numbers == number] = 0
    result = refiner("components", least_size=8, fill_holes=False).refine_volume(rough, ONES, labels)
    np.testing.assert_array_equal(result.reshape(flat.shape), expected)

    one = (rough != 0).astype(np.uint8)  # with a single class every enclosed pixel is a hole of it
    filled = refiner("components").refine_volume(one, ONES, labels).reshape(flat.shape)
    enclosed = binary_fill_holes(one.reshape(flat.shape))
    np.testing.assert_array_equal(filled == 1, enclosed)
    assert enclosed.sum() > one.sum()


def test_without_background_the_nearest_kept_pixel_gives_the_class() -> None:
    rough = drawn("....11 .2..11 ....11 ....11")
    result = refiner("components", least_size=2).refine_volume(rough, ONES, LAND)
    np.testing.assert_array_equal(result, drawn("....11 ....11 ....11 ....11"))
    cross = drawn("00000 11211 00000")
    for spacing, expected in (((1.0, 5.0, 1.0), 1), ((1.0, 1.0, 5.0), 0)):
        assert refiner("components", least_size=10).refine_volume(cross, spacing, LAND)[0, 1, 2] == expected
    everything = drawn("01 12")
    np.testing.assert_array_equal(refiner("components", least_size=9).refine_volume(everything, ONES, LAND), everything)


def test_where_nothing_was_measured_the_array_ends(labels: LabelSet) -> None:
    """9 stands for no measurement: no component, never removed, fills nothing, closes no hole and gives no class."""

    def seen(text: str) -> np.ndarray:
        found = drawn(text)
        return np.where(found == 9, np.uint8(UNMEASURED), found)

    def refined(rough: np.ndarray, known: LabelSet, **options: Any) -> np.ndarray:
        # What lies below the unmeasured pixels is kept, whatever it is.
        below = np.where(rough == UNMEASURED, np.uint8(2), rough)
        return refiner("components", **options).refine_measured(below, rough == UNMEASURED, ONES, known)

    rough = seen("11199 1.199 11199 .1.99 9.999 99.99")
    expected = np.where(rough == UNMEASURED, 2, drawn("11199 11199 11199 .1.99 9.999 99.99"))
    np.testing.assert_array_equal(refined(rough, labels), expected)
    rough = seen("9919 9929 1999")
    np.testing.assert_array_equal(
        refined(rough, LAND, least_size=2), np.where(rough == UNMEASURED, 2, rough)
    )  # nothing is kept that could give a class
    rough = seen("11929 11999")
    np.testing.assert_array_equal(
        refined(rough, LAND, least_size=2), np.where(rough == UNMEASURED, 2, drawn("11919 11999"))
    )
    found = refiner("components", keep="largest")
    np.testing.assert_array_equal(
        found.refine_measured(ROUGH, None, ONES, labels), found.refine_volume(ROUGH, ONES, labels)
    )


def test_idempotent(labels: LabelSet) -> None:
    found = refiner("components", keep="largest", least_size=3)
    once = found.refine_volume(ROUGH, ONES, labels)
    np.testing.assert_array_equal(found.refine_volume(once, ONES, labels), once)


def test_a_class_may_have_its_own_least_size(labels: LabelSet) -> None:
    """Classes 1 and 3 have a component of four pixels and one of one pixel each."""
    rough = drawn("11..33 11..33 ...... 1....3")
    own = refiner("components", least_size=2.0, least_sizes={labels.names[3]: 5.0})
    expected = drawn("11.... 11.... ...... ......")
    np.testing.assert_array_equal(own.refine_volume(rough, ONES, labels), expected)
    looser = refiner("components", least_size=5.0, least_sizes={labels.names[3]: 0.0})
    expected = drawn("....33 ....33 ...... .....3")
    np.testing.assert_array_equal(looser.refine_volume(rough, ONES, labels), expected)
    with pytest.raises(UsageError, match="unknown class in least_sizes 'livr'; did you mean 'liver'"):
        refiner("components", least_sizes={"livr": 5.0}).refine_volume(rough, ONES, labels)
    with pytest.raises(UsageError, match="least_sizes of liver must be a number"):
        refiner("components", least_sizes={"liver": "big"})
