"""Training of a denoiser: it learns, keeps the best, survives Ctrl-C; its scores; and the command from images to use."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fabricate import folder_dataset, write_png
from sampeft.cli import main
from sampeft.data.noise import noisy
from sampeft.denoise import denoiser
from sampeft.denoise.dncnn import FILE
from sampeft.denoise.gaussian import GaussianFilter
from sampeft.denoise.network import read_network
from sampeft.denoise.scores import NOISY, figure_denoising, psnr, score, tuned
from sampeft.denoise.settings import Denoising
from sampeft.errors import SampeftError, UsageError
from sampeft.prediction.loading import load
from sampeft.training.denoiser import Trained, train_network

SMALL = Denoising(depth=3, width=8, patch=24, batch=8, per_picture=4, validations=4, lr=5e-3)
STRENGTHS = (0.05, 0.15)


def discs(count: int, side: int = 48) -> list[Any]:
    """Pictures of bright discs on grey, (side, side) float32."""
    rows, columns = np.mgrid[:side, :side]
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        picture = np.full((side, side), 0.3, np.float32)
        row, column = random.uniform(10, side - 10, 2)
        picture[(rows - row) ** 2 + (columns - column) ** 2 < 64] = 0.7
        pictures.append(picture)
    return pictures


def spoil(levels: torch.Tensor, strength: float, seed: int) -> torch.Tensor:
    return noisy(levels, "gaussian", strength, seed)


def trained(out: Path, steps: int, **more: Any) -> Trained:
    out.mkdir(exist_ok=True)
    arguments: dict[str, Any] = {"pictures": discs(6), "trial": discs(2), "spoil": spoil, "config": SMALL, **more}
    return train_network(**arguments, strengths=STRENGTHS, progress=lambda step, _: step / steps, seed=0, out=out)


def test_a_short_training_betters_unseen_noise_and_the_best_is_kept(tmp_path: Path) -> None:
    result = trained(tmp_path, 60)
    assert result.steps == 60
    assert result.before == pytest.approx(20, abs=0.5)  # 0.1 of noise: 20 dB
    assert result.psnr > result.before + 4
    history = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [h["step"] for h in history] == [15, 30, 45, 60]
    assert max(h["psnr"] for h in history) == result.psnr
    kept = denoiser("dncnn", {"weights": str(tmp_path)})
    clean = discs(8)[-1]
    unseen = torch.from_numpy(noisy(clean, "gaussian", 0.1, 99))
    assert psnr(clean, kept(unseen[None])[0].numpy()) > psnr(clean, unseen.numpy()) + 4


def test_the_same_seed_trains_the_same_weights(tmp_path: Path) -> None:
    for name in ("one", "two"):
        trained(tmp_path / name, 5)
    one, two = (read_network(tmp_path / name / FILE).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert float(one["layers.2.weight"].abs().max()) > 0


@pytest.mark.parametrize("calls", [3, 40])
def test_ctrl_c_keeps_the_best_so_far(tmp_path: Path, calls: int) -> None:
    """Once before the first trial, once after it."""
    made = []

    def interrupted(levels: torch.Tensor, strength: float, seed: int) -> torch.Tensor:
        made.append(seed)
        if len(made) == calls:
            signal.raise_signal(signal.SIGINT)
        return spoil(levels, strength, seed)

    result = trained(tmp_path, 60, spoil=interrupted)
    assert result.stopped
    assert result.signal == signal.SIGINT
    assert result.steps < 60
    read_network(tmp_path / FILE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "metrics.jsonl"]


def test_pictures_smaller_than_a_patch_are_reflected(tmp_path: Path) -> None:
    assert math.isfinite(trained(tmp_path, 3, pictures=[p[:5, :9] for p in discs(2)]).psnr)


def test_a_loss_that_is_no_number_ends_it_with_a_word(tmp_path: Path) -> None:
    broken = discs(1)
    broken[0][0, 0] = np.nan
    with pytest.raises(SampeftError, match=r"at step \d+: the loss is no number"):
        trained(tmp_path, 30, pictures=broken)


def test_wrong_settings_are_told() -> None:
    with pytest.raises(UsageError, match=r"denoising\.batch is 0; give 1 to 4096"):
        Denoising(batch=0)
    with pytest.raises(UsageError, match=r"low to high, got 0\.2 to 0\.1"):
        Denoising(low=0.2, high=0.1)


# --- scores


def test_psnr_by_hand() -> None:
    clean = np.full((8, 8), 0.5, np.float32)
    assert psnr(clean, clean + np.float32(0.1)) == pytest.approx(20, abs=1e-4)
    assert psnr(clean, clean) == math.inf


def test_rivals_are_at_their_best_and_doing_nothing_gains_nothing() -> None:
    flat = [np.full((32, 32), 0.5, np.float32)] * 2
    rivals = tuned(flat, spoil, 0.1, 0)
    assert rivals["gaussian"][1] == "sigma 3 px"  # on a constant the most smoothing is best
    rows = {s.method: s for s in score(flat, spoil, 0.1, {**rivals, "nothing": (GaussianFilter(0.0), "")}, 7)}
    assert rows["nothing"].psnr == rows[NOISY].psnr == pytest.approx(20, abs=0.5)
    assert rows["gaussian"].psnr > 35
    assert rows["gaussian"].ssim > rows[NOISY].ssim
    assert rows[NOISY].n == 2


def test_the_figure_says_what_it_shows() -> None:
    figure = figure_denoising([("one", discs(1)[0])], spoil, 0.1, {"nothing": (GaussianFilter(0.0), "")}, 0, "title")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "clean"
    assert titles[1].replace(NOISY, "nothing") == titles[2]
    assert titles[1].startswith(f"{NOISY}, ")
    assert titles[1].endswith(" dB")
    with pytest.raises(ValueError, match="at least one"):
        figure_denoising([], spoil, 0.1, {}, 0, "title")


# --- the command

QUICK = ["--denoising.depth", "3", "--denoising.width", "4", "--denoising.patch", "16", "--denoising.batch", "4"]


def test_a_plain_folder_of_pictures_trains_a_denoiser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, picture in enumerate(discs(5)):
        write_png(tmp_path / "pictures" / f"{number}.png", (255 * picture).astype(np.uint8))
    out = tmp_path / "out"
    command = ["train", "--task", "denoise", "--data", str(tmp_path / "pictures"), "--out", str(out), "--json"]
    more = ["--training.steps", "4", "--held_out", "2", "--denoising.noise", "stripes"]
    assert main([*command, *more, *QUICK]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["steps"] == 4
    content = json.loads((out / "denoise.json").read_text())
    assert content["noise"] == "stripes"
    assert content["strengths"] == [0.01, 0.1]
    assert [s["method"] for s in content["scores"]] == ["noisy", "gaussian", "nlm", "dncnn"] * 3
    assert "2 held-out cases" in (out / "denoise.md").read_text()
    assert (out / "denoise.png").stat().st_size > 5000
    config = json.loads((out / "config.json").read_text())
    assert len(config["held_out_cases"]) == 2
    assert sorted([*config["training_cases"], *config["held_out_cases"]]) == list("01234")
    assert main([*command, *more, *QUICK]) == 2
    assert "holds a trained denoiser" in capsys.readouterr().err


def test_a_run_behind_a_denoiser_carries_it_to_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_dataset(tmp_path / "set", cases=3, files_per_case=1)
    denoise, run = tmp_path / "denoiser", tmp_path / "run"
    command = ["train", "--data", str(data), "--training.steps", "2"]
    assert main([*command, "--task", "denoise", "--out", str(denoise), "--held_out", "1", *QUICK]) == 0
    segment = [*command, "--out", str(run), "--weights", "random", "--side", "56", "--held_out", "0"]
    assert main([*segment, "--denoise", "dncnn", "--denoise_weights", str(denoise)]) == 0
    assert (run / FILE).read_bytes() == (denoise / FILE).read_bytes()
    (denoise / FILE).unlink()
    segmenter = load(run)
    stored = segmenter.preparation.denoise
    assert stored is not None
    assert stored.options["weights"] == str((run / FILE).resolve())
    assert segmenter.predict(data / "images" / "P03_1.png").shape == (24, 32, 1)
    capsys.readouterr()
    assert main([*segment, "--force", "--denoise_weights", str(denoise)]) == 2
    assert "give --denoise NAME" in capsys.readouterr().err
