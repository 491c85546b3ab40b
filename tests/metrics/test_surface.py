"""Surface distances: hand-worked values of cases D30 and D31, laws, and three libraries as oracles."""

from __future__ import annotations

import numpy as np
import pytest

from sampeft.metrics import surface as module
from sampeft.metrics.surface import assd, element_sizes, hausdorff, nsd, surfaces


def voxels(shape: tuple[int, ...], *places: tuple[int | slice, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for place in places:
        mask[place] = True
    return mask


@pytest.mark.parametrize("elements", ["area", "pixels"])
def test_d31_single_voxels_in_mm(elements: str) -> None:
    one, other = voxels((9, 9, 7), (4, 5, 2)), voxels((9, 9, 7), (6, 5, 3))
    found = surfaces(other, one, (0.7, 0.7, 5.0), elements=elements)
    assert hausdorff(found) == pytest.approx(5.192302, abs=1e-6)
    assert hausdorff(found, 100) == pytest.approx(np.hypot(1.4, 5), abs=1e-12)
    assert (nsd(found, 5.2), nsd(found, 0.5)) == (1.0, 0.0)
    assert hausdorff(surfaces(other, one, (1, 1, 1), elements=elements)) == pytest.approx(2.236068, abs=1e-6)
    far = surfaces(voxels((9, 9, 9), (5, 6, 2)), voxels((9, 9, 9), (2, 2, 2)), (1, 1, 1), elements=elements)
    assert hausdorff(far) == 5.0


@pytest.mark.parametrize("elements", ["area", "pixels"])
def test_d31_planes(elements: str) -> None:
    planes = [voxels((8, 10, 9), (slice(None), slice(None), z)) for z in (2, 5)]
    found = surfaces(planes[1], planes[0], (1, 1, 2.5), elements=elements)
    assert (hausdorff(found), nsd(found, 7.5), nsd(found, 4)) == (7.5, 1.0, 0.0)


def test_d31_shifted_cube() -> None:
    cubes = [voxels((10, 10, 14), (slice(None), slice(None), slice(z, z + 10))) for z in (0, 2)]
    found = surfaces(cubes[1], cubes[0], (1, 1, 2))
    assert (hausdorff(found), nsd(found, 4)) == (4.0, 1.0)
    assert nsd(found, 1.9) == pytest.approx(0.735913, abs=1e-6)
    by_pixels = surfaces(cubes[1], cubes[0], (1, 1, 2), elements="pixels")
    assert hausdorff(by_pixels) == 4.0
    assert nsd(by_pixels, 1.9) == pytest.approx(0.647541, abs=1e-6)


def test_assd_of_parallel_lines() -> None:
    """Each line has two sides; the near one is 2 pixels (1.0) from the other line, the far one 3 pixels (1.5)."""
    lines = [voxels((20, 9), (slice(None), column)) for column in (2, 5)]
    assert assd(surfaces(lines[0], lines[1], (1.0, 0.5))) == pytest.approx(1.25, abs=1e-12)


@pytest.mark.parametrize("shape", [(6, 6, 6), (6, 6)])
def test_d30_one_empty_is_infinite_and_none_is_no_score(shape: tuple[int, ...]) -> None:
    full, empty, size = np.ones(shape, bool), np.zeros(shape, bool), (1.0,) * len(shape)
    for pair in ((full, empty), (empty, full)):
        found = surfaces(*pair, size)
        assert (nsd(found, 3), hausdorff(found), assd(found)) == (0.0, np.inf, np.inf)
    nothing = surfaces(empty, empty, size)
    assert np.isnan([nsd(nothing, 3), hausdorff(nothing), assd(nothing)]).all()
    same = surfaces(full, full, size)
    assert (nsd(same, 0), hausdorff(same), assd(same)) == (1.0, 0.0, 0.0)


def test_sizes_of_elements_by_hand() -> None:
    """A plane within the 8 pixels has the area of a pixel's face, a corner that of the triangle cut off."""
    sizes = element_sizes((2.0, 3.0, 5.0))
    assert sizes[0b11110000] == pytest.approx(15.0)  # the four of the first index along axis 0
    assert sizes[0b11001100] == pytest.approx(10.0)
    assert sizes[0b10101010] == pytest.approx(6.0)
    assert sizes[1] == pytest.approx(np.linalg.norm(np.cross([-1.0, 1.5, 0], [-1.0, 0, 2.5])) / 2)
    np.testing.assert_array_equal(sizes, sizes[::-1])
    assert element_sizes((3.0, 4.0))[[0b1100, 0b1010, 0b0001]] == pytest.approx([4.0, 3.0, 2.5])


def test_unit_and_order_of_axes_scale_as_they_must() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 7, 8, 9)) < 0.3
    found, size = surfaces(a, b, (1.0, 2.0, 3.0)), np.array([1.0, 2.0, 3.0])
    doubled = surfaces(a, b, 2 * size)
    assert hausdorff(doubled) == pytest.approx(2 * hausdorff(found), rel=1e-12)
    assert nsd(doubled, 4) == pytest.approx(nsd(found, 2), rel=1e-12)
    turned = surfaces(a.transpose(2, 0, 1), b.transpose(2, 0, 1), size[[2, 0, 1]])
    assert assd(turned) == pytest.approx(assd(found), rel=1e-12)
    swapped = surfaces(b, a, size)
    assert (hausdorff(swapped), nsd(swapped, 1)) == pytest.approx((hausdorff(found), nsd(found, 1)), rel=1e-12)


@pytest.mark.parametrize("elements", ["area", "pixels"])
def test_ignored_pixels_change_nothing(elements: str) -> None:
    generator = np.random.default_rng(1)
    truth = generator.random((12, 13, 9)) < 0.4
    prediction = generator.random(truth.shape) < 0.4
    ignored = np.zeros_like(truth)
    ignored[4:9, :, 3:] = True
    expected = surfaces(prediction & ~ignored, truth & ~ignored, (1, 1, 2), ignored, elements)
    scrambled = surfaces(
        prediction ^ (ignored & (generator.random(truth.shape) < 0.5)), truth & ~ignored, (1, 1, 2), ignored, elements
    )
    for mine, other in zip(vars(expected).values(), vars(scrambled).values(), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert 0 < expected.truth_distance.size < surfaces(prediction, truth, (1, 1, 2), None, elements).truth_distance.size
    # Seen or unseen at the edge of an object: a box whose right half has no truth.
    box, hidden = voxels((9, 9), (slice(2, 5), slice(2, 5))), voxels((9, 9), (slice(None), slice(5, 9)))
    grown = box | voxels((9, 9), (slice(2, 5), slice(5, 8)))
    assert hausdorff(surfaces(grown, box, (1, 1), hidden, elements), 100) == 0.0
    assert hausdorff(surfaces(box, box, (1, 1), hidden, elements), 100) == 0.0


def test_shortcuts_give_the_exact_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The offsets alone, the tree alone, and scipy's distance transform."""
    ndimage = pytest.importorskip("scipy.ndimage")
    generator = np.random.default_rng(2)
    a, b = ndimage.gaussian_filter(generator.standard_normal((2, 24, 20, 18)), (0, 2, 2, 2)) > 0.1
    size = (0.8, 1.1, 2.5)
    found = surfaces(a, b, size, elements="pixels")
    border = a & ~ndimage.binary_erosion(a)
    expected = ndimage.distance_transform_edt(~border, sampling=size)[b & ~ndimage.binary_erosion(b)]
    np.testing.assert_allclose(found.truth_distance, expected, atol=1e-12)
    limited = surfaces(a, b, size, elements="pixels", limit=2.0)
    assert (np.isinf(limited.truth_distance) == (found.truth_distance > 2.0)).all()
    for steps in (1, 3000):
        monkeypatch.setattr(module, "_STEPS", steps)
        module._offsets.cache_clear()
        again = surfaces(a, b, size, elements="pixels")
        np.testing.assert_allclose(again.truth_distance, found.truth_distance, atol=1e-12)
    module._offsets.cache_clear()


def masks(seed: int, dimensions: int = 3) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Noise, blobs that touch the borders, single voxels, slabs; spacing from 0.3 to 5 mm."""
    ndimage = pytest.importorskip("scipy.ndimage")
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(2, 14, dimensions))
    spacing = tuple(generator.uniform(0.3, 5, dimensions).tolist())
    found = []
    for _ in range(2):
        kind = (seed + len(found) * generator.integers(2)) % 4
        if kind == 0:
            mask = generator.random(shape) < generator.uniform(0.05, 0.9)
        elif kind == 1:
            mask = ndimage.gaussian_filter(generator.standard_normal(shape), 2) > 0
        elif kind == 2:
            mask = voxels(shape, tuple(generator.integers(0, n) for n in shape))
        else:
            mask = voxels(shape, (slice(None), slice(0, int(generator.integers(1, shape[1] + 1)))))
        found.append(mask if mask.any() else np.ones(shape, bool))
    return found[0], found[1], spacing


@pytest.mark.parametrize("dimensions", [2, 3])
def test_agrees_with_surface_distance_of_deepmind(dimensions: int) -> None:
    theirs = pytest.importorskip("surface_distance")
    for seed in range(200):
        a, b, spacing = masks(seed, dimensions)
        ours, other = surfaces(a, b, spacing), theirs.compute_surface_distances(b, a, spacing)
        tolerance = 1.3
        assert nsd(ours, tolerance) == pytest.approx(
            theirs.compute_surface_dice_at_tolerance(other, tolerance), abs=1e-6
        )
        assert hausdorff(ours) == pytest.approx(theirs.compute_robust_hausdorff(other, 95), abs=1e-6)
        assert hausdorff(ours, 100) == pytest.approx(theirs.compute_robust_hausdorff(other, 100), abs=1e-6)
        means = theirs.compute_average_surface_distance(other)
        assert np.average(ours.truth_distance, weights=ours.truth_weight) == pytest.approx(means[0], abs=1e-6)
        assert np.average(ours.prediction_distance, weights=ours.prediction_weight) == pytest.approx(means[1], abs=1e-6)


def test_agrees_with_medpy() -> None:
    theirs = pytest.importorskip("medpy.metric.binary")
    for seed in range(200):
        a, b, spacing = masks(seed)
        ours = surfaces(a, b, spacing, elements="pixels")
        assert hausdorff(ours, 100) == pytest.approx(theirs.hd(a, b, spacing), abs=1e-6)
        pooled = np.concatenate([ours.truth_distance, ours.prediction_distance])  # medpy's HD95 takes both together
        assert np.percentile(pooled, 95) == pytest.approx(theirs.hd95(a, b, spacing), abs=1e-6)
        assert ours.prediction_distance.mean() == pytest.approx(theirs.asd(a, b, spacing), abs=1e-6)
        assert ours.truth_distance.mean() == pytest.approx(theirs.asd(b, a, spacing), abs=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_agrees_with_monai() -> None:
    theirs = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    for seed in range(200):
        a, b, spacing = masks(seed)
        ours = surfaces(a, b, spacing, elements="pixels")
        pair = [torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32)) for mask in (a, b)]
        value = theirs.compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)
        assert hausdorff(ours) == pytest.approx(float(value), rel=1e-6, abs=1e-6)  # float32 there
        value = theirs.compute_average_surface_distance(*pair, symmetric=True, spacing=spacing)
        assert assd(ours) == pytest.approx(float(value), rel=1e-6, abs=1e-6)
        if seed % 10:
            continue  # slow there, and compared 200 times with the library that it follows
        value = theirs.compute_surface_dice(*pair, class_thresholds=[1.3], spacing=spacing, use_subvoxels=True)
        assert nsd(surfaces(a, b, spacing), 1.3) == pytest.approx(float(value), abs=1e-6)


def test_files_of_one_case_join() -> None:
    a, b, _ = masks(1, 2)
    alone = surfaces(a, b, (1, 1))
    twice = alone + alone
    assert (nsd(twice, 1), hausdorff(twice), assd(twice)) == pytest.approx(
        (nsd(alone, 1), hausdorff(alone), assd(alone))
    )
    with pytest.raises(ValueError, match="cannot join"):
        alone + surfaces(a, b, (1, 1), elements="pixels")


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="equal 2-D or 3-D"):
        surfaces(np.ones((2, 2), bool), np.ones((2, 3), bool), (1, 1))
    with pytest.raises(ValueError, match="equal 2-D or 3-D"):
        surfaces(np.ones((2, 2), bool), np.ones((2, 2), bool), (1, 1, 1))
