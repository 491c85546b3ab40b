"""Labelled data in, scores of the pretrained model helped by the truth out: zero-shot upper bounds, four of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch

from sampeft.backbones import RANDOM, backbone, load_backbone
from sampeft.commands.evaluate import checked_cases, examples, write_results
from sampeft.commands.train import chosen_intensity, parse_map, say
from sampeft.data import open_dataset
from sampeft.data.cache import Preparation
from sampeft.data.case import Case, Dataset
from sampeft.errors import UsageError
from sampeft.evaluation import Look
from sampeft.io import write_atomically
from sampeft.io.plain import plain_json
from sampeft.metrics.protocols import PROTOCOLS as SCORING
from sampeft.metrics.protocols import Protocol
from sampeft.metrics.scores import Evaluation
from sampeft.model import SemanticSam
from sampeft.oracle.automatic_masks import MaskSettings
from sampeft.oracle.protocols import PROTOCOLS, Oracle, OracleProtocol, protocols_of
from sampeft.oracle.scores import score_oracles
from sampeft.progress import bar
from sampeft.report.figures import Example, figure_examples, figure_per_class
from sampeft.report.page import write_page
from sampeft.report.tables import table_csv, table_md

Results = dict[str, tuple[Evaluation, list[Look]]]


@dataclass(frozen=True)
class Masks:
    """How automatic masks are made for `masks` and `union`; what is not given is SAM's own, or what suits a model that
    was trained on boxes only.

    Args:
        points_per_side: columns and rows of the grid of prompts (SAM: 32).
        box_shares: boxes round the grid's points instead of points, such as [0.125, 0.25] of the picture's side.
        masks_per_prompt: 3, or 1; also how many masks `points` chooses from by predicted IoU (SAM: 3).
        predicted_iou: masks that the model thinks worse are dropped (SAM: 0.88).
        stability: masks that change more with the threshold are dropped (SAM: 0.95).
        nms: of masks whose boxes overlap by more than this IoU, one stays (SAM: 0.7).
    """

    points_per_side: int | None = None
    box_shares: list[float] | None = None
    masks_per_prompt: int | None = None
    predicted_iou: float | None = None
    stability: float | None = None
    nms: float | None = None

    def over(self, settings: MaskSettings) -> MaskSettings:
        """The settings with what is given here put in. Raises UsageError for values out of range."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        if "box_shares" in given:
            given["box_shares"] = tuple(given["box_shares"])
        return replace(settings, **given)


@dataclass(frozen=True)
class Config:
    """How the truth may help.

    Args:
        data: folder of the labelled data set.
        out: folder for the results; with several protocols one folder in it for each, and a table of all.
        protocols: how the truth helps, such as boxes,points,masks,union.
        backbone: promptable model.
        weights: its weights: a file, a `transformers` folder, a hub id, 'random', or nothing: found by name.
        split: split to score.
        layout: layout of the data set; nothing: found by looking.
        map: label ids to change on reading, such as 4:3.
        intensity: recipe by name, or 'auto'.
        bands: the one or three bands of multi-band images to look at, counted from 1, such as 3,2,1.
        side: pixels of the square network input; nothing: the one that the weights were trained with.
        masks: how automatic masks are made.
        maps: also write the label maps.
        json: print the summary (of several: that of the first) as one JSON object on stdout.
    """

    data: Path
    out: Path
    protocols: str = "boxes"
    backbone: str = "lite-medsam"
    weights: str | None = None
    split: str = "test"
    layout: str | None = None
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    side: int | None = None
    masks: Masks = field(default_factory=Masks)
    maps: bool = False
    json: bool = False


def run(config: Config) -> int:
    protocols = protocols_of(config.protocols)
    spec = backbone(config.backbone)
    if not spec.is_sam:
        raise UsageError("an oracle prompts a Segment Anything model, and the backbone none is none; choose another")
    settings = config.masks.over(MaskSettings.suited_to(spec))
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    cases = checked_cases(dataset, config.split)
    _, recipe = chosen_intensity(config.intensity, config.bands, cases[0], dataset.modality)
    model = SemanticSam(load_backbone(config.backbone, config.weights), dataset.labels, config.side or spec.native_side)
    if torch.cuda.is_available():
        model.cuda()
    if any(protocol.apart for protocol in protocols):
        say(f"automatic masks: {settings}")
    several = len(protocols) > 1
    results = score(
        Oracle(model, protocols, settings),
        dataset,
        cases,
        Preparation(recipe, model.side),
        config.split,
        config.out if config.maps else None,
    )
    for name, (evaluation, looks) in results.items():
        folder = config.out / name if several else config.out
        write_results(folder, {str(evaluation.meta["model"]): evaluation}, looks, extra_notes=notes_of(evaluation))
        add_notes(folder / "table.md", [evaluation])
    if several:
        write_side_by_side(config.out, results)
    first = config.out / protocols[0].name if several else config.out
    print(plain_json(first / "summary.json") if config.json else (config.out / "table.md").read_text(encoding="utf-8"))
    say(f"results in {config.out}")
    return 0


def score_oracle(
    model: SemanticSam, dataset: Dataset, cases: Sequence[Case], preparation: Preparation, split: str
) -> tuple[Evaluation, list[Look]]:
    """Score the box oracle of a model on cases; the truth is used, and the summary says so."""
    boxes: OracleProtocol = PROTOCOLS["boxes"]
    return score(Oracle(model, (boxes,), MaskSettings()), dataset, cases, preparation, split)[boxes.name]


def score(
    oracle: Oracle,
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    split: str,
    maps: Path | None = None,
    rules: Protocol = SCORING["default"],
) -> Results:
    """Score the oracle's protocols on cases, with a bar that moves within a case. maps: folder for label maps."""
    meta = {
        "data": dataset.name,
        "split": split,
        "backbone": oracle.model.spec.name,
        "weights_sha256": oracle.model.digest,
        "side": preparation.side,
    }
    started = time.monotonic()
    with bar("oracle", len(cases)) as shown:
        results = score_oracles(oracle, dataset, cases, preparation, meta, shown.update, maps, rules)
    for evaluation, _ in results.values():
        evaluation.meta["seconds"] = round(time.monotonic() - started, 1)
        if oracle.model.digest == RANDOM:
            evaluation.meta["model"] += ", RANDOM WEIGHTS"
    return results


def notes_of(evaluation: Evaluation) -> list[str]:
    """What a reader must know of an oracle's numbers."""
    meta = evaluation.meta
    notes = [f"{meta['model']}: {meta['oracle_rule']}. Scored: {meta['scored']}."]
    if "automatic_masks" in meta:
        notes.append(
            f"{meta['model']}: {meta['automatic_masks']['in_words']}; {meta['masks_per_slice']} masks a slice. In one class "
            f"map, where the mask with the better Dice covers others, the foreground mean is {meta['class_map_dsc']:.3f}."
        )
    if meta["weights_sha256"] == RANDOM:
        notes.append("RANDOM WEIGHTS: this model did not start from pretrained weights.")
    return notes


def add_notes(table: Path, evaluations: Sequence[Evaluation]) -> None:
    """Put what a reader must know below a table that is written."""
    lines = dict.fromkeys(note for evaluation in evaluations for note in notes_of(evaluation))
    write_atomically(table, table.read_text(encoding="utf-8") + "".join(f"- {line}\n" for line in lines))


def write_side_by_side(out: Path, results: Results) -> None:
    """table.md, table.csv, report.html and figures of all protocols; their scores are in their own folders."""
    evaluations = {str(evaluation.meta["model"]): evaluation for evaluation, _ in results.values()}
    write_atomically(out / "table.md", table_md(evaluations))
    write_atomically(out / "table.csv", table_csv(evaluations))
    add_notes(out / "table.md", list(evaluations.values()))
    first, looks = next(iter(results.values()))
    shown = [with_all(example, results) for example in examples(first, looks)]
    figure_per_class(evaluations, path=out / "per_class.png")
    if shown:
        figure_examples(shown, first.labels, out / "examples.png")
    write_page(
        out,
        title=f"Zero-shot oracles of {first.meta['backbone']} on {first.meta['data']}",
        evaluations=evaluations,
        examples=shown,
        history=[],
        config={},
        notes=list(dict.fromkeys(note for evaluation in evaluations.values() for note in notes_of(evaluation))),
        resources={"seconds": first.meta["seconds"]},
    )


def with_all(example: Example, results: Results) -> Example:
    """The example with the class maps of all protocols, which show the same slice of a case: the truth chose it."""
    maps = {
        str(evaluation.meta["model"]): look.prediction
        for evaluation, looks in results.values()
        for look in looks
        if look.case == example.case
    }
    return replace(example, predictions=maps, title=f"{example.title}, by {next(iter(maps))}:")
