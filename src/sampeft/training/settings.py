"""Training hyperparameters, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sampeft.data.augmentation import Augmentation
from sampeft.errors import UsageError, unknown_name
from sampeft.options import MAX_BATCH, MAX_MINUTES, MAX_SEED, MAX_SIDE, check_ranges, number

PRECISIONS = ("auto", "fp32", "bf16", "fp16")

VALIDATION_BATCH = 4
"""Slices that a validation sends through the model at a time."""
_MINUTES = 30.0  # where no end is given; no default of the field, which would also end a run that is given steps


@dataclass(frozen=True)
class Training:
    """How to train.

    Args:
        steps: optimiser steps after which the training ends; with `minutes`, whichever comes first. The learning
            rate falls towards the end. Default: no limit.
        minutes: minutes after which the training ends, counted from the first step; reading, preparing and planning
            come before. Default: 30, or no limit with `steps`.
        batch: batch size in slices, over all processes.
        lr: AdamW's peak learning rate, reached after the warm-up; it then falls as (1 - progress)^power.
        seed: random seed of held-out cases, new weights, slices and augmentation.
        precision: number format of the computation: auto, fp32, bf16 or fp16.
        validations: number of validations, at equal shares of the training; each scores the held-out cases and
            saves the model.
        patience: early stopping: validations without a better score that end the training; 0: off.
        loss: loss function: ce+dice (the paper's), focal+dice, ce+tversky or ce+iou.
        loss_weights: weights of the two terms of the loss.
        class_weights: weights of the classes in the first term, in the order of the label map, background first.
            Default: 1 for all.
        balance: share of slices drawn class-balanced, every foreground class equally often; the others are drawn
            uniformly.
        patch: side in pixels of the square part of each picture that a step segments, for small targets: a step
            then costs less, while encoder and decoder still see the whole picture. 0: the whole picture. Default:
            half of --side where nearly all connected pieces of the foreground are smaller than an eighth of it,
            else the whole picture.
        forced: share of these parts that are drawn around a piece of the foreground, large and small ones alike.
        accumulate: gradient accumulation: parts in which a batch goes through the model one after the other, to
            save memory; the Dice term is then computed over each part.
        recompute: gradient checkpointing: recompute the encoder's blocks in the backward pass, which saves memory
            and takes about a fifth more time.
        compile: compile the encoder's operations with `torch.compile`; takes minutes at the start, on a CPU.
        weight_decay: AdamW's weight decay.
        warmup: linear warm-up of the learning rate, as a share of the training.
        power: exponent of the learning rate's polynomial decay; 0: constant.
        clip: gradient clipping: largest norm of the gradient.
        base_lr: learning rate of pretrained weights that a method trains (a whole decoder, biases, everything), as
            a share of `lr`.
        ema: decay of the exponential moving average of the trained weights, which is then scored and saved, such as
            0.99; 0: off.
        head_first: share of the training, at its start, in which only prompt, head and decoder are trained, on
            stored features of the untouched encoder, so that the encoder is then trained under a head that works.
        head_batch: batch size in slices during `head_first`.
        head_bank: augmented slices whose encoder features are stored for `head_first`; a stored one costs about a
            tenth of a new one.
        cached_views: augmented views of each slice for the encoder's trained part, instead of a new one every time:
            what its frozen blocks give for a view is computed once and stored, which saves most where only the last
            blocks are trained (--options.last 4). 0: always new views.
        cache_mib: disk space in MiB for either kind of stored features of this training; other trainings reuse
            them, whatever their seed. What does not fit is computed each time.
        presence_weight: weight of the loss of which classes a picture holds, for a head that predicts that.
        whole_weight: weight of the loss of the mask head's coarser class maps of the whole pictures, where `patch`
            is used: large structures are then learned from the whole, and detail from the part.
        max_bad_steps: steps in a row with a loss of NaN or infinity after which the training ends.
        checkpoint_minutes: longest time between two checkpoints for --resume, in minutes; one is also written at
            every validation.
        trackers: experiment trackers that get the metrics, beside metrics.jsonl, such as [tensorboard] (into the
            run's logs), wandb or mlflow. Default: none.
        augmentation: how slices are augmented.
    """

    steps: int | None = number(None, 1, 1_000_000_000)
    minutes: float | None = number(None, 0, MAX_MINUTES, above=True)
    batch: int = number(2, 1, MAX_BATCH)
    lr: float = number(1e-3, 0, 10, above=True)
    seed: int = number(0, 0, MAX_SEED)
    precision: str = "auto"
    validations: int = number(8, 1, 100_000)
    patience: int = number(0, 0)
    loss: str = "ce+dice"
    loss_weights: tuple[float, float] = number((0.3, 0.7), 0)
    class_weights: tuple[float, ...] = number((), 0)
    balance: float = number(0.5, 0, 1)
    patch: int | None = number(None, 0, MAX_SIDE)
    forced: float = number(0.5, 0, 1)
    accumulate: int = number(1, 1, MAX_BATCH)
    recompute: bool = False
    compile: bool = False
    weight_decay: float = number(0.01, 0, 10)
    warmup: float = number(0.05, 0, 1, below=True)
    power: float = number(0.9, 0, 100)
    clip: float = number(1.0, 0, above=True)
    base_lr: float = number(0.1, 0, 100)
    ema: float = number(0.0, 0, 1, below=True)
    head_first: float = number(0.3, 0, 1)
    head_batch: int = number(3, 1, MAX_BATCH)
    head_bank: int = number(512, 1, 1_000_000_000)
    cached_views: int = number(0, 0, 10_000)
    cache_mib: int = number(4096, 0)
    presence_weight: float = number(0.1, 0)
    whole_weight: float = number(0.0, 0)
    max_bad_steps: int = number(20, 1)
    checkpoint_minutes: float = number(10.0, 0, MAX_MINUTES)
    trackers: tuple[str, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.loss != Training.loss:  # losses are of torch, which the default need not wait for
            from sampeft.losses import LOSSES

            if self.loss not in LOSSES:
                raise unknown_name("loss", self.loss, LOSSES)
        check_ranges(self, "training.")
        if not any(self.loss_weights):
            raise UsageError("training.loss_weights are both 0; one of them must be more")
        if self.accumulate > self.batch:
            raise UsageError(
                f"training.accumulate is {self.accumulate}; a step of {self.batch} slices has 1 to {self.batch} parts"
            )
        if self.trackers:
            _check_trackers(self.trackers)

    @property
    def seconds(self) -> float:
        """The time that ends the training; infinite where only steps do."""
        minutes = _MINUTES if self.steps is None and self.minutes is None else self.minutes
        return 60 * minutes if minutes else math.inf

    def progress(self, step: int, seconds: float) -> float:
        """0..1: the share of the run that is over."""
        by_steps = step / self.steps if self.steps else 0.0
        return min(1.0, max(by_steps, seconds / self.seconds))

    def parts(self, count: int, processes: int) -> int:
        """In how many parts a batch of so many slices of all processes goes through the model; equal in all of them."""
        return min(self.accumulate, max(1, count // processes))

    def rate(self, progress: float) -> float:
        """Learning rate at a share of the run: linear warm-up, then polynomial decay to 0."""
        if progress < self.warmup:
            return self.lr * max(progress / self.warmup, 0.01)
        return float(self.lr * (1 - (progress - self.warmup) / (1 - self.warmup)) ** self.power)


def validations_by(progress: float, validations: int) -> int:
    """How many of so many validations, at equal shares of a training, are due when that share of it is over."""
    return math.floor(progress * validations + 1e-9)


def _check_trackers(names: Sequence[str]) -> None:
    """Raises UsageError for a tracker that accelerate does not know or whose package is missing."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown_name("tracker", name, LOGGER_TYPE_TO_CLASS)
        if name not in [str(found) for found in get_available_trackers()]:
            raise UsageError(f"tracker '{name}' is not installed; pip install {name.replace('_', '-')}")
