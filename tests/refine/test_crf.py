"""The fully connected CRF against all pairs written out, its laws, and the errors of its fast filters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.refine import Evidence, refiner
from sampeft.refine.crf import (
    Crf,
    Filter,
    all_pairs_filter,
    boundary_box,
    fast_filter,
    grid_filter,
    lattice_filter,
    mean_field,
    principal_colors,
    smooth_filter,
    tiles,
)


def softmax(scores_K: np.ndarray) -> np.ndarray:
    shares = np.exp(scores_K - scores_K.max(axis=0))
    return shares / shares.sum(axis=0)


def scene(labels: LabelSet, size: tuple[int, int] = (22, 26), colors: int = 1, noise: float = 1.5) -> Evidence:
    """A disc of class 1 and a bar of class 2, probabilities with noise of the pixel."""
    generator = np.random.default_rng(5)
    row, column = np.indices(size)
    truth = np.where(np.hypot(row - size[0] / 2, column - size[1] / 3) < size[0] / 4, 1, 0)
    truth[:, -size[1] // 5 :] = 2
    palette = np.array([[0.2, 0.3, 0.2], [0.6, 0.5, 0.7], [0.4, 0.8, 0.3], [0.0, 0.0, 0.0]])[:, :colors]
    image = palette[truth] + generator.normal(0, 0.02, (*size, colors))
    scores = 2.0 * (truth == np.arange(len(labels)).reshape(-1, 1, 1)) + generator.normal(
        0, noise, (len(labels), *size)
    )
    probabilities = softmax(scores).astype(np.float32)
    channels = probabilities.argmax(axis=0).astype(np.uint8)
    return Evidence(image.clip(0, 1).astype(np.float32), probabilities, channels, labels, (1.0, 1.0))


def truth_of(evidence: Evidence) -> np.ndarray:
    size = evidence.channels_HW.shape
    row, column = np.indices(size)
    truth = np.where(np.hypot(row - size[0] / 2, column - size[1] / 3) < size[0] / 4, 1, 0)
    truth[:, -size[1] // 5 :] = 2
    return truth


def by_all_pairs(evidence: Evidence, settings: Crf) -> np.ndarray:
    """(K, H, W) the definition in double precision: Krähenbühl and Koltun's update with Potts' cost of what differs."""
    probabilities = evidence.probabilities_KHW.astype(np.float64)
    classes, height, width = probabilities.shape
    place = np.indices((height, width)).reshape(2, -1).T * np.asarray(evidence.spacing_mm)
    color = evidence.image_HWC.reshape(height * width, -1).astype(np.float64)
    near = np.exp(-cdist(place, place, "sqeuclidean") / (2 * settings.smooth_mm**2))
    alike = np.exp(
        -cdist(place, place, "sqeuclidean") / (2 * settings.reach_mm**2)
        - cdist(color, color, "sqeuclidean") / (2 * settings.contrast**2)
    )
    kernel = np.zeros_like(near)
    for weight, k in ((settings.smooth, near), (settings.appearance, alike)):
        total = k.sum(axis=1)
        kernel += weight * k / np.sqrt(total[:, None] * total)
    np.fill_diagonal(kernel, 0)
    potts = 1 - np.eye(classes)
    unary = -np.log(probabilities.reshape(classes, -1))
    belief = softmax(-unary)
    for _ in range(settings.iterations):
        belief = softmax(-unary - potts @ (belief @ kernel))
    return belief.reshape(probabilities.shape)


def by_package(evidence: Evidence, settings: Crf) -> np.ndarray:
    image = principal_colors(evidence.image_HWC, settings.contrast)
    return mean_field(evidence.probabilities_KHW, settings.filters(image, evidence.spacing_mm), settings.iterations)


@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.5, 0.7)])
def test_exact_mode_is_all_pairs(colors: int, spacing: tuple[float, float], labels: LabelSet) -> None:
    seen = scene(labels, colors=colors)
    evidence = Evidence(seen.image_HWC, seen.probabilities_KHW, seen.channels_HW, labels, spacing)
    settings = Crf(smooth=1.2, smooth_mm=1.3, appearance=3.0, reach_mm=6.0, contrast=0.1, iterations=5, exact=True)
    expected = by_all_pairs(evidence, settings)
    np.testing.assert_allclose(by_package(evidence, settings), expected, atol=1e-5)
    assert np.abs(expected - evidence.probabilities_KHW).max() > 0.5  # so the kernels do something here
    np.testing.assert_array_equal(settings.refine_slice(evidence), expected.argmax(axis=0))


def test_one_step_of_two_pixels_by_hand() -> None:
    """k = 1/2 between the two, n = 3/2 each: each adds weight * (1/2) / (3/2) of the other's belief to its own energy."""
    probabilities = np.array([[[0.8, 0.4]], [[0.2, 0.6]]], dtype=np.float32)
    distance = np.sqrt(2 * np.log(2))
    apply = all_pairs_filter(np.array([[0.0], [distance]], dtype=np.float32))
    first, second = 0.8 * np.exp(0.4), 0.2 * np.exp(0.6)  # weight 3: 3 / 3 of the other's 0.4 and 0.6
    result = mean_field(probabilities, [(3.0, apply)], 1)
    assert result[0, 0, 0] == pytest.approx(first / (first + second), abs=1e-6)
    first, second = 0.4 * np.exp(0.8), 0.6 * np.exp(0.2)
    assert result[0, 0, 1] == pytest.approx(first / (first + second), abs=1e-6)


@pytest.mark.parametrize(
    ("make", "colors", "mean", "most"),
    [(grid_filter, 1, 0.0015, 0.01), (lattice_filter, 1, 0.01, 0.06), (lattice_filter, 3, 0.015, 0.1)],
)
@pytest.mark.parametrize(("reach_mm", "contrast"), [(8.0, 0.06), (4.0, 0.03), (12.0, 0.2)])
def test_error_of_the_fast_filters(
    make: Callable[[np.ndarray], Filter],
    colors: int,
    mean: float,
    most: float,
    reach_mm: float,
    contrast: float,
    labels: LabelSet,
) -> None:
    """Messages differ from those of all pairs by less than 1 % of the weight in grey pictures and 10 % in colour, on
    average by ten times less."""
    size = (40, 44)
    generator = np.random.default_rng(2)
    image = scene(labels, size, colors).image_HWC + generator.normal(0, 0.03, (*size, colors))
    places = np.indices(size).reshape(2, -1).T / reach_mm
    turned = principal_colors(image.astype(np.float32), contrast)
    features = np.concatenate([places, turned.reshape(len(places), -1) / contrast], axis=1).astype(np.float32)
    values = softmax(generator.normal(size=(3, len(places)))).T.astype(np.float32)
    messages = []
    for apply in (all_pairs_filter(features), make(features)):
        scale = np.maximum(apply(np.ones((len(values), 1), dtype=np.float32)), 1) ** -0.5
        messages.append(scale * (apply(values * scale) - values * scale))
    error = np.abs(messages[1] - messages[0])
    assert error.mean() < mean
    assert error.max() < most
    assert messages[0].max() > 0.2


@pytest.mark.parametrize("axes", [1, 2, 3, 5])
def test_lattice_of_lone_pixels(axes: int) -> None:
    """A pixel far from all others gets its own value back, wherever it lies; two at one place share theirs.

    Of more than two axes a part of the blur is lost on the way over points that are not kept."""
    features = np.random.default_rng(0).random((6, axes)) + 40 * np.arange(6)[:, None]
    features = np.concatenate([features, features[5:]]).astype(np.float32)
    values = np.arange(1.0, 8.0, dtype=np.float32)[:, None]
    loss = 1e-5 if axes <= 2 else 0.06
    np.testing.assert_allclose(lattice_filter(features)(values).ravel(), [1, 2, 3, 4, 5, 13, 13], rtol=loss)
    if axes <= 3:
        np.testing.assert_allclose(grid_filter(features)(values).ravel(), [1, 2, 3, 4, 5, 13, 13], rtol=1e-5)


@pytest.mark.parametrize("colors", [1, 3])
def test_fast_and_exact_mode_choose_the_same_classes(colors: int, labels: LabelSet) -> None:
    evidence = scene(labels, (48, 52), colors)
    options = {"smooth": 1.0, "appearance": 3.0, "reach_mm": 6.0, "contrast": 0.1}
    fast = refiner("crf", **options).refine_slice(evidence)
    exact = refiner("crf", exact=True, **options).refine_slice(evidence)
    assert (fast != exact).mean() < (0.002 if colors == 1 else 0.006)
    assert (exact != evidence.channels_HW).mean() > 0.1


@pytest.mark.parametrize("exact", [True, False])
def test_cleans_a_noisy_picture_up_to_the_edge(exact: bool, labels: LabelSet) -> None:
    evidence = scene(labels, (40, 48))
    truth = truth_of(evidence)
    options = {"smooth": 0.0, "appearance": 6.0, "reach_mm": 6.0, "contrast": 0.1}
    result = refiner("crf", exact=exact, **options).refine_slice(evidence)
    assert (evidence.channels_HW == truth).mean() < 0.8
    assert (result == truth).mean() > 0.995


def test_no_weight_or_no_step_changes_nothing(labels: LabelSet) -> None:
    evidence = scene(labels)
    for options in ({"smooth": 0.0, "appearance": 0.0}, {"iterations": 0}):
        np.testing.assert_array_equal(refiner("crf", **options).refine_slice(evidence), evidence.channels_HW)
    unweighted = [(0.0, smooth_filter((22, 26), (2.0, 2.0)))]
    np.testing.assert_allclose(
        mean_field(evidence.probabilities_KHW, unweighted, 3), evidence.probabilities_KHW, atol=1e-6
    )


def test_order_of_classes_does_not_matter(labels: LabelSet) -> None:
    evidence = scene(labels, (40, 44))
    order = np.array([2, 0, 3, 1])
    turned = Evidence(
        evidence.image_HWC, evidence.probabilities_KHW[order], np.argsort(order)[evidence.channels_HW].astype(np.uint8),
        labels, (1.0, 1.0),
    )  # fmt: skip
    settings = Crf(smooth=1.0, appearance=3.0, contrast=0.1)
    np.testing.assert_allclose(by_package(turned, settings), by_package(evidence, settings)[order], atol=1e-5)
    np.testing.assert_array_equal(order[settings.refine_slice(turned)], settings.refine_slice(evidence))


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 10])
def test_sum_of_probabilities_is_one_after_each_step(iterations: int, labels: LabelSet) -> None:
    evidence = scene(labels)
    hard = np.eye(4, dtype=np.float32)[evidence.channels_HW].transpose(2, 0, 1)  # zeros have no logarithm
    for probabilities in (evidence.probabilities_KHW, hard):
        filters = Crf(appearance=50.0).filters(evidence.image_HWC, (1.0, 1.0))
        result = mean_field(probabilities, filters, iterations)
        np.testing.assert_allclose(result.sum(axis=0), 1, atol=1e-5)
        assert np.isfinite(result).all()


def test_grey_in_three_channels_is_grey_at_contrast_over_root_three(labels: LabelSet) -> None:
    grey = scene(labels, (40, 44))
    colored = Evidence(grey.image_HWC.repeat(3, axis=2), grey.probabilities_KHW, grey.channels_HW, labels, (1.0, 1.0))
    assert principal_colors(colored.image_HWC, 0.05).shape == (40, 44, 1)
    assert principal_colors(np.full((4, 5, 3), 0.3, dtype=np.float32), 0.05).shape == (4, 5, 0)
    result = refiner("crf", appearance=3.0, contrast=0.1 * 3**0.5).refine_slice(colored)
    assert (result != refiner("crf", appearance=3.0, contrast=0.1).refine_slice(grey)).mean() < 0.002


def test_principal_colors_keep_distances() -> None:
    image = np.random.default_rng(0).random((6, 7, 3)).astype(np.float32)
    turned = principal_colors(image, 0.05)
    np.testing.assert_allclose(cdist(*[turned.reshape(-1, 3)] * 2), cdist(*[image.reshape(-1, 3)] * 2), atol=1e-5)


def test_millimetres_scale_with_the_spacing(labels: LabelSet) -> None:
    evidence = scene(labels)
    half = Evidence(evidence.image_HWC, evidence.probabilities_KHW, evidence.channels_HW, labels, (0.5, 0.5))
    wide = Crf(smooth_mm=2.0, reach_mm=6.0, appearance=3.0, exact=True)
    narrow = Crf(smooth_mm=1.0, reach_mm=3.0, appearance=3.0, exact=True)
    np.testing.assert_allclose(by_package(half, narrow), by_package(evidence, wide), atol=1e-6)


def test_boundary_box_by_hand() -> None:
    channels = np.zeros((20, 30), dtype=np.uint8)
    channels[5:9, 12:14] = 3
    assert boundary_box(channels, (0, 0)) == (slice(4, 10), slice(11, 15))
    assert boundary_box(channels, (2, 40)) == (slice(2, 12), slice(0, 30))
    assert list(tiles(boundary_box(np.zeros((4, 4), dtype=np.uint8), (1, 1)), (4, 4), 9, (1, 1))) == []


@pytest.mark.parametrize("side", [3, 7, 50])
def test_tiles_cover_a_box_once(side: int) -> None:
    size, seen = (23, 31), np.zeros((23, 31), dtype=int)
    place = np.arange(seen.size).reshape(size)
    for core, window, inner in tiles((slice(2, 20), slice(0, 31)), size, side, (4, 5)):
        seen[core] += 1
        assert max(s.stop - s.start for s in core) <= side
        np.testing.assert_array_equal(place[window][inner], place[core])
        for c, w, margin, n in zip(core, window, (4, 5), size, strict=True):
            assert (w.start, w.stop) == (max(c.start - margin, 0), min(c.stop + margin, n))
    assert (seen[2:20] == 1).all()
    assert seen.sum() == 18 * 31


def test_tiles_hardly_show(labels: LabelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = scene(labels, (64, 72))
    found = refiner("crf", appearance=3.0, contrast=0.1, reach_mm=3.0)
    whole = found.refine_slice(evidence)
    monkeypatch.setattr("sampeft.refine.crf._TILE_PX", 24)
    assert (found.refine_slice(evidence) != whole).mean() < 0.002


def test_what_cannot_be_done_is_said(labels: LabelSet) -> None:
    seen = scene(labels)
    with pytest.raises(UsageError, match="needs probabilities"):
        refiner("crf").refine_slice(Evidence(seen.image_HWC, None, seen.channels_HW, labels, (1.0, 1.0)))
    wide = np.random.default_rng(0).random((40, 5)).astype(np.float32) * 1e4
    with pytest.raises(UsageError, match=r"larger contrast or reach_mm"):
        lattice_filter(wide)


def test_a_grid_that_would_be_too_fine_gives_way_to_the_lattice() -> None:
    features = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    values = np.ones((50, 1), dtype=np.float32)
    for scale, chosen in ((20.0, grid_filter), (500.0, lattice_filter)):
        np.testing.assert_array_equal(fast_filter(scale * features)(values), chosen(scale * features)(values))
    np.testing.assert_array_less(0.01, np.abs(grid_filter(features)(values) - lattice_filter(features)(values)).max())
