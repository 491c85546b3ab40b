"""Augmentation: left stays left, ids are never invented, what comes from outside is ignored (case D23)."""

from __future__ import annotations

import pytest
import torch

from sampeft.data.augment import Augmentation, augment
from sampeft.errors import UsageError
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
    config = Augmentation(shift=0.25, scale=0, rotation_deg=0, contrast=0, brightness=0, gamma=0, noise=0, unchanged=0)
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


def drawn(config: Augmentation, labels: LabelSet) -> tuple[float, float]:
    """The sum of augmented images, and what the generator gives next."""
    generator = torch.Generator().manual_seed(11)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    truth = torch.zeros(2, 32, 32, dtype=torch.long)
    found, _ = augment(images, truth, labels, config, generator)
    return float(found.double().sum()), float(torch.rand(1, generator=generator))


def test_without_kinds_of_noise_nothing_more_is_drawn(labels: LabelSet) -> None:
    """The sum is that of the code before there were kinds of noise."""
    assert drawn(Augmentation(unchanged=0.0), labels)[0] == pytest.approx(2902.369092, rel=1e-6)
    still_none = Augmentation(noise_probability=1.0, noise_strength=(0.1, 0.2))
    assert drawn(still_none, labels) == drawn(Augmentation(), labels)


def test_kinds_of_noise_come_last_and_leave_the_labels_and_all_other_draws_alone(
    discs: tuple[torch.Tensor, torch.Tensor], labels: LabelSet
) -> None:
    plain, truth = run(Augmentation(), *discs, labels, 4)
    never = Augmentation(noises=("gaussian",), noise_probability=0.0)
    assert torch.equal(run(never, *discs, labels, 4)[0], plain)
    always = Augmentation(noises=("gaussian",), noise_probability=1.0, noise_strength=(0.05, 0.05))
    spoilt, same_truth = run(always, *discs, labels, 4)
    assert torch.equal(same_truth, truth)
    inside = (plain > 0.3) & (plain < 0.7)  # far from where it is clipped
    assert float((spoilt - plain)[inside].std()) == pytest.approx(0.05, rel=0.15)
    assert torch.equal(spoilt[:, 0], spoilt[:, 1])  # a grey slice stays grey


def test_some_of_the_slices_get_noise_of_one_of_the_kinds(labels: LabelSet) -> None:
    images, truth = torch.full((400, 3, 8, 8), 0.5), torch.zeros(400, 8, 8, dtype=torch.long)
    still = {"shift": 0, "scale": 0, "rotation_deg": 0, "contrast": 0, "brightness": 0, "gamma": 0, "noise": 0}
    config = Augmentation(**still, noises=("gaussian", "stripes"), noise_probability=0.5, noise_strength=(0.1, 0.2))
    added = run(config, images, truth, labels)[0][:, 0] - 0.5
    touched = added.abs().amax((1, 2)) > 1e-3
    assert 160 <= int(touched.sum()) <= 240
    in_columns = (added - added[:, :1]).abs().amax((1, 2)) < 1e-6
    assert 0.4 < float((in_columns & touched).sum() / touched.sum()) < 0.6


def test_a_quarter_of_the_slices_stays_as_it_is_and_the_others_are_as_without(labels: LabelSet) -> None:
    """Image and labels together, to the bit, and half and half where a half is asked."""
    images = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    truth = torch.randint(4, (400, 8, 8), generator=torch.Generator().manual_seed(2))
    always, moved = run(Augmentation(unchanged=0.0, mirror=0.5), images, truth, labels)
    for share, least, most in ((0.25, 74, 126), (0.5, 170, 230), (1.0, 400, 400)):  # 3 standard deviations
        found, channels = run(Augmentation(unchanged=share, mirror=0.5), images, truth, labels)
        still = (found == images).flatten(1).all(1)
        assert least <= int(still.sum()) <= most
        assert torch.equal(channels[still], truth[still])
        assert torch.equal(found[~still], always[~still])
        assert torch.equal(channels[~still], moved[~still])


def test_what_is_no_probability_is_told() -> None:
    for name in ("mirror", "unchanged"):
        with pytest.raises(UsageError, match=rf"{name} is 1\.2; give 0 to 1"):
            Augmentation(**{name: 1.2})


def test_wrong_settings_of_noise_are_told() -> None:
    with pytest.raises(UsageError, match="unknown noise 'rice'"):
        Augmentation(noises=("rice",))
    with pytest.raises(UsageError, match=r"noise_probability is 1\.5"):
        Augmentation(noise_probability=1.5)
    with pytest.raises(UsageError, match=r"low to high, got 0\.2 to 0\.1"):
        Augmentation(noise_strength=(0.2, 0.1))


def test_grey_images_changed_once_are_what_three_equal_channels_give(labels: LabelSet) -> None:
    """To the bit, and nothing else is drawn; noise of its kind may still differ between channels."""
    grey = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    truth = torch.zeros(3, 32, 32, dtype=torch.long)
    for config in (Augmentation(), Augmentation(noises=("gaussian", "speckle"), noise_probability=1.0)):
        once, _ = run(config, grey.expand(-1, 3, -1, -1), truth, labels, seed=3)
        thrice, _ = run(config, grey.repeat(1, 3, 1, 1), truth, labels, seed=3)
        assert torch.equal(once, thrice)
