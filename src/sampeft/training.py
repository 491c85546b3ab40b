"""A model with a method attached and prepared slices in, trained weights and metrics.jsonl in the run folder out."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from sampeft.backbones import Features
from sampeft.data.augment import Augmentation, augment
from sampeft.data.cache import Preparation, PreparedVolume, Slices
from sampeft.data.case import Case, Dataset
from sampeft.errors import SampeftError, UsageError
from sampeft.evaluation import score_case
from sampeft.inference import predict_slices
from sampeft.losses import segmentation_loss
from sampeft.metrics.scores import Evaluation
from sampeft.model import SemanticSam
from sampeft.peft.state import save_trained
from sampeft.progress import bar


@dataclass(frozen=True)
class Training:
    """How to train.

    steps, minutes: the end, whichever comes first; without either 30 minutes. The learning rate falls towards it.
    batch: slices a step, over all processes.
    lr: AdamW's peak learning rate, reached after the warm-up's share of the run, then falling as (1 - progress)^power.
    clip: largest gradient norm.
    validations: how often held-out cases are scored and the model is saved, at equal shares of the run.
    balance: share of slices drawn by class, every foreground class equally often, instead of uniformly.
    head_first: share of the run that trains prompt, head and decoder paths on embeddings of the untouched encoder: its
    first half encodes up to `head_bank` augmented slices, the rest trains on them, `head_batch` at a time, a slice at
    about a tenth of the cost of one through the encoder; the encoder's paths then start under a head that works.
    precision: auto, fp32, bf16 or fp16.
    max_bad_steps: non-finite steps in a row that end the training.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 2
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    power: float = 0.9
    clip: float = 1.0
    validations: int = 8
    balance: float = 0.5
    head_first: float = 0.3
    head_batch: int = 3
    head_bank: int = 512
    precision: str = "auto"
    seed: int = 0
    max_bad_steps: int = 20
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            object.__setattr__(self, "minutes", 30.0)
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise UsageError(f"unknown precision '{self.precision}'; known: auto, fp32, bf16, fp16")

    def progress(self, step: int, seconds: float) -> float:
        """0..1: the share of the run that is over."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def rate(self, progress: float) -> float:
        """Learning rate at a share of the run: linear warm-up, then polynomial decay to 0."""
        if progress < self.warmup:
            return self.lr * max(progress / self.warmup, 0.01)
        return float(self.lr * (1 - (progress - self.warmup) / (1 - self.warmup)) ** self.power)


@dataclass(frozen=True)
class Result:
    """What a training came to. stopped: by Ctrl-C or SIGTERM before its end."""

    steps: int
    minutes: float
    best_dsc: float | None
    best_step: int | None
    bad_steps: int
    stopped: bool


def draw_probabilities(presence_NK: npt.NDArray[np.bool_], foreground: Sequence[int], balance: float) -> torch.Tensor:
    """(N,) probability of every slice: `balance` of it by class, equally, then by slice; the rest uniform."""
    count_N = len(presence_NK)
    uniform = np.full(count_N, 1 / count_N)
    classes = [k for k in foreground if presence_NK[:, k].any()]
    if not classes:
        return torch.from_numpy(uniform)
    by_class = np.mean([presence_NK[:, k] / presence_NK[:, k].sum() for k in classes], axis=0)
    return torch.from_numpy((1 - balance) * uniform + balance * by_class)


def precision_for(device: torch.device, asked: str) -> str:
    """accelerate's name of the precision; `auto`: bf16 where the hardware multiplies it, else full precision."""
    if asked != "auto":
        return {"fp32": "no"}.get(asked, asked)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "no"
    return "no"


def fit(
    model: SemanticSam,
    slices: Slices,
    config: Training,
    out: Path,
    description: dict[str, Any],
    dataset: Dataset,
    held_out: Sequence[Case] = (),
    preparation: Preparation | None = None,
) -> Result:
    """Train what the attached method freed; write metrics.jsonl, the best model into `out`, the last into `out/last`.

    description: content of adapter.json, to which step and score are added. held_out: cases scored during training by
    the mean foreground DSC; the best is kept by it, and without any the last is. Ctrl-C or SIGTERM saves and returns.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.utils import DistributedDataParallelKwargs, set_seed

    set_seed(config.seed)
    only_cpu = not torch.accelerator.is_available()  # accelerate joins CPU processes only when it is told
    precision = precision_for(PartialState(cpu=only_cpu).device, config.precision)
    # Without anything to train behind the encoder there is no head to train first.
    head_first = config.head_first if any(not n.startswith("sam.vision_encoder.") for n in _trained(model)) else 0.0
    # While the head is trained first, the encoder's added paths get no gradient.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=head_first > 0)
    accelerator = Accelerator(cpu=only_cpu, mixed_precision=precision, kwargs_handlers=[parallel])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    probabilities = draw_probabilities(slices.presence(len(model.labels)), model.labels.foreground, config.balance)
    rank, processes = accelerator.process_index, accelerator.num_processes
    saver = _Saver(out, model, description, dataset, held_out, preparation, accelerator)
    bank: list[tuple[Features, torch.Tensor]] = []  # (features, truth) of augmented slices, untouched encoder
    running: list[tuple[float, float, float]] = []
    step = bad_steps = bad_in_row = saved = 0
    log = _Log(out / "metrics.jsonl", accelerator)
    learned = False
    start = time.monotonic()
    with _stop_signal() as stop, bar("training") as shown:
        while True:
            seconds = time.monotonic() - start
            # Every process must leave the loop at the same step: the largest progress and any stop count for all.
            progress, stopped = _agree(accelerator, config.progress(step, seconds), stop)
            over = progress >= 1 or stopped
            if over or progress >= (saved + 1) / config.validations:
                saved = math.floor(progress * config.validations + 1e-9)
                saver.save(log, step, seconds / 60, score=learned and not stopped)
                if over:
                    return Result(step, round(seconds / 60, 2), saver.best_dsc, saver.best_step, bad_steps, stopped)

            for group in optimizer.param_groups:
                group["lr"] = config.rate(progress)
            # What is drawn depends on seed, step and process only, so that nothing but the step has to be remembered.
            seed = int(np.random.SeedSequence([config.seed, step, rank]).generate_state(1)[0])
            generator = torch.Generator().manual_seed(seed)
            step += 1
            encoding = progress < head_first / 2 and len(bank) < config.head_bank
            images = features = None
            if bank and progress < head_first and not encoding:
                chosen = torch.randint(len(bank), (config.head_batch,), generator=generator).tolist()
                maps = zip(*(bank[i][0] for i in chosen), strict=True)
                features = tuple(torch.stack(m).to(accelerator.device).float() for m in maps)
                truth = torch.stack([bank[i][1] for i in chosen])
            else:
                count = max(1, config.batch // processes)
                index = torch.multinomial(probabilities, count, replacement=True, generator=generator).numpy()
                images, truth = augment(*slices.batch(index), model.labels, config.augmentation, generator)
                images = images.to(accelerator.device)
            if encoding:
                assert images is not None
                with torch.no_grad(), accelerator.autocast():
                    encoded = model.encode(images)
                slices_of = zip(*(m.half().cpu() for m in encoded), strict=True)
                bank += zip(slices_of, truth.short(), strict=True)
                shown.update(progress, f"step {step}  encoding for the head")
                continue
            if progress >= head_first:
                bank.clear()

            wrapped.train()
            truth = truth.to(accelerator.device).long()
            with accelerator.autocast():
                logits = wrapped(images, features)
            logits = F.interpolate(logits.float(), truth.shape[-2:], mode="bilinear", align_corners=False)
            loss = segmentation_loss(logits, truth)
            penalty = model.regulator.penalty() if model.regulator else 0.0
            accelerator.backward(loss.total + penalty)
            norm = accelerator.clip_grad_norm_(trained, config.clip)
            is_finite = bool(torch.isfinite(loss.total)) and bool(torch.isfinite(torch.as_tensor(norm)))
            if (
                is_finite or precision == "fp16"
            ):  # in fp16 the gradient scaler itself skips the step and lowers its scale
                optimizer.step()
            if is_finite:
                if model.regulator:
                    model.regulator.update(progress)
                bad_in_row, learned = 0, True
                running.append((loss.total.item(), loss.ce.item(), loss.dice.item()))
            else:
                bad_steps, bad_in_row = bad_steps + 1, bad_in_row + 1
                if bad_in_row >= config.max_bad_steps:
                    raise SampeftError(
                        f"training stopped at step {step}: {bad_in_row} steps in a row were not finite; the model saved "
                        f"before, if any, is kept in {out}; lower --training.lr (now {config.lr}) or use fp32"
                    )
            optimizer.zero_grad(set_to_none=True)
            if len(running) >= 10 or (running and step == config.steps):
                total, ce, dice = np.mean(running, axis=0).tolist()
                running.clear()
                log.record(
                    step, (time.monotonic() - start) / 60, loss=total, ce=ce, dice=dice, lr=config.rate(progress)
                )
                score = f"  best held-out DSC {saver.best_dsc:.3f}" if saver.best_dsc is not None else ""
                shown.update(progress, f"step {step}  loss {total:.3f}{score}")


def _trained(model: SemanticSam) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


class _Log:
    """metrics.jsonl, one JSON object a line, written by the main process only."""

    def __init__(self, path: Path, accelerator: Any) -> None:
        self.path, self.main = path, accelerator.is_main_process
        if self.main:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    def record(self, step: int, minutes: float, **values: Any) -> None:
        if self.main:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "minutes": round(minutes, 3), **values}) + "\n")


@dataclass
class _Saver:
    """Scores held-out cases and saves the model: the last one, and the best one as the run's own."""

    out: Path
    model: SemanticSam
    description: dict[str, Any]
    dataset: Dataset
    held_out: Sequence[Case]
    preparation: Preparation | None
    accelerator: Any
    best_dsc: float | None = None
    best_step: int | None = None

    def save(self, log: _Log, step: int, minutes: float, score: bool) -> None:
        state: dict[str, Any] = {"step": step, "minutes": round(minutes, 3)}
        is_best = not self.held_out
        if self.held_out and self.preparation and score:
            evaluation = validate(self.model, self.dataset, self.held_out, self.preparation, self.accelerator)
            state["val_dsc"] = dsc = evaluation.headline().mean
            per_class = {c.name: c.interval.mean for c in evaluation.per_class()}
            log.record(**state, val_per_class={name: None if math.isnan(v) else v for name, v in per_class.items()})
            is_best = self.best_dsc is None or dsc > self.best_dsc
            if is_best:
                self.best_dsc, self.best_step = dsc, step
        if self.accelerator.is_main_process:
            content = {**self.description, "trained": state}
            save_trained(self.out / "last", self.model, content)
            if is_best or self.best_dsc is None:
                save_trained(self.out, self.model, content)


def validate(
    model: SemanticSam, dataset: Dataset, cases: Sequence[Case], preparation: Preparation, accelerator: Any = None
) -> Evaluation:
    """Score a model on whole cases, on the files' own grids; processes share the cases."""
    from accelerate.utils import gather_object

    def predict(prepared: PreparedVolume, _: Any) -> Iterator[tuple[int, Any]]:
        return predict_slices(model.eval(), prepared)

    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    mine = [(case.id, score_case(predict, dataset, case, preparation)[0]) for case in cases[rank::processes]]
    scored = gather_object(mine) if processes > 1 else mine
    return Evaluation(dict(scored), dataset.labels, {"protocol": "default"})


def _agree(accelerator: Any, progress: float, stop: list[int]) -> tuple[float, bool]:
    """The largest progress and any stop request of all processes."""
    if accelerator.num_processes == 1:
        return progress, bool(stop)
    values = torch.tensor([progress, float(bool(stop))], device=accelerator.device)
    largest = accelerator.gather(values[None]).amax(dim=0)
    return float(largest[0]), bool(largest[1] > 0)


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Within the block the first Ctrl-C or SIGTERM only fills the list; a second one acts as usual."""
    received: list[int] = []
    old: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for restored, handler in old.items():
            signal.signal(restored, handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread: the caller keeps its own handlers
        old.clear()
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
