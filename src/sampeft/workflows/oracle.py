"""Score the pretrained model helped by the truth: zero-shot oracles."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sampeft.backbones import RANDOM, Backbone
from sampeft.configs.oracle import Masks
from sampeft.console import bar
from sampeft.data.case import Case, Dataset
from sampeft.data.slice_cache import Preparation
from sampeft.evaluation.score import Look
from sampeft.io import write_atomically
from sampeft.metrics.protocols import PROTOCOLS, Protocol
from sampeft.metrics.scores import Evaluation
from sampeft.model import SemanticSam
from sampeft.oracle.automatic_masks import MaskSettings
from sampeft.oracle.protocols import ORACLE_PROTOCOLS, Oracle, OracleProtocol
from sampeft.oracle.scores import score_oracles
from sampeft.report.figures import Example, figure_examples, figure_per_class
from sampeft.report.page import write_page
from sampeft.report.results import examples
from sampeft.report.tables import table_csv, table_md

Results = dict[str, tuple[Evaluation, list[Look]]]


def mask_settings(given: Masks, spec: Backbone) -> MaskSettings:
    """What suits a backbone, with what is given put in. Raises UsageError for values out of range."""
    values = {name: value for name, value in asdict(given).items() if value is not None}
    if "box_shares" in values:
        values["box_shares"] = tuple(values["box_shares"])
    return replace(MaskSettings.suited_to(spec), **values)


def score_oracle(
    model: SemanticSam, dataset: Dataset, cases: Sequence[Case], preparation: Preparation, split: str
) -> tuple[Evaluation, list[Look]]:
    """Score the box oracle of a model on cases; the truth is used, and the summary says so."""
    boxes: OracleProtocol = ORACLE_PROTOCOLS["boxes"]
    return score(Oracle(model, (boxes,), MaskSettings()), dataset, cases, preparation, split)[boxes.name]


def score(
    oracle: Oracle,
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    split: str,
    maps: Path | None = None,
    rules: Protocol = PROTOCOLS["default"],
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
