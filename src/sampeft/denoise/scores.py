"""PSNR and SSIM of denoisers at several strengths of noise, and a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sampeft.denoise import Denoiser
from sampeft.denoise.gaussian import GaussianFilter
from sampeft.denoise.nlm import NonLocalMeans

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

Picture = npt.NDArray[np.float32]
Spoil = Callable[["torch.Tensor", float, int], "torch.Tensor"]
"""Levels (B, C, H, W), strength, seed -> the same with noise."""

NOISY = "noisy"
_SIGMAS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # pixels
_CUTS = (0.4, 0.6, 0.8, 1.0, 1.2)


@dataclass(frozen=True)
class Score:
    """Of one denoiser at one strength: PSNR in dB and SSIM, means over pictures; n: how many. setting: what was chosen."""

    method: str
    strength: float
    psnr: float
    ssim: float
    n: int
    setting: str = ""


def with_noise(picture_HW: Picture, spoil: Spoil, strength: float, seed: int) -> Picture:
    import torch

    found: Picture = spoil(torch.from_numpy(picture_HW)[None, None], strength, seed)[0, 0].numpy()
    return found


def denoised(picture_HW: Picture, denoise: Denoiser) -> Picture:
    import torch

    found: Picture = denoise(torch.from_numpy(picture_HW)[None])[0].numpy()
    return found


def psnr(clean_HW: Picture, found_HW: Picture) -> float:
    """Peak signal-to-noise ratio in dB, the peak being level 1; infinite for equal pictures."""
    from skimage.metrics import peak_signal_noise_ratio

    if np.array_equal(clean_HW, found_HW):
        return float("inf")
    return float(peak_signal_noise_ratio(clean_HW, found_HW, data_range=1.0))


def tuned(pictures: Sequence[Picture], spoil: Spoil, strength: float, seed: int) -> dict[str, tuple[Denoiser, str]]:
    """The rivals at their best: Gaussian's sigma and the cut of non-local means with the highest mean PSNR on these
    pictures, and what was chosen."""
    pairs = [(clean, with_noise(clean, spoil, strength, seed + i)) for i, clean in enumerate(pictures)]

    def best(choices: Mapping[str, Denoiser]) -> tuple[Denoiser, str]:
        def mean(setting: str) -> float:
            return float(np.mean([psnr(clean, denoised(spoilt, choices[setting])) for clean, spoilt in pairs]))

        chosen = max(choices, key=mean)
        return choices[chosen], chosen

    return {
        "gaussian": best({f"sigma {s:g} px": GaussianFilter(s) for s in _SIGMAS}),
        "nlm": best({f"cut {c:g}": NonLocalMeans(cut=c) for c in _CUTS}),
    }


def score(
    pictures: Sequence[Picture],
    spoil: Spoil,
    strength: float,
    denoisers: Mapping[str, tuple[Denoiser, str]],
    seed: int,
) -> list[Score]:
    """Of the noisy pictures and of each denoiser on the same noise; pictures (H, W) of 7 pixels a side or more."""
    from skimage.metrics import structural_similarity

    values: dict[str, list[tuple[float, float]]] = {name: [] for name in (NOISY, *denoisers)}
    for i, clean in enumerate(pictures):
        spoilt = with_noise(clean, spoil, strength, seed + i)
        found = {NOISY: spoilt, **{name: denoised(spoilt, denoise) for name, (denoise, _) in denoisers.items()}}
        for name, picture in found.items():
            values[name].append((psnr(clean, picture), float(structural_similarity(clean, picture, data_range=1.0))))
    settings = {NOISY: "", **{name: setting for name, (_, setting) in denoisers.items()}}
    made = []
    for name, both in values.items():
        peak, likeness = np.mean(both, axis=0).tolist()
        made.append(Score(name, strength, peak, likeness, len(pictures), settings[name]))
    return made


def figure_denoising(
    pictures: Sequence[tuple[str, Picture]],
    spoil: Spoil,
    strength: float,
    denoisers: Mapping[str, tuple[Denoiser, str]],
    seed: int,
    title: str,
) -> Figure:
    """A row per named picture: clean, noisy, each denoiser, all with the same grey scale of levels 0..1 and their PSNR.

    Raises ValueError without pictures.
    """
    from matplotlib.figure import Figure

    if not pictures:
        raise ValueError("a figure of denoising needs at least one picture")
    columns = 2 + len(denoisers)
    figure = Figure(figsize=(2.3 * columns, 2.5 * len(pictures) + 0.35), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(len(pictures), columns, squeeze=False)
    for row, (name, clean) in enumerate(pictures):
        spoilt = with_noise(clean, spoil, strength, seed + row)
        shown = {"clean": clean, NOISY: spoilt}
        shown |= {method: denoised(spoilt, denoise) for method, (denoise, _) in denoisers.items()}
        for panel, (method, picture) in zip(axes[row], shown.items(), strict=True):
            panel.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            quality = "" if method == "clean" else f", {psnr(clean, picture):.1f} dB"
            panel.set_title(f"{method}{quality}", fontsize=9)
            panel.set_xticks([])
            panel.set_yticks([])
        axes[row, 0].set_ylabel(name, fontsize=8)
    return figure
