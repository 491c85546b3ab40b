"""Foreground DSC against the strength of noise: plain, denoised, and trained on noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

from sampeft.configs.train import Config as TrainConfig
from sampeft.console import bar, say
from sampeft.data.slice_cache import PreparedVolume
from sampeft.denoise import Denoise
from sampeft.denoise.settings import Denoising
from sampeft.evaluation.score import score_cases
from sampeft.experiments.memo import finish, finished, identity, scored_before, write_json
from sampeft.experiments.paper import Place, Row, minutes_text, trained
from sampeft.io import write_atomically
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Interval
from sampeft.prediction.loading import load
from sampeft.prediction.scene import SliceScene
from sampeft.provenance import versions
from sampeft.report.noise_figure import figure_noise
from sampeft.report.tables import interval_text, markdown_table
from sampeft.stopping import unless_stopped
from sampeft.training.loop import Training
from sampeft.workflows.denoiser import train_denoiser


@dataclass(frozen=True)
class Way:
    """How noise is met. row: what is trained; the others use the plain model. denoiser: by name, before the model."""

    heading: str
    row: Row
    denoiser: str | None = None


def ways(plain: Row, kind: str, highest: float) -> list[Way]:
    """The model as it is, behind each denoiser, and one that was trained on noise of the same kind."""
    noisy = replace(plain, heading=f"{plain.heading}, trained on {kind} noise")
    return [
        Way("plain", plain),
        *(Way(f"{name} before it", plain, name) for name in ("gaussian", "nlm", "dncnn")),
        Way(f"trained on noise up to {highest:g}", noisy),
    ]


def reproduce(place: Place, plain: Row, strengths: Sequence[float], denoising: Denoising, minutes: float) -> Path:
    """Score every way at every strength; what was scored before is read. Returns the table's path.

    strengths: ascending. denoising, minutes: how the DnCNN is trained; its kind of noise is the one that all is about.
    """
    kind = denoising.noise
    limits = (0.0, strengths[-1])
    augmentation = replace(place.training.augmentation, noises=(kind,), noise_strength=limits)
    noisy = replace(place, training=replace(place.training, augmentation=augmentation))
    found: dict[str, dict[float, Interval]] = {}
    for way in ways(plain, kind, limits[1]):
        run = trained(place if way.row is plain else noisy, way.row, 0)
        dncnn = _dncnn(place, denoising, minutes) if way.denoiser == "dncnn" else None
        found[way.heading] = {}
        for strength in strengths:
            folder = place.runs / "noise" / f"{way.heading.replace(' ', '-')}" / f"{kind}-{strength:g}"
            evaluation = scored_before(folder, place.cases, {"data": place.dataset.name})
            if evaluation is None:
                say(f"scoring   {way.heading}, {kind} noise of {strength:g}")
                evaluation = _score(place, way, run, strength, kind, dncnn)
                evaluation.write(folder)
            found[way.heading][strength] = evaluation.headline()
    return _write(place, plain, kind, found, minutes)


def _write(place: Place, plain: Row, kind: str, found: dict[str, dict[float, Interval]], minutes: float) -> Path:
    strengths = list(next(iter(found.values())))
    rows = [
        [heading, *(interval_text(interval) for interval in by_strength.values())]
        for heading, by_strength in found.items()
    ]
    table = markdown_table(["way", *(f"{kind} {strength:g}" for strength in strengths)], rows)
    stamp = f"{place.stamp([plain])}; DnCNN trained for {minutes_text(minutes)}"
    text = (
        f"# Foreground DSC of {plain.heading} against {kind} noise on {place.dataset.name}\n\n{table}\n"
        f"- {stamp}.\n"
        "- The strength is that of `sampeft.data.noise`, on levels of 0..1; noise is added on the picture's own grid, the same "
        "for every way. 95 % interval over cases.\n"
        "- Denoisers stand before the plain model, which was trained without them.\n\n"
        f"![DSC against noise](robustness-{kind}.png)\n"
    )
    place.out.mkdir(parents=True, exist_ok=True)
    figure_noise(found, kind, place.dataset.name, place.out / f"robustness-{kind}.png")
    target = place.out / f"robustness-{kind}.md"
    write_atomically(target, text)
    dsc = {way: {f"{s:g}": interval.mean for s, interval in by.items()} for way, by in found.items()}
    write_json(place.out / f"robustness-{kind}.json", {"stamp": stamp, "versions": versions(), "dsc": dsc})
    return target


def _score(place: Place, way: Way, run: Path, strength: float, kind: str, dncnn: Path | None) -> Evaluation:
    segmenter = load(run, weights=place.weights)
    preparation = segmenter.preparation
    if way.denoiser:
        options = {"weights": str(dncnn)} if dncnn else {}
        preparation = replace(preparation, denoise=Denoise.of(way.denoiser, options))

    def predict(prepared: PreparedVolume, _: Any) -> Any:
        # The same for every way, but other noise in each picture and slice.
        seed = crc32(prepared.volume.path.name.encode("utf-8", "surrogateescape"))
        scene, made = SliceScene(prepared.with_noise(kind, strength, seed)), segmenter.class_map()
        for _ in segmenter.predict_scenes([(scene, [made])], batch=4):
            pass
        return made.channels_SHW

    meta = {"model": f"{segmenter.name}, {way.heading}", "data": place.dataset.name, "split": place.split}
    meta["noise"] = f"{kind} {strength:g}"
    with bar("scoring", len(place.cases)) as shown:
        evaluation, _ = score_cases(predict, place.dataset, place.cases, preparation, {**meta, "oracle": False}, shown)
    return evaluation


def _dncnn(place: Place, denoising: Denoising, minutes: float) -> Path:
    """Folder of a DnCNN that was trained on the training images with this noise, once."""
    run = place.runs / "dncnn" / denoising.noise
    training = Training(minutes=minutes, seed=place.training.seed)
    split = place.splits[0]
    config = TrainConfig(place.root, run, "denoise", split=split, denoising=denoising, training=training, force=True)
    settings = identity(config, place.dataset.name)
    if not finished(run, settings):
        say(f"\ntraining  DnCNN on {denoising.noise} noise, {minutes_text(minutes)}")
        result = unless_stopped(train_denoiser(config))
        finish(run, settings, steps=result.steps, minutes=result.minutes)
    return run
