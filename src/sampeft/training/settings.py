"""How to train, as asked, in; the share of a run that is over and the learning rate at it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sampeft.data.augmentation import Augmentation
from sampeft.errors import UsageError, unknown_name
from sampeft.options import MAX_BATCH, MAX_MINUTES, MAX_SEED, MAX_SIDE, check_ranges, number

PRECISIONS = ("auto", "fp32", "bf16", "fp16")

_MINUTES = 30.0  # where no end is given; no default of the field, which would also end a run that is given steps


@dataclass(frozen=True)
class Training:
    """How to train.

    Args:
        steps: optimiser steps that end the training; with `minutes` whichever comes first. The learning rate falls towards
            the end.
        minutes: minutes of training that end it, counted from the first step; reading, preparing and planning come before
            them. Nothing: 30 where no steps are given either.
        batch: slices in a step, over all processes.
        lr: AdamW's peak learning rate, reached after the warm-up, then falling as (1 - progress)^power.
        base_lr: learning rate of the pretrained weights that a method frees (a whole decoder, biases, everything), as a share
            of `lr`: what is known is changed more slowly than what is new.
        weight_decay: AdamW's weight decay.
        warmup: share of the training in which the learning rate rises to its peak.
        power: exponent of the learning rate's fall; 0: it stays at its peak.
        clip: largest norm of the gradient; a longer one is shortened to it.
        validations: how often held-out cases are scored and the model is saved, at equal shares of the training.
        balance: share of slices drawn by class, every foreground class equally often, instead of uniformly.
        head_first: share of the training that trains prompt, head and decoder alone, on embeddings of the untouched encoder;
            the encoder's paths then start under a head that works.
        head_batch: slices in a step of `head_first`.
        head_bank: augmented slices whose embeddings are kept for `head_first`; one goes through the encoder when it is first
            drawn, afterwards it costs about a tenth.
        cached_views: augmented views of each slice that the encoder's trained part sees, instead of a new one every time;
            what the frozen start of the encoder gives for a view is computed once and kept. 0: always new views. Most is
            saved where only the last blocks are trained (--options.last 4).
        cache_mib: room on disk in MiB for either kind of view of this training; other trainings find them, whatever their
            seed. What does not fit is computed each time.
        accumulate: parts in which a step's slices go through the model, one after the other: the memory of a part, the steps
            of the whole; the Dice term is then pooled over each part.
        recompute: keep less for the backward pass and compute the encoder's blocks once more: less memory, a fifth more time.
        compile: fuse the encoder's operations with `torch.compile`; takes minutes at the start, on a CPU.
        patch: side in pixels of the square part of each picture that a step draws, for targets of a few pixels: a step then
            costs what the part costs, while encoder and decoder see the whole picture. 0: the whole picture; nothing: half of
            the side where nearly all pieces of the foreground are smaller than an eighth of it, else the whole picture.
        forced: share of these parts that hold a piece of the foreground, large or small ones alike.
        loss: ce+dice (the paper's), focal+dice, ce+tversky or ce+iou.
        loss_weights: weights of the two terms of the loss.
        class_weights: weights of the classes in the first term, in the order of the label map, background first; none: 1 for
            all.
        presence_weight: weight of the loss of which classes a picture holds, for a head that decides that.
        whole_weight: weight of the loss of the mask head's coarser class maps of the whole pictures, where steps draw parts of
            them: the large is then learned from the whole, and detail from the part.
        precision: numbers to compute with: auto, fp32, bf16 or fp16.
        seed: seed of everything that is drawn: held-out cases, new weights, slices, augmentation.
        max_bad_steps: steps in a row with a loss that is not finite that end the training.
        ema: decay of the moving average of the trained weights that is scored and saved, such as 0.99; 0: the weights
            themselves.
        patience: validations without a better score that end the training; 0: it goes to its end.
        checkpoint_minutes: minutes after which the state for `--resume` is written again at the latest, as it is at every
            validation.
        trackers: where metrics go beside metrics.jsonl, by accelerate, such as [tensorboard] (into the run's logs), wandb or
            mlflow.
        augmentation: how slices are changed.
    """

    steps: int | None = number(None, 1, 1_000_000_000)
    minutes: float | None = number(None, 0, MAX_MINUTES, above=True)
    batch: int = number(2, 1, MAX_BATCH)
    lr: float = number(1e-3, 0, 10, above=True)
    base_lr: float = number(0.1, 0, 100)
    weight_decay: float = number(0.01, 0, 10)
    warmup: float = number(0.05, 0, 1, below=True)
    power: float = number(0.9, 0, 100)
    clip: float = number(1.0, 0, above=True)
    validations: int = number(8, 1, 100_000)
    balance: float = number(0.5, 0, 1)
    head_first: float = number(0.3, 0, 1)
    head_batch: int = number(3, 1, MAX_BATCH)
    head_bank: int = number(512, 1, 1_000_000_000)
    cached_views: int = number(0, 0, 10_000)
    cache_mib: int = number(4096, 0)
    accumulate: int = number(1, 1, MAX_BATCH)
    recompute: bool = False
    compile: bool = False
    patch: int | None = number(None, 0, MAX_SIDE)
    forced: float = number(0.5, 0, 1)
    loss: str = "ce+dice"
    loss_weights: tuple[float, float] = number((0.3, 0.7), 0)
    class_weights: tuple[float, ...] = number((), 0)
    presence_weight: float = number(0.1, 0)
    whole_weight: float = number(0.0, 0)
    precision: str = "auto"
    seed: int = number(0, 0, MAX_SEED)
    max_bad_steps: int = number(20, 1)
    ema: float = number(0.0, 0, 1, below=True)
    patience: int = number(0, 0)
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

    def rate(self, progress: float) -> float:
        """Learning rate at a share of the run: linear warm-up, then polynomial decay to 0."""
        if progress < self.warmup:
            return self.lr * max(progress / self.warmup, 0.01)
        return float(self.lr * (1 - (progress - self.warmup) / (1 - self.warmup)) ** self.power)


def _check_trackers(names: Sequence[str]) -> None:
    """Raises UsageError for a tracker that accelerate does not know or whose package is missing."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown_name("tracker", name, LOGGER_TYPE_TO_CLASS)
        if name not in [str(found) for found in get_available_trackers()]:
            raise UsageError(f"tracker '{name}' is not installed; pip install {name.replace('_', '-')}")
