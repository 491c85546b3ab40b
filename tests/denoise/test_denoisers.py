"""Denoisers: what they leave alone, what they better, where their weights are, and that a preparation carries them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fabricate import folder_dataset
from sampeft.data import open_dataset
from sampeft.data.intensity import Intensity
from sampeft.data.noise import noisy
from sampeft.data.preprocessing import Preparation, PreparedVolume
from sampeft.data.slice_cache import fingerprint, prepare
from sampeft.denoise import DENOISERS, Denoise, denoiser
from sampeft.denoise.dncnn import FILE
from sampeft.denoise.network import DnCnn, read_network, write_network
from sampeft.denoise.nlm import noise_level
from sampeft.errors import UsageError, WeightsError
from sampeft.io import read_volume
from sampeft.volume import Volume

GREY = Intensity("window", 0, 255)


def write_weights(folder: Path, push: float = 0.0, seed: int = 0) -> Path:
    """A run folder with a small DnCNN; push: how far its weights are from their start. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = DnCnn(depth=3, width=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(push * torch.randn(parameter.shape))
    write_network(folder / FILE, network, {"noise": "gaussian"})
    return folder / FILE


@pytest.fixture(params=sorted(DENOISERS))
def named(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """Every denoiser, with what it cannot do without."""
    name = request.param
    return name, {"weights": str(write_weights(tmp_path / "denoiser", push=0.2))} if name == "dncnn" else {}


@pytest.fixture
def picture() -> torch.Tensor:
    """(1, 48, 40): a bright box on mid-grey with noise."""
    clean = np.full((48, 40), 0.4, np.float32)
    clean[12:36, 10:30] = 0.7
    return torch.from_numpy(noisy(clean, "gaussian", 0.1, 0))[None]


def test_every_denoiser_treats_each_channel_alone_in_0_to_1_and_leaves_its_input(
    named: tuple[str, dict[str, Any]], picture: torch.Tensor
) -> None:
    denoise = denoiser(*named)
    colours = torch.cat([picture, 1 - picture, torch.zeros_like(picture)])
    before = colours.clone()
    found = denoise(colours)
    assert torch.equal(colours, before)
    assert found.shape == colours.shape
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    for channel in range(3):
        assert torch.allclose(found[channel], denoise(colours[channel : channel + 1])[0], atol=1e-6)
    assert torch.equal(denoise(colours), found)
    assert not torch.allclose(found[0], colours[0], atol=1e-3)


def test_gaussian_with_sigma_0_is_the_identity_and_else_keeps_the_mean(picture: torch.Tensor) -> None:
    assert torch.equal(denoiser("gaussian", {"sigma": 0.0})(picture), picture)
    white = torch.full((1, 64, 64), 0.5) + 0.1 * torch.randn((1, 64, 64), generator=torch.Generator().manual_seed(0))
    smooth = denoiser("gaussian", {"sigma": 2.0})(white)
    # White noise smoothed by a Gaussian: 1 / (2 sigma sqrt(pi)) of its standard deviation in two dimensions.
    assert float((smooth - 0.5).std()) == pytest.approx(0.1 / (4 * np.pi**0.5), rel=0.15)


@pytest.mark.parametrize("sigma", [0.05, 0.1])
def test_nlm_betters_a_noisy_constant_and_leaves_a_clean_one(sigma: float) -> None:
    noisy_constant = torch.from_numpy(noisy(np.full((40, 40), 0.5, np.float32), "gaussian", sigma, 1))[None]
    error = (denoiser("nlm")(noisy_constant) - 0.5).square().mean()
    assert float(error) < 0.2 * sigma**2
    clean = torch.full((1, 40, 40), 0.3)
    assert torch.equal(denoiser("nlm")(clean), clean)


def test_nlm_keeps_an_edge_that_gaussian_blurs() -> None:
    clean = np.full((48, 48), 0.3, np.float32)
    clean[:, 24:] = 0.7
    spoilt = torch.from_numpy(noisy(clean, "gaussian", 0.05, 2))[None]

    def error_at_the_edge(name: str) -> float:
        found = denoiser(name, {"sigma": 1.5} if name == "gaussian" else {})(spoilt)[0].numpy()
        return float(np.square(found - clean)[8:-8, 22:26].mean())

    assert error_at_the_edge("nlm") < 0.2 * error_at_the_edge("gaussian")


@pytest.mark.parametrize("shape", [(64, 64), (51, 70)])
def test_noise_level_is_that_of_the_library(shape: tuple[int, int]) -> None:
    pytest.importorskip("pywt")
    from skimage.restoration import estimate_sigma

    picture = np.random.default_rng(0).normal(0.5, 0.07, shape)
    assert noise_level(picture) == pytest.approx(float(estimate_sigma(picture)), rel=1e-9)
    assert noise_level(picture) == pytest.approx(0.07, rel=0.1)


def test_dncnn_starts_as_the_identity_and_adds_up() -> None:
    levels = torch.rand(2, 1, 17, 23, generator=torch.Generator().manual_seed(0))
    network = DnCnn(depth=5, width=6)
    assert torch.equal(network(levels), levels)
    # 9 x 6 + 6, three times 9 x 36 + 6, 9 x 6 + 1
    assert sum(p.numel() for p in network.parameters()) == 60 + 3 * 330 + 55
    with torch.no_grad():
        network.layers[-1].bias.fill_(0.25)  # the residual is what is taken away
    assert torch.allclose(network(levels), levels - 0.25)


def test_a_pixel_of_dncnn_sees_depth_pixels_each_way() -> None:
    torch.manual_seed(0)
    network = DnCnn(depth=4, width=8)
    with torch.no_grad():
        network.layers[-1].weight.normal_()
    levels = torch.rand(1, 1, 21, 21, requires_grad=True)
    network(levels)[0, 0, 10, 10].backward()
    assert levels.grad is not None
    rows = levels.grad[0, 0].abs().sum(dim=1).nonzero().flatten().tolist()
    assert (rows[0], rows[-1]) == (6, 14)


def test_weights_come_back_and_any_other_file_is_refused(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "run", push=0.3)
    levels = torch.rand(1, 1, 9, 9)
    first, again = read_network(path), read_network(path)
    assert torch.equal(first(levels), again(levels))
    assert not torch.equal(first(levels), levels)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="cannot be read as weights of a denoiser"):
        denoiser("dncnn", {"weights": str(tmp_path / "run")})
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="format None, wanted sampeft-dncnn-1"):
        denoiser("dncnn", {"weights": str(path)})
    save_file({"a": torch.zeros(2)}, path, metadata={"format": "sampeft-dncnn-1", "depth": "3", "width": "4"})
    with pytest.raises(WeightsError, match="not those of the network"):
        denoiser("dncnn", {"weights": str(path)})


def test_mistakes_of_the_user_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown denoiser 'dncn'; did you mean 'dncnn'"):
        denoiser("dncn")
    with pytest.raises(UsageError, match="unknown option of gaussian 'sigm'"):
        denoiser("gaussian", {"sigm": 1})
    with pytest.raises(UsageError, match="sigma of gaussian is 'much'; give a number"):
        denoiser("gaussian", {"sigma": "much"})
    with pytest.raises(UsageError, match="sigma is -1 pixels"):
        denoiser("gaussian", {"sigma": -1.0})
    with pytest.raises(UsageError, match="nlm wants"):
        denoiser("nlm", {"cut": 0.0})
    with pytest.raises(UsageError, match="needs weights: train them"):
        denoiser("dncnn")
    with pytest.raises(WeightsError, match="no such file"):
        denoiser("dncnn", {"weights": str(tmp_path)})


# --- as a part of the preparation


def test_a_preparation_carries_its_denoiser_and_older_ones_have_none(named: tuple[str, dict[str, Any]]) -> None:
    new = Preparation(GREY, 32, denoise=Denoise.of(*named))
    assert Preparation.from_json(json.loads(json.dumps(new.to_json()))) == new
    old = {"intensity": {"kind": "window", "low": 0, "high": 255}, "side": 32, "plane": "auto"}
    assert Preparation.from_json(old) == Preparation(GREY, 32)
    # Without a denoiser the same keys as ever, of which the cache's own are made.
    assert list(Preparation(GREY, 32).to_json()) == ["intensity", "side", "plane", "context", "context_mm"]
    with pytest.raises(UsageError, match="unknown option of denoise of the stored preparation 'strength'"):
        Preparation.from_json({**old, "denoise": {"name": "gaussian", "strength": 1}})


def test_slices_of_the_cache_are_those_of_prediction_and_go_through_the_denoiser(
    named: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    """One law for training, validation, evaluation and prediction: all read `PreparedVolume`."""
    dataset = open_dataset(folder_dataset(tmp_path / "set", cases=1, files_per_case=1, test_cases=0))
    denoise = Denoise.of(*named)
    slices = prepare(dataset, dataset.cases, Preparation(GREY, 48, denoise=denoise), "x", folder=tmp_path / "cache")
    volume = read_volume(dataset.cases[0].files[0].image)
    predicted = PreparedVolume.of(volume, Preparation(GREY, 48, denoise=denoise)).image(0)
    assert torch.equal((predicted * 255).round(), (slices.batch([0])[0][0] * 255).round())
    plain = PreparedVolume.of(volume, Preparation(GREY, 48))
    by_hand = plain.frame.scaled(denoiser(*named)(plain.box_levels(0))).expand(3, -1, -1)
    assert torch.equal(predicted, by_hand)
    assert not torch.allclose(predicted, plain.image(0), atol=1e-3)


def test_noise_comes_before_the_denoiser() -> None:
    volume = Volume(np.full((32, 32, 1), 128, np.uint8), None, Path("a.png"))
    smoothing = Preparation(GREY, 32, denoise=Denoise.of("gaussian", {"sigma": 3.0}))
    plain, smooth = (
        PreparedVolume.of(volume, preparation).with_noise("gaussian", 0.1, 0).image(0)
        for preparation in (Preparation(GREY, 32), smoothing)
    )
    assert float(smooth.std()) < 0.3 * float(plain.std())


def test_each_neighbour_is_denoised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume(np.random.default_rng(0).integers(0, 255, (16, 16, 9)).astype(np.uint8), np.eye(4), Path("v.nii"))
    prepared = PreparedVolume.of(
        volume, Preparation(GREY, 16, context="neighbours", denoise=Denoise.of("gaussian", {"sigma": 1.0}))
    )
    made: list[int] = []
    real = PreparedVolume.box_levels
    monkeypatch.setattr(PreparedVolume, "box_levels", lambda self, s: made.append(s) or real(self, s))
    images = [prepared.image(s) for s in range(9)]
    assert made == list(range(9))
    assert all(torch.equal(prepared.image(s), images[s]) for s in (7, 0, 4))
    assert torch.equal(images[3][2], images[4][1])


def test_the_cache_knows_denoisers_by_content_and_sets_without_keep_their_place(tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path / "set", cases=1, files_per_case=1, test_cases=0))
    digest = fingerprint(dataset.cases)

    def place(denoise: Denoise | None) -> str:
        found = prepare(
            dataset, dataset.cases, Preparation(GREY, 48, denoise=denoise), digest, folder=tmp_path / "cache"
        )
        assert found.folder is not None
        return found.folder.name

    one = write_weights(tmp_path / "one", push=0.2)
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / FILE
    copy.write_bytes(one.read_bytes())
    other = write_weights(tmp_path / "other", push=0.2, seed=1)
    places = [place(None), *(place(Denoise.of("dncnn", {"weights": str(path)})) for path in (one, copy, other))]
    assert places[1] == places[2]
    assert len({places[0], places[1], places[3]}) == 3
    assert place(Denoise.of("gaussian", {"sigma": 1.0})) != place(Denoise.of("gaussian", {"sigma": 2.0}))


def test_weights_are_looked_for_in_the_run_and_must_be_the_same(tmp_path: Path) -> None:
    first = write_weights(tmp_path / "trained", push=0.2)
    stored = json.loads(
        json.dumps(Preparation(GREY, 32, denoise=Denoise.of("dncnn", {"weights": str(first)})).to_json())
    )
    run = tmp_path / "moved" / "run"
    (run / "last").mkdir(parents=True)
    (run / FILE).write_bytes(first.read_bytes())
    write_weights(tmp_path / "trained", push=0.2, seed=5)  # another denoiser is in the old place now
    for folder in (run, run / "last"):
        found = Preparation.from_json(stored, folder).denoise
        assert found is not None
        assert found.options["weights"] == str(run / FILE)
        found.build()
    with pytest.raises(WeightsError, match="another denoiser than the model was trained with"):
        PreparedVolume.of(Volume(np.ones((8, 8, 1), np.uint8), None, Path("a.png")), Preparation.from_json(stored))
    (run / FILE).unlink()
    with pytest.raises(WeightsError, match="in none of"):
        Preparation.from_json(stored, run)
