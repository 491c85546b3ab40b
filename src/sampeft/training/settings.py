"""How to train, as asked, in; the share of a run that is over and the learning rate at it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sampeft.data.augment import Augmentation
from sampeft.errors import UsageError, unknown_name
from sampeft.losses import LOSSES, Objective
from sampeft.options import check_ranges, number

_MINUTES = 30.0  # where no end is given; no default of the field, which would also end a run that is given steps


@dataclass(frozen=True)
class Training:
    """How to train.

    steps, minutes: the end, whichever comes first; without either 30 minutes. The learning rate falls towards it.
    batch: slices a step, over all processes.
    lr: AdamW's peak learning rate, reached after the warm-up's share of the run, then falling as (1 - progress)^power.
    clip: largest gradient norm.
    validations: how often held-out cases are scored and the model is saved, at equal shares of the run.
    balance: share of slices drawn by class, every foreground class equally often, instead of uniformly.
    base_lr: of the pretrained weights that a method frees (a whole decoder, biases, everything), as a share of `lr`: what
    is known is changed more slowly than what is new.
    head_first: share of the run that trains prompt, head and decoder paths, `head_batch` slices a step, on embeddings of the
    untouched encoder; the encoder's paths then start under a head that works. A slice of the `head_bank` augmented ones
    goes through the encoder when it is first drawn; afterwards it costs about a tenth.
    cached_views: augmented views of each slice that the encoder's trained part sees, instead of a new one every time; what
    the frozen start of the encoder gives for a view is computed once and kept. 0: always new views. Most is saved where
    only the last blocks are trained (--options.last 4).
    cache_mib: room on disk for either kind of view of this training; the views do not depend on the seed, so that other
    trainings find them. What does not fit is computed each time.
    accumulate: a step's slices go through the model in so many parts, one after the other: the memory of a part, the steps of
    the whole; the Dice term is then pooled over each part.
    recompute: keep less for the backward pass and compute the encoder's blocks once more: less memory, a fifth more time.
    compile: fuse the encoder's operations with `torch.compile`; takes minutes at the start, on a CPU.
    patch: side in pixels of the square part of each picture that a step draws, for targets of a few pixels: a step then
    costs what the part costs, while encoder and decoder see the whole picture. 0: the whole picture; nothing: half of the
    side where nearly all pieces of the foreground are smaller than an eighth of it, else the whole picture.
    forced: share of these parts that hold a piece of the foreground, large or small ones alike.
    loss: ce+dice (the paper's), focal+dice, ce+tversky or ce+iou; loss_weights: of its two terms.
    class_weights: of the classes in the first term, in the order of the label map; none: 1 for all.
    whole_weight: of the loss of the mask head's coarser class maps of the whole pictures, where steps draw parts of them: the
    large is then learned from the whole, and detail from the part.
    presence_weight: of the loss of which classes a picture holds, for a head that decides that.
    precision: auto, fp32, bf16 or fp16.
    max_bad_steps: non-finite steps in a row that end the training.
    ema: decay of the average of the trained weights that is scored and saved, such as 0.99; 0: the weights themselves.
    patience: validations without a better score that end the training; 0: it goes to its end.
    checkpoint_minutes: at most so long after the last one the state for `--resume` is written, as it is at every
    validation.
    trackers: where metrics go beside metrics.jsonl, by accelerate: tensorboard (into the run's logs), wandb, mlflow, ...
    """

    steps: int | None = number(None, 1)
    minutes: float | None = number(None, 0, above=True)
    batch: int = number(2, 1)
    lr: float = number(1e-3, 0, 100, above=True)
    base_lr: float = number(0.1, 0)
    weight_decay: float = number(0.01, 0)
    warmup: float = number(0.05, 0, 1, below=True)
    power: float = number(0.9, 0)
    clip: float = number(1.0, 0, above=True)
    validations: int = number(8, 1)
    balance: float = number(0.5, 0, 1)
    head_first: float = number(0.3, 0, 1)
    head_batch: int = number(3, 1)
    head_bank: int = number(512, 1)
    cached_views: int = number(0, 0)
    cache_mib: int = number(4096, 0)
    accumulate: int = number(1, 1)
    recompute: bool = False
    compile: bool = False
    patch: int | None = number(None, 0)
    forced: float = number(0.5, 0, 1)
    loss: str = "ce+dice"
    loss_weights: tuple[float, float] = number((0.3, 0.7), 0)
    class_weights: tuple[float, ...] = number((), 0)
    presence_weight: float = number(0.1, 0)
    whole_weight: float = number(0.0, 0)
    precision: str = "auto"
    seed: int = number(0, 0, 2**32 - 1)
    max_bad_steps: int = number(20, 1)
    ema: float = number(0.0, 0, 1, below=True)
    patience: int = number(0, 0)
    checkpoint_minutes: float = number(10.0, 0)
    trackers: tuple[str, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise UsageError(f"unknown precision '{self.precision}'; known: auto, fp32, bf16, fp16")
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
    def objective(self) -> Objective:
        """The loss as set here."""
        return Objective(
            self.loss, self.loss_weights, self.class_weights, self.presence_weight, self.whole_weight, bool(self.patch)
        )

    def progress(self, step: int, seconds: float) -> float:
        """0..1: the share of the run that is over."""
        by_steps = step / self.steps if self.steps else 0.0
        minutes = _MINUTES if self.steps is None and self.minutes is None else self.minutes
        by_time = seconds / (60 * minutes) if minutes else 0.0
        return min(1.0, max(by_steps, by_time))

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
