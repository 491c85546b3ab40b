"""A place in; foreground DSC against the strength of noise out: plain, denoised, and trained on noise; table and figure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sampeft.commands.reproduction import DONE, Place, Row, StoppedError, trained
from sampeft.commands.train import Config as TrainConfig
from sampeft.commands.train import say, versions
from sampeft.commands.train_denoiser import train_denoiser
from sampeft.data.cache import PreparedVolume
from sampeft.denoise import Denoise
from sampeft.denoise.training import Denoising
from sampeft.evaluation import score_cases
from sampeft.inference import load, predict_slices
from sampeft.io import write_atomically
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Interval
from sampeft.progress import bar
from sampeft.report.noise_figure import figure_noise
from sampeft.report.tables import interval_text, markdown_table
from sampeft.training import Training

SEED = 1000  # of the noise: the same for every model, another in each slice


@dataclass(frozen=True)
class Way:
    """How noise is met. row: what is trained; the others use the plain model. denoiser: by name, before the model."""

    heading: str
    row: Row
    denoiser: str | None = None


def ways(plain: Row, kind: str, strength: tuple[float, float]) -> list[Way]:
    """The model as it is, behind each denoiser, and one that was trained on noise of the same kind."""
    noisy = replace(plain, heading=f"{plain.heading}, trained on {kind} noise")
    return [
        Way("plain", plain),
        *(Way(f"{name} before it", plain, name) for name in ("gaussian", "nlm", "dncnn")),
        Way(f"trained on noise up to {strength[1]:g}", noisy),
    ]


def reproduce(place: Place, plain: Row, strengths: Sequence[float], denoising: Denoising, minutes: float) -> Path:
    """Score every way at every strength; what was scored before is read. Returns the table's path.

    denoising, minutes: how the DnCNN is trained; its kind of noise is the one that all is about.
    """
    kind = denoising.noise
    place.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[float, Interval]] = {}
    limits = (0.0, max(strengths))
    for way in ways(plain, kind, limits):
        here = place
        if way.row is not plain:
            augmentation = replace(place.training.augmentation, noises=(kind,), noise_strength=limits)
            here = replace(place, training=replace(place.training, augmentation=augmentation))
        run = trained(here, way.row, 0)
        found[way.heading] = {}
        for strength in strengths:
            folder = place.out / "noise" / f"{way.heading.replace(' ', '-')}" / f"{kind}-{strength:g}"
            if not (folder / "summary.json").is_file():
                say(f"scoring   {way.heading}, {kind} noise of {strength:g}")
                _score(here, way, run, strength, denoising, minutes).write(folder)
            found[way.heading][strength] = Evaluation.read(folder).headline()
    rows = [
        [heading, *(interval_text(interval) for interval in by_strength.values())]
        for heading, by_strength in found.items()
    ]
    table = markdown_table(["way", *(f"{kind} {strength:g}" for strength in strengths)], rows)
    text = (
        f"# Foreground DSC against {kind} noise on {place.dataset.name}\n\n{table}\n"
        f"- {place.stamp}; here one seed.\n"
        f"- The strength is that of `sampeft.data.noise`, on levels of 0..1; noise is added on the picture's own grid, the same "
        "for every way. 95 % interval over cases.\n"
        "- Denoisers stand before the plain model, which was trained without them.\n\n"
        f"![DSC against noise](robustness-{kind}.png)\n"
    )
    figure_noise(found, kind, place.dataset.name, place.out / f"robustness-{kind}.png")
    target = place.out / f"robustness-{kind}.md"
    write_atomically(target, text.encode())
    record = {
        "stamp": place.stamp,
        "versions": versions(),
        "dsc": {way: {str(s): interval.mean for s, interval in by.items()} for way, by in found.items()},
    }
    write_atomically(place.out / f"robustness-{kind}.json", (json.dumps(record, indent=1) + "\n").encode())
    return target


def _score(place: Place, way: Way, run: Path, strength: float, denoising: Denoising, minutes: float) -> Evaluation:
    kind = denoising.noise
    segmenter = load(run, weights=place.weights)
    preparation = segmenter.preparation
    if way.denoiser:
        options = {"weights": str(_dncnn(place, denoising, minutes))} if way.denoiser == "dncnn" else {}
        preparation = replace(preparation, denoise=Denoise.of(way.denoiser, options))

    def predict(prepared: PreparedVolume, _: Any) -> Iterator[tuple[int, Any]]:
        return predict_slices(segmenter.model, prepared.with_noise(kind, strength, SEED))

    meta = {"model": f"{segmenter.name}, {way.heading}", "data": place.dataset.name, "split": place.split}
    meta["noise"] = f"{kind} {strength:g}"
    with bar("scoring", len(place.cases)) as shown:
        evaluation, _ = score_cases(predict, place.dataset, place.cases, preparation, {**meta, "oracle": False}, shown)
    return evaluation


def _dncnn(place: Place, denoising: Denoising, minutes: float) -> Path:
    """Folder of a DnCNN that was trained on the training images with this noise."""
    run = place.out / "dncnn" / denoising.noise
    if not (run / DONE).is_file():
        split = "train" if "train" in place.dataset.splits else "auto"
        training = Training(minutes=minutes, seed=place.training.seed)
        config = TrainConfig(
            place.root, run, task="denoise", split=split, denoising=denoising, training=training, force=True
        )
        if train_denoiser(config).stopped:
            raise StoppedError(f"stopped; what is done is in {place.out}, run the same command again to go on")
        write_atomically(run / DONE, b"{}\n")
    return run
