"""Noise models: nothing at strength 0, the moments of their formulas, the same seed the same noise, one code path."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sampeft.data.intensity import PRESETS
from sampeft.data.noise import NOISES, Noise, noise, noisy
from sampeft.data.preprocessing import Preparation, PreparedVolume
from sampeft.errors import UsageError
from sampeft.volume import Volume

KINDS = sorted(NOISES)


def scene(height: int = 40, width: int = 48) -> np.ndarray:
    """A disc and a bar on a dark ground; float32 in 0.1..0.8."""
    rows, columns = np.mgrid[:height, :width]
    picture = np.full((height, width), 0.1, np.float32)
    picture[(rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 3) ** 2] = 0.5
    picture[height // 2 : height // 2 + 4, 8:-8] = 0.8
    return picture


def flat(level: float, side: int = 256) -> torch.Tensor:
    return torch.full((1, 1, side, side), level)


def test_laws_are_for_every_kind() -> None:
    assert all(issubclass(kind, Noise) for kind in NOISES.values())
    assert all(0 < kind.usual[0] < kind.usual[1] for kind in NOISES.values())


@pytest.mark.parametrize("name", KINDS)
def test_strength_0_is_the_identity_bit_for_bit(name: str) -> None:
    picture = scene()
    assert np.array_equal(noisy(picture, name, 0.0, 1), picture)
    batch = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noisy(batch, name, 0.0, 1), batch)


@pytest.mark.parametrize("name", KINDS)
def test_noise_changes_the_picture_within_0_and_1_and_leaves_the_input_alone(name: str) -> None:
    picture = scene()
    before = picture.copy()
    found = noisy(picture, name, NOISES[name].usual[1], 3)
    assert np.array_equal(picture, before)
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert np.abs(found - picture).max() > 0.01


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_is_the_same_noise_and_more_strength_is_more(name: str) -> None:
    picture, (low, high) = scene(), NOISES[name].usual
    assert np.array_equal(noisy(picture, name, high, 5), noisy(picture, name, high, 5))
    assert not np.array_equal(noisy(picture, name, high, 5), noisy(picture, name, high, 6))
    little, much = (float(np.abs(noisy(picture, name, s, 5) - picture).mean()) for s in (low, high))
    assert 0 < little < much


@pytest.mark.parametrize("name", KINDS)
def test_numpy_and_torch_and_grey_and_repeated_grey_are_one_path(name: str) -> None:
    picture, strength = scene(), NOISES[name].usual[1]
    grey = noisy(picture, name, strength, 7)
    batch = noisy(torch.from_numpy(picture)[None, None].expand(1, 3, -1, -1), name, strength, 7)
    assert batch.shape == (1, 3, *picture.shape)
    for channel in batch[0]:
        assert np.array_equal(channel.numpy(), grey)
    repeated = noisy(np.repeat(picture[..., None], 3, axis=2), name, strength, 7)
    assert np.array_equal(repeated, np.repeat(grey[..., None], 3, axis=2))
    colours = np.stack([picture, picture.T[: picture.shape[0], :].repeat(2, 1)[:, : picture.shape[1]], picture], axis=2)
    assert np.array_equal(
        noisy(colours, name, strength, 7),
        noisy(torch.from_numpy(colours).permute(2, 0, 1)[None], name, strength, 7)[0].permute(1, 2, 0).numpy(),
    )


def test_every_picture_of_a_batch_has_its_own_noise() -> None:
    found = noisy(flat(0.5, 32).repeat(2, 1, 1, 1), "gaussian", 0.1, 0)
    assert not torch.equal(found[0], found[1])


def test_colours_have_unlike_noise_in_each_channel() -> None:
    colours = flat(0.5, 64).repeat(1, 3, 1, 1) + torch.tensor([0.0, 0.05, -0.05])[:, None, None]
    added = (noisy(colours, "gaussian", 0.05, 0) - colours)[0].flatten(1)
    assert torch.corrcoef(added).triu(1).abs().max() < 0.1


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.1])
def test_gaussian_has_its_standard_deviation(sigma: float) -> None:
    added = noisy(flat(0.5), "gaussian", sigma, 0) - 0.5
    assert float(added.std()) == pytest.approx(sigma, rel=0.02)
    assert float(added.mean()) == pytest.approx(0, abs=4 * sigma / 256)


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8])
def test_the_variance_of_photons_is_the_mean_over_the_counts(level: float) -> None:
    strength = 0.05  # 400 photons at level 1
    found = noisy(flat(level), "poisson", strength, 0)
    assert float(found.mean()) == pytest.approx(level, rel=0.005)
    assert float(found.var()) == pytest.approx(level / 400, rel=0.03)
    assert torch.allclose((found * 400).round(), found * 400, atol=1e-3)  # whole photons


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_speckle_grows_with_the_level(level: float) -> None:
    assert float(noisy(flat(level), "speckle", 0.2, 0).std()) == pytest.approx(0.2 * level, rel=0.02)


def test_rician_background_is_rayleigh_and_bright_tissue_nearly_normal() -> None:
    sigma = 0.05
    background = noisy(flat(0.0), "rician", sigma, 0)
    assert float(background.mean()) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.01)
    assert float(background.var()) == pytest.approx(sigma**2 * (2 - math.pi / 2), rel=0.03)
    tissue = noisy(flat(0.7), "rician", sigma, 0)
    assert float(tissue.mean()) == pytest.approx(0.7 + sigma**2 / (2 * 0.7), rel=0.002)
    assert float(tissue.std()) == pytest.approx(sigma, rel=0.02)


def test_streaks_have_their_standard_deviation_and_run_along_the_thick_side() -> None:
    """In a long flat body most noise is in the rays along it, so that streaks are longer along its columns."""
    picture = np.full((96, 96), 0.15, np.float32)
    picture[40:56] = 0.8
    added = noisy(picture, "streaks", 0.03, 0) - picture
    assert float(added.std()) == pytest.approx(0.03, rel=0.02)
    along, across = ((np.roll(added, 1, axis) * added).mean() for axis in (1, 0))
    assert along > 1.5 * across > 0


def test_bias_is_smooth_and_reaches_its_strength() -> None:
    gain = torch.log(noisy(flat(0.3, 64), "bias", 0.5, 0) / 0.3)[0, 0]
    assert float(gain.abs().max()) == pytest.approx(0.5, rel=1e-3)
    assert float(gain.diff(dim=0).abs().max()) < 0.06


def test_motion_keeps_the_energy_of_k_space() -> None:
    """A shift turns phases only (Parseval), so that the sum of squares stays."""
    picture = 0.5 * scene(64, 64)
    found = noisy(picture, "motion", 0.05, 1)
    assert found.max() < 1
    assert float((found**2).sum()) == pytest.approx(float((picture**2).sum()), rel=1e-4)
    assert np.abs(found - picture).mean() > 0.005


def test_blur_spreads_a_point_along_a_line_of_its_length() -> None:
    picture = np.zeros((65, 65), np.float32)
    picture[32, 32] = 1.0
    found = noisy(picture, "blur", 0.2, 4)  # 13 pixels
    assert float(found.sum()) == pytest.approx(1, abs=0.01)
    positions = np.argwhere(found > 0.01).astype(float)
    reach = max(np.linalg.norm(p - q) for p in positions for q in positions)
    assert 11 <= reach <= 15
    assert np.linalg.svd(positions - positions.mean(axis=0))[1][1] / len(positions) ** 0.5 < 0.8  # thin


def test_stripes_are_the_same_down_a_column() -> None:
    added = (noisy(flat(0.5, 512), "stripes", 0.05, 0) - 0.5)[0, 0]
    assert torch.equal(added, added[:1].expand_as(added))
    assert float(added[0].std()) == pytest.approx(0.05, rel=0.1)


def test_wrong_names_and_strengths_are_told() -> None:
    with pytest.raises(UsageError, match="unknown noise 'gausian'; did you mean 'gaussian'"):
        noise("gausian", 0.1)
    for strength in (-0.1, math.nan, math.inf):
        with pytest.raises(UsageError, match="strength of noise"):
            noise("gaussian", strength)
    with pytest.raises(ValueError, match="axes"):
        noisy(torch.zeros(3, 8, 8), "gaussian", 0.1, 0)
    with pytest.raises(ValueError, match="axes"):
        noisy(np.zeros(8, np.float32), "gaussian", 0.1, 0)


def test_a_volume_seen_through_noise_has_other_noise_in_each_slice() -> None:
    volume = Volume(np.full((32, 32, 2), 128, np.uint8), np.eye(4), Path("grey.nii"))
    clean = PreparedVolume.of(volume, Preparation(PRESETS["8bit"], 32))
    spoilt = clean.with_noise("gaussian", 0.1, 9)
    again = clean.with_noise("gaussian", 0.1, 9)
    assert all(torch.equal(spoilt.image(s), again.image(s)) for s in (0, 1))
    assert not torch.equal(spoilt.image(0), spoilt.image(1))
    assert float((spoilt.image(0) - clean.image(0)).std()) == pytest.approx(0.1, rel=0.05)
    assert torch.equal(clean.with_noise("gaussian", 0.0, 9).image(0), clean.image(0))
