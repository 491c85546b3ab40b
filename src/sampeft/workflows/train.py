"""Train a model on a labelled data set: check, prepare, attach a method to a backbone, train, keep the best."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sampeft.backbones import RANDOM, LoadedBackbone, backbone, check_weights, load_backbone
from sampeft.configs.train import Config
from sampeft.console import bar, say
from sampeft.data import DATASETS, open_dataset
from sampeft.data.augment import symmetries_of
from sampeft.data.case import Case, Dataset
from sampeft.data.check import check_dataset
from sampeft.data.folds import split_cases
from sampeft.data.intensity import PRESETS
from sampeft.data.raster_scale import Scale
from sampeft.data.recipe import check_intensity, chosen_intensity
from sampeft.data.slice_cache import Preparation, fingerprint, prepare
from sampeft.data.slices import PLANES
from sampeft.data.unprepared import Truth, shapes_of
from sampeft.denoise import DENOISERS, Denoise
from sampeft.denoise.dncnn import FILE as DENOISER
from sampeft.errors import UsageError, counted, unknown_name
from sampeft.heads import HEADS
from sampeft.io import sha256, write_atomically
from sampeft.io.dicom_series import series_chosen
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.one_writer import one_writer
from sampeft.options import options_by_name, parse_map
from sampeft.peft import METHODS, attach, count_parameters
from sampeft.peft.run_files import DESCRIPTION, tensors_file
from sampeft.peft.warm_start import start_from
from sampeft.planning.machine import processes
from sampeft.planning.trial_run import plan_training, workload_of
from sampeft.provenance import git_commit, versions
from sampeft.store import writable_cache
from sampeft.training.batches import suited_patch
from sampeft.training.checkpoint import FILE as CHECKPOINT
from sampeft.training.checkpoint import FREE, Checkpoint, read_checkpoint
from sampeft.training.loop import Result, fit
from sampeft.training.settings import Training


def check_names(config: Config) -> None:
    """Raises UsageError for names that no registry holds and for options that their owners refuse; opens no file."""
    spec = backbone(config.backbone)
    spec.check_side(config.side or spec.side)
    check_weights(spec, config.weights)
    options_by_name(HEADS, "head", config.head, config.head_options)
    options_by_name(METHODS, "method", config.method, config.options)
    if config.plane not in PLANES:
        raise unknown_name("slice plane", config.plane, PLANES)
    if config.denoise is not None and config.denoise not in DENOISERS:
        raise unknown_name("denoiser", config.denoise, DENOISERS)
    check_intensity(config.intensity, config.bands)
    if config.layout is not None and config.layout not in DATASETS:
        raise unknown_name("layout", config.layout, DATASETS)
    parse_map(config.map)


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
        raise UsageError("a denoiser is trained by `sampeft.workflows.denoiser.train_denoiser`, not by `train`")
    check_names(config)
    writable_cache("slices")  # what is wrong with it is told at once
    with one_writer(config.out), series_chosen(config.series):
        return _train(config, dataset)


def _train(config: Config, dataset: Dataset | None) -> Result:
    started = time.monotonic()
    resumed = what_goes_on(config)
    side = config.side or backbone(config.backbone).side
    denoise = chosen_denoiser(config)

    dataset = dataset or open_dataset(config.data, config.layout, parse_map(config.map))
    cases, held_out = split_cases(dataset, config.split, config.held_out, config.training.seed, config.cases)
    say(
        f"data      {dataset.name}: {counted(len(cases), 'case')} to train on, {len(held_out)} held out ({_names(held_out)})"
    )
    if config.held_out == 1 and len(held_out) == 1:
        say("note      --held_out 1 is one case; give a share below 1, such as 0.2, or another number of cases")
    if resumed:
        resumed.refuse_others(known_settings(config, dataset, cases, held_out))
        if resumed.progress.finished:
            say(f"already complete: {resumed.progress.step} steps; run: {config.out}")
            return Result.of(resumed.progress)
        say(f"resume    at step {resumed.progress.step}, after {resumed.progress.seconds / 60:.1f} minutes")
    name, recipe = chosen_intensity(config.intensity, config.bands, cases, dataset.modality)
    with bar("checking", len(cases) + len(held_out)) as shown:
        report = check_dataset(dataset, [*cases, *held_out], shown, side=side, recipe=recipe)
    for fault in report.faults:
        if fault.severity == "warning":
            say(f"warning   {fault.file}: {fault.problem}; {fault.fix}")
    report.raise_on_errors()
    for note in report.notes:
        say(f"note      {note}")
    say(report.table())

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
    plane = chosen_plane(config.plane, report.plane)
    preparation = Preparation(recipe, side, plane, config.context, config.context_mm, denoise)
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
    training = with_suited_patch(config.training, slices.channels, model)
    if config.plan and processes() == 1:  # several could come to different answers
        workload = workload_of(dataset, shapes_of(held_out), preparation, slices)
        expected = plan_training(model, training, workload, config.method)
        expected.refuse()
        for line in expected.lines(short=True):
            say(line)
        training = replace(training, validations=expected.validations)

    knowing = replace(preparation, seen=report.seen)
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
        "preparation": knowing.to_json(),
        "metric_policy": "default",
        **Scale.of([file.image for case in cases for file in case.files], preparation).to_json(),
        "seed": config.training.seed,
        "data": {"name": dataset.name, "fingerprint": settings["data"], "cases": len(cases), "slices": len(slices)}
        | ({"synthetic": True} if dataset.is_synthetic else {}),
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
    before = time.monotonic() - started
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
        say(f"          before the first step {before / 60:.2f} minutes of reading, preparing and planning")
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


def chosen_plane(asked: str, usual: str) -> str:
    """As asked, or where that is `auto` as most volumes have it; says which, unless there are pictures alone."""
    plane = usual if asked == "auto" else asked
    if plane != "auto":
        say(f"plane     {plane} slices{', by the spacing of most volumes' if asked == 'auto' else ''}")
    return plane


def with_suited_patch(training: Training, truth: Truth, model: SemanticSam) -> Training:
    """With the `patch` that suits these slices, where none is asked for; says so."""
    if training.patch is None and (patch := suited_patch(truth, model)):
        say(
            f"patch     {patch} of {model.side} pixels a step: the targets are small (--training.patch 0: whole pictures)"
        )
        return replace(training, patch=patch)
    return training


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
    if found and not found.progress.finished:
        raise UsageError(
            f"{config.out}: holds a training that stands at step {found.progress.step}; go on with --resume, choose another "
            "--out, or overwrite it with --force"
        )
    if (config.out / DESCRIPTION).exists():
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
        "start_from": sha256(tensors_file(config.start_from)) if config.start_from else None,
        "training": training,
        "classes": [f"{i} {name}" for i, name in zip(labels.ids, labels.names, strict=True)],
        "ignore": labels.ignore,
        "pairs": labels.pairs,
        "label_values": {str(value): id for value, id in sorted(dataset.label_values.items())},
        **_colors(dataset),
        "data": fingerprint([*cases, *held_out]),
        "cases": len(cases),
        "held_out_cases": len(held_out),
    }
    return dict(json.loads(json.dumps(content)))


def _colors(dataset: Dataset) -> dict[str, Any]:
    """Which class each colour of colour-coded masks is; nothing of other data sets."""
    colors = {"{},{},{}".format(*color): id for color, id in sorted((dataset.label_colors or {}).items())}
    return {"label_colors": colors} if colors else {}


def _names(cases: list[Case]) -> str:
    ids = [case.id for case in cases]
    return ", ".join(ids[:4]) + (", ..." if len(ids) > 4 else "") if ids else "none"
