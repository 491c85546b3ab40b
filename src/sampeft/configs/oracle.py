"""What `sampeft oracle` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import MAX_SIDE, READ, RESULTS, check_ranges, number


@dataclass(frozen=True)
class Masks:
    """How automatic masks are made for `masks` and `union`; what is not given is SAM's own, or what suits a model that was
    trained on boxes only.

    Args:
        points_per_side: columns and rows of the grid of point prompts. Default: SAM's 32.
        box_shares: prompt with boxes around the grid's points instead, of these shares of the picture's side, such
            as [0.125,0.25]. Default: points.
        masks_per_prompt: masks of each prompt, 3 or 1; also how many masks `points` chooses from by predicted IoU.
            Default: SAM's 3.
        predicted_iou: drop masks whose IoU, as the model predicts it, is lower. Default: SAM's 0.88.
        stability: drop masks that change more when the threshold moves, measured as an IoU. Default: SAM's 0.95.
        nms: non-maximum suppression: of masks whose boxes overlap by a larger IoU, keep the best. Default: SAM's
            0.7.
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
    """How the ground truth may help.

    Args:
        data: folder of the labelled data set.
        out: folder for the results; with several protocols one folder in it for each, and a table of all.
        protocols: how the ground truth helps, such as boxes,points,masks,union; `sampeft info` says what each does.
        backbone: promptable model; `sampeft info` lists them.
        split: split to score.
        side: side of the square network input, in pixels. Default: what the weights were trained with.
        maps: also write the label maps.
        layout: layout of the data set; `sampeft info` lists layouts. Default: recognised by its files.
        map: label ids to change on reading, as OLD:NEW, such as --map=4:3,255:1.
        intensity: how pixel values are normalised to 0..1; `sampeft info` lists recipes; auto: chosen by the first
            image.
        bands: bands of a multi-band image to use, counted from 1, such as 4,3,2. Default: the first three, or the
            first of two.
        weights: weights of the backbone: a file, a `transformers` folder, a Hugging Face id, or 'random'. Default:
            found by the backbone's name.
        force: overwrite the evaluation of another model or of other data; without it only the same one is made anew.
        json: print the summary (of several: that of the first) as one JSON object on stdout.
        masks: how automatic masks are made.
    """

    data: Path = field(metadata=READ)
    out: Path = field(metadata=RESULTS)
    protocols: str = "boxes"
    backbone: str = "lite-medsam"
    split: str = "test"
    side: int | None = number(None, 1, MAX_SIDE)
    maps: bool = False
    layout: str | None = None
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    weights: str | None = None
    force: bool = False
    json: bool = False
    masks: Masks = field(default_factory=Masks)

    def __post_init__(self) -> None:
        check_ranges(self, "--")
