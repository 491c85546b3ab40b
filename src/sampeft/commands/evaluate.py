"""Trained run (or any label maps) and labelled data in; scores.csv, summary.json, table.md and report.html out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sampeft.commands.train import parse_map, say
from sampeft.data import open_dataset
from sampeft.data.case import Case, Dataset
from sampeft.data.check import check_dataset
from sampeft.data.folds import fold_of
from sampeft.data.pairing import pair_files
from sampeft.errors import UsageError
from sampeft.evaluation import Look, score_cases, score_maps
from sampeft.inference import Segmenter, load, predict_slices
from sampeft.io import write_atomically
from sampeft.labels import LabelSet
from sampeft.metrics.protocols import PROTOCOLS, Protocol, protocol_of
from sampeft.metrics.scores import Evaluation
from sampeft.progress import bar
from sampeft.report.figures import Example, figure_examples, figure_learning_curve, figure_per_class
from sampeft.report.page import write_page
from sampeft.report.tables import table_csv, table_md

POSITIONAL = {"run": {"type": Path, "nargs": "?", "help": "folder of a trained run; or give --pred and --truth"}}


@dataclass(frozen=True)
class Config:
    """What to score against what.

    Args:
        out: folder for the results.
        data: folder of the labelled data set.
        split: its split to score; 'fold2of5': the cases inside that fold.
        layout: its layout; nothing: found by looking.
        map: label ids to change on reading, such as 4:3.
        pred: folder of label maps made by anything, instead of a run.
        truth: folder of the true label maps that go with --pred.
        labels: label map (labels.json or dataset.json) for --pred and --truth.
        protocol: rules to score by: default, flare22, flare22-package, paper, pixels, targets, land-cover.
        tolerances: JSON of class names and the NSD's tolerance in mm, instead of the protocol's.
        processes: how many share the cases of --pred; the result is the same.
        beside: folders of other evaluations of the same cases, shown beside this one.
        maps: also write the predicted label maps.
        last: score the last model of the run instead of its best.
        weights: file of the backbone's weights when it is not found by name.
        json: print the summary as one JSON object on stdout.
    """

    run: Path | None
    out: Path
    data: Path | None = None
    split: str = "test"
    layout: str | None = None
    map: str | None = None
    pred: Path | None = None
    truth: Path | None = None
    labels: Path | None = None
    protocol: str = "default"
    tolerances: Path | None = None
    processes: int = 1
    beside: list[Path] = field(default_factory=list)
    maps: bool = False
    last: bool = False
    weights: str | None = None
    json: bool = False


def run(config: Config) -> int:
    protocol = protocol_of(config.protocol, config.tolerances)
    if config.processes < 1:
        raise UsageError(f"--processes must be at least 1, got {config.processes}")
    if config.pred or config.truth:
        if not (config.pred and config.truth and config.labels) or config.run or config.data:
            raise UsageError("to score label maps give --pred, --truth and --labels, and neither a run nor --data")
        evaluation = evaluate_maps(config.pred, config.truth, LabelSet.read(config.labels), protocol, config.processes)
        write_results(config.out, {str(config.pred): evaluation}, [])
    elif config.run and config.data:
        evaluation = evaluate_run(config, protocol)
    else:
        raise UsageError("give a run and --data, or --pred, --truth and --labels")
    if config.json:
        print((config.out / "summary.json").read_text(encoding="utf-8"))
    else:
        print((config.out / "table.md").read_text(encoding="utf-8"))
        say(f"results in {config.out}")
    return 0


def checked_cases(dataset: Dataset, split: str) -> Sequence[Case]:
    """The labelled cases of a split, after `check`; faults stop here."""
    fold = fold_of(dataset, split)
    cases = fold[1] if fold else dataset.split(split)
    if not cases:
        raise UsageError(f"{dataset.root}: split '{split}' has no cases; splits: {', '.join(dataset.splits) or 'none'}")
    with bar("checking", len(cases)) as shown:
        check_dataset(dataset, cases, shown).raise_on_errors()
    return cases


def evaluate_run(config: Config, protocol: Protocol = PROTOCOLS["default"]) -> Evaluation:
    """Score a trained run and write the results, the report among them."""
    assert config.run is not None
    assert config.data is not None
    segmenter = load(config.run, weights=config.weights, last=config.last)
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    same_labels(segmenter.labels, dataset, config.run)
    cases = checked_cases(dataset, config.split)
    evaluation, looks = evaluate_segmenter(
        segmenter, dataset, cases, config.split, config.out / "maps" if config.maps else None, protocol
    )
    beside = [(path, Evaluation.read(path)) for path in config.beside]
    others = {str(other.meta.get("model", path.name)): other for path, other in beside}
    write_results(config.out, {segmenter.name: evaluation, **others}, looks, segmenter, config.run)
    return evaluation


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
) -> tuple[Evaluation, list[Look]]:
    """Score a loaded run on cases."""
    started = time.monotonic()
    with bar("scoring", len(cases)) as shown:
        evaluation, looks = score_cases(
            lambda prepared, _: predict_slices(segmenter.model, prepared),
            dataset,
            cases,
            segmenter.preparation,
            {"model": segmenter.name, "data": dataset.name, "split": split, "oracle": False},
            shown,
            maps,
            protocol,
        )
    evaluation.meta["seconds"] = round(time.monotonic() - started, 1)
    return evaluation, looks


def write_results(
    out: Path,
    evaluations: dict[str, Evaluation],
    looks: Sequence[Look],
    segmenter: Segmenter | None = None,
    run: Path | None = None,
    extra_notes: Sequence[str] = (),
) -> None:
    """Write scores.csv and summary.json of the first evaluation; table.md, report.html and figures of all of them."""
    first = next(iter(evaluations.values()))
    first.write(out)
    write_atomically(out / "table.md", table_md(evaluations).encode())
    write_atomically(out / "table.csv", table_csv(evaluations).encode())
    notes = [*extra_notes]
    if segmenter and segmenter.has_random_weights:
        notes.append("RANDOM WEIGHTS: this model did not start from pretrained weights.")
    shown = examples(first, looks)
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] if run else []
    config = json.loads((run / "config.json").read_text()) if run and (run / "config.json").is_file() else {}
    figure_per_class(evaluations, path=out / "per_class.png")
    if shown:
        figure_examples(shown, first.labels, out / "examples.png")
    if any("loss" in record or "val_dsc" in record for record in history):
        figure_learning_curve(history, out / "learning.png", first.labels)
    write_page(
        out,
        title=f"{first.meta.get('model', 'label maps')} on {first.meta.get('data', 'data')}",
        evaluations=evaluations,
        examples=shown,
        history=history,
        config=config,
        notes=notes,
        resources={k: v for k, v in first.meta.items() if k == "seconds"},
    )


def examples(evaluation: Evaluation, looks: Sequence[Look]) -> list[Example]:
    """Best, median and worst case by mean foreground DSC, each by its slice that shows most classes."""
    scores = np.nanmean(evaluation.matrix("dsc")[:, list(evaluation.labels.foreground)], axis=1)
    by_case = dict(zip(evaluation.cases, scores, strict=True))
    ranked = sorted(looks, key=lambda look: -by_case[look.case])
    if not ranked:
        return []
    picks = (
        {0: "best", len(ranked) // 2: "median", len(ranked) - 1: "worst"}
        if len(ranked) > 2
        else {0: "best", -1: "worst"}
    )
    return [
        Example(
            case=ranked[i].case,
            title=f"{title} case {ranked[i].case}, {ranked[i].place}",
            image_HW=ranked[i].image,
            truth_HW=ranked[i].truth,
            predictions={str(evaluation.meta.get("model", "prediction")): ranked[i].prediction},
            score=float(by_case[ranked[i].case]),
        )
        for i, title in picks.items()
    ]


def evaluate_maps(
    pred: Path,
    truth: Path,
    labels: LabelSet,
    protocol: Protocol = PROTOCOLS["default"],
    processes: int = 1,
) -> Evaluation:
    """Score label maps against true ones of the same names and grids; each file is a case."""
    cases = tuple(Case(file.id, (file,)) for file in pair_files(pred, truth))
    dataset = Dataset(pred.name, truth, labels, cases)
    meta = {"model": str(pred), "data": str(truth), "split": "all", "oracle": False}
    with bar("scoring", len(cases)) as shown:
        return score_maps(dataset, cases, meta, shown, protocol, processes)
