"""Outline points: on their own side of the outline, the model's masks taken where they agree, classes kept disjoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.refine import Evidence
from sampeft.refine.outline_points import OutlinePoints

LABELS = LabelSet(("background", "a", "b"), (0, 1, 2))
SIZE = (80, 100)


class Draws:
    """A "promptable model" that answers every prompt in turn with one of the masks; it keeps what it was asked."""

    def __init__(self, *masks: np.ndarray, logit: float = 6.0, step: float = 1.0) -> None:
        self.masks, self.logit, self.step, self.asked = masks, logit, step, []

    def __call__(self, **asked: Any) -> np.ndarray:
        start = sum(len(next(iter(a.values()))) for a in self.asked)
        self.asked.append(asked)
        count = len(next(iter(asked.values())))
        return np.stack(
            [np.where(self.masks[i], self.logit + i * self.step, -self.logit) for i in range(start, start + count)]
        ).astype(np.float32)


def evidence(
    rough: np.ndarray, prompt: Any, labels: LabelSet = LABELS, spacing_mm: tuple[float, float] = (1, 1)
) -> Evidence:
    image = np.zeros((*rough.shape, 1), dtype=np.float32)
    return Evidence(image, None, rough.astype(np.uint8), labels, spacing_mm, prompt)


def crooked() -> np.ndarray:
    """A horseshoe with a hole in one leg: 1,300 pixels or so."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    shape = (np.hypot(y - 40, x - 45) < 28) & (np.hypot(y - 40, x - 45) > 14) & ~((x > 45) & (abs(y - 40) < 10))
    shape[18:21, 44:48] = False
    return shape


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (0.7, 1.9)])
def test_points_inside_are_in_the_component_and_points_outside_in_no_part_of_its_class(
    spacing_mm: tuple[float, float],
) -> None:
    mask = crooked()
    mask[30:50, 80:95] = True
    mask[37:43, 74:77] = True  # 18 pixels: too small, yet no place for a point outside
    refiner = OutlinePoints(inset_mm=3.0, step_mm=8.0, most_points=16)
    found = list(refiner.outlined(mask, spacing_mm))
    assert len(found) == 2
    away = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    for component, points in found:
        inside = np.array([(y, x) for x, y, is_in in points if is_in], dtype=int)
        outside = np.array([(y, x) for x, y, is_in in points if not is_in], dtype=int)
        assert 3 <= len(inside) <= 20
        assert 3 <= len(outside) <= 20
        assert component[tuple(inside.T)].all()
        assert not mask[tuple(outside.T)].any()
        assert (away[tuple(outside.T)] >= 3.0).all()
        depth = ndimage.distance_transform_edt(np.pad(component, 1), sampling=spacing_mm)[1:-1, 1:-1]
        assert (depth[tuple(inside.T)] >= min(3.0, depth.max()) - 1e-9).all()
        # They are near the outline, not somewhere in the middle.
        assert depth[tuple(inside.T)].max() <= 3.0 + max(spacing_mm)


def test_points_are_evenly_spaced_and_as_many_as_the_outline_is_long() -> None:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    disc = np.hypot(y - 40, x - 50) < 25  # an outline of 2 pi 25 = 157
    refiner = OutlinePoints(step_mm=157 / 8, inset_mm=3.0, most_points=50)
    ((_, points),) = refiner.outlined(disc, (1.0, 1.0))
    for side, radius in ((1, 22), (0, 28)):
        at = np.array([(px - 50, py - 40) for px, py, is_in in points if is_in == side])
        assert len(at) == 8
        assert np.hypot(*at.T) == pytest.approx(radius, abs=1.5)
        turns = np.sort(np.degrees(np.arctan2(at[:, 1], at[:, 0])))
        assert np.diff(turns) == pytest.approx(45, abs=8)
    ((_, few),) = OutlinePoints(step_mm=1.0, inset_mm=3.0, most_points=5).outlined(disc, (1.0, 1.0))
    assert sum(is_in for *_, is_in in few) == 5


def test_the_box_has_the_outer_edges_and_the_margin_within_the_picture() -> None:
    mask = np.zeros((20, 40), dtype=bool)
    mask[0:6, 10:31] = True
    assert OutlinePoints(margin_mm=3.0).box_round(mask, (1.0, 2.0)) == (8.0, -0.5, 32.0, 8.5)


@pytest.mark.parametrize("change", [ndimage.binary_erosion, ndimage.binary_dilation])
def test_a_model_that_draws_the_truth_moves_an_eroded_or_dilated_mask_to_it(change: Any) -> None:
    truth = crooked()
    rough = change(truth, iterations=2)
    prompt = Draws(truth)
    refined = OutlinePoints(band_mm=12.0).refine_slice(evidence(rough, prompt))
    assert (refined == truth).all()
    (asked,) = prompt.asked
    assert set(asked) == {"boxes", "points"}
    assert len(asked["boxes"]) == len(asked["points"]) == 1


@pytest.mark.parametrize(("ask", "words"), [("box", {"boxes"}), ("points", {"points"}), ("both", {"boxes", "points"})])
def test_what_is_asked_can_be_chosen(ask: str, words: set[str]) -> None:
    prompt = Draws(crooked())
    OutlinePoints(ask=ask).refine_slice(evidence(crooked(), prompt))
    assert set(prompt.asked[0]) == words


def test_a_model_that_draws_nonsense_changes_nothing() -> None:
    rough = crooked()
    rng = np.random.default_rng(0)
    for nonsense in (np.ones(SIZE, bool), np.zeros(SIZE, bool), ~rough, rng.random(SIZE) < 0.5):
        assert (OutlinePoints().refine_slice(evidence(rough, Draws(nonsense))) == rough).all()


def test_far_from_the_outline_everything_stays() -> None:
    rough = np.zeros(SIZE, dtype=bool)
    rough[10:60, 10:60] = True
    drawn = rough.copy()
    drawn[30:40, 30:40] = False  # a hole 20 pixels deep inside
    drawn[10:60, 60:80] = True  # and 20 pixels too many to the right
    expected = rough.copy()
    expected[10:60, 60:65] = True
    refined = OutlinePoints(band_mm=5.0).refine_slice(evidence(rough, Draws(drawn)))
    assert (refined == expected).all()


def test_another_class_loses_only_what_its_own_mask_gave_up() -> None:
    rough = np.zeros(SIZE, dtype=int)
    rough[20:40, 10:30], rough[20:40, 30:50] = 1, 2
    a, b = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    a[20:40, 10:34] = True  # class 1 wants 4 columns of class 2
    b[20:40, 32:50] = True  # class 2 gives up 2 of them
    refined = OutlinePoints().refine_slice(evidence(rough, Draws(a, b)))
    expected = np.zeros(SIZE, dtype=int)
    expected[20:40, 10:32], expected[20:40, 32:50] = 1, 2
    assert (refined == expected).all()
    rejected = OutlinePoints().refine_slice(evidence(rough, Draws(a, np.zeros(SIZE, bool))))
    assert (rejected == rough).all()


def test_background_that_two_classes_want_goes_to_the_higher_logit() -> None:
    rough = np.zeros(SIZE, dtype=int)
    rough[20:40, 10:30], rough[20:40, 34:54] = 1, 2
    a, b = rough == 1, rough == 2
    a[20:40, 30:34], b[20:40, 30:34] = True, True
    for step, winner in ((1.0, 2), (-1.0, 1)):
        refined = OutlinePoints().refine_slice(evidence(rough, Draws(a, b, step=step)))
        assert (refined[20:40, 30:34] == winner).all()
    refined = OutlinePoints().refine_slice(evidence(rough, Draws(a, b, logit=-6.0)))  # every mask inside out
    assert (refined == rough).all()


def test_without_background_pixels_only_change_hands() -> None:
    labels = LabelSet(("water", "woods"), (1, 2))
    rough = np.zeros((40, 60), dtype=int)
    rough[:, 30:] = 1
    left, right = np.zeros((40, 60), bool), np.zeros((40, 60), bool)
    left[:, :27], right[:, 25:] = True, True
    refined = OutlinePoints().refine_slice(evidence(rough, Draws(left, right), labels))
    expected = rough.copy()
    expected[:, 27:] = 1  # water gave up three columns and woods took them
    assert (refined == expected).all()
    nobody = OutlinePoints().refine_slice(evidence(rough, Draws(left, right & (rough == 1)), labels))
    assert (nobody == rough).all()


def test_small_components_are_left_alone_and_not_asked_about() -> None:
    rough = np.zeros(SIZE, dtype=int)
    rough[5, 5], rough[20, 20:28] = 1, 2
    prompt = Draws()
    assert (OutlinePoints().refine_slice(evidence(rough, prompt)) == rough).all()
    assert prompt.asked == []


def test_wrong_use_is_named() -> None:
    with pytest.raises(UsageError, match="least_overlap"):
        OutlinePoints(least_overlap=1.5)
    with pytest.raises(ValueError, match="needs a promptable model"):
        OutlinePoints().refine_slice(evidence(crooked(), None))


@pytest.mark.real_weights
@pytest.mark.real_data
def test_the_real_model_mends_an_eroded_liver(real_weights: Path, real_data: Path) -> None:
    import torch

    from sampeft.backbones import load_backbone
    from sampeft.data import open_dataset
    from sampeft.data.check import read_labels
    from sampeft.data.intensity import PRESETS
    from sampeft.data.slice_cache import Preparation, PreparedVolume
    from sampeft.io import read_volume
    from sampeft.model import SemanticSam

    dataset = open_dataset(real_data / "btcv_slices")
    file = next(f for case in dataset.cases for f in case.files if f.id == "ABD_003_139")
    prepared = PreparedVolume.of(read_volume(file.image), Preparation(PRESETS["ct-8bit"], 256))
    channels = prepared.view.slices(read_labels(file, dataset, prepared.volume).array)[0]
    liver = channels == dataset.labels.names.index("liver")
    model = SemanticSam(load_backbone("lite-medsam"), dataset.labels)
    top, left, bottom, right = prepared.frame.box

    def prompt(boxes: Any) -> np.ndarray:
        placed = torch.from_numpy(prepared.frame.points(np.array(boxes).reshape(-1, 2))).float().reshape(1, -1, 4)
        with model.original(), torch.inference_mode():
            logits = prepared.frame.logits(model.segment_prompted(prepared.image(0)[None], boxes_BN4=placed)[0])
        whole = np.full((len(logits), *prepared.frame.size), -10.0, dtype=np.float32)
        whole[:, top:bottom, left:right] = logits.numpy()
        return whole

    rough = ndimage.binary_erosion(liver, iterations=2)
    labels = LabelSet(("background", "liver"), (0, 1))
    refined = OutlinePoints(ask="box").refine_slice(evidence(rough, prompt, labels)) == 1

    def dice(mask: np.ndarray) -> float:
        return 2 * (mask & liver).sum() / (mask.sum() + liver.sum())

    assert dice(refined) > dice(rough)
