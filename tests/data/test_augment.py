"""Augmentation: left stays left, ids are never invented, what comes from outside is ignored (case D23)."""

from __future__ import annotations

import pytest
import torch

from sampeft.data.augment import Augmentation, augment
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE

STILL = Augmentation(shift=0, scale=0, rotation_deg=0, contrast=0, brightness=0, gamma=0, noise=0)
LIVER, RIGHT, LEFT = 1, 2, 3


@pytest.fixture
def discs() -> tuple[torch.Tensor, torch.Tensor]:
    """Two discs of unequal size, the right kidney at the left of the picture, and a liver above."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    truth = torch.zeros(1, 64, 64, dtype=torch.long)
    truth[0][(x - 16) ** 2 + (y - 40) ** 2 < 36] = RIGHT
    truth[0][(x - 48) ** 2 + (y - 40) ** 2 < 64] = LEFT
    truth[0, 5:15, 8:28] = LIVER
    return truth[:, None].float().repeat(1, 3, 1, 1) / 3, truth


def run(
    config: Augmentation, images: torch.Tensor, truth: torch.Tensor, labels: LabelSet, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    return augment(images, truth, labels, config, torch.Generator().manual_seed(seed))


def test_nothing_asked_changes_nothing(discs: tuple[torch.Tensor, torch.Tensor], labels: LabelSet) -> None:
    images, truth = run(STILL, *discs, labels)
    assert torch.allclose(images, discs[0], atol=1e-5)
    assert torch.equal(truth, discs[1])


def test_default_never_mirrors(discs: tuple[torch.Tensor, torch.Tensor], labels: LabelSet) -> None:
    for seed in range(50):
        _, truth = run(Augmentation(), *discs, labels, seed)
        columns = [float((truth[0] == k).nonzero()[:, 1].float().mean()) for k in (RIGHT, LEFT)]
        assert columns[0] < columns[1]


def test_a_mirror_swaps_the_ids_of_pairs_and_only_those(
    discs: tuple[torch.Tensor, torch.Tensor], labels: LabelSet
) -> None:
    images, truth = run(Augmentation(0, 0, 0, 0, 0, 0, 0, mirror=1.0), *discs, labels)
    assert torch.allclose(images, discs[0].flip(-1), atol=1e-5)
    flipped = discs[1].flip(-1)
    assert torch.equal(truth == LIVER, flipped == LIVER)
    assert torch.equal(
        truth == LEFT, flipped == RIGHT
    )  # the small disc, now at the right of the picture, is the left one
    assert int((truth == LEFT).sum()) == int((discs[1] == RIGHT).sum())
    assert int((truth == RIGHT).sum()) == int((discs[1] == LEFT).sum())


def test_labels_move_with_the_image_and_no_id_is_invented(
    discs: tuple[torch.Tensor, torch.Tensor], labels: LabelSet
) -> None:
    config = Augmentation(contrast=0, brightness=0, gamma=0, noise=0)
    for seed in range(20):
        images, truth = run(config, *discs, labels, seed)
        assert set(truth.unique().tolist()) <= {IGNORE, 0, RIGHT, LEFT, LIVER}
        shown = (images[0, 0] * 3 - LEFT).abs() < 0.02
        inside = truth[0] == LEFT
        assert (shown & inside).sum() / inside.sum() > 0.8  # all but the blended rim


def test_what_comes_from_outside_is_ignored(labels: LabelSet) -> None:
    images, truth = torch.ones(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long)
    config = Augmentation(shift=0.25, scale=0, rotation_deg=0, contrast=0, brightness=0, gamma=0, noise=0)
    moved, after = run(config, images, truth, labels, seed=3)
    assert bool((after == IGNORE).any())
    assert float(moved[0, 0][after[0] == IGNORE].max()) < 0.6  # the fill, but for a blended rim


def test_same_seed_same_result_and_rotation_is_bounded(
    discs: tuple[torch.Tensor, torch.Tensor], labels: LabelSet
) -> None:
    assert torch.equal(run(Augmentation(), *discs, labels, 5)[0], run(Augmentation(), *discs, labels, 5)[0])
    assert not torch.equal(run(Augmentation(), *discs, labels, 5)[0], run(Augmentation(), *discs, labels, 6)[0])
    for seed in range(30):
        _, truth = run(Augmentation(shift=0, scale=0), *discs, labels, seed)
        right, left = ((truth[0] == k).nonzero().float().mean(dim=0) for k in (RIGHT, LEFT))
        assert abs(torch.rad2deg(torch.atan2(left[0] - right[0], left[1] - right[1]))) < 16
