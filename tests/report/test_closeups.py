"""Targets of a few pixels are shown larger, and a close-up hides nothing that is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampeft.labels import LabelSet
from sampeft.report.closeups import CloseUp, covered
from sampeft.report.figures import Example, figure_examples
from sampeft.volume import IGNORE

pytest.importorskip("matplotlib")

LABELS = LabelSet(("background", "target"), (0, 1))


def scene(*targets: tuple[int, int, int], shape: tuple[int, int] = (100, 100)) -> np.ndarray:
    """Squares of (top, left, side) pixels."""
    channels = np.zeros(shape, np.int16)
    for top, left, side in targets:
        channels[top : top + side, left : left + side] = 1
    return channels


def test_the_target_is_in_the_middle_and_the_close_up_far_from_it() -> None:
    """Rows 20..22, columns 70..72: 24 pixels of side begin at (20 + 23 - 24) // 2 = 9 and (70 + 73 - 24) // 2 = 59."""
    found = CloseUp.of(scene((20, 70, 3)), [], LABELS)
    assert found == CloseUp(9, 59, 24, (1, 0), (100, 100))
    hidden = CloseUp.of(scene((20, 70, 3)), [scene((80, 10, 5))], LABELS)  # a false alarm where the close-up was
    assert hidden is not None
    assert hidden.corner == (1, 1)


def test_only_small_targets_before_a_background_are_shown_larger() -> None:
    assert CloseUp.of(None, [], LABELS) is None
    assert CloseUp.of(scene(), [], LABELS) is None
    assert CloseUp.of(scene((20, 20, 10)), [], LABELS) is not None
    assert CloseUp.of(scene((20, 20, 11)), [], LABELS) is None  # longer than a tenth of the picture
    assert CloseUp.of(scene(*((10 * i, 50, 5) for i in range(9))), [], LABELS) is None  # 225 of 10,000 pixels: > 2 %
    assert CloseUp.of(scene((20, 20, 3)), [], LabelSet(("field", "water"), (0, 1))) is None


def test_far_targets_are_ringed_and_the_largest_is_shown_larger() -> None:
    truth = scene((10, 10, 3), (80, 80, 4))
    found = CloseUp.of(truth, [], LABELS)
    assert found is not None
    assert (found.top, found.left) == (70, 70)
    example = Example("a", "a", np.zeros((100, 100), np.float32), truth, {"LoRA": scene((81, 80, 4), (40, 60, 2))})
    image, shown, predicted = figure_examples([example], LABELS).axes
    rings = [[tuple(line.get_xydata()[0]) for line in axes.lines] for axes in (image, shown, predicted)]
    assert rings == [[], [(11, 11)], [(60.5, 40.5)]]
    for axes in (image, shown, predicted):
        (close,) = axes.child_axes
        assert (close.get_xlim(), close.get_ylim()) == ((69.5, 93.5), (93.5, 69.5))
        assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 99.5), (99.5, -0.5))


def test_real_infrared_targets_are_seen_and_never_hidden(real_data: Path, tmp_path: Path) -> None:
    shown = 0
    for path in sorted((real_data / "sirst/masks").glob("*.png"))[::4]:
        truth = (np.asarray(Image.open(path).convert("L")) > 0).astype(np.int16)
        if (found := CloseUp.of(truth, [np.roll(truth, 1, 0)], LABELS)) is None:
            continue
        shown += 1
        assert truth[found.top : found.top + found.side, found.left : found.left + found.side].any()
        assert not truth[covered(found.corner, truth.shape)].any()
    assert shown > 100


def test_real_slices_tiles_and_frames_by_one_function(real_data: Path, tmp_path: Path) -> None:
    """CT, satellite and infrared: all classes of the slice are named, and only the few pixels are shown larger."""
    kinds = (
        ("btcv_slices", "labels/ABD_001_110.png", "images/ABD_001_110.png", False, False),
        ("gid_mtl5", "labels/builtup_075.png", "images/builtup_075.png", True, False),
        ("sirst", "masks/Misc_55_pixels0.png", "images/Misc_55.png", False, True),
    )
    for folder, label, picture, without_truth, small in kinds:
        labels = LabelSet.read(real_data / folder / "dataset.json")
        with Image.open(real_data / folder / label) as stored:
            ids = np.asarray(stored.convert("L") if small else stored).astype(np.int16)
        truth = np.where(ids == 255, 1 if small else IGNORE, ids)
        with Image.open(real_data / folder / picture) as stored:
            image = np.asarray(stored.convert("RGB"))
        methods = {"shifted": np.roll(np.where(truth == IGNORE, 0, truth), (3, 4), (0, 1))}
        figure = figure_examples([Example(label, label, image, truth, methods)], labels, tmp_path / f"{folder}.png")
        assert len(figure.axes) == 3
        assert [len(axes.child_axes) for axes in figure.axes] == [int(small)] * 3
        named = {text.get_text() for text in figure.legends[0].get_texts()}
        present = {int(k) for k in np.unique(truth)} & set(labels.foreground)
        assert {f"{labels.ids[k]}  {labels.names[k].replace('_', ' ')}" for k in present} <= named
        assert ("no truth" in named) == without_truth
        assert (tmp_path / f"{folder}.png").stat().st_size > 50_000
