"""The grid: upright slices of any axis order and back, and the square frame and back (cases D08, D09, D18, D19)."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sampeft.data.slices import Frame, SliceView
from sampeft.errors import UsageError
from sampeft.volume import IGNORE, Volume

ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def oriented(
    world_RAS: npt.NDArray[np.int64], order: tuple[int, ...], signs: tuple[int, ...], mm: tuple[float, ...]
) -> Volume:
    """The same object stored with array axis a along world axis order[a], in direction signs[a]."""
    array = np.transpose(world_RAS, order)[tuple(slice(None, None, s) for s in signs)]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * mm[world]
        if sign < 0:
            affine[world, 3] = mm[world] * (array.shape[axis] - 1)
    return Volume(array, affine, Path("x.nii"))


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_all_48_axis_orders_show_the_same_upright_slices_and_come_back(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    world = np.arange(5 * 6 * 4).reshape(5, 6, 4)  # x to the right, y to anterior, z to superior
    volume = oriented(world, order, signs, (0.7, 0.8, 5.0))
    view = SliceView.of(volume)
    slices = view.slices(volume.array)
    assert view.spacing_mm == pytest.approx((5.0, 0.8, 0.7))
    # Slice 0 is the lowest; its first row is the most anterior, its first column the patient's right.
    assert np.array_equal(slices, world[::-1, ::-1, :].transpose(2, 1, 0))
    assert np.array_equal(view.restore(slices), volume.array)


def test_slices_run_across_the_largest_spacing_and_can_be_chosen() -> None:
    coronal = Volume(np.zeros((512, 30, 512)), np.diag([0.7, 5.0, 0.7, 1.0]), Path("x.nii"))
    assert SliceView.of(coronal).slices(coronal.array).shape == (30, 512, 512)
    assert SliceView.of(coronal).spacing_mm == pytest.approx((5.0, 0.7, 0.7))
    assert SliceView.of(coronal, "axial").slices(coronal.array).shape == (512, 30, 512)
    isotropic = Volume(np.zeros((8, 9, 10)), np.diag([1.0, 1.001, 1.0, 1.0]), Path("x.nii"))
    assert SliceView.of(isotropic).slices(isotropic.array).shape == (10, 9, 8)  # a tie is axial
    with pytest.raises(UsageError, match="unknown slice plane 'axal'"):
        SliceView.of(isotropic, "axal")


def test_a_raster_image_is_one_slice_as_stored() -> None:
    array = np.arange(2 * 3 * 3).reshape(2, 3, 1, 3)
    view = SliceView.of(Volume(array, None, Path("x.png")))
    assert np.array_equal(view.slices(array), array[None, :, :, 0])
    assert np.array_equal(view.restore(view.slices(array)[..., 0]), array[..., 0])


@pytest.mark.parametrize("size", [(480, 640), (1280, 720), (7, 5), (64, 64)])
def test_a_square_comes_back_in_place_from_any_shape(size: tuple[int, int]) -> None:
    height, width = size
    frame = Frame.whole(size, 1024)
    truth = np.zeros(size, dtype=bool)
    side = max(2, min(10, height // 3))
    top, left = height // 3, width // 2
    truth[top : top + side, left : left + side] = True
    square = frame.image(torch.from_numpy(truth[None].astype(np.float32)))
    logits = torch.stack([torch.full_like(square[0], 0.5), square[0]])  # the "model" returns the intensity
    found = frame.class_map(logits) == 1
    assert found.shape == size
    assert (found & truth).sum() / (found | truth).sum() >= 0.95
    centre = [np.mean(np.nonzero(mask), axis=1) for mask in (found, truth)]
    assert np.abs(centre[0] - centre[1]).max() < 1


def test_padding_is_below_and_right_and_never_a_truth() -> None:
    frame = Frame.whole((480, 640), 1024)
    assert frame.inner_size == (768, 1024)  # 256 rows of padding: 192 of 256 low-resolution rows are valid
    channels = frame.channels(torch.ones(480, 640, dtype=torch.int16))
    assert bool((channels[:768] == 1).all())
    assert bool((channels[768:] == IGNORE).all())
    assert float(frame.image(torch.ones(3, 480, 640))[:, 769:].abs().max()) == 0


def test_low_resolution_logits_land_where_full_resolution_ones_do() -> None:
    frame = Frame.whole((480, 640), 256)
    full = torch.zeros(2, 256, 256)
    full[1, 60:120, 100:180] = 8.0
    full[0] = 4.0
    low = torch.nn.functional.avg_pool2d(full[None], 4)[0]
    a, b = frame.class_map(full), frame.class_map(low)
    assert (a == 1).sum() > 1000
    assert ((a == 1) & (b == 1)).sum() / ((a == 1) | (b == 1)).sum() > 0.95


def test_outside_the_box_is_background_and_labels_keep_their_ids() -> None:
    frame = Frame((100, 120), (20, 30, 80, 90), 64)
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 2, 5], size=(100, 120)).astype(np.int16)
    assert set(np.unique(frame.channels(torch.from_numpy(truth)))) == {0, 2, 5}  # nearest pixel: no id is invented
    logits = torch.zeros(3, 64, 64)
    logits[2] = 1.0
    found = frame.class_map(logits)
    assert (found[20:80, 30:90] == 2).all()
    found[20:80, 30:90] = 0
    assert not found.any()


def test_prompt_points_land_on_the_pixel_that_shows_them() -> None:
    frame = Frame((100, 120), (10, 20, 90, 100), 160)  # every pixel of the box becomes 2 x 2
    x, y = frame.points(np.array([[25, 40]]))[0]
    assert (x, y) == pytest.approx((10.5, 60.5))
    picture = torch.zeros(1, 100, 120)
    picture[0, 40, 25] = 1.0
    row, column = divmod(int(frame.image(picture)[0].argmax()), 160)
    assert abs(row - y) <= 1
    assert abs(column - x) <= 1
