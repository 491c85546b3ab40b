"""The box oracle: boxes of the truth in the right place, masks put back in theirs, overlaps to the surest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sampeft.backbones import RANDOM, load_backbone
from sampeft.data.cache import Preparation, PreparedVolume
from sampeft.data.intensity import Intensity
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.oracle import box_oracle, boxes_of
from sampeft.volume import Volume

LABELS = LabelSet(("background", "a", "b", "c"), (0, 1, 2, 3))


def test_boxes_hold_the_first_and_the_last_pixel() -> None:
    truth = np.zeros((10, 12), dtype=int)
    truth[2:5, 3:9] = 1
    truth[7, 7] = 3
    assert boxes_of(truth, (1, 2, 3)) == {1: (3, 2, 8, 4), 3: (7, 7, 7, 7)}


class FillsBoxes(torch.nn.Module):
    """A "promptable model" that fills each box, surer in the second one; it notes that adapters were off."""

    labels = LABELS

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.off = False

    @contextmanager
    def original(self) -> Iterator[None]:
        self.off = True
        yield
        self.off = False

    def segment_prompted(self, image_B3HW: torch.Tensor, boxes_BN4: torch.Tensor) -> torch.Tensor:
        assert self.off
        side = image_B3HW.shape[-1]
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        masks = [
            torch.where((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1), 5.0 + i, -5.0)
            for i, (x0, y0, x1, y1) in enumerate(boxes_BN4[0])
        ]
        return torch.stack(masks)[None]


@pytest.mark.parametrize("size", [(40, 40), (30, 40)])
def test_masks_of_boxes_come_back_where_the_truth_is(size: tuple[int, int]) -> None:
    truth = np.zeros((1, *size), dtype=np.int16)
    truth[0, 5:15, 4:20] = 1
    truth[0, 20:26, 22:34] = 3
    truth[0, 10:12, 18:22] = 3  # one box round both parts overlaps class 1's box: the surer class 3 wins there
    prepared = PreparedVolume.of(
        Volume(np.zeros((*size, 1)), None, Path("x")), Preparation(Intensity("window", 0, 1), 80)
    )
    model: Any = FillsBoxes()
    ((index, found),) = box_oracle(model)(prepared, truth)
    assert index == 0
    expected = np.zeros(size, dtype=int)
    expected[5:15, 4:20] = 1
    expected[10:26, 18:34] = 3
    assert (found == expected).mean() > 0.99
    assert 2 not in found  # a class that the truth does not hold is never predicted


def test_an_empty_slice_is_background_without_a_prompt() -> None:
    prepared = PreparedVolume.of(
        Volume(np.zeros((8, 8, 1)), None, Path("x")), Preparation(Intensity("window", 0, 1), 16)
    )
    model: Any = FillsBoxes()
    ((_, found),) = box_oracle(model)(prepared, np.zeros((1, 8, 8), dtype=np.int16))
    assert not found.any()


@pytest.mark.real_weights
@pytest.mark.real_data
def test_the_real_model_finds_a_real_liver_and_kidney(real_weights: Path, real_data: Path) -> None:
    from sampeft.data import open_dataset
    from sampeft.data.check import read_labels
    from sampeft.data.intensity import PRESETS
    from sampeft.io import read_volume

    dataset = open_dataset(real_data / "btcv_slices")
    file = next(f for case in dataset.cases for f in case.files if f.id == "ABD_003_139")
    prepared = PreparedVolume.of(read_volume(file.image), Preparation(PRESETS["ct-8bit"], 256))
    truth = prepared.view.slices(read_labels(file, dataset, prepared.volume).array)
    model = SemanticSam(load_backbone("lite-medsam"), dataset.labels)
    ((_, found),) = box_oracle(model)(prepared, truth)
    for name in ("liver", "kidney_right"):
        k = dataset.labels.names.index(name)
        overlap = ((found == k) & (truth[0] == k)).sum()
        assert 2 * overlap / ((found == k).sum() + (truth[0] == k).sum()) > 0.8
    assert model.digest != RANDOM
