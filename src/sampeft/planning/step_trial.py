"""Measure what a slice, a step and a phase of a training cost in bytes and seconds.

One forward pass and a few real steps, of one slice and of more; model, gradients and random generators are afterwards as they
were.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sampeft.backbones import Features
from sampeft.data.slice_cache import Slices
from sampeft.errors import UsageError
from sampeft.heads.given import Output
from sampeft.model import SemanticSam
from sampeft.planning.memory_counts import Place, Saved
from sampeft.planning.step_costs import Costs, Line
from sampeft.provenance import peak_memory_mib
from sampeft.training.batches import Batch, Batches
from sampeft.training.processes import SingleProcess
from sampeft.training.settings import Training
from sampeft.training.setup import trains_head
from sampeft.training.step import TrainStep

_ROUNDS, _ENOUGH_SECONDS = 4, 10.0
_UPDATED = 4_000_000  # weights of the optimizer's trial update


def measure_costs(
    model: SemanticSam,
    config: Training,
    precision: str,
    device: torch.device,
    room: int,
    slices: Slices | None = None,
) -> Costs:
    """Run one forward pass that keeps nothing, then, if one slice fits into the room, a step of one slice and, where more go
    through the model at a time, one of all these or, where that would take long or half of the room, of two; then one slice
    again and, for ten seconds, the rest, up to four times: it takes some steps until the process has its memory and the
    kernels of a size are ready. They are those of `fit`, but without an update.

    precision: accelerate's name, see `training.setup.precision_for`. room: bytes of main memory that this process may fill.
    slices: to draw from; None: noise of the right size.
    """
    import accelerate  # noqa: F401  `fit` has it in memory as well, so it counts before anything is measured
    import psutil  # type: ignore[import-untyped]

    process = psutil.Process()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise UsageError("nothing is trained: the method's options leave prompt and head out as well")
    old_device = next(model.parameters()).device
    most = -(-config.batch // config.accumulate)  # slices that go through the model at a time
    with _undisturbed(model, device, config.recompute):
        place = Place(device, process)
        gc.collect()
        resident, peak_before = process.memory_info().rss, (peak_memory_mib() or 0) << 20
        gpu_room = place.gpu_room()
        trial = _Trial(model, config, SingleProcess(device, precision), slices or noise_slices(model), place)
        dry = trial.forward()
        least = dry.saved + trial.trained_bytes
        limit = gpu_room if device.type == "cuda" else room - resident
        is_tight = least * most > limit / 4  # else nobody asks what a change would save
        in_bf16 = trial.forward("bf16").saved if is_tight and precision == "no" else None
        steps = trial.steps(most, least, limit)
        update = trial.update_seconds() if steps else 0.0
    model.to(old_device)

    # Of steps of one size the first has let the process grow.
    first = {step.count: step for step in reversed(steps)}

    def seconds(of: Callable[[_Step], float]) -> Line:
        """The shortest of each size; so many slices take no longer than as many times one."""
        shortest = {count: min(of(s) for s in steps if s.count == count) for count in first}
        return Line.through({count: min(each, count * shortest[1]) for count, each in shortest.items()})

    saved = {n: step.saved for n, step in first.items()} or {1: dry.saved}
    head_saved = {n: step.head_saved for n, step in first.items()} or {1: dry.head_saved}
    growth = {n: max(step.growth, step.saved + trial.trained_bytes) for n, step in first.items()} or {1: least}
    return Costs(
        total=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in trained.values()),
        weights_bytes=sum(t.nbytes for t in [*model.parameters(), *model.buffers()]),
        trained_bytes=trial.trained_bytes,
        trains_head=trains_head(model),
        saved=Line.through(saved),
        head_saved=Line.through(head_saved),
        saved_before_block=dry.saved_before_block,
        block_input_bytes=dry.block_input_bytes,
        block_view_bytes=tuple(kept + 2 * model.side**2 for kept in dry.block_view_bytes),
        recomputes=config.recompute,
        saved_in_bf16=in_bf16,
        resident_growth=Line.through(growth),
        inference_bytes=dry.growth,
        banked_bytes=dry.banked_bytes,
        view_bytes=dry.view_bytes,
        banked_already=dry.banked_already,
        viewed_already=dry.viewed_already,
        encoding_seconds=min(((s.draw + s.start + s.encode) / s.count for s in steps), default=0.0),
        head_seconds=seconds(lambda s: s.head),
        step_seconds=seconds(lambda s: s.draw * (not config.cached_views) + s.encode + s.head + s.back),
        view_seconds=min(((s.draw + s.start) / s.count for s in steps), default=0.0) if config.cached_views else 0.0,
        update_seconds=update,
        inference_seconds=min(((s.start + s.encode + s.decode) / s.count for s in steps), default=0.0),
        resident=resident,
        peak_before=peak_before,
        room=room,
        gpu_room=gpu_room,
        device=device.type,
        is_timed=bool(steps),
    )


def noise_slices(model: SemanticSam) -> Slices:
    """Two grey slices without any meaning."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 1, model.side, model.side), dtype=np.uint8)
    truth = random.integers(0, len(model.labels), (2, model.side, model.side), dtype=np.int16)
    return Slices(images, truth, np.zeros(2, dtype=np.int32))


@contextmanager
def _undisturbed(model: SemanticSam, device: torch.device, recompute: bool) -> Iterator[None]:
    """Within the block the model is on the device, has no gradients and recomputes its blocks, if that is asked for; after it
    all is as before, random numbers too."""
    was_training = model.training
    blocks = [model.sam.get_submodule(path) for path in model.block_paths()]
    passes = [vars(block).get("forward") for block in blocks]
    gradients = [(p, p.grad) for p in model.parameters()]
    with torch.random.fork_rng(range(torch.cuda.device_count()) if device.type == "cuda" else []):
        try:
            model.to(device)
            for parameter, _ in gradients:
                parameter.grad = None
            if recompute:
                model.recompute_blocks()
            yield
        finally:
            for block, own in zip(blocks, passes, strict=True):
                vars(block).pop("forward", None)
                if own is not None:
                    block.forward = own
            for parameter, gradient in gradients:
                parameter.grad = gradient
            model.train(was_training)


@dataclass(frozen=True)
class _Dry:
    """Of one slice's forward pass."""

    saved: int
    head_saved: int
    saved_before_block: tuple[int, ...]
    block_input_bytes: tuple[int, ...]
    block_view_bytes: tuple[int, ...]
    growth: int
    banked_bytes: int
    view_bytes: int
    banked_already: int
    viewed_already: int


@dataclass(frozen=True)
class _Step:
    """Of a step: bytes, and seconds of its parts. start: the frozen start of cached views. head: decoder, loss and their
    backward pass; decode: the forward part of it. back: the encoder's backward pass."""

    count: int
    saved: int
    head_saved: int
    growth: int
    draw: float
    start: float
    encode: float
    decode: float
    head: float
    back: float


class _Probe:
    """What of a step is the encoder's and what the head's, seen from within it. encoded, decoded, reached: moments when the
    head begins, when it has spoken, and when its backward pass is over; encoder_saved: bytes at the first of them."""

    def __init__(self, model: SemanticSam, place: Place, counted: Saved) -> None:
        self.model, self.place, self.counted = model, place, counted
        self.features: Features = ()
        self.encoder_saved = 0
        self.encoded = self.decoded = self.reached = 0.0

    def __enter__(self) -> _Probe:
        vars(self.model)["decode"] = self._decode
        return self

    def __exit__(self, *_: object) -> None:
        del vars(self.model)["decode"]

    def _decode(self, features: Features, *windows: Any) -> Output:
        self.encoded, self.encoder_saved, self.features = self.place.now(), self.counted.bytes, features
        for of_encoder in (f for f in features if f.requires_grad):
            of_encoder.register_hook(self._reach)  # type: ignore[no-untyped-call]
        output = SemanticSam.decode(self.model, features, *windows)
        self.decoded = self.place.now()
        return output

    def _reach(self, _: torch.Tensor) -> None:
        """The engine takes what was computed last first, so that all of the head is over when this is called."""
        self.reached = self.reached or self.place.now()


class _Trial:
    """The steps that are tried: those of the training, without their update."""

    def __init__(
        self, model: SemanticSam, config: Training, process: SingleProcess, slices: Slices, place: Place
    ) -> None:
        self.model, self.config, self.process, self.place = model, config, process, place
        self.batches = Batches.of(slices, model, config, process)
        self.block = model.frozen_blocks() if config.cached_views else 0
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.trained_bytes = sum(p.nbytes for p in self.trained)
        self.weights = frozenset(t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()])

    def forward(self, precision: str | None = None) -> _Dry:
        """What is saved of one slice, counted and let go, so that it needs little more memory than a prediction."""
        process = self.process if precision is None else replace(self.process, mixed_precision=precision)
        drawn = self._drawn(1)
        counted = Saved(self.weights, self.place, keep=False)
        before: dict[int, tuple[int, int, int]] = {}

        def enter(number: int) -> Any:
            def note(_: Any, inputs: tuple[Any, ...]) -> None:
                before.setdefault(number, (counted.bytes, inputs[0].nbytes, 2 * inputs[0].numel()))
                self.place.look(always=True)

            return note

        paths = self.model.block_paths()
        self.place.begin()
        with ExitStack() as stack:
            for path, number in paths.items():
                block = self.model.sam.get_submodule(path)
                stack.callback(block.register_forward_pre_hook(enter(number)).remove)
            batch = self._started(drawn, process)
            step = self._step(1, process)
            probe = stack.enter_context(_Probe(self.model, self.place, counted))
            with torch.autograd.graph.saved_tensors_hooks(counted.pack, counted.unpack):
                step.loss(batch)
        banked, viewed = (self.batches.bank.as_stored(_first(f)) for f in (probe.features, batch.features or ()))
        ordered = [before.get(number, (0, 0, 0)) for number in sorted(set(paths.values()))]
        return _Dry(
            counted.bytes,
            counted.bytes - probe.encoder_saved,
            (*(saved for saved, _, _ in ordered), probe.encoder_saved),
            tuple(entering for _, entering, _ in ordered),
            tuple(kept for _, _, kept in ordered),
            self.place.growth(),
            self.batches.bank.row_bytes(banked),
            self.batches.bank.row_bytes(viewed),
            self.batches.bank.already(banked),
            self.batches.kept.already(viewed) if self.batches.kept and batch.features else 0,
        )

    def steps(self, most: int, first_bytes: int, limit: int) -> list[_Step]:
        """Steps of one slice and of `most`, or two, in turn, as far as memory and time allow. first_bytes: what the first one
        needs at least. limit: bytes by which the process may grow."""
        began = time.monotonic()
        done: list[_Step] = []
        count = many = 1
        for number in range(2 * _ROUNDS):
            if (done[0].growth * count if done else first_bytes) > limit:
                break
            try:
                done.append(self.step(count))
            except torch.cuda.OutOfMemoryError:
                break
            took = time.monotonic() - began
            if number == 0:
                is_small = took * most < _ENOUGH_SECONDS / 2 and done[0].growth * most < limit / 2
                many = most if is_small else min(most, 2)
            elif took > _ENOUGH_SECONDS and number >= (2 if many > 1 else 1):  # one slice once cold, once warm
                break
            count = 1 if number % 2 else many
        return done

    def step(self, count: int) -> _Step:
        """A step without an update."""
        now = self.place.now
        self.place.begin()
        begin = now()
        batch = self._drawn(count)
        drawn = now()
        batch = self._started(batch, self.process)
        counted = Saved(self.weights, self.place, keep=True)
        step = self._step(count, self.process)
        started = now()
        hooks = torch.autograd.graph.saved_tensors_hooks(counted.pack, counted.unpack)
        with _Probe(self.model, self.place, counted) as probe, hooks:
            step.backward(batch)
        end = now()
        reached = probe.reached or end  # by nothing of the encoder, where it is not trained
        growth = self.place.growth()
        for parameter in self.trained:
            parameter.grad = None
        return _Step(
            count,
            saved=counted.bytes,
            head_saved=counted.bytes - probe.encoder_saved,
            growth=growth,
            draw=drawn - begin,
            start=started - drawn,
            encode=probe.encoded - started,
            decode=probe.decoded - probe.encoded,
            head=reached - probe.encoded,
            back=end - reached,
        )

    def update_seconds(self) -> float:
        """Of clipping the gradients and AdamW's update, by weights that are the model's in shape only."""
        likes: list[torch.nn.Parameter] = []
        for parameter in self.trained:
            likes.append(torch.nn.Parameter(torch.zeros_like(parameter)))
            if sum(p.numel() for p in likes) > _UPDATED:
                break
        optimizer = torch.optim.AdamW(likes, lr=self.config.lr)
        times = []
        for _ in range(2):  # the first makes the moments
            for like in likes:
                like.grad = torch.zeros_like(like)
            times.append(self.place.now())
            torch.nn.utils.clip_grad_norm_(likes, self.config.clip)
            optimizer.step()
            times.append(self.place.now())
        share = sum(p.numel() for p in likes) / sum(p.numel() for p in self.trained)
        return (times[-1] - times[-2]) / share

    def _step(self, count: int, process: SingleProcess) -> TrainStep:
        return TrainStep(self.model, replace(self.config, batch=count, accumulate=1), process, self.model)

    def _drawn(self, count: int) -> Batch:
        drawing = replace(self.batches, config=replace(self.config, batch=count, accumulate=1))
        images, truth = drawing.drawn(drawing.generator(0))
        return Batch(truth, count, images, windows=drawing.windows(0, count, truth) if self.config.patch else None)

    def _started(self, batch: Batch, process: SingleProcess) -> Batch:
        """With `cached_views` what the frozen start gives, which is not kept."""
        if not self.config.cached_views:
            return batch
        assert batch.images_B3HW is not None
        self.model.eval()
        with torch.no_grad(), process.autocast():
            features = self.model.encode_start(batch.images_B3HW, self.block)
        return replace(batch, images_B3HW=None, features=features, block=self.block)


def _first(features: Features) -> Features:
    """Of the first slice."""
    return tuple(f[0] for f in features)
