"""Labelled data in, scores of the pretrained model prompted with the truth's boxes out: a zero-shot upper bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampeft.backbones import RANDOM, backbone, load_backbone
from sampeft.commands.evaluate import checked_cases, write_results
from sampeft.commands.train import parse_map, say
from sampeft.data import open_dataset
from sampeft.data.cache import Preparation
from sampeft.data.case import Case, Dataset
from sampeft.data.intensity import choose, preset, with_bands
from sampeft.evaluation import Look, score_cases
from sampeft.io import read_volume
from sampeft.metrics.scores import Evaluation
from sampeft.model import SemanticSam
from sampeft.oracle import NAME, box_oracle
from sampeft.progress import bar


@dataclass(frozen=True)
class Config:
    """What to prompt with the truth.

    Args:
        data: folder of the labelled data set.
        out: folder for the results.
        backbone: promptable model.
        weights: its weights: a file, a `transformers` folder, a hub id, 'random', or nothing: found by name.
        split: split to score.
        layout: layout of the data set; nothing: found by looking.
        map: label ids to change on reading, such as 4:3.
        intensity: recipe by name, or 'auto'.
        bands: the one or three bands of multi-band images to look at, counted from 1, such as 3,2,1.
        side: pixels of the square network input; nothing: the backbone's own.
        json: print the summary as one JSON object on stdout.
    """

    data: Path
    out: Path
    backbone: str = "lite-medsam"
    weights: str | None = None
    split: str = "test"
    layout: str | None = None
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    side: int | None = None
    json: bool = False


def run(config: Config) -> int:
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    cases = checked_cases(dataset, config.split)
    if config.intensity == "auto":
        _, recipe = choose(read_volume(cases[0].files[0].image), dataset.modality)
        recipe = with_bands(recipe, config.bands)
    else:
        recipe = preset(config.intensity, config.bands)
    spec = backbone(config.backbone)
    model = SemanticSam(load_backbone(config.backbone, config.weights), dataset.labels, config.side or spec.native_side)
    evaluation, looks = score_oracle(model, dataset, cases, Preparation(recipe, model.side), config.split)
    write_results(config.out, {NAME: evaluation}, looks)
    print((config.out / ("summary.json" if config.json else "table.md")).read_text(encoding="utf-8"))
    say(f"results in {config.out}")
    return 0


def score_oracle(
    model: SemanticSam, dataset: Dataset, cases: Sequence[Case], preparation: Preparation, split: str
) -> tuple[Evaluation, list[Look]]:
    """Score the box oracle of a model on cases; the truth is used, and the summary says so."""
    meta = {"model": NAME, "data": dataset.name, "split": split, "oracle": True}
    if model.digest == RANDOM:
        meta["model"] = f"{NAME}, RANDOM WEIGHTS"
    with bar("oracle", len(cases)) as shown:
        return score_cases(box_oracle(model), dataset, cases, preparation, meta, shown)
