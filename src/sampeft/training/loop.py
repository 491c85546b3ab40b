"""A model with a method attached and prepared slices in, trained weights and metrics.jsonl in the run folder out."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from sampeft.backbones import Features
from sampeft.console import bar
from sampeft.data.cache import Preparation, Slices
from sampeft.data.case import Case, Dataset
from sampeft.errors import SampeftError, UsageError
from sampeft.heads.given import Window, cut
from sampeft.model import SemanticSam
from sampeft.stopping import STOPPING, answered
from sampeft.training.averaging import Average
from sampeft.training.batches import Batches
from sampeft.training.checkpoint import FILE, Checkpoint, Learner, Position
from sampeft.training.objective import objective_of
from sampeft.training.processes import over_processes, refuse_unequal
from sampeft.training.saving import Keeper, Log, Saver, alarm_of
from sampeft.training.saving import validate as validate
from sampeft.training.settings import Training as Training


@dataclass(frozen=True)
class Result:
    """What a training came to. stopped: by Ctrl-C or SIGTERM, the last validation included. early: ended by `patience`.

    start_dsc: of the held-out cases before training; alarm: why the model is of no use, if it is not better than that.
    least_share: of the best model. signal: the number of what stopped it, or 0.
    """

    steps: int
    minutes: float
    best_dsc: float | None
    best_step: int | None
    bad_steps: int
    stopped: bool
    early: bool = False
    start_dsc: float | None = None
    alarm: str | None = None
    least_share: float = 0.0
    signal: int = 0

    @classmethod
    def of(cls, at: Position, signal: int = 0, early: bool = False) -> Result:
        alarm = None if at.best_dsc is None else alarm_of(at.best_dsc, at.start_dsc)
        minutes = round(at.seconds / 60, 2)
        best = at.best_dsc, at.best_step
        ends = signal > 0, early
        return cls(at.step, minutes, *best, at.bad_steps, *ends, at.start_dsc, alarm, at.best_share, signal)


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
    settings: Mapping[str, Any] | None = None,
    resumed: Checkpoint | None = None,
) -> Result:
    """Train what the attached method freed; write metrics.jsonl, the best model into `out`, the last into `out/last`, the
    state to go on from into `out/checkpoint.safetensors`.

    description: content of adapter.json, to which step and score are added. held_out: cases scored during training by
    the mean foreground DSC; the best is kept by it, and without any the last is. Ctrl-C or SIGTERM saves and returns.
    settings: kept in the checkpoint, for who goes on. resumed: state of a training with equal arguments; on the CPU, with
    equal processes and an end by steps, all then is bit-equal to a training that was never interrupted.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, set_seed

    if config.patience and not held_out:
        raise UsageError(
            "training.patience waits for held-out cases to get better, and there are none; give --held_out"
        )
    if config.class_weights and len(config.class_weights) != len(model.labels):
        raise UsageError(
            f"training.class_weights are {len(config.class_weights)}, one for each of the {len(model.labels)} classes "
            f"{', '.join(model.labels.names)} is wanted"
        )
    set_seed(config.seed)
    only_cpu = not torch.accelerator.is_available()  # accelerate joins CPU processes only when it is told
    # One machine may still prepare its slices while another waits: longer than the library's ten minutes.
    process = PartialState(cpu=only_cpu, timeout=timedelta(hours=2))
    precision = precision_for(process.device, config.precision)
    # Without anything to train behind the encoder there is no head to train first.
    head_first = config.head_first if any(not n.startswith("sam.vision_encoder.") for n in _trained(model)) else 0.0
    # While the head is trained first, the encoder's added paths get no gradient.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=head_first > 0)
    AcceleratorState._reset_state()  # it would keep the precision of an earlier training in this process
    accelerator = Accelerator(
        cpu=only_cpu,
        mixed_precision=precision,
        kwargs_handlers=[parallel],
        log_with=list(config.trackers) or None,
        project_config=ProjectConfiguration(str(out), str(out / "logs")),
    )
    if config.recompute:
        model.recompute_blocks()
    if config.compile:
        model.compile_encoder()
    refuse_unequal(accelerator, settings or {}, resumed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, weight_decay=config.weight_decay)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    learner = Learner(model, optimizer, Average(model, config.ema), accelerator.scaler)
    at = resumed.position if resumed else Position()
    if resumed:
        learner.restore(resumed)
        resumed.tensors.clear()  # up to four times the trained weights
    batches = Batches.of(slices, model, config, accelerator, (settings or {}).get("start_from") or "")
    keeper = Keeper(out, learner, settings or {}, _circumstances(accelerator, precision), accelerator.is_main_process)
    keeper.prepare(resumed)
    last_step = at.step or None
    before = config.progress(at.step, at.seconds)
    with Log.open(out, accelerator, last_step) as log, _stop_signal() as stop, bar("training", before=before) as shown:
        saver = Saver(out, learner, log, description, dataset, held_out, preparation, accelerator)
        if not at.step:  # whoever was stopped within this begins it anew
            saver.score_start(at)
            model.standardise(takewhile(lambda _: not stop, batches.examples()))
            keeper.keep(at)
        start = time.monotonic() - at.seconds
        while True:
            at.seconds = time.monotonic() - start
            # Every process must leave the loop at the same step: the largest progress and any stop count for all.
            progress, stopped = _agree(accelerator, config.progress(at.step, at.seconds), stop)
            if stopped or progress >= 1 or progress >= (at.validations + 1) / config.validations:
                if not stopped:  # one that goes on must not miss the validation that is due now
                    at.validations = math.floor(progress * config.validations + 1e-9)
                if progress >= 1 and not at.learned and not stopped:
                    raise SampeftError(
                        f"nothing was learned: none of the {at.step} steps was finite; lower --training.lr (now {config.lr:g})"
                        if at.step
                        else f"nothing was learned: training's time was over before its first step; give more than "
                        f"{config.minutes:g} minutes"
                    )
                saver.save(at, score=at.learned and not stopped)
                early = 0 < config.patience <= at.waited and progress < 1
                at.finished = (early or progress >= 1) and not stopped
                keeper.keep(at)
                if at.finished or stopped:
                    number = stopped or max(stop, default=0)  # what follows a training must not begin
                    return Result.of(at, number, early)
            elif time.monotonic() - keeper.kept >= 60 * config.checkpoint_minutes:
                keeper.keep(at)

            for group in optimizer.param_groups:
                group["lr"] = config.rate(progress) * group["share"]
            generator = batches.generator(at.step)
            images = features = block = None
            if progress < head_first:
                features, truth = batches.encoded(generator)
            elif batches.kept:
                features, truth = batches.started(generator)
                block = batches.kept.block
            else:
                images, truth = batches.images(at.step)
            at.step += 1

            wrapped.train()
            count = config.head_batch if progress < head_first else config.batch
            windows = batches.windows(at.step - 1, count, truth) if config.patch else None
            parts = min(config.accumulate, max(1, count // accelerator.num_processes))  # equal in all processes
            loss = backward(wrapped, model, accelerator, config, images, features, block, windows, truth, parts)
            norm = accelerator.clip_grad_norm_(trained, config.clip)
            is_finite = math.isfinite(loss[0]) and bool(torch.isfinite(torch.as_tensor(norm)))
            if (
                is_finite or precision == "fp16"
            ):  # in fp16 the gradient scaler itself skips the step and lowers its scale
                optimizer.step()
            if is_finite:
                if model.regulator:
                    model.regulator.update(progress)
                learner.average.update()
                at.bad_in_row, at.learned = 0, True
                at.running.append(loss)
            else:
                at.bad_steps, at.bad_in_row = at.bad_steps + 1, at.bad_in_row + 1
                if at.bad_in_row >= config.max_bad_steps:
                    raise SampeftError(
                        f"training stopped at step {at.step}: {at.bad_in_row} steps in a row were not finite; the state of "
                        f"step {keeper.step} is kept in {out / FILE} and the models saved before, if any, in {out}; lower "
                        f"--training.lr (now {config.lr}) or use fp32, in another --out, from there with --start_from {out}"
                    )
            optimizer.zero_grad(set_to_none=True)
            if len(at.running) >= 10 or (at.running and at.step == config.steps):
                total, ce, dice = np.mean(at.running, axis=0).tolist()
                at.running.clear()
                minutes = (time.monotonic() - start) / 60
                log.record(at.step, minutes, loss=total, ce=ce, dice=dice, lr=config.rate(progress))
                score = f"  best held-out DSC {at.best_dsc:.3f}" if at.best_dsc is not None else ""
                shown.update(progress, f"step {at.step}  loss {total:.3f}{score}")


def backward(
    wrapped: Any,
    model: SemanticSam,
    accelerator: Any,
    config: Training,
    images_B3HW: torch.Tensor | None,
    features: Features | None,
    block: int | None,
    windows: Sequence[Window] | None,
    truth_BHW: torch.Tensor,
    parts: int,
) -> list[float]:
    """Gradients of a step's mean loss over so many parts of its slices, each of which all processes share. Returns (total,
    ce, dice), averaged over them. windows: the part of each slice that is drawn; None: the whole."""
    objective, size = objective_of(config), config.patch or 0
    sums = torch.zeros(3, device=accelerator.device)
    for number, mine in enumerate(torch.arange(len(truth_BHW)).tensor_split(parts)):
        # Processes average their gradients once, with the last part.
        with accelerator.no_sync(wrapped) if number < parts - 1 else nullcontext():
            truth = truth_BHW[mine].to(accelerator.device).long()
            chosen = tuple(m[mine] for m in features) if features is not None else None
            whole = truth
            parts_shown = None if windows is None else [windows[i] for i in mine.tolist()]
            if parts_shown is not None:
                truth = cut(truth, parts_shown, size)
            with accelerator.autocast():
                given = None if images_B3HW is None else images_B3HW[mine]
                output = wrapped(given, chosen, block, parts_shown, size, in_full=True)
            loss = objective(output, truth, whole, partial(over_processes, accelerator))
            penalty = model.regulator.penalty() if model.regulator else 0.0
            accelerator.backward((loss.total + penalty) / parts)
            sums += torch.stack([part.detach() for part in loss]) / parts
    return sums.tolist()


def parameter_groups(model: SemanticSam, config: Training) -> list[dict[str, Any]]:
    """For the optimizer: what is new in the model, and the pretrained weights that a method frees, which learn at a
    smaller rate. share: of the learning rate."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    of_base = [name.startswith("sam.") and not model.is_added(name) for name, _ in named]
    groups = [
        {"params": [p for (_, p), base in zip(named, of_base, strict=True) if base is is_base], "share": share}
        for is_base, share in ((False, 1.0), (True, config.base_lr))
    ]
    return [group for group in groups if group["params"]]


def _trained(model: SemanticSam) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _circumstances(accelerator: Any, precision: str) -> dict[str, Any]:
    return {
        "processes": accelerator.num_processes,
        "precision": precision,
        "device": accelerator.device.type,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _agree(accelerator: Any, progress: float, stop: list[int]) -> tuple[float, int]:
    """The largest progress of all processes, and a signal that any of them was stopped by, or 0."""
    number = max(stop, default=0)
    if accelerator.num_processes == 1:
        return progress, number
    values = torch.tensor([progress, float(number)], device=accelerator.device)
    largest = accelerator.gather(values[None]).amax(dim=0)
    return float(largest[0]), int(largest[1])


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Within the block the first Ctrl-C or SIGTERM only fills the list, and says so; a second one acts as usual."""
    received: list[int] = []
    old: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for restored, handler in old.items():
            signal.signal(restored, handler)

    try:
        for number in STOPPING:
            old[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread: the caller keeps its own handlers
        old.clear()
    try:
        with answered("stopping after this step, what was learned is kept; once more to stop at once", 0):
            yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
