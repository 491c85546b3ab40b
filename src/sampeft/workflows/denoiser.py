"""Train a denoiser on images without labels, and score it on unseen ones beside its rivals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from sampeft.configs.train import Config
from sampeft.console import Bar, bar, say
from sampeft.data import DATASETS, open_dataset
from sampeft.data.case import Case, ImageFile
from sampeft.data.folds import hold_out, split_cases
from sampeft.data.noise import NOISES, noise, noisy
from sampeft.data.pairing import image_files, series_folders
from sampeft.data.preprocessing import Preparation, PreparedVolume
from sampeft.data.recipe import chosen_intensity
from sampeft.denoise import denoiser
from sampeft.denoise.dncnn import FILE
from sampeft.denoise.scores import NOISY, Picture, Score, Spoil, figure_denoising, score, tuned
from sampeft.errors import DataError, UsageError
from sampeft.io import file_stem, read_volume, sha256, write_atomically
from sampeft.io.dicom_series import series_chosen
from sampeft.one_writer import one_writer
from sampeft.options import parse_map
from sampeft.provenance import git_commit, versions
from sampeft.report.figures import encode
from sampeft.report.tables import markdown_table
from sampeft.training.denoiser import Trained, train_network

if TYPE_CHECKING:
    import torch

SCORED, CROP = 12, 256  # pictures at most that scores are of, and pixels of their sides; non-local means are slow
TRIED, TRIED_CROP = 6, 128  # of those that choose the best network and its rivals' settings


def train_denoiser(config: Config) -> Trained:
    """Train a DnCNN on the images of a data set or of a plain folder. Raises SampeftError for what the user can mend."""
    with one_writer(config.out), series_chosen(config.series):
        return _train_denoiser(config)


def _train_denoiser(config: Config) -> Trained:
    if (config.out / FILE).exists() and not config.force:
        raise UsageError(f"{config.out}: holds a trained denoiser; choose another --out or overwrite it with --force")
    chosen = config.denoising
    noise(chosen.noise, 0)  # a wrong name is told before any file is opened
    usual = NOISES[chosen.noise].usual
    strengths = (usual[0] if chosen.low is None else chosen.low, usual[1] if chosen.high is None else chosen.high)
    if strengths[0] > strengths[1]:
        raise UsageError(f"strengths of noise go from low to high, got {strengths[0]:g} to {strengths[1]:g}")

    cases, held_out, modality = image_cases(config)
    say(f"images    {len(cases)} cases to train on, {len(held_out)} held out")
    name, recipe = chosen_intensity(config.intensity, config.bands, cases, modality)
    say(f"intensity {name}: {recipe}")
    preparation = Preparation(recipe, CROP, config.plane)
    with bar("reading") as shown:
        pictures = read_pictures(cases, preparation, chosen.pictures, shown)
    unseen = [(n, cropped(p, CROP)) for n, p in read_pictures(held_out, preparation, SCORED)]
    trial = [cropped(p, TRIED_CROP) for _, p in pictures[:: max(1, len(pictures) // TRIED)][:TRIED]]
    say(f"pictures  {len(pictures)} to train on, {len(unseen)} held out")
    say(f"noise     {chosen.noise}, strength {strengths[0]:g} to {strengths[1]:g}")

    def spoil(levels: torch.Tensor, strength: float, seed: int) -> torch.Tensor:
        return noisy(levels, chosen.noise, strength, seed)

    config.out.mkdir(parents=True, exist_ok=True)
    resolved = {
        **json.loads(json.dumps(asdict(config), default=str)),
        "training_cases": [case.id for case in cases],
        "held_out_cases": [case.id for case in held_out],
        "strengths": strengths,
        "intensity_recipe": asdict(recipe),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    write_atomically(config.out / "config.json", json.dumps(resolved, indent=1) + "\n")
    training = config.training
    result = train_network(
        [p for _, p in pictures], trial, spoil, strengths, chosen, training.progress, training.seed, config.out
    )
    if result.stopped:
        say(f"stopped after {result.steps} steps; the best denoiser so far is in {config.out}")
        return result
    say(f"trained   {result.steps} steps in {result.minutes} minutes")
    write_results(config, result, strengths, unseen, trial, spoil, len(held_out))
    say(f"use it    sampeft train --data DATASET --denoise dncnn --denoise_weights {config.out} --out RUN")
    return result


def image_cases(config: Config) -> tuple[list[Case], list[Case], str]:
    """(training cases, held-out cases, modality): of a data set as for segmentation, but with its unlabelled cases; of a
    folder of images each image is a case. Raises DataError when there is no image."""
    if config.layout or any(known.matches(config.data) for known in DATASETS.values() if config.data.is_dir()):
        dataset = open_dataset(config.data, config.layout, parse_map(config.map))
        cases, held_out = split_cases(dataset, config.split, config.held_out, config.training.seed, config.cases)
        more = dataset.splits.get("unlabelled", ()) if config.split == "auto" else ()
        return [*cases, *(case for case in dataset.cases if case.id in more)], held_out, dataset.modality
    if not config.data.is_dir():
        raise DataError(f"{config.data}: is no folder; give the folder of a data set, or of images")
    files = [*image_files(config.data), *series_folders(config.data)]
    if not files:
        raise DataError(f"{config.data}: neither a data set nor a folder with images")
    alone = {file_stem(path): Case(file_stem(path), (ImageFile(file_stem(path), path),)) for path in files}
    say(f"note      {config.data} is a plain folder: each of its {len(alone)} images counts as a case of its own")
    if config.held_out <= 0:
        return list(alone.values()), [], ""
    share = config.held_out if config.held_out < 1 else int(config.held_out)
    train, held = hold_out(alone, share, config.training.seed)
    return [alone[id] for id in train], [alone[id] for id in held], ""


def read_pictures(
    cases: Sequence[Case], preparation: Preparation, most: int, shown: Bar | None = None
) -> list[tuple[str, Picture]]:
    """(name, levels (H, W) in 0..1 of the part that is looked at) of at most so many slices, evenly from all cases; each
    channel of a colour image is a picture."""
    found: list[tuple[str, Picture]] = []
    files = [file for case in cases for file in case.files]
    files = files[:: max(1, -(-len(files) // most))]
    for number, file in enumerate(files):
        prepared = PreparedVolume.of(read_volume(file.image), preparation)
        share = max(1, most // len(files))
        for s in sorted({int((i + 0.5) * len(prepared) / share) for i in range(share)}):
            for channel_HW in prepared.box_levels(s).numpy():
                name = f"{file.id} slice {s + 1}" if len(prepared) > 1 else file.id
                found.append((name, np.ascontiguousarray(channel_HW)))
        if shown:
            shown(number + 1, len(files))
    return found[:most]


def cropped(picture_HW: Picture, side: int) -> Picture:
    """Its middle, so many pixels a side at most."""
    top, left = (max(0, (length - side) // 2) for length in picture_HW.shape)
    return np.ascontiguousarray(picture_HW[top : top + side, left : left + side])


def write_results(
    config: Config,
    result: Trained,
    strengths: tuple[float, float],
    unseen: Sequence[tuple[str, Picture]],
    trial: Sequence[Picture],
    spoil: Spoil,
    held_out: int,
) -> None:
    """Score it and its rivals on unseen pictures; write denoise.json, denoise.md and denoise.png."""
    ours = denoiser("dncnn", {"weights": str(config.out)})
    at = sorted({round(s, 6) for s in (strengths[0], sum(strengths) / 2, strengths[1]) if s > 0})
    seed = config.training.seed
    scores: list[Score] = []
    if unseen:
        with bar("scoring", len(at)) as shown:
            for number, strength in enumerate(at):
                rivals = {**tuned(trial, spoil, strength, seed), "dncnn": (ours, "")}
                scores += score([p for _, p in unseen], spoil, strength, rivals, seed)
                shown.update(number + 1)
                if strength == at[len(at) // 2]:
                    title = f"{config.denoising.noise} noise of strength {strength:g}, held-out images"
                    figure = figure_denoising(
                        unseen[:: max(1, len(unseen) // 2)][:2], spoil, strength, rivals, seed, title
                    )
                    write_atomically(config.out / "denoise.png", encode(figure))
    content = {
        "noise": config.denoising.noise,
        "strengths": strengths,
        "sha256": sha256(config.out / FILE),
        **asdict(result),
        "held_out_cases": held_out,
        "scores": [asdict(s) for s in scores],
    }
    write_atomically(config.out / "denoise.json", json.dumps(content, indent=1) + "\n")
    text = table(scores, config.denoising.noise, held_out)
    write_atomically(config.out / "denoise.md", text)
    say(text)


def table(scores: Sequence[Score], kind: str, cases: int) -> str:
    """Markdown: a row per strength and method, and what the numbers mean."""
    if not scores:
        return "No image was held out, so there are no scores; give --held_out a share of the cases.\n"
    noise_of = {s.strength: s.psnr for s in scores if s.method == NOISY}
    rows = [
        [
            f"{s.method}{f' ({s.setting})' if s.setting else ''}",
            f"{s.strength:g}",
            f"{s.psnr:.2f}",
            "" if s.method == NOISY else f"{s.psnr - noise_of[s.strength]:+.2f}",
            f"{s.ssim:.3f}",
        ]
        for s in scores
    ]
    return (
        markdown_table(["method", f"strength of {kind}", "PSNR (dB)", "gain (dB)", "SSIM"], rows)
        + f"""
- Means over {scores[0].n} images of {cases} held-out cases, the middle {CROP} x {CROP} pixels at most, levels 0..1.
- The noise is synthetic; `clean` is the image as it is, with what noise it has of its own, so that PSNR and SSIM also
  count that noise, when it is removed, as an error.
- gaussian and nlm have the setting with the highest PSNR on {TRIED} training images at that strength; dncnn is one network
  for all strengths, the best of the training on the same images.
- Research software, not a medical device.
"""
    )
