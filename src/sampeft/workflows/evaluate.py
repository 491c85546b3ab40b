"""Score a trained run, the mean of several, or any label maps on labelled data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sampeft.configs.evaluate import Config
from sampeft.console import bar, say
from sampeft.data import open_dataset
from sampeft.data.case import Case, Dataset
from sampeft.data.check import check_dataset
from sampeft.data.folds import fold_of
from sampeft.data.intensity import Intensity
from sampeft.data.pairing import pair_files
from sampeft.errors import UsageError
from sampeft.evaluation.calibrate import AS_TRAINED, Readings, temperature_on
from sampeft.evaluation.score import Look, predictor_of, score_cases, score_maps
from sampeft.io.dicom_series import series_chosen
from sampeft.io.raster_windows import glance
from sampeft.labels import LabelSet
from sampeft.metrics.protocols import PROTOCOLS, Protocol, check_protocol
from sampeft.metrics.scores import Evaluation
from sampeft.options import parse_map
from sampeft.peft.run_files import tensors_file
from sampeft.prediction.loading import load
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.sinks import check_refiner
from sampeft.prediction.tiling import RasterOptions, window_of
from sampeft.provenance import resources_used, run_config
from sampeft.refine.stored import check_refiner_name, chosen
from sampeft.report.results import MAPS, begin_results, check_origin, trained_on_note, write_results


def check_names(config: Config) -> None:
    check_protocol(config.protocol)
    check_refiner_name(config.refine)


def checked_cases(dataset: Dataset, split: str, recipe: Intensity | None = None) -> Sequence[Case]:
    """The labelled cases of a split, after `check`; faults stop here. recipe: whose bands the images must have."""
    fold = fold_of(dataset, split)
    cases = fold[1] if fold else dataset.split(split)
    if not cases:
        raise UsageError(f"{dataset.root}: split '{split}' has no cases; splits: {', '.join(dataset.splits) or 'none'}")
    with bar("checking", len(cases)) as shown:
        report = check_dataset(dataset, cases, shown, recipe=recipe)
    report.raise_on_errors()
    for note in report.notes:
        say(f"note      {note}")
    return cases


def evaluate_run(config: Config, protocol: Protocol = PROTOCOLS["default"]) -> Evaluation:
    """Score a trained run and write the results, the report among them."""
    with series_chosen(config.series):
        return _evaluate_run(config, protocol)


def _evaluate_run(config: Config, protocol: Protocol) -> Evaluation:
    assert config.run is not None
    assert config.data is not None
    origin = origin_of(config)
    check_origin(config.out, origin, config.force)
    last = tensors_file(config.run / "last") if config.last else None
    refiner = chosen(config.run, tensors_file(config.run), config.refine, config.refine_options, last)
    runs = [config.run, *config.others]
    segmenter = load(runs, weights=config.weights, last=config.last, refiner=refiner, views=config.views)
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    same_labels(segmenter.labels, dataset, config.run)
    cases = checked_cases(dataset, config.split, segmenter.preparation.intensity)
    cut_of(segmenter, cases)  # what is refused is refused before anything is looked at
    seen = trained_on(runs, dataset, cases)
    if seen:
        say(
            f"warning   {trained_on_note(len(seen), len(cases))} ({', '.join(seen[:4])}{', ...' if len(seen) > 4 else ''})"
        )
    readings = None
    if config.calibrate:
        temperatures = held_out_temperature(segmenter, dataset, cases, runs)
        readings = Readings(temperatures)
    maps = config.out / MAPS if config.maps else None
    beside = [(path, Evaluation.read(path)) for path in config.beside]
    begin_results(config.out, origin)
    evaluation, looks = evaluate_segmenter(segmenter, dataset, cases, config.split, maps, protocol, readings)
    if seen:
        evaluation.meta["trained_on"] = len(seen)
    others = {str(other.meta.get("model", path.name)): other for path, other in beside}
    write_results(config.out, {segmenter.name: evaluation, **others}, looks, segmenter, config.run)
    return evaluation


def origin_of(config: Config) -> dict[str, Any]:
    """What is scored on what, by which an evaluation is known again."""
    paths = {"run": config.run, "data": config.data, "pred": config.pred, "truth": config.truth}
    found: dict[str, Any] = {name: str(path.resolve()) for name, path in paths.items() if path}
    if config.others:
        found["others"] = [str(path.resolve()) for path in config.others]
    if config.run:
        found |= {"split": config.split} | ({"last": True} if config.last else {})
    return found | {"protocol": config.protocol}


def held_out_temperature(
    segmenter: Segmenter, dataset: Dataset, scored: Sequence[Case], runs: Sequence[Path]
) -> dict[str, float]:
    """Readings for `Readings`: as trained, and with the temperature of the run's held-out cases, if this
    data set has them and none of them is scored."""
    readings = {AS_TRAINED: 1.0}
    known, scored_ids = {case.id: case for case in dataset.cases}, {case.id for case in scored}
    held_out_of_all = [set(run_config(run).get("held_out_cases", [])) for run in runs]
    held_out = sorted(set.intersection(*held_out_of_all))
    if not all(name in known and name not in scored_ids for name in held_out):
        return readings
    # What `predict` cuts into windows is not looked at whole anywhere.
    cases = [known[name] for name in held_out if not any(is_cut(segmenter, file.image) for file in known[name].files)]
    if cases:
        with bar("temperature", len(cases)) as shown:
            fitted = temperature_on(segmenter, dataset, cases, shown)
        readings[f"temperature {fitted:.2f}"] = fitted
    return readings


def trained_on(runs: Sequence[Path], dataset: Dataset, cases: Sequence[Case]) -> list[str]:
    """Which of the cases any of the runs was trained on, by their ids in a data set of the same name."""
    configs = [run_config(run) for run in runs]
    seen = {
        id
        for config in configs
        if config.get("description", {}).get("data", {}).get("name") == dataset.name
        for id in config.get("training_cases", [])
    }
    return [case.id for case in cases if case.id in seen]


def is_cut(segmenter: Segmenter, image: Path) -> bool:
    """Whether `predict` cuts it into windows."""
    return window_of(image, segmenter.preparation, segmenter.scale, RasterOptions()) is not None


def cut_of(segmenter: Segmenter, cases: Sequence[Case]) -> list[Path]:
    """The images of the cases that `predict` cuts into windows. Raises UsageError where the segmenter's refiner does not go
    with them."""
    cut = [file.image for case in cases for file in case.files if is_cut(segmenter, file.image)]
    for path in cut:
        check_refiner(segmenter.refiner, path, glance(path)[0])
    return cut


def same_labels(trained: LabelSet, dataset: Dataset, run: Path) -> None:
    """Raises UsageError naming both lists when a data set's classes are not those a run was trained for."""
    if trained.names != dataset.labels.names or trained.ids != dataset.labels.ids:
        ours, theirs = (dict(zip(labels.names, labels.ids, strict=True)) for labels in (trained, dataset.labels))
        raise UsageError(
            f"{run} was trained for the classes {ours}, {dataset.root} has {theirs}; they must be the same"
        )


def evaluate_segmenter(
    segmenter: Segmenter,
    dataset: Dataset,
    cases: Sequence[Case],
    split: str,
    maps: Path | None = None,
    protocol: Protocol = PROTOCOLS["default"],
    readings: Readings | None = None,
) -> tuple[Evaluation, list[Look]]:
    """Score a loaded run on cases by the maps that `predict` writes of them, by torch: large pictures are cut into windows.

    readings: of its probabilities, of images that are looked at whole; None: they are not read.
    """
    segmenter = replace(segmenter, engine=None)
    cut = cut_of(segmenter, cases)
    meta: dict[str, Any] = {"model": segmenter.name, "data": dataset.name, "split": split, "oracle": False}
    if cut:
        meta["by_windows"] = len(cut)
    if runs := segmenter.description.get("ensemble"):
        meta["ensemble"] = runs
    if segmenter.views > 1:
        meta["views"] = segmenter.views
    if segmenter.least_share:
        meta["least_share"] = segmenter.least_share
    if segmenter.refiner:
        meta["refiner"] = {"name": segmenter.refiner.name, **asdict(segmenter.refiner)}
    started = time.monotonic()
    with bar("scoring", len(cases)) as shown:
        evaluation, looks = score_cases(
            predictor_of(segmenter, readings.sink if readings else None),
            dataset,
            cases,
            segmenter.preparation,
            meta,
            shown,
            maps,
            protocol,
        )
    evaluation.meta["seconds"] = round(time.monotonic() - started, 1)
    evaluation.meta["resources"] = resources_used()
    return replace(evaluation, calibration=readings.found) if readings else evaluation, looks


def evaluate_maps(
    pred: Path,
    truth: Path,
    labels: LabelSet,
    protocol: Protocol = PROTOCOLS["default"],
    processes: int = 1,
) -> Evaluation:
    """Score label maps against true ones of the same names and grids; each file is a case."""
    if pred.resolve() == truth.resolve():
        raise UsageError(f"{pred}: is given as --pred and as --truth; give the folder of the predicted maps as --pred")
    cases = tuple(Case(file.id, (file,)) for file in pair_files(pred, truth))
    dataset = Dataset(pred.name, truth, labels, cases)
    meta = {"model": str(pred), "data": str(truth), "split": "all", "oracle": False}
    with bar("scoring", len(cases)) as shown:
        return score_maps(dataset, cases, meta, shown, protocol, processes)
