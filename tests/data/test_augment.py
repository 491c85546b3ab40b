"""Augmentation: left stays left, ids are never invented, what comes from outside is ignored (case D23)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sampeft.data.augment import SYMMETRIES, Augmentation, Symmetry, augment, pasted, symmetries_of
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


# --- bending, softening, tones of the negative ------------------------------------------------------------------------

ALONE = replace(STILL, unchanged=0.0)


def textured(side: int = 64, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth grey pictures whose truth tells the tenth of the range."""
    coarse = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    images = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0.05, 0.95)
    return images.repeat(1, 3, 1, 1), (images[:, 0] * 4).long()


def test_settings_that_are_off_draw_nothing(labels: LabelSet) -> None:
    """Image, labels and what the generator gives next are those of the plain settings, to the bit."""
    off: dict[str, Any] = {"elastic": 0.0, "inverted_gamma": 0.0, "blur": 0.0, "low_resolution": 1.0, "copy_paste": 0.0}
    for seed in range(3):
        generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
        plain, written = (
            augment(*textured(count=3), labels, config, generator)
            for config, generator in zip((Augmentation(), Augmentation(**off)), generators, strict=True)
        )
        assert torch.equal(plain[0], written[0])
        assert torch.equal(plain[1], written[1])
        assert len({float(torch.rand((), generator=generator)) for generator in generators}) == 1


def test_elastic_moves_image_and_truth_together_and_no_further_than_it_says(labels: LabelSet) -> None:
    """The image tells the truth's place: columns, then rows, as a ramp."""
    ramp = (torch.arange(64) + 0.5) / 64
    truth = torch.zeros(1, 64, 64, dtype=torch.long)
    for axis in (0, 1):
        shown = ramp.expand(64, 64) if axis else ramp[:, None].expand(64, 64)
        images = shown.expand(1, 3, 64, 64)
        truth[0] = (shown * 4).long()
        moved = 0.0
        for seed in range(5):
            found, channels = run(replace(ALONE, elastic=0.03), images, truth, labels, seed)
            inside = channels[0] != IGNORE
            wanted = found[0, 0] * 4
            far_from_a_step = ((wanted - wanted.round()).abs() > 0.1) & inside
            far_from_a_step[:4], far_from_a_step[-4:], far_from_a_step[:, :4], far_from_a_step[:, -4:] = (False,) * 4
            assert float(far_from_a_step.float().mean()) > 0.4
            assert torch.equal(channels[0][far_from_a_step], wanted.floor().long()[far_from_a_step])
            displaced = (found[0, 0] - shown)[8:-8, 8:-8].abs()
            assert float(displaced.max()) < 0.03 * 1.3  # bicubic between points may overshoot by that
            moved = max(moved, float(displaced.max()))
        assert moved > 0.015


def test_elastic_is_smooth(labels: LabelSet) -> None:
    """Neighbours move nearly alike: over the sixteen pixels between two points at most the way there and back."""
    ramp = ((torch.arange(64) + 0.5) / 64).expand(1, 3, 64, 64)
    found, _ = run(replace(ALONE, elastic=0.03), ramp, torch.zeros(1, 64, 64).long(), labels, 1)
    steps = found[0, 0, 8:-8, 8:-8].diff(dim=-1) * 64
    assert float((steps - 1).abs().max()) < 2 * 0.03 * 64 / 16 * 2
    assert float((steps - 1).abs().max()) > 0.01


def test_blur_keeps_the_mean_and_flattens(labels: LabelSet) -> None:
    """Of half of the slices; away from the border a picture keeps its sum exactly, as weights add up to one."""
    images, truth = torch.zeros(40, 3, 32, 32), torch.zeros(40, 32, 32, dtype=torch.long)
    images[:, :, 14:18, 14:18] = 1.0
    found, channels = run(replace(ALONE, blur=60.0), images, truth, labels)  # at most 1.92 pixels: reach 6
    torch.testing.assert_close(found.sum((2, 3)), images.sum((2, 3)), rtol=1e-4, atol=0)
    blurred = (found - images).abs().amax((1, 2, 3)) > 1e-3
    assert 8 <= int(blurred.sum()) <= 32
    assert torch.equal(channels, truth)
    assert (found[blurred, 0, 14, 14] < 1).all()
    flat, _ = run(replace(ALONE, blur=60.0), torch.full_like(images, 0.4), truth, labels)
    torch.testing.assert_close(flat, torch.full_like(images, 0.4), rtol=0, atol=1e-5)  # the border is continued


def test_low_resolution_takes_detail_alone(labels: LabelSet) -> None:
    """A flat picture and a ramp stay, a chequerboard of pixels does not; of half of the slices."""
    truth = torch.zeros(40, 32, 32, dtype=torch.long)
    config = replace(ALONE, low_resolution=3.0)
    flat = torch.full((40, 3, 32, 32), 0.7)
    torch.testing.assert_close(run(config, flat, truth, labels)[0], flat, rtol=0, atol=1e-5)
    ramp = torch.linspace(0, 1, 32).expand(40, 3, 32, 32)
    sloped = run(config, ramp, truth, labels)[0]
    torch.testing.assert_close(sloped[..., 4:-4], ramp[..., 4:-4], rtol=0, atol=5e-3)
    board = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).float().expand(40, 3, 32, 32)
    found = run(config, board, truth, labels)[0]
    spreads = found[:, 0].flatten(1).std(dim=1)
    kept = (found - board).abs().amax((1, 2, 3)) < 1e-4
    assert 8 <= int(kept.sum()) <= 32
    assert float(spreads[~kept].min()) < 0.2 < 0.49 < float(spreads[kept].min())
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.full((40,), 0.5), rtol=0, atol=0.02)


def test_inverted_gamma_acts_on_the_negative(labels: LabelSet) -> None:
    """Augmenting the negative always inverted is the negative of augmenting plainly, and half and half where asked."""
    images, truth = textured(count=40)
    plain = replace(ALONE, gamma=0.8)
    direct, _ = run(plain, images, truth, labels, 2)
    always = replace(plain, inverted_gamma=1.0)
    inverted, _ = run(always, 1 - images, truth, labels, 2)
    torch.testing.assert_close(inverted, 1 - direct, rtol=0, atol=1e-5)
    assert not torch.allclose(run(always, images, truth, labels, 2)[0], direct, atol=1e-2)
    mixed, _ = run(replace(plain, inverted_gamma=0.5), images, truth, labels, 2)
    of_negative, _ = run(always, images, truth, labels, 2)
    is_direct = (mixed - direct).abs().amax((1, 2, 3)) < 1e-6
    is_inverted = (mixed - of_negative).abs().amax((1, 2, 3)) < 1e-6
    assert (is_direct | is_inverted).all()
    assert 10 <= int((is_inverted & ~is_direct).sum()) <= 30


# --- pasted pieces ----------------------------------------------------------------------------------------------------


def test_pasted_pieces_keep_shape_class_and_contrast_to_their_surroundings(labels: LabelSet) -> None:
    """On grey 0.2 they are 0.3 and 0.5 brighter than it; the picture is of grey 0.4 at the left, 0.1 on its unknown side."""
    image, other = torch.full((1, 1, 64, 64), 0.4), torch.full((1, 1, 64, 64), 0.2)
    truth, others = torch.zeros(1, 64, 64).long(), torch.zeros(1, 64, 64).long()
    truth[0, :, 40:], image[..., 44:] = IGNORE, 0.1
    others[0, 10:14, 10:12], others[0, 40, 40:43] = LIVER, LEFT
    other[0, 0, 10:14, 10:12], other[0, 0, 40, 40:43] = 0.5, 0.7
    image, other = image.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1)
    pieces = {LIVER: (8, (4, 2), 0.7), LEFT: (3, (1, 3), 0.9)}
    for seed in range(20):
        shown = [LIVER, LEFT][: 1 + seed % 2] if seed % 4 else [LEFT]
        seen = torch.where(torch.isin(others, torch.tensor(shown)), others, 0)
        found, channels = pasted(image, truth, other, seen, labels, torch.Generator().manual_seed(seed))
        assert channels[channels > 0].unique().tolist() == sorted(shown)
        for label in shown:
            count, shape, value = pieces[label]
            rows, columns = (channels[0] == label).nonzero(as_tuple=True)
            assert len(rows) == count
            assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == shape
            assert int(columns.max()) < 40, "on known background alone"
            if len(shown) == 1:  # the other would count as its surroundings
                torch.testing.assert_close(found[0, :, rows, columns], torch.full((3, count), value))
        untouched = channels[0] <= 0
        assert torch.equal(channels[0][untouched], truth[0][untouched])
        assert torch.equal(found[0][:, untouched], image[0][:, untouched])
    assert not (truth > 0).any(), "what was given stays"


def test_where_there_is_no_room_nothing_is_pasted(labels: LabelSet) -> None:
    image, truth = torch.rand(1, 3, 16, 16), torch.full((1, 16, 16), LIVER)
    others = torch.zeros(1, 16, 16).long()
    others[0, 3, 3] = LEFT
    found, channels = pasted(image, truth, torch.rand(1, 3, 16, 16), others, labels, torch.Generator().manual_seed(0))
    assert torch.equal(found, image)
    assert torch.equal(channels, truth)


def test_a_piece_without_surroundings_leaves_no_hole(labels: LabelSet) -> None:
    image, truth, others = torch.rand(1, 3, 16, 16), torch.zeros(1, 16, 16).long(), torch.full((1, 16, 16), LIVER)
    found, _ = pasted(image, truth, torch.rand(1, 3, 16, 16), others, labels, torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(found).all())


# --- symmetries -------------------------------------------------------------------------------------------------------

F_LIKE = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]])
"""A letter that is its own image under none of the eight."""


def test_a_symmetry_is_undone_by_its_own_way_back_and_all_eight_differ() -> None:
    values = torch.arange(2 * 3 * 5 * 5).reshape(2, 3, 5, 5)
    seen = set()
    for symmetry in SYMMETRIES:
        assert torch.equal(symmetry.back(symmetry.on(values)), values)
        assert torch.equal(symmetry.on(symmetry.back(values)), values)
        seen.add(tuple(symmetry.on(values[0, 0]).flatten().tolist()))
    assert len(seen) == len(SYMMETRIES) == 8
    assert torch.equal(SYMMETRIES[0].on(values), values)
    assert torch.equal(SYMMETRIES[1].on(values), values.flip(-1))


def test_mirrors_are_exactly_those_that_no_turn_undoes() -> None:
    turned = [F_LIKE.rot90(k) for k in range(4)]
    for symmetry in SYMMETRIES:
        found = symmetry.on(F_LIKE)
        is_turn = any(found.shape == t.shape and torch.equal(found, t) for t in turned)
        assert symmetry.mirrors is not is_turn
    assert sum(symmetry.mirrors for symmetry in SYMMETRIES) == 4


def test_symmetries_are_drawn_as_the_augmentation_moves_pictures(labels: LabelSet) -> None:
    def drawn(**settings: Any) -> set[Symmetry]:
        generator = torch.Generator().manual_seed(0)
        return {Symmetry.drawn(Augmentation(**settings), generator) for _ in range(200)}

    assert drawn() == drawn(rotation_deg=180.0) == {Symmetry()}
    assert drawn(mirror=0.5) == {Symmetry(), Symmetry(sideways=True)}
    assert drawn(mirror=0.5, rotation_deg=180.0) == set(SYMMETRIES)
    unpaired = LabelSet(("background", "target"), (0, 1))
    for settings in ({}, {"mirror": 0.5}, {"mirror": 0.5, "rotation_deg": 180.0}):
        seen = SYMMETRIES[: symmetries_of(Augmentation(**settings), unpaired)]
        assert set(seen) == drawn(**settings)
        assert symmetries_of(Augmentation(**settings), labels) == 1  # which has left and right
