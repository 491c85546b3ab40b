"""Views: the first is the slice as it is, mirrored ones are asked for, and their mean is worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sampeft.data.augment import SYMMETRIES
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation, PreparedVolume
from sampeft.errors import UsageError
from sampeft.prediction.array_volume import volume_of
from sampeft.prediction.tta import View, mean_of_views, views


def blob(row: int, column: int, side: int = 64) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18.0)[None, None].float()


def centre(map_BCHW: torch.Tensor) -> tuple[float, float]:
    weights = map_BCHW[0, 0].double()
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in weights.shape), indexing="ij")
    return float((weights * rows).sum() / weights.sum()), float((weights * columns).sum() / weights.sum())


def test_shift_and_scale_move_things_where_they_say() -> None:
    shifted = View(shift=(1 / 16, -1 / 32)).moved(blob(20, 40))
    assert centre(shifted) == pytest.approx((24, 38), abs=0.05)  # 64 px: 4 down, 2 to the left
    larger = View(scale=1.25).moved(blob(20, 40))
    # From the middle at 31.5: 31.5 - 1.25 * 11.5 and 31.5 + 1.25 * 8.5.
    assert centre(larger) == pytest.approx((17.125, 42.125), abs=0.05)


@pytest.mark.parametrize("view", views(12))
def test_a_view_is_undone_and_never_mirrored(view: View) -> None:
    back = view.moved_back(view.moved(blob(20, 40)))
    assert centre(back) == pytest.approx((20, 40), abs=0.2)
    left, right = view.moved(blob(32, 16)), view.moved(blob(32, 48))
    assert centre(left)[1] < centre(right)[1]


def test_views_are_the_same_each_time_and_a_part_of_more() -> None:
    assert views(1) == (View(),)
    assert views(9)[:4] == views(4) == views(4)
    assert len(set(views(32))) == 32
    for count in (0, 33):
        with pytest.raises(UsageError, match=f"--views is {count}"):
            views(count)


def test_a_window_moves_in_stored_values() -> None:
    volume = volume_of(np.linspace(-200, 300, 64 * 64, dtype=np.float32).reshape(1, 64, 64), (5.0, 1.0, 1.0))
    prepared = PreparedVolume.of(volume, Preparation(Intensity("window", -100, 100), 64, "axial"))
    seen = View(width=1.5, level=0.1).windowed(prepared)
    # Middle 0 + 0.1 * 200 = 20, half width 150.
    assert (seen.levels.low, seen.levels.high) == pytest.approx((-130.0, 170.0))
    assert View(shift=(0.1, 0.0)).windowed(prepared) is prepared


def test_the_mean_is_of_probabilities_and_disagreement_counts_views() -> None:
    def logits(*probabilities: float) -> torch.Tensor:
        return torch.tensor([[p, 1 - p] for p in probabilities]).log()[:, :, None, None]

    same = (View(), View(width=1.1), View(width=0.9))
    mean, disagreement = mean_of_views([logits(0.9), logits(0.4), logits(0.5 + 1e-3)], same)
    assert float(mean.softmax(dim=1)[0, 0, 0, 0]) == pytest.approx((0.9 + 0.4 + 0.501) / 3, abs=1e-6)
    assert disagreement is not None
    assert float(disagreement[0, 0, 0]) == pytest.approx(1 / 3)
    alone = logits(0.3)
    assert mean_of_views([alone], same[:1]) == (alone, None)


def test_where_a_view_did_not_look_only_the_others_count() -> None:
    sure, unsure = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    sure[:, 1] = 20.0
    mean, disagreement = mean_of_views([sure, unsure], (View(), View(shift=(0.25, 0.0))))
    probability = mean.softmax(dim=1)[0, 1]
    # The second view shows everything 2 rows further down: its own rows cannot tell of the last two of the slice.
    assert probability[:6].numpy() == pytest.approx(0.75, abs=1e-5)
    assert probability[6:].numpy() == pytest.approx(1.0, abs=1e-5)
    assert disagreement is not None
    assert float(disagreement[0, 6:].max()) == 0


def test_mirrored_and_turned_views_come_first_where_a_run_knows_them() -> None:
    assert [view.symmetry for view in views(8, 8)] == list(SYMMETRIES)
    assert views(4, 2)[:2] == (View(), View(symmetry=SYMMETRIES[1]))
    assert views(4, 2)[2:] == views(3)[1:]
    assert views(5) == views(5, 1)


def test_the_mean_over_all_symmetries_turns_with_the_picture() -> None:
    """Of any network whatever, here one that knows up from down."""
    image = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    ramp = torch.linspace(0, 3, 12)[:, None].expand(12, 12)

    def network(x_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.cat([x_BCHW * ramp, x_BCHW.roll(1, -1) - ramp], dim=1)

    def mean(x_BCHW: torch.Tensor) -> torch.Tensor:
        shown = views(8, 8)
        return mean_of_views([network(view.moved(x_BCHW)) for view in shown], shown)[0]

    for symmetry in SYMMETRIES:
        assert torch.allclose(mean(symmetry.on(image)), symmetry.on(mean(image)), atol=1e-5)
