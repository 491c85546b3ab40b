"""Labelled data set in, trained run folder out: check, prepare, attach a method to a backbone, train, keep the best.

With `--task denoise` images in, a trained denoiser out (see `train_denoiser`).
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sampeft.backbones import RANDOM, LoadedBackbone, backbone, load_backbone
from sampeft.data import open_dataset
from sampeft.data.augment import symmetries_of
from sampeft.data.cache import Preparation, fingerprint, prepare
from sampeft.data.case import Case, Dataset
from sampeft.data.check import check_dataset
from sampeft.data.folds import fold_of, hold_out
from sampeft.data.intensity import PRESETS, Intensity, choose, preset, with_bands
from sampeft.data.scale import Scale
from sampeft.denoise import Denoise
from sampeft.denoise.dncnn import FILE as DENOISER
from sampeft.denoise.training import Denoising
from sampeft.errors import UsageError
from sampeft.heads import HEADS
from sampeft.io import read_volume, sha256, write_atomically
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.one_writer import one_writer
from sampeft.options import options_by_name
from sampeft.peft import METHODS, attach, count_parameters
from sampeft.peft.state import WEIGHTS
from sampeft.peft.warm_start import start_from
from sampeft.planning.planner import processes
from sampeft.planning.trial_run import plan_training, workload_of
from sampeft.progress import bar
from sampeft.provenance import git_commit, versions
from sampeft.store import writable_cache
from sampeft.training.batches import suited_patch
from sampeft.training.checkpoint import FILE as CHECKPOINT
from sampeft.training.checkpoint import FREE, Checkpoint, read_checkpoint
from sampeft.training.loop import Result, Training, fit


@dataclass(frozen=True)
class Config:
    """What to train on what.

    Args:
        data: folder of the data set.
        out: run folder to make.
        task: segment, or denoise: train a denoiser on the images, labelled or not, of a data set or a plain folder; of
            `training` it takes steps, minutes and seed.
        backbone: promptable model to start from.
        weights: its weights: a file, a `transformers` folder, a hub id, 'random', or nothing: found by name.
        method: what is trained; `sampeft info` lists methods and their options.
        options: options of the method, such as --options.rank 8.
        head: what draws the class maps: pixel, on the picture's own grid; mask, SAM's own way up, as in the paper; or probe, a
            linear classifier of what the frozen encoder gives.
        head_options: options of the head, such as --head_options.presence false.
        encoder_side: pixels of what the encoder sees of the square input; nothing: as many as `side`. A smaller one costs less,
            and the head pixel still draws at `side`.
        start_from: run whose trained weights are the start, such as one of `decoder` for a `lora` with whole_decoder; what it
            did not train starts as usual, and its side may be another. Classes are matched by name.
        layout: layout of the data set; nothing: found by looking.
        split: split to train on; 'auto': train if the data set has it, else all; 'fold2of5': all cases outside that fold.
        held_out: cases of it that are not trained on but scored on the way; below 1 a share, else a number, 0 none.
        map: label ids to change on reading, such as 4:3,255:1.
        intensity: recipe by name, or 'auto'.
        bands: bands of a multiband image to look at, counted from 1, such as 4,3,2; nothing: grey or colour as it is.
        context: what the three input channels of a grey slice hold: the slice repeated, or its neighbours as well.
        context_mm: how far away the neighbours are; nothing: the next slices.
        side: pixels of the square network input; nothing: the backbone's default.
        plane: axial, coronal, sagittal, or auto: across the largest spacing.
        denoise: denoiser that each slice goes through first, here and at prediction: gaussian, nlm or dncnn.
        denoise_options: its options, such as --denoise_options.sigma 1.5.
        denoise_weights: run folder of --task denoise, for dncnn; its weights are copied into this run.
        denoising: how --task denoise trains.
        training: the training itself.
        plan: say before the first step what memory and time it will take, and stop where the memory cannot suffice; false:
            start at once.
        resume: go on with the run in `out` where it was stopped or killed, with the same options as before; to the bit on
            the CPU, when the end is given by steps; minutes used before count.
        force: overwrite a run that is already there; with `resume`, start anew where there is nothing to go on from.
        json: print the result as one JSON object on stdout.
    """

    data: Path
    out: Path
    task: Literal["segment", "denoise"] = "segment"
    backbone: str = "lite-medsam"
    weights: str | None = None
    method: str = "lora"
    options: dict[str, Any] = field(default_factory=dict)
    head: str = "pixel"
    head_options: dict[str, Any] = field(default_factory=dict)
    encoder_side: int | None = None
    start_from: Path | None = None
    layout: str | None = None
    split: str = "auto"
    held_out: float = 0.15
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    context: Literal["repeat", "neighbours"] = "repeat"
    context_mm: float | None = None
    side: int | None = None
    plane: str = "auto"
    denoise: str | None = None
    denoise_options: dict[str, Any] = field(default_factory=dict)
    denoise_weights: Path | None = None
    denoising: Denoising = field(default_factory=Denoising)
    training: Training = field(default_factory=Training)
    plan: bool = True
    resume: bool = False
    force: bool = False
    json: bool = False


def run(config: Config) -> int:
    if config.task == "denoise":
        from sampeft.commands.train_denoiser import train_denoiser

        if config.resume:
            raise UsageError("--resume goes on with the training of a model; a denoiser's is started anew")
        denoiser = train_denoiser(config)
        if config.json:
            print(json.dumps({"out": str(config.out), **asdict(denoiser)}))
        return 130 if denoiser.stopped else 0
    result = train(config)
    if config.json:
        print(json.dumps({"out": str(config.out), **asdict(result)}))
    return 130 if result.stopped else 0


def say(text: str) -> None:
    """A line on stderr; of several processes only the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def parse_map(text: str | None) -> dict[int, int] | None:
    """`4:3,255:1` -> {4: 3, 255: 1}."""
    if text is None:
        return None
    try:
        return {int(old): int(new) for old, new in (pair.split(":") for pair in text.split(","))}
    except ValueError:
        raise UsageError(f"--map wants pairs of ids such as 4:3,255:1, got '{text}'") from None


def split_cases(dataset: Dataset, split: str, held_out: float, seed: int) -> tuple[list[Case], list[Case]]:
    """(training cases, held-out cases). A `val` split that the data set ships is used as the held-out cases."""
    name = split if split != "auto" else "train" if "train" in dataset.splits else "all"
    fold = fold_of(dataset, split)
    unlabelled = dataset.splits.get("unlabelled", ())
    cases = {case.id: case for case in (fold[0] if fold else dataset.split(name)) if case.id not in unlabelled}
    if held_out <= 0:
        return list(cases.values()), []
    if split == "auto" and "val" in dataset.splits:
        return list(cases.values()), list(dataset.split("val"))
    train, held = hold_out(sorted(cases), held_out if held_out < 1 else int(held_out), seed)
    return [cases[i] for i in train], [cases[i] for i in held]


def chosen_intensity(asked: str, bands: str | None, case: Case, modality: str) -> tuple[str, Intensity]:
    """Name and recipe: as asked, or with `auto` by the first image of a case."""
    if asked != "auto":
        return asked, preset(asked, bands)
    name, recipe = choose(read_volume(case.files[0].image), modality)
    return name, with_bands(recipe, bands)


def chosen_denoiser(config: Config) -> Denoise | None:
    """As asked. Raises UsageError for options without a denoiser, and what the denoiser itself raises."""
    given = {"weights": str(config.denoise_weights)} if config.denoise_weights else {}
    if config.denoise is not None:
        return Denoise.of(config.denoise, {**config.denoise_options, **given})
    if given or config.denoise_options:
        raise UsageError("options and weights of a denoiser are given, but no denoiser; give --denoise NAME")
    return None


def kept_in(run: Path, denoise: Denoise | None) -> Denoise | None:
    """The same denoiser, with its weights, if it has any, copied into the run folder."""
    if denoise is None or "weights" not in denoise.options:
        return denoise
    target = (run / DENOISER).resolve()
    if Path(denoise.options["weights"]) != target:
        write_atomically(target, Path(denoise.options["weights"]).read_bytes())
    return replace(denoise, options={**denoise.options, "weights": str(target)})


def train(config: Config, dataset: Dataset | None = None) -> Result:
    """Train and return what it came to. Raises SampeftError for anything the user can mend, before any heavy work.

    dataset: what was read from `config.data` before; nothing: it is read here.
    """
    if config.task != "segment":
        raise UsageError("a denoiser is trained by `sampeft.commands.train_denoiser.train_denoiser`, not by `train`")
    writable_cache("slices")  # what is wrong with it is told at once
    with one_writer(config.out):
        return _train(config, dataset)


def _train(config: Config, dataset: Dataset | None) -> Result:
    resumed = what_goes_on(config)
    spec = backbone(config.backbone)
    side = config.side or spec.side
    spec.check_side(side)
    with_bands(PRESETS["percentile"], config.bands)  # what is wrong in itself is told before any file is opened
    options_by_name(HEADS, "head", config.head, config.head_options)
    options_by_name(METHODS, "method", config.method, config.options)
    denoise = chosen_denoiser(config)

    dataset = dataset or open_dataset(config.data, config.layout, parse_map(config.map))
    cases, held_out = split_cases(dataset, config.split, config.held_out, config.training.seed)
    say(f"data      {dataset.name}: {len(cases)} cases to train on, {len(held_out)} held out ({_names(held_out)})")
    if resumed:
        resumed.refuse_others(known_settings(config, dataset, cases, held_out))
        if resumed.position.finished:
            say(f"already complete: {resumed.position.step} steps; run: {config.out}")
            return Result.of(resumed.position)
        say(f"resume    at step {resumed.position.step}, after {resumed.position.seconds / 60:.1f} minutes")
    with bar("checking", len(cases) + len(held_out)) as shown:
        report = check_dataset(dataset, [*cases, *held_out], shown, side=side)
    for fault in report.faults:
        if fault.severity == "warning":
            say(f"warning   {fault.file}: {fault.problem}; {fault.fix}")
    report.raise_on_errors()
    for note in report.notes:
        say(f"note      {note}")
    say(report.table())

    name, recipe = chosen_intensity(config.intensity, config.bands, cases[0], dataset.modality)
    if not dataset.labels.has_background and recipe.crop == "body":
        raise UsageError(
            f"intensity '{name}' crops to the body, but the label map has no background for what is outside"
        )
    say(f"intensity {name}: {recipe} (of {', '.join(PRESETS)})")

    import torch

    torch.manual_seed(config.training.seed)
    loaded = load_backbone(config.backbone, config.weights)
    model = model_of(config, loaded, dataset.labels, side)
    attached = attach(model, config.method, config.options)
    if config.start_from and not resumed:
        for i, line in enumerate(start_from(model, config.start_from, config.head)):
            say(f"          {line}" if i else f"start     {config.start_from}: {line}")
    say(f"model     {config.backbone} ({loaded.source}), side {side}, {config.method} at {len(attached.sites)} sites")
    if loaded.digest == RANDOM:
        say("warning   RANDOM WEIGHTS: nothing pretrained is used")
    for part, (total, trainable) in count_parameters(model).items():
        say(f"          {part:<22}{total:>12,} parameters, {trainable:>10,} trained")
    say(f"          {'all':<22}{attached.total:>12,} parameters, {attached.trainable:>10,} trained")

    config.out.mkdir(parents=True, exist_ok=True)
    denoise = kept_in(config.out, denoise)
    preparation = Preparation(recipe, side, config.plane, config.context, config.context_mm, denoise)
    if denoise:
        say(f"denoise   {denoise.identity}")
    settings = known_settings(config, dataset, cases, held_out) | {
        "weights_sha256": loaded.digest,
        "options": attached.options,
        "preparation": {**preparation.to_json(), "denoise": denoise.identity if denoise else None},
    }
    if resumed:
        resumed.refuse_others(settings)
    with bar("preparing slices") as shown:
        slices = prepare(dataset, cases, preparation, fingerprint(cases), shown)
    say(f"slices    {len(slices)} of {slices.images.shape[-1]} x {slices.images.shape[-1]}")
    training = config.training
    if training.patch is None and (patch := suited_patch(slices, model)):
        say(f"patch     {patch} of {side} pixels a step: the targets are small (--training.patch 0: whole pictures)")
        training = replace(training, patch=patch)
    if config.plan and processes() == 1:  # several could come to different answers
        workload = workload_of(dataset, cases, held_out, preparation, slices)
        expected = plan_training(model, training, workload, config.method)
        expected.refuse()
        for line in expected.lines(short=True):
            say(line)

    description = {
        "backbone": config.backbone,
        "weights_sha256": loaded.digest,
        "head": config.head,
        "head_options": config.head_options,
        "encoder_side": config.encoder_side,
        "symmetries": symmetries_of(config.training.augmentation, dataset.labels),
        "method": attached.method,
        "options": attached.options,
        "trainable": attached.trainable,
        "total": attached.total,
        "label_map": dataset.labels.to_json(),
        "preparation": preparation.to_json(),
        "metric_policy": "default",
        **Scale.of([file.image for case in cases for file in case.files], preparation).to_json(),
        "seed": config.training.seed,
        "data": {"name": dataset.name, "fingerprint": settings["data"], "cases": len(cases), "slices": len(slices)},
        "versions": versions(),
        "git_commit": git_commit(),
    }
    resolved = {
        **json.loads(json.dumps(asdict(config), default=str)),
        "training_cases": [case.id for case in cases],
        "held_out_cases": [case.id for case in held_out],
        "description": description,
    }
    if not resumed:
        (config.out / CHECKPOINT).unlink(missing_ok=True)  # no state of an older run may stand beside the new settings
        write_atomically(config.out / "config.json", json.dumps(resolved, indent=1) + "\n")
    result = fit(model, slices, training, config.out, description, dataset, held_out, preparation, settings, resumed)
    if result.stopped:
        say(f"stopped after {result.steps} steps; the model so far is in {config.out}; go on with --resume")
    else:
        score = (
            f", best held-out DSC {result.best_dsc:.3f} at step {result.best_step}"
            if result.best_dsc is not None
            else ""
        )
        ended = ", ended early by training.patience" if result.early else ""
        say(f"trained   {result.steps} steps in {result.minutes} minutes{score}{ended}; run: {config.out}")
        if result.least_share:
            say(
                f"share     a class that would fill less than {100 * result.least_share:g} % of a picture gives way to the next "
                "likeliest, as was best for the held-out cases"
            )
        if result.alarm:
            say(f"warning   {result.alarm}")
    return result


def model_of(config: Config, loaded: LoadedBackbone, labels: LabelSet, side: int) -> SemanticSam:
    """The model that a configuration asks for, before its method is attached."""
    return SemanticSam(loaded, labels, side, config.head, config.head_options, config.encoder_side)


def what_goes_on(config: Config) -> Checkpoint | None:
    """The state that a run goes on from; None: it starts anew. Raises UsageError rather than overwrite a run unasked or
    start anew when it was to go on."""
    if config.force and not config.resume:
        return None
    found = read_checkpoint(config.out)
    if config.resume:
        if found is None and not config.force:
            raise UsageError(
                f"{config.out}: holds no state of a training to go on from ({CHECKPOINT} is missing); start anew with --force"
            )
        return found
    if found and not found.position.finished:
        raise UsageError(
            f"{config.out}: holds a training that stands at step {found.position.step}; go on with --resume, choose another "
            "--out, or overwrite it with --force"
        )
    if (config.out / "adapter.json").exists():
        raise UsageError(f"{config.out}: holds a trained run; choose another --out or overwrite it with --force")
    return None


def known_settings(config: Config, dataset: Dataset, cases: list[Case], held_out: list[Case]) -> dict[str, Any]:
    """What a run that goes on must have in common with the one of before, as far as it is known without the model."""
    labels = dataset.labels
    training = {name: value for name, value in asdict(config.training).items() if name not in FREE}
    content = {
        "backbone": config.backbone,
        "head": config.head,
        "head_options": config.head_options,
        "encoder_side": config.encoder_side,
        "method": config.method,
        "start_from": sha256(config.start_from / WEIGHTS) if config.start_from else None,
        "training": training,
        "classes": [f"{i} {name}" for i, name in zip(labels.ids, labels.names, strict=True)],
        "ignore": labels.ignore,
        "pairs": labels.pairs,
        "label_values": {str(value): id for value, id in sorted(dataset.label_values.items())},
        "data": fingerprint([*cases, *held_out]),
        "cases": len(cases),
        "held_out_cases": len(held_out),
    }
    return dict(json.loads(json.dumps(content)))


def _names(cases: list[Case]) -> str:
    ids = [case.id for case in cases]
    return ", ".join(ids[:4]) + (", ..." if len(ids) > 4 else "") if ids else "none"
