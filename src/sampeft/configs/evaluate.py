"""What `sampeft evaluate` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampeft.options import MAX_VIEWS, READ, check_ranges, number

POSITIONAL = {
    "run": {"type": Path, "nargs": "?", "help": "folder of a trained run; or give --pred and --truth"},
    "others": {"type": Path, "nargs": "*", "help": "further runs (folds, seeds); the mean of all is scored"},
}


@dataclass(frozen=True)
class Config:
    """What to score against what.

    Args:
        out: folder for the results.
        data: folder of the labelled data set.
        split: split of the data set to score; fold2of5: the cases inside that fold.
        layout: layout of the data set; nothing: recognised by its files.
        map: label ids to change on reading, such as --map=4:3.
        series: which of several series, echoes or stacks of DICOM images to read: the number, or attributes and their values,
            such as SeriesDescription=T2*,EchoTime=30; nothing: there may be one only.
        pred: folder of label maps made by anything, instead of a run.
        truth: folder of the true label maps that go with --pred.
        labels: label map (labels.json or dataset.json) for --pred and --truth.
        protocol: rules to score by: default, flare22, flare22-package, paper, pixels, targets, targets-256, land-cover.
        tolerances: JSON of class names and the NSD's tolerance in mm; nothing: the protocol's.
        processes: processes that share the cases of --pred; the result is the same.
        beside: folders of other evaluations of the same cases, shown beside this one.
        views: views of each slice whose predictions are averaged; mirrored and turned ones where the run was trained on such.
        maps: also write the predicted label maps.
        calibrate: also compare the probabilities with the truth; a temperature is fitted on the run's held-out cases.
        refine: refiner of the class maps: components, crf, level-set, outline-points, or fitted: what `sampeft refine` kept
            in the run; nothing: none.
        refine_options: options of the refiner, such as --refine_options.smooth 2.
        last: score the last model of the run instead of its best.
        weights: file of the backbone's weights; nothing: found by name.
        json: print the summary as one JSON object on stdout.
    """

    run: Path | None = field(metadata=READ)
    out: Path
    others: list[Path] = field(default_factory=list, metadata=READ)
    data: Path | None = field(default=None, metadata=READ)
    split: str = "test"
    layout: str | None = None
    map: str | None = None
    series: str | None = None
    pred: Path | None = field(default=None, metadata=READ)
    truth: Path | None = field(default=None, metadata=READ)
    labels: Path | None = field(default=None, metadata=READ)
    protocol: str = "default"
    tolerances: Path | None = field(default=None, metadata=READ)
    processes: int = number(1, 1, 1024)
    beside: list[Path] = field(default_factory=list, metadata=READ)
    views: int = number(1, 1, MAX_VIEWS)
    maps: bool = False
    calibrate: bool = True
    refine: str | None = None
    refine_options: dict[str, Any] = field(default_factory=dict)
    last: bool = False
    weights: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
