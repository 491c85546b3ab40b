"""Parts of pictures that a step draws: whole cells inside the picture, the same whoever takes them, on small pieces as often as
on large ones; and kept features that are turned and mirrored as the augmentation does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fabricate.backbones import architectures, make_tiny
from sampeft.backbones import BACKBONES, NONE
from sampeft.data.augment import SYMMETRIES, Augmentation, Symmetry
from sampeft.data.slice_cache import Slices
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.training.batches import Batches, suited_patch
from sampeft.training.settings import Training
from sampeft.volume import IGNORE

SIDE = 128


def made(name: str, labels: LabelSet, monkeypatch: pytest.MonkeyPatch, head: str = "pixel") -> SemanticSam:
    if name == NONE:
        return make_tiny(NONE, labels, head, side=SIDE)
    spec = architectures()[name]
    monkeypatch.setitem(BACKBONES, spec.name, spec)
    return make_tiny(spec.name, labels, head, side=SIDE)


@pytest.fixture(params=["lite-medsam", "sam-vit-b", "sam2-hiera-t", NONE])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, labels: LabelSet) -> SemanticSam:
    """Of a unit of 4, 16, 32 and 16 pixels."""
    return made(request.param, labels, monkeypatch)


def batches(model: SemanticSam, truth_BHW: torch.Tensor, processes: int = 1, rank: int = 0, **settings: Any) -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (len(truth_BHW), 1, SIDE, SIDE), dtype=np.uint8)
    slices = Slices(images, truth_BHW.numpy().astype(np.int16), np.arange(len(truth_BHW), dtype=np.int32))
    accelerator: Any = SimpleNamespace(
        num_processes=processes, process_index=rank, device=torch.device("cpu"), mixed_precision="no"
    )
    accelerator.autocast = lambda: torch.autocast("cpu", enabled=False)
    return Batches.of(slices, model, Training(**{"batch": 4, "head_first": 0.0, **settings}), accelerator)


def points(count: int) -> torch.Tensor:
    """Pictures with one pixel of the foreground each, anywhere; the first two have it in opposite corners."""
    random = np.random.default_rng(1)
    truth = torch.zeros(count, SIDE, SIDE, dtype=torch.int16)
    for i, truth_HW in enumerate(truth):
        row, column = ((0, SIDE - 1), (SIDE - 1, 0))[i] if i < 2 else random.integers(0, SIDE, 2)
        truth_HW[row, column] = 1 + i % 3
    return truth


def holds(truth_HW: torch.Tensor, window: tuple[int, int], size: int) -> bool:
    top, left = window
    return bool((truth_HW[top : top + size, left : left + size] > 0).any())


@pytest.mark.parametrize("forced", [0.0, 0.5, 1.0])
def test_windows_lie_inside_the_picture_on_whole_cells(model: SemanticSam, forced: float) -> None:
    unit, truth = model.window_unit(), points(8)
    for size in (unit, 64, 96, SIDE):
        drawing = batches(model, truth, patch=size, forced=forced)
        found = np.array([drawing.windows(step, 8, truth) for step in range(30)])
        assert found.min() >= 0
        assert found.max() <= SIDE - size
        assert not (found % unit).any()
        if not forced:  # every place is drawn
            wanted = min((SIDE - size) // unit + 1, 20)
            assert len(np.unique(found[..., 0])) >= wanted
            assert len(np.unique(found[..., 1])) >= wanted


def test_a_forced_window_holds_foreground(model: SemanticSam) -> None:
    truth = points(8)
    for size in (32, 64, 96):
        drawing = batches(model, truth, patch=size, forced=1.0)
        drawn = [zip(truth, drawing.windows(step, 8, truth), strict=True) for step in range(30)]
        missed = sum(not holds(truth_HW, window, size) for pairs in drawn for truth_HW, window in pairs)
        assert missed == 0, f"{missed} of 240 windows of {size} pixels, of a unit of {model.window_unit()}"


def test_of_windows_that_are_not_forced_most_hold_nothing(model: SemanticSam) -> None:
    truth = points(8)
    drawing = batches(model, truth, patch=32, forced=0.0)
    held = [holds(t, w, 32) for step in range(30) for t, w in zip(truth, drawing.windows(step, 8, truth), strict=True)]
    assert np.mean(held) < 0.25
    empty = torch.zeros_like(truth)
    assert len(batches(model, empty, patch=32, forced=1.0).windows(0, 8, empty)) == 8  # where there is none, anywhere


def test_windows_are_the_same_whoever_takes_them_and_others_at_each_step(model: SemanticSam) -> None:
    """Seven pictures on one, two and three processes, each of which has the truth of its own share."""
    truth = points(7)
    settings = {"patch": 64, "forced": 0.5, "batch": 7, "seed": 5}
    alone = [batches(model, truth, **settings).windows(step, 7, truth) for step in range(6)]
    for processes in (2, 3):
        for step, expected in enumerate(alone):
            found = []
            for rank in range(processes):
                mine = truth[7 * rank // processes : 7 * (rank + 1) // processes]
                found += batches(model, truth, processes, rank, **settings).windows(step, 7, mine)
            assert found == expected
    assert len({tuple(windows) for windows in alone}) > 1
    assert batches(model, truth, **{**settings, "seed": 6}).windows(0, 7, truth) != alone[0]


def test_small_and_large_pieces_are_chosen_alike(labels: LabelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a pixel and one of 1024 in opposite corners: of 400 windows, 200 each, give or take 3 standard deviations."""
    model = made("lite-medsam", labels, monkeypatch)
    truth = torch.zeros(400, SIDE, SIDE, dtype=torch.int16)
    truth[:, :32, :32] = 1
    truth[:, SIDE - 8, SIDE - 8] = 2
    drawing = batches(model, truth[:4], patch=48, forced=1.0)
    windows = drawing.windows(0, 400, truth)
    small, large = ([bool((t[a : a + 48, b : b + 48] == k).any()) for t, (a, b) in zip(truth, windows, strict=True)]
                    for k in (2, 1))  # fmt: skip
    assert 170 <= sum(small) <= 230
    assert sum(small) + sum(large) == 400


def test_a_patch_that_does_not_fit_names_one_that_does(model: SemanticSam) -> None:
    unit, truth = model.window_unit(), points(1)
    with pytest.raises(UsageError, match=rf"training.patch is {SIDE + unit}; .* up to {SIDE}, such as {SIDE}$"):
        batches(model, truth, patch=SIDE + unit)
    with pytest.raises(UsageError, match=rf"it is a multiple of {unit} up to {SIDE}, such as 64$"):
        batches(model, truth, patch=64 + 1)


def test_pictures_of_small_targets_are_drawn_by_halves_unless_the_head_sees_no_picture(
    labels: LabelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine tenths of the pieces are smaller than 16 pixels of 128."""
    model = made("sam-vit-b", labels, monkeypatch)

    def suited(truth: torch.Tensor, model: SemanticSam = model) -> int:
        return suited_patch(batches(model, truth).slices.channels, model)

    small = points(12)
    assert suited(small) == 64
    assert suited(small, made("sam-vit-b", labels, monkeypatch, "mask")) == 0
    assert suited(torch.zeros_like(small)) == 0
    one_large = small.clone()
    one_large[0, 60:100, 20:60] = 1  # one of thirteen
    assert suited(one_large) == 64
    one_large[1:3, 60:100, 20:60] = 1
    assert suited(one_large) == 0
    classes = LabelSet(("water", "land"), (0, 1))
    assert suited(small.clamp_max(1), made("sam-vit-b", classes, monkeypatch)) == 0  # which has no background


def test_kept_features_are_turned_and_mirrored_with_their_truth(
    labels: LabelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a batch alike, in each of the eight ways; left and right change names where the picture is mirrored."""
    model = made("sam2-hiera-t", labels, monkeypatch)
    random = np.random.default_rng(2)
    truth = torch.from_numpy(np.kron(random.integers(0, 4, (2, 8, 8)), np.ones((16, 16)))).short()
    truth[:, :5] = IGNORE
    augmentation = Augmentation(mirror=0.5, rotation_deg=180.0, unchanged=1.0)
    drawing = batches(model, truth, augmentation=augmentation, head_bank=2, head_batch=3)
    seen = set()
    for step in range(60):
        features, channels = drawing.encoded(torch.Generator().manual_seed(step))
        with monkeypatch.context() as patch:
            patch.setattr(Symmetry, "drawn", lambda *_: Symmetry())
            plain, plain_channels = drawing.encoded(torch.Generator().manual_seed(step))
        fitting = [s for s in SYMMETRIES if all(torch.equal(s.on(a), b) for a, b in zip(plain, features, strict=True))]
        assert len(fitting) == 1
        (symmetry,) = fitting
        wanted = symmetry.on(plain_channels)
        if symmetry.mirrors:
            swapped = wanted.clone()
            swapped[wanted == 2], swapped[wanted == 3] = 3, 2  # right and left kidney
            wanted = swapped
        assert torch.equal(channels, wanted)
        seen.add(symmetry)
    assert seen == set(SYMMETRIES)


def test_without_mirroring_kept_features_stay_as_they_are(labels: LabelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("sam-vit-b", labels, monkeypatch)
    truth = points(2)
    drawing = batches(model, truth, augmentation=Augmentation(unchanged=1.0), head_bank=2, head_batch=2)
    for step in range(10):
        features, channels = drawing.encoded(torch.Generator().manual_seed(step))
        numbers = torch.randint(2, (2,), generator=torch.Generator().manual_seed(step)).tolist()
        plain, plain_channels = drawing.bank.get(numbers)
        assert all(torch.equal(a, b) for a, b in zip(features, plain, strict=True))
        assert torch.equal(channels, plain_channels)
