"""What `sampeft oracle` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import MAX_SIDE, READ, check_ranges, number


@dataclass(frozen=True)
class Masks:
    """How automatic masks are made for `masks` and `union`; what is not given is SAM's own, or what suits a model that
    was trained on boxes only.

    Args:
        points_per_side: columns and rows of the grid of prompts (SAM: 32).
        box_shares: boxes round the grid's points instead of points, such as [0.125,0.25] of the picture's side.
        masks_per_prompt: 3, or 1; also how many masks `points` chooses from by predicted IoU (SAM: 3).
        predicted_iou: masks whose IoU the model predicts to be lower are dropped (SAM: 0.88).
        stability: masks that are less stable when the threshold moves are dropped, as an IoU (SAM: 0.95).
        nms: of masks whose boxes overlap by more than this IoU, one stays (SAM: 0.7).
    """

    points_per_side: int | None = number(None, 1, 256)
    box_shares: list[float] | None = number(None, 0, 1, above=True)
    masks_per_prompt: int | None = number(None, 1, 3)
    predicted_iou: float | None = number(None, 0, 1)
    stability: float | None = number(None, 0, 1)
    nms: float | None = number(None, 0, 1)

    def __post_init__(self) -> None:
        check_ranges(self, "--masks.")


@dataclass(frozen=True)
class Config:
    """How the truth may help.

    Args:
        data: folder of the labelled data set.
        out: folder for the results; with several protocols one folder in it for each, and a table of all.
        protocols: how the truth helps, such as boxes,points,masks,union; `sampeft info` says what each does.
        backbone: promptable model; `sampeft info` lists them.
        weights: weights of the backbone: a file, a `transformers` folder, a hub id, or 'random'; nothing: found by name.
        split: split to score.
        layout: layout of the data set; nothing: recognised by its files.
        map: label ids to change on reading, such as --map=4:3.
        intensity: recipe that brings pixel values to 0..1; auto: by the first image.
        bands: bands of a multi-band image to look at, counted from 1, such as 3,2,1; nothing: grey or colour as it is.
        side: pixels of the side of the square network input; nothing: what the weights were trained with.
        masks: how automatic masks are made.
        maps: also write the label maps.
        json: print the summary (of several: that of the first) as one JSON object on stdout.
    """

    data: Path = field(metadata=READ)
    out: Path
    protocols: str = "boxes"
    backbone: str = "lite-medsam"
    weights: str | None = None
    split: str = "test"
    layout: str | None = None
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    side: int | None = number(None, 1, MAX_SIDE)
    masks: Masks = field(default_factory=Masks)
    maps: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
