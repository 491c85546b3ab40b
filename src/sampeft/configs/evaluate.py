"""What `sampeft evaluate` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampeft.options import MAX_VIEWS, READ, RESULTS, check_ranges, number

POSITIONAL = {
    "run": {"type": Path, "nargs": "?", "help": "folder of a trained run; or give --pred and --truth"},
    "others": {"type": Path, "nargs": "*", "help": "more run folders (folds, seeds); the mean of all runs is scored"},
}


@dataclass(frozen=True)
class Config:
    """What to score against what.

    Args:
        out: folder for the results.
        data: folder of the labelled data set; needed with a run.
        split: split of the data set to score; fold2of5: the cases of the second of five folds.
        pred: folder of label maps made by any program, to score instead of a run.
        truth: folder of the ground-truth label maps that go with --pred.
        labels: labels.json or dataset.json with the names and ids of the classes, for --pred and --truth.
        protocol: scoring rules: default, flare22, flare22-package, paper, pixels, targets, targets-256 or
            land-cover.
        tolerances: JSON file with class names and the tolerance of NSD in mm. Default: those of the protocol.
        beside: folders of other evaluations of the same cases, shown beside this one.
        maps: also write the predicted label maps.
        views: test-time augmentation: views of each slice whose predictions are averaged, mirrored and turned ones
            only where the run was trained on such; 1 switches it off.
        refine: refiner of the predicted maps: components, crf, level-set, outline-points, or fitted: the one that
            `sampeft refine` chose for the run. Default: none.
        refine_options: options of the refiner, such as --refine_options.smooth 2.
        calibrate: also compare the predicted probabilities with the ground truth, and fit a temperature on the
            run's held-out cases.
        layout: layout of the data set; `sampeft info` lists layouts. Default: recognised by its files.
        map: label ids to change on reading, as OLD:NEW, such as --map=4:3,255:1.
        series: which of several DICOM series, echoes or stacks to read: the series number, or DICOM attributes and their
            values, such as SeriesDescription=T2*,EchoTime=30. Default: there may be only one.
        last: score the run's last checkpoint instead of its best.
        weights: file of the backbone's weights. Default: found by the name of the run's backbone.
        force: overwrite the evaluation of another run or of other data; without it only the same one is made anew.
        processes: processes that share the cases of --pred; the result does not depend on it.
        json: print the summary as one JSON object on stdout.
    """

    run: Path | None = field(metadata=READ)
    out: Path = field(metadata=RESULTS)
    others: list[Path] = field(default_factory=list, metadata=READ)
    data: Path | None = field(default=None, metadata=READ)
    split: str = "test"
    pred: Path | None = field(default=None, metadata=READ)
    truth: Path | None = field(default=None, metadata=READ)
    labels: Path | None = field(default=None, metadata=READ)
    protocol: str = "default"
    tolerances: Path | None = field(default=None, metadata=READ)
    beside: list[Path] = field(default_factory=list, metadata=READ)
    maps: bool = False
    views: int = number(1, 1, MAX_VIEWS)
    refine: str | None = None
    refine_options: dict[str, Any] = field(default_factory=dict)
    calibrate: bool = True
    layout: str | None = None
    map: str | None = None
    series: str | None = None
    last: bool = False
    weights: str | None = None
    force: bool = False
    processes: int = number(1, 1, 1024)
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
