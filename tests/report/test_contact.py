"""The contact sheet: which slice tells most, tiny objects are marked, and the labels lie where they are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabricate import write_nifti
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.intensity import PRESETS
from sampeft.data.preprocessing import Preparation
from sampeft.labels import LabelSet
from sampeft.report.contact_sheet import Tile, chosen_cases, contact_sheet, telling_tile
from sampeft.report.figures import encode
from sampeft.volume import IGNORE

LABELS = LabelSet(("background", "red", "blue"), (0, 1, 2), colors=((0, 0, 0), (255, 0, 0), (0, 0, 255)))
PREPARATION = Preparation(PRESETS["percentile"], 64)


def volume(root: Path, id: str, label: np.ndarray, affine: np.ndarray) -> ImageFile:
    image = np.random.default_rng(0).integers(1, 100, label.shape).astype(np.int16)
    return ImageFile(
        id,
        write_nifti(root / f"images/{id}.nii.gz", image, affine),
        write_nifti(root / f"labels/{id}.nii.gz", label, affine),
    )


def test_the_slice_with_most_classes_is_shown_then_the_one_with_most_pixels(tmp_path: Path) -> None:
    """Slices from below: a large red one; red and blue; red and blue with one pixel more. In the second of two files."""
    label = np.zeros((20, 16, 4), np.uint8)
    label[:, :, 0] = 1
    label[2:5, 2, 1:3], label[2, 9, 1:3] = 1, 2
    label[2, 10, 2] = 2
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    empty = volume(tmp_path, "a", np.zeros((20, 16, 4), np.uint8), affine)
    tile = telling_tile(
        Dataset("d", tmp_path, LABELS, ()), Case("c", (empty, volume(tmp_path, "b", label, affine))), PREPARATION
    )
    assert tile.name == "b 3/4"
    assert tile.aspect == 2
    assert tile.channels_HW.shape == (16, 20)  # rows run along y, from anterior; columns along x, from the right
    assert np.argwhere(tile.channels_HW == 2).tolist() == [[5, 17], [6, 17]]


def test_tiny_objects_of_a_rare_class_are_ringed(tmp_path: Path) -> None:
    label = np.zeros((100, 100, 1), np.uint8)
    label[20:22, 30:33, 0], label[80, 10, 0], label[50:90, 50:90, 0] = 1, 1, 2
    file = volume(tmp_path, "a", label, np.diag([-1.0, -1.0, 1.0, 1.0]))  # stored as it is looked at, but transposed
    tile = telling_tile(Dataset("d", tmp_path, LABELS, ()), Case("c", (file,)), PREPARATION)
    assert sorted(tile.rings) == [(1, 20.5, 31.0), (1, 80.0, 10.0)]


def test_cases_are_spread_evenly() -> None:
    cases = [Case(str(n), ()) for n in range(100)]
    assert [case.id for case in chosen_cases(cases, 4)] == ["0", "25", "50", "75"]
    assert chosen_cases(cases[:3], 24) == cases[:3]


def test_labels_lie_over_the_picture_in_their_colours() -> None:
    """One tile, four quarters: red, blue, no truth, background; the fill reddens and blues, the rest stays grey."""
    channels = np.zeros((100, 100), np.int16)
    channels[:50, :50], channels[:50, 50:], channels[50:, :50] = 1, 2, IGNORE
    tile = Tile("a", np.full((100, 100, 3), 0.5), channels, (0, 0, 100, 100))
    figure = contact_sheet([tile] * 5, LABELS, "five")
    picture = np.asarray(Image.open(io.BytesIO(encode(figure))).convert("RGB")).astype(int)
    box = figure.axes[0].get_position()
    height, width = picture.shape[:2]

    def at(x: float, y: float) -> np.ndarray:
        """Colour at a share of the first tile, from its left and its top."""
        column = int((box.x0 + x * box.width) * width)
        return picture[int((1 - box.y1 + y * box.height) * height), column]

    red, green, blue = at(0.4, 0.4)
    assert red > green + 60
    assert red > blue + 60
    assert at(0.9, 0.1)[2] > at(0.9, 0.1)[0] + 60
    assert np.ptp(at(0.75, 0.75)) == 0
    assert len(figure.axes) == 5
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["1  red", "2  blue", "no truth"]


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([], LABELS, "none")
