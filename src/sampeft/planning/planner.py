"""Memory and time of a whole training from the costs of single steps, and suggestions where it does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sampeft.backbones import Backbone
from sampeft.console import clock
from sampeft.errors import UsageError
from sampeft.planning.step_costs import Costs
from sampeft.training.settings import VALIDATION_BATCH, Training, validations_by

FITS, UNSURE, TOO_LARGE = "fits", "may not fit", "does not fit"
SURE, BEYOND = 0.8, 1.2
"""Shares of the memory there is: up to the first a training fits, from the second it does not; between them nobody knows."""
LEAST_STEPS = 50
"""Fewer teach a model next to nothing."""
SCORING_SHARE = 0.2
"""Of a training's minutes, what its validations may take; beyond it there are fewer of them."""
HEAD, WHOLE, FIRST, SCORE = "head on encoded slices", "all that is trained", "first sight of slices", "validation"
_VIEWS = 4  # cached views of each slice that are advised where none are asked for


@dataclass(frozen=True)
class Workload:
    """What is trained on. slice_bytes: of one prepared slice. scoring_seconds: of one held-out slice, without the model.
    views_on_disk: whether encoded slices are kept there and not in memory. processes: that share the batch."""

    slices: int
    slice_bytes: int
    held_out_slices: int = 0
    scoring_seconds: float = 0.0
    views_on_disk: bool = True
    processes: int = 1


@dataclass(frozen=True)
class Schedule:
    """Steps and seconds by phase; encoded slices that are kept at its end, for the head and of views."""

    steps: dict[str, int]
    seconds: dict[str, float]
    banked: int
    views: int

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for, in the fullest phase of a training. place: `memory` or `GPU`. room: bytes that the
    process may fill, what it holds now among them. reclaimed: those of `parts` that a training does not need: files, which
    the system takes back, and what an earlier moment took more."""

    place: str
    phase: str
    parts: dict[str, int]
    room: int
    reclaimed: int = 0

    @property
    def peak(self) -> int:
        return sum(self.parts.values())

    @property
    def need(self) -> int:
        return self.peak - self.reclaimed

    @property
    def share(self) -> float:
        """Of the room, what is needed."""
        return self.need / max(1, self.room)


@dataclass(frozen=True)
class Suggestion:
    """Options to give instead, the bytes that are then needed, and whether that fits."""

    options: str
    need: int
    fits: bool


@dataclass(frozen=True)
class Plan:
    """What a training will cost. schedule: None where not even one slice fits, so that nothing was timed. memory: of the
    machine, and of its GPU where there is one. verdict: FITS, UNSURE or TOO_LARGE. suggestions: what lowers the memory, in the
    order in which to try it; none where it fits. validations: as many as were asked for, or fewer where they would take too
    much of the minutes; warnings: what is wrong with the minutes, and what to give instead."""

    costs: Costs
    schedule: Schedule | None
    memory: tuple[Memory, ...]
    verdict: str
    suggestions: tuple[Suggestion, ...]
    validations: int
    warnings: tuple[str, ...] = ()

    @property
    def fullest(self) -> Memory:
        return max(self.memory, key=lambda memory: memory.share)

    @property
    def _named(self) -> str:
        return "memory" if self.fullest.place == "memory" else "the GPU's memory"

    def to_json(self) -> dict[str, Any]:
        """All numbers in bytes and seconds. at_least: whether the memory is that which is needed at least."""
        schedule = {**asdict(self.schedule), "total_seconds": self.schedule.total_seconds} if self.schedule else None
        return {
            "verdict": self.verdict,
            "device": self.costs.device,
            "parameters": {"total": self.costs.total, "trained": self.costs.trained},
            "memory": [{**asdict(m), "peak": m.peak, "need": m.need, "share": round(m.share, 4)} for m in self.memory],
            "at_least": not self.costs.is_timed,
            "course": schedule,
            "changes": [asdict(change) for change in self.suggestions],
            "validations": self.validations,
            "warnings": list(self.warnings),
        }

    def lines(self, short: bool = False) -> list[str]:
        """For reading. short: memory, time and suggestions without what they are made of."""
        found = [] if short else [f"{'trained':<10}{self.costs.trained:,} of {self.costs.total:,} parameters"]
        bound = "" if self.costs.is_timed else "at least "
        for m in self.memory:
            found.append(f"{m.place:<10}{bound}{size(m.peak)} of {size(m.room)}: {self.verdict}")
            if not short:
                found += [f"{'':<10}{size(value):>10}  {name}" for name, value in m.parts.items() if value >= 1 << 20]
                found.append(f"{'':<10}fullest: {m.phase}")
        if (c := self.schedule) is not None:
            steps = c.steps[HEAD] + c.steps[WHOLE]
            found.append(f"{'time':<10}{clock(c.total_seconds)} for {steps} steps and {c.steps[SCORE]} validations")
            if not short:
                rows = [(name, number, c.seconds[name] / number) for name, number in c.steps.items() if number]
                found += [f"{'':<10}{number:>6} x {each:.2f} s  {name}" for name, number, each in rows]
        for change in self.suggestions:
            word = "" if change.fits else ", not enough"
            found.append(f"{'change':<10}{change.options}: about {size(change.need)}{word}")
        found += [f"{'warning':<10}{warning}" for warning in self.warnings]
        return found

    def refuse(self) -> None:
        """Raises UsageError when the training cannot fit, with the suggestions in order."""
        if self.verdict != TOO_LARGE:
            return
        bound = "about" if self.costs.is_timed else "at least"
        ways = [f"{c.options} (about {size(c.need)}{'' if c.fits else ', not enough'})" for c in self.suggestions]
        raise UsageError(
            f"this training needs {bound} {size(self.fullest.need)} of {self._named} and may fill "
            f"{size(self.fullest.room)}; give {'; or '.join(ways) or 'a smaller backbone'}; or start it all the same with "
            "--plan false"
        )


def plan(
    costs: Costs, training: Training, workload: Workload, spec: Backbone, side: int, last_blocks: bool = False
) -> Plan:
    """Costs of single steps -> those of the whole training. last_blocks: whether the method knows `--options.last`."""
    asked, training = training, with_fewer_validations(training, costs, workload)
    schedule = simulate(training, costs, workload) if costs.is_timed else None
    memory = needed(costs, training, workload)
    share = max(m.share for m in memory)
    verdict = FITS if share <= SURE else UNSURE if share < BEYOND and costs.is_timed else TOO_LARGE
    suggestions = () if verdict == FITS else advice(costs, training, workload, spec, side, last_blocks)
    warnings = () if schedule is None else tuple(too_little_time(schedule, asked, training, costs, workload))
    return Plan(costs, schedule, memory, verdict, suggestions, training.validations, warnings)


def with_fewer_validations(training: Training, costs: Costs, workload: Workload) -> Training:
    """With no more validations than `SCORING_SHARE` of the minutes allows, one at least, where minutes are the end."""
    each = validation_seconds(costs, workload)
    if not costs.is_timed or training.steps is not None or not each:
        return training
    return replace(
        training, validations=max(1, min(training.validations, int(SCORING_SHARE * training.seconds / each)))
    )


def too_little_time(
    schedule: Schedule, asked: Training, training: Training, costs: Costs, workload: Workload
) -> Iterator[str]:
    """What a user should know of minutes that buy next to no steps, or that go on scoring; nothing of an end by steps.

    asked: with the validations that were asked for; training: with those that there will be.
    """
    steps = schedule.steps[HEAD] + schedule.steps[WHOLE]
    if training.minutes is None and training.steps is not None:
        return
    each = validation_seconds(costs, workload)
    if training.validations < asked.validations:
        yield (
            f"{asked.validations} validations would take {100 * asked.validations * each / asked.seconds:.0f} % of the "
            f"{training.seconds / 60:g} minutes; there will be {training.validations}: give more --training.minutes, or hold out "
            "fewer cases (--held_out)"
        )
    elif schedule.seconds[SCORE] > SCORING_SHARE * schedule.total_seconds:
        yield (
            f"validations take {100 * schedule.seconds[SCORE] / schedule.total_seconds:.0f} % of the time; give more "
            "--training.minutes, fewer --training.validations, or hold out fewer cases (--held_out)"
        )
    if steps < min(LEAST_STEPS, training.steps or LEAST_STEPS):
        spent = sum(schedule.seconds[phase] for phase in (HEAD, WHOLE, FIRST))
        minutes = (LEAST_STEPS * spent / max(1, steps) + training.validations * each) / 60
        yield (
            f"{training.seconds / 60:g} minutes buy about {steps} steps, too few to learn from; give --training.minutes "
            f"{math.ceil(10 * minutes) / 10:g} or more, a smaller --side, or a faster machine"
        )


def validation_seconds(costs: Costs, workload: Workload) -> float:
    return workload.held_out_slices * (costs.inference_seconds + workload.scoring_seconds) / workload.processes


def simulate(training: Training, costs: Costs, workload: Workload) -> Schedule:
    """The steps of `fit`, one after the other, each taking the seconds that were measured; views that earlier trainings
    left are not computed again."""
    batch = max(1, training.batch // workload.processes)
    parts = training.parts(training.batch, workload.processes)
    head_first = training.head_first if costs.trains_head else 0.0
    validation = validation_seconds(costs, workload)
    cache = training.cache_mib << 20
    bank = _Coverage(training.head_bank, cache // max(1, costs.banked_bytes), costs.banked_already)
    every = workload.slices * training.cached_views
    views = _Coverage(every, cache // max(1, costs.view_bytes), costs.viewed_already if every else 0)
    steps, seconds = dict.fromkeys((HEAD, WHOLE, FIRST, SCORE), 0.0), dict.fromkeys((HEAD, WHOLE, FIRST, SCORE), 0.0)

    def spend(phase: str, number: float, each: float) -> None:
        steps[phase] += number
        seconds[phase] += number * each

    done = passed = 0
    while True:
        progress = training.progress(done, sum(seconds.values()))
        if progress >= 1 or validations_by(progress, training.validations) > passed:
            passed = validations_by(progress, training.validations)
            spend(SCORE, 1, validation)
            if progress >= 1:
                rounded = {phase: round(number) for phase, number in steps.items()}
                return Schedule(rounded, seconds, round(bank.kept), round(views.kept))
        done += 1
        if progress < head_first:
            spend(HEAD, 1, costs.head_seconds.at(training.head_batch) + costs.update_seconds)
            spend(FIRST, bank.draw(training.head_batch), costs.encoding_seconds)
        else:
            spend(WHOLE, 1, parts * costs.step_seconds.at(batch / parts) + costs.update_seconds)
            if training.cached_views:
                spend(FIRST, views.draw(batch), costs.view_seconds)


@dataclass
class _Coverage:
    """How many of `all` things, of which at most `most` are kept, are there after uniform draws, on average."""

    all: int
    most: int
    kept: float = 0.0

    def draw(self, number: int) -> float:
        """How many of the drawn ones are not there yet."""
        new = number * (1 - self.kept / max(1, self.all))
        self.kept = min(self.all, self.most, self.kept + new)
        return new


def needed(costs: Costs, training: Training, workload: Workload) -> tuple[Memory, ...]:
    """Memory in the fullest phase, on the machine and on its GPU, if it has one."""
    share = -(-training.batch // workload.processes)  # of the process with the most slices
    at_a_time = -(-share // training.accumulate)
    schedule = simulate(training, costs, workload) if costs.is_timed else None
    kept = schedule.banked * costs.banked_bytes + schedule.views * costs.view_bytes if schedule else 0
    trained = {
        "gradients": costs.trained_bytes,
        "optimizer": 2 * costs.trained_bytes,
        "averaged weights": costs.trained_bytes if training.ema else 0,
    }

    def active(number: int, head_only: bool = False) -> dict[str, int]:
        saved = (costs.head_saved if head_only else costs.saved).at(number)
        beside = max(0.0, costs.resident_growth.at(number) - costs.saved.at(number) - costs.trained_bytes)
        if head_only:  # its share of what is used beside the activations is taken to be that of its activations
            beside *= saved / max(1.0, costs.saved.at(number))
        return {"activations": round(saved), "working space": round(beside)}

    phases = {WHOLE: {**trained, **active(at_a_time)}}
    if training.head_first and costs.trains_head:
        phases[HEAD] = {**trained, **active(training.head_batch, head_only=True)}
    if workload.held_out_slices:
        # What one slice made the process grow holds what is taken once; what a step uses beside its activations, more.
        beside = min(active(VALIDATION_BATCH)["working space"], VALIDATION_BATCH * costs.inference_bytes)
        phases[SCORE] = {**trained, "gradients": 0, "working space": beside}
    phase, parts = max(phases.items(), key=lambda item: sum(item[1].values()))
    files = {"prepared slices": workload.slices * workload.slice_bytes, "encoded slices": kept}
    reclaimed = files["prepared slices"] + (kept if workload.views_on_disk else 0)
    if costs.device != "cpu":
        rest = {"rest of the process": costs.resident}
        return (
            Memory("GPU", phase, {"weights": costs.weights_bytes, **parts}, costs.gpu_room),
            Memory("memory", "all phases", {**rest, **files}, costs.room, reclaimed),
        )
    held = {"weights": costs.weights_bytes, "rest of the process": max(0, costs.resident - costs.weights_bytes)}
    everything = {**held, **parts, **files}
    more = max(0, costs.peak_before - sum(everything.values()))  # while the data was read, for instance
    return (Memory("memory", phase, {**everything, "at an earlier moment": more}, costs.room, reclaimed + more),)


def advice(
    costs: Costs, training: Training, workload: Workload, spec: Backbone, side: int, last_blocks: bool
) -> tuple[Suggestion, ...]:
    """Slices at a time, batch, last blocks with cached views, side, precision, recomputing, what is kept in memory: each
    alone, then all together. Of each the mildest that fits, or the strongest when none does; what lowers nothing is left
    out."""
    before = max(needed(costs, training, workload), key=lambda m: m.share)
    found: list[Suggestion] = []
    names: list[str] = []
    all_costs, all_training = costs, training

    def tried(options: str, changed: Costs, other: Training) -> Suggestion:
        memory = needed(changed, other, workload)
        need = next(m.need for m in memory if m.place == before.place)
        # What was never run needs more than is known, so that only the half of the room is safe.
        sure = SURE if costs.is_timed else SURE / 2
        return Suggestion(options, need, max(m.share for m in memory) <= sure)

    def choose(ways: Sequence[tuple[str, dict[str, Any], dict[str, Any]]], joins: bool = True) -> None:
        """ways, from mild to strong: (options, change of the costs, change of the training). joins: the one that is found
        is tried together with the others as well."""
        nonlocal all_costs, all_training
        made = [(tried(o, costs.changed(**c), replace(training, **t)), c, t) for o, c, t in ways]
        if not made:
            return
        best, of_costs, of_training = next((m for m in made if m[0].fits), made[-1])
        if best.need >= before.need:
            return
        found.append(best)
        if joins:
            names.append(best.options)
            all_costs, all_training = all_costs.changed(**of_costs), replace(all_training, **of_training)

    batch = max(1, training.batch // workload.processes)
    smaller = range(-(-batch // training.accumulate) - 1, 0, -1)
    in_parts = [-(-batch // n) for n in smaller]
    choose([(f"--training.accumulate {n}", {}, {"accumulate": n}) for n in in_parts])
    batches = [n * workload.processes for n in smaller]
    choose([(f"--training.batch {n}", {}, {"batch": n, "accumulate": 1}) for n in batches], joins=False)
    if last_blocks:
        views = training.cached_views or _VIEWS
        blocks = [
            n for n in range(len(costs.block_view_bytes) - 1, 0, -1) if costs.saved_before_block[-1 - n] > 0
        ]  # more than now are frozen
        named = [(f"--options.last {n} --training.cached_views {views}", n) for n in blocks]
        choose([(name, {"last": n}, {"cached_views": views}) for name, n in named])
    choose([(f"--side {s}", {"area": (s / side) ** 2}, {}) for s in smaller_sides(spec, side)])
    if costs.saved_in_bf16 is not None:
        choose([("--training.precision bf16", {"bf16": True}, {"precision": "bf16"})])
    if not costs.recomputes and costs.saved_before_block[-1] > 0:
        choose([("--training.recompute true", {"recompute": True}, {"recompute": True})])
    if before.parts.get("encoded slices") and not workload.views_on_disk:
        room = [n for n in (2048, 1024, 256, 0) if n < training.cache_mib]
        choose([(f"--training.cache_mib {n}", {}, {"cache_mib": n}) for n in room])
    if len(names) > 1:
        found.append(tried(" ".join(names), all_costs, all_training))
    return tuple(found)


def smaller_sides(spec: Backbone, side: int) -> list[int]:
    """Sides below this one, the largest first: those that pad no attention window; where there is none, those that the
    backbone divides, down to half."""
    good = list(range(side - 1 - (side - 1) % spec.good_multiple, 0, -spec.good_multiple))
    return good or [s for s in range(side - 1, side // 2 - 1, -1) if s > 0 and s % spec.multiple == 0]


def size(number: float) -> str:
    """Bytes -> `812 MiB` or `5.3 GiB`."""
    return f"{number / 2**20:.0f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"
