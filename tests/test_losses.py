"""The paper's eq. 2 and every other loss on numbers worked by hand (case D21)."""

from __future__ import annotations

import math

import pytest
import torch

from sampeft.errors import UsageError
from sampeft.heads.given import Output
from sampeft.losses import (
    LOSSES,
    Loss,
    Objective,
    dice_sums,
    focal,
    presence_loss,
    segmentation_loss,
    soft_dice,
    soft_iou,
    tversky,
)
from sampeft.training.settings import Training
from sampeft.training.step import objective_of
from sampeft.volume import IGNORE


def test_uniform_logits_give_the_hand_worked_loss() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    truth = torch.tensor([[[0, 0, 0, 1]]])
    dice = soft_dice(dice_sums(logits.softmax(1), truth))
    assert dice.tolist() == pytest.approx([2 * 1.5 / (2 + 3), 2 * 0.5 / (2 + 1)], abs=1e-5)
    loss = segmentation_loss(logits, truth)
    assert loss.ce.item() == pytest.approx(math.log(2), abs=1e-6)
    assert loss.dice.item() == pytest.approx(1 - (0.6 + 1 / 3) / 2, abs=1e-5)
    assert loss.total.item() == pytest.approx(0.581277, abs=1e-5)


def test_no_foreground_and_sure_background_is_almost_free_and_has_finite_gradients() -> None:
    logits = torch.zeros(2, 3, 8, 8)
    logits[:, 0] = 20.0
    logits.requires_grad_(True)
    loss = segmentation_loss(logits, torch.zeros(2, 8, 8, dtype=torch.long))
    loss.total.backward()
    assert loss.total.item() < 1e-3
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_ignored_pixels_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 6, 6, generator=generator)
    truth = torch.randint(0, 3, (1, 6, 6), generator=generator)
    padded_logits = torch.cat([logits, torch.randn(1, 3, 6, 4, generator=generator) * 50], dim=-1).requires_grad_(True)
    padded_truth = torch.cat([truth, torch.full((1, 6, 4), IGNORE)], dim=-1)
    loss = segmentation_loss(padded_logits, padded_truth)
    assert loss.total.item() == pytest.approx(segmentation_loss(logits, truth).total.item(), abs=1e-6)
    loss.total.backward()
    assert padded_logits.grad is not None
    assert float(padded_logits.grad[..., 6:].abs().max()) == 0.0


def test_only_ignored_pixels_give_zero_loss_and_finite_gradients() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), IGNORE))
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0.0


def test_sums_are_taken_in_float32() -> None:
    probabilities = torch.ones(1, 2, 512, 512, dtype=torch.bfloat16)
    loss = segmentation_loss(torch.zeros_like(probabilities), torch.zeros(1, 512, 512, dtype=torch.long))
    assert loss.total.dtype == torch.float32
    # p = 1/2 everywhere, truth all background: Dice 2 * n/2 / (n/2 + n) = 2/3 for the one class that is present.
    assert loss.dice.item() == pytest.approx(1 / 3, abs=1e-5)


def test_pooling_over_the_batch_equals_one_large_image() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 5, 5, generator=generator)
    truth = torch.randint(0, 4, (2, 5, 5), generator=generator)
    joined = segmentation_loss(torch.cat(list(logits), dim=-1)[None], torch.cat(list(truth), dim=-1)[None])
    assert segmentation_loss(logits, truth).total.item() == pytest.approx(joined.total.item(), abs=1e-6)


SUMS = torch.tensor([[3.0, 1.0], [5.0, 2.0], [4.0, 4.0]])
"""Of two classes: overlap 3 and 1, found 5 and 2, true 4 and 4."""


def odds(*shares: float) -> torch.Tensor:
    """Logits whose sigmoid is this."""
    return torch.tensor([math.log(share / (1 - share)) for share in shares])


def numbers(loss: Loss) -> list[float]:
    return [float(term) for term in loss]


def test_regions_by_hand() -> None:
    """Class 0 misses 1 and finds 2 false, class 1 misses 3 and finds 1 false."""
    assert soft_dice(SUMS, eps=0.0).tolist() == pytest.approx([6 / 9, 2 / 6])
    assert soft_iou(SUMS, eps=0.0).tolist() == pytest.approx([3 / 6, 1 / 5])
    assert soft_iou(SUMS).tolist() == pytest.approx([4 / 7, 2 / 6])  # one pixel more in both
    assert tversky(SUMS, eps=0.0).tolist() == pytest.approx([3 / (3 + 0.7 + 0.6), 1 / (1 + 2.1 + 0.3)])
    torch.testing.assert_close(tversky(SUMS, missed=0.5, eps=0.0), soft_dice(SUMS, eps=0.0))
    for regions in (soft_dice, soft_iou, tversky):
        assert regions(torch.full((3, 2), 7.0)).tolist() == pytest.approx([1.0, 1.0])  # the map is right


def three_pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """Of two classes: two pixels of class 0 with a probability of 3/4 and 1/2, one of class 1 with 1/4."""
    shares = torch.tensor([0.75, 0.5, 0.75])
    return torch.stack([shares, 1 - shares]).log()[None, :, None], torch.tensor([[[0, 0, 1]]])


def test_focal_by_hand() -> None:
    logits, truth = three_pixels()
    parts = [0.25**2 * -math.log(0.75), 0.5**2 * -math.log(0.5), 0.75**2 * -math.log(0.25)]
    assert float(focal(logits, truth, None)) == pytest.approx(sum(parts), abs=1e-6)
    weighted = 2 * parts[0] + 2 * parts[1] + 5 * parts[2]
    assert float(focal(logits, truth, torch.tensor([2.0, 5.0]))) == pytest.approx(weighted, abs=1e-6)
    assert float(focal(logits, truth, None, gamma=0.0)) == pytest.approx(-math.log(0.75 * 0.5 * 0.25), abs=1e-6)
    ignored = torch.cat([truth, torch.tensor([[[IGNORE]]])], dim=-1)
    more = torch.cat([logits, torch.full((1, 2, 1, 1), 3.0)], dim=-1)
    assert float(focal(more, ignored, torch.tensor([2.0, 5.0]))) == pytest.approx(weighted, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_its_two_terms_at_their_weights(name: str) -> None:
    """Over the three pixels p is 3/4, 1/2, 3/4: class 0 has 2 and overlaps in 5/4, class 1 has 1 and overlaps in 1/4."""
    logits, truth = three_pixels()
    cross = -math.log(0.75 * 0.5 * 0.25) / 3
    pixels = {"ce": cross, "focal": float(focal(logits, truth, None)) / 3}[name.split("+")[0]]
    regions = {
        "dice": (2.5 / 4 + 0.5 / 2) / 2,
        "tversky": (1.25 / (1.25 + 0.7 * 0.75 + 0.3 * 0.75) + 0.25 / (0.25 + 0.7 * 0.75 + 0.3 * 0.75)) / 2,
        "iou": ((1.25 + 1) / (2.75 + 1) + (0.25 + 1) / (1.75 + 1)) / 2,
    }[name.split("+")[1]]
    loss = Objective(name, (0.2, 0.5))(Output(logits), truth)
    assert float(loss.ce) == pytest.approx(pixels, abs=1e-5)
    assert float(loss.dice) == pytest.approx(1 - regions, abs=1e-5)
    assert float(loss.total) == pytest.approx(0.2 * pixels + 0.5 * (1 - regions), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_class_weights_weigh_the_pixels_term_as_a_mean_and_leave_the_regions(name: str) -> None:
    logits, truth = three_pixels()
    plain = segmentation_loss(logits, truth, terms=LOSSES[name])
    equal = segmentation_loss(logits, truth, terms=LOSSES[name], class_weights=(3.0, 3.0))
    assert numbers(equal) == pytest.approx(numbers(plain))
    weighted = segmentation_loss(logits, truth, terms=LOSSES[name], class_weights=(1.0, 4.0))
    assert float(weighted.dice) == float(plain.dice)
    first, second, third = (
        float(LOSSES[name].pixels(logits[..., i : i + 1], truth[..., i : i + 1], None)) for i in range(3)
    )
    assert float(weighted.ce) == pytest.approx((first + second + 4 * third) / 6, abs=1e-6)
    shared = segmentation_loss(
        logits, truth, terms=LOSSES[name], class_weights=(1.0, 4.0), reduce=lambda sums: 2 * sums
    )
    assert float(shared.ce) == pytest.approx(float(weighted.ce), abs=1e-6)  # two processes of equal shares


@pytest.mark.parametrize("name", LOSSES)
def test_a_class_that_weighs_nothing_costs_nothing_and_all_stays_finite(name: str) -> None:
    """Also where no other class is there."""
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = segmentation_loss(logits, torch.zeros(1, 2, 2).long(), terms=LOSSES[name], class_weights=(0.0, 1.0))
    assert loss.ce.item() == 0
    loss.total.backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_presence_by_hand() -> None:
    """The first picture holds classes 0 and 2, the second is known nowhere, the third holds class 1."""
    truth = torch.tensor([[[0, 2]], [[IGNORE, IGNORE]], [[1, IGNORE]]])
    shares = torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.1, 0.1], [0.25, 0.5, 0.75]])
    presence = (shares / (1 - shares)).log().requires_grad_(True)
    costs = -math.log(0.9) - math.log(0.8) - math.log(0.5) - math.log(0.75) - math.log(0.5) - math.log(0.25)
    loss = presence_loss(presence, truth)
    assert loss.item() == pytest.approx(costs / 6, abs=1e-6)
    loss.backward()
    assert presence.grad is not None
    assert not presence.grad[1].any()
    assert presence_loss(presence, truth, lambda sums: 3 * sums).item() == pytest.approx(costs / 6, abs=1e-6)
    assert presence_loss(presence[1:2], truth[1:2]).item() == 0.0


def test_an_objective_adds_coarser_levels_at_half_and_a_quarter_and_presence() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, half, quarter = (torch.randn(2, 3, n, n, generator=generator) for n in (8, 4, 2))
    truth = torch.randint(0, 3, (2, 8, 8), generator=generator)
    presence = torch.stack([odds(0.5, 0.8, 0.1), odds(0.9, 0.2, 0.3)])
    fine = segmentation_loss(logits + presence.sigmoid().log()[:, :, None, None], truth)
    middles = [
        truth[:, 1::2, 1::2],
        truth[:, 2::4, 2::4],
    ]  # of cells of 2 and 4 pixels: the pixel right below the middle
    coarse = [segmentation_loss(m, t).total for m, t in zip((half, quarter), middles, strict=True)]
    whole = torch.tensor([[[0]], [[2]]])
    told = presence_loss(presence, whole)
    loss = Objective(presence_weight=0.3)(Output(logits, presence, (half, quarter)), truth, whole)
    wanted = fine.total + coarse[0] / 2 + coarse[1] / 4 + 0.3 * told
    assert float(loss.total) == pytest.approx(float(wanted), abs=1e-6)
    assert numbers(loss)[1:] == pytest.approx(numbers(fine)[1:], abs=1e-6)
    plain = Objective()(Output(logits), truth)
    assert numbers(plain) == numbers(segmentation_loss(logits, truth))


def test_presence_learns_by_its_own_loss_alone() -> None:
    presence = torch.zeros(1, 2, requires_grad=True)
    output = Output(torch.randn(1, 2, 4, 4, requires_grad=True), presence)
    truth = torch.zeros(1, 4, 4).long()
    Objective(presence_weight=0.0)(output, truth).total.backward()
    assert presence.grad is None or not presence.grad.any()
    Objective(presence_weight=1.0)(output, truth).total.backward()
    assert presence.grad is not None
    assert presence.grad[0].tolist() == pytest.approx([(0.5 - 1) / 2, 0.5 / 2])  # of a mean over two classes


def test_coarse_logits_are_drawn_up_to_the_truth() -> None:
    logits = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    truth = torch.randint(0, 2, (1, 16, 16), generator=torch.Generator().manual_seed(2))
    drawn = torch.nn.functional.interpolate(logits, (16, 16), mode="bilinear", align_corners=False)
    assert numbers(Objective()(Output(logits), truth)) == numbers(segmentation_loss(drawn, truth))


def of_classes(classes: int, cells: int) -> torch.Tensor:
    return torch.zeros(1, classes, cells, cells)


def test_a_target_of_one_pixel_is_at_every_level_where_foreground_is_spread() -> None:
    truth = torch.zeros(1, 16, 16).long()
    truth[0, 5, 9] = 1
    truth[0, :, 12:] = IGNORE
    spread, plain = Objective(spread_foreground=True), Objective()
    for cells in (8, 4, 2):
        found = spread._coarse(truth, of_classes(2, cells))
        assert (found == 1).sum() == 1
        assert found[0, 5 * cells // 16, 9 * cells // 16] == 1
        assert not (plain._coarse(truth, of_classes(2, cells)) == 1).any() or cells == 8
    assert (spread._coarse(truth, of_classes(2, 8))[..., 6:] == IGNORE).all()
    assert (spread._coarse(truth, of_classes(2, 8))[..., :6] != IGNORE).all()


def test_of_several_classes_none_is_spread_over_the_others() -> None:
    """A cell of four pixels, three of class 1 and one, above the middle, of class 2."""
    truth = torch.tensor([[[2, 1], [1, 1]]])
    assert Objective(spread_foreground=True)._coarse(truth, of_classes(3, 1)).tolist() == [[[1]]]
    assert Objective(spread_foreground=True)._coarse(truth, of_classes(2, 1)).tolist() == [[[2]]]


def test_whole_pictures_count_beside_their_windows_as_much_as_is_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    window, whole = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 3, 2, 2, generator=generator)
    truth = torch.randint(0, 3, (2, 4, 4), generator=generator)
    whole_truth = torch.randint(0, 3, (2, 8, 8), generator=generator)
    output = Output(window, whole_BKHW=whole)
    middles = whole_truth[:, 2::4, 2::4]
    wanted = segmentation_loss(window, truth).total + 0.5 * segmentation_loss(whole, middles).total
    found = Objective(whole_weight=0.5)(output, truth, whole_truth)
    assert float(found.total) == pytest.approx(float(wanted), abs=1e-6)
    assert numbers(Objective()(output, truth, whole_truth)) == numbers(segmentation_loss(window, truth))


def test_settings_of_a_training_become_its_objective() -> None:
    config = Training(
        loss="focal+dice", loss_weights=(0.4, 0.6), class_weights=(1.0, 2.0), presence_weight=0.2, whole_weight=0.5
    )
    assert objective_of(config) == Objective("focal+dice", (0.4, 0.6), (1.0, 2.0), 0.2, 0.5, spread_foreground=False)
    assert objective_of(Training(patch=32)).spread_foreground
    with pytest.raises(UsageError, match=r"unknown loss 'ce-dice'; did you mean 'ce\+dice'"):
        Training(loss="ce-dice")
