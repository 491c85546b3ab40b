"""What `sampeft train` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sampeft.denoise.settings import Denoising
from sampeft.options import MAX_SIDE, READ, RUN, check_ranges, number, share_or_count
from sampeft.training.settings import Training


@dataclass(frozen=True)
class Config:
    """Data, model and output.

    Args:
        data: folder of the labelled data set.
        out: run folder to make.
        backbone: promptable model to start from; `sampeft info` lists them.
        method: parameter-efficient method; `sampeft info` lists methods and their options.
        options: options of the method, such as --options.rank 8.
        side: side of the square network input, in pixels. Default: the backbone's own.
        split: split to train on; auto: train if the data set has it, else all; fold2of5: all cases outside the
            second of five folds.
        held_out: training cases set aside for validation, which picks the best step, 1 and 1.0 being one case; a
            `val` split that the data set has is used instead; 0: none.
        layout: layout of the data set; `sampeft info` lists layouts. Default: recognised by its files.
        map: label ids to change on reading, as OLD:NEW, such as --map=4:3,255:1.
        intensity: how pixel values are normalised to 0..1; `sampeft info` lists recipes; auto: chosen by the first
            image.
        bands: bands of a multi-band image to use, counted from 1, such as 4,3,2. Default: the first three, or the
            first of two.
        series: which of several DICOM series, echoes or stacks to read: the series number, or DICOM attributes and their
            values, such as SeriesDescription=T2*,EchoTime=30. Default: there may be only one.
        plane: plane of the slices of volumes: axial, coronal, sagittal, or auto: across the largest spacing, as in
            most volumes.
        context: input channels of a grey slice: the slice three times (repeat), or between its neighbours (2.5D).
        context_mm: distance of the neighbours in mm. Default: the adjacent slices.
        cases: number of training cases to use, for learning curves: a larger number includes the cases of a smaller
            one. Default: all.
        head: decoder head: pixel, which also sees the picture at full resolution; mask, SAM's own upsampling, as in
            the paper; or probe, a linear classifier of the frozen encoder's features.
        head_options: options of the head, such as --head_options.presence false.
        encoder_side: side in pixels of what the encoder sees of the network input; a smaller one costs less, and
            the head pixel still draws at --side. Default: as --side.
        weights: weights of the backbone: a file, a `transformers` folder, a Hugging Face id, or 'random'. Default:
            found by the backbone's name.
        start_from: run whose trained weights are the start, such as one of method decoder for lora with
            whole_decoder; what it did not train starts as usual, and its side may be another. Classes are matched
            by name. Default: the backbone's weights alone.
        resume: continue the run in --out where it was stopped or killed, with the same options as before; bit-exact
            on the CPU when --training.steps ends it. Minutes used before count.
        force: overwrite a run that is already there; with --resume, start anew where there is nothing to continue.
        plan: estimate memory and time before the first step, and stop where the memory cannot suffice.
        json: print the result as one JSON object on stdout.
        denoise: denoiser applied to each slice, here and at prediction: gaussian, nlm or dncnn. Default: none.
        denoise_options: options of the denoiser, such as --denoise_options.sigma 1.5.
        denoise_weights: run folder of --task denoise, for dncnn; its weights are copied into this run.
        task: segment, or denoise: train a denoiser on the images, labelled or not, of a data set or a plain folder;
            of --training it takes steps, minutes and seed.
        training: how the model is trained.
        denoising: how --task denoise trains.
    """

    data: Path = field(metadata=READ)
    out: Path = field(metadata=RUN)
    backbone: str = "lite-medsam"
    method: str = "lora"
    options: dict[str, Any] = field(default_factory=dict)
    side: int | None = number(None, 1, MAX_SIDE)
    split: str = "auto"
    held_out: float = share_or_count(0.15)
    layout: str | None = None
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    series: str | None = None
    plane: str = "auto"
    context: Literal["repeat", "neighbours"] = "repeat"
    context_mm: float | None = number(None, 0, 1000, above=True)
    cases: int | None = number(None, 1, 1_000_000)
    head: str = "pixel"
    head_options: dict[str, Any] = field(default_factory=dict)
    encoder_side: int | None = number(None, 1, MAX_SIDE)
    weights: str | None = None
    start_from: Path | None = field(default=None, metadata=READ)
    resume: bool = False
    force: bool = False
    plan: bool = True
    json: bool = False
    denoise: str | None = None
    denoise_options: dict[str, Any] = field(default_factory=dict)
    denoise_weights: Path | None = field(default=None, metadata=READ)
    task: Literal["segment", "denoise"] = "segment"
    training: Training = field(default_factory=Training)
    denoising: Denoising = field(default_factory=Denoising)

    def __post_init__(self) -> None:
        check_ranges(self, "--")
