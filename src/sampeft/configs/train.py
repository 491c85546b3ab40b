"""What `sampeft train` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sampeft.denoise.settings import Denoising
from sampeft.options import MAX_SIDE, READ, check_ranges, number
from sampeft.training.settings import Training


@dataclass(frozen=True)
class Config:
    """What to train on what.

    Args:
        data: folder of the labelled data set.
        out: run folder to make.
        task: segment, or denoise: train a denoiser on the images, labelled or not, of a data set or a plain folder; of
            `training` it takes steps, minutes and seed.
        backbone: promptable model to start from; `sampeft info` lists them.
        weights: weights of the backbone: a file, a `transformers` folder, a hub id, or 'random'; nothing: found by name.
        method: what is trained; `sampeft info` lists methods and their options.
        options: options of the method, such as --options.rank 8.
        head: what draws the class maps: pixel, on the picture's own grid; mask, SAM's own way up, as in the paper; or probe, a
            linear classifier of what the frozen encoder gives.
        head_options: options of the head, such as --head_options.presence false.
        encoder_side: pixels of the side of what the encoder sees of the square input; nothing: as many as `side`. A smaller one
            costs less, and the head pixel still draws at `side`.
        start_from: run whose trained weights are the start, such as one of `decoder` for a `lora` with whole_decoder; what it
            did not train starts as usual, and its side may be another. Classes are matched by name.
        layout: layout of the data set; nothing: recognised by its files. `sampeft info` lists layouts.
        split: split to train on; auto: train if the data set has it, else all; fold2of5: all cases outside that fold.
        held_out: cases of the split that are not trained on but scored on the way; below 1 a share, else a number, 0 none.
        cases: train on so many of the other cases only, fewer among more; nothing: on all. A sweep over it gives a learning
            curve.
        map: label ids to change on reading, such as --map=4:3,255:1.
        intensity: recipe that brings pixel values to 0..1; auto: by the first image. `sampeft info` lists recipes.
        bands: bands of a multi-band image to look at, counted from 1, such as 4,3,2; nothing: grey or colour as it is.
        series: which of several series, echoes or stacks of DICOM images to read: the number, or attributes and their values,
            such as SeriesDescription=T2*,EchoTime=30; nothing: there may be one only.
        context: what the three input channels of a grey slice hold: the slice repeated, or its neighbours as well.
        context_mm: distance of these neighbours in millimetres; nothing: the next slices.
        side: pixels of the side of the square network input; nothing: the backbone's default.
        plane: how volumes are sliced: axial, coronal, sagittal, or auto: across the largest spacing.
        denoise: denoiser that each slice goes through first, here and at prediction: gaussian, nlm or dncnn; nothing: none.
        denoise_options: options of the denoiser, such as --denoise_options.sigma 1.5.
        denoise_weights: run folder of --task denoise, for dncnn; its weights are copied into this run.
        denoising: how --task denoise trains.
        training: how the model is trained.
        plan: say before the first step what memory and time it will take, and stop where the memory cannot suffice; false:
            start at once.
        resume: go on with the run in --out where it was stopped or killed, with the same options as before; exact to the bit on
            the CPU when the end is given by steps. Minutes used before count.
        force: overwrite a run that is already there; with --resume, start anew where there is nothing to go on from.
        json: print the result as one JSON object on stdout.
    """

    data: Path = field(metadata=READ)
    out: Path
    task: Literal["segment", "denoise"] = "segment"
    backbone: str = "lite-medsam"
    weights: str | None = None
    method: str = "lora"
    options: dict[str, Any] = field(default_factory=dict)
    head: str = "pixel"
    head_options: dict[str, Any] = field(default_factory=dict)
    encoder_side: int | None = number(None, 1, MAX_SIDE)
    start_from: Path | None = field(default=None, metadata=READ)
    layout: str | None = None
    split: str = "auto"
    held_out: float = number(0.15, 0, 1_000_000)
    cases: int | None = number(None, 1, 1_000_000)
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    series: str | None = None
    context: Literal["repeat", "neighbours"] = "repeat"
    context_mm: float | None = number(None, 0, 1000, above=True)
    side: int | None = number(None, 1, MAX_SIDE)
    plane: str = "auto"
    denoise: str | None = None
    denoise_options: dict[str, Any] = field(default_factory=dict)
    denoise_weights: Path | None = field(default=None, metadata=READ)
    denoising: Denoising = field(default_factory=Denoising)
    training: Training = field(default_factory=Training)
    plan: bool = True
    resume: bool = False
    force: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
