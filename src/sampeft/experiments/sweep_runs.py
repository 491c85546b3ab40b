"""Train and score each run of a sweep once; processes of any machine that share a folder share the runs."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import SoftFileLease, Timeout

from sampeft.configs.train import Config as TrainConfig
from sampeft.console import clock, say
from sampeft.data.case import Case, Dataset
from sampeft.errors import SampeftError
from sampeft.experiments.grid import Plan, Run
from sampeft.experiments.memo import DONE, finish, finished, identity, write_json
from sampeft.metrics.protocols import Protocol
from sampeft.prediction.loading import load
from sampeft.report.results import write_results
from sampeft.stopping import unless_stopped
from sampeft.workflows.evaluate import checked_cases, evaluate_segmenter
from sampeft.workflows.train import train

CLAIM, FAILED = "claim.lock", "failed.json"
LEASE_SECONDS = 300.0
"""A claim that was not renewed for so long, though its owner renews it all the time, is taken over. A claim of a dead
process of the same machine is taken over at once. All processes of a sweep must agree on it."""
RENEW_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 10.0


@dataclass(frozen=True)
class Part:
    """Cases that are left out and scored, and those that are trained on.

    dataset: its splits are those of this part: `train`, `val` (picks the best step) and `test` (what a fold leaves out, or
    the data set's own). scored: the split that is scored.
    """

    name: str
    dataset: Dataset
    scored: str

    @property
    def trained(self) -> int:
        return len(self.dataset.splits["train"])

    @property
    def cases(self) -> tuple[Case, ...]:
        """What is scored."""
        return self.dataset.split(self.scored)


@dataclass(frozen=True)
class Sweep:
    """configs: setting -> how to train, the same for all its parts and seeds. parts: by name."""

    out: Path
    plan: Plan
    configs: Mapping[str, TrainConfig]
    parts: Mapping[str, Part]
    protocol: Protocol

    def folder(self, run: Run) -> Path:
        return self.out / "runs" / run.name

    def config(self, run: Run) -> TrainConfig:
        config = self.configs[run.setting]
        return replace(
            config,
            out=self.folder(run) / "run",
            split="auto",
            training=replace(config.training, seed=run.seed),
            plan=False,
            resume=True,
            force=True,
            json=False,
        )

    def settings(self, run: Run) -> dict[str, Any]:
        """What a run that is done must have in common with the one that is asked for."""
        return identity(self.config(run), self.parts[run.part].dataset.name)

    def is_done(self, run: Run) -> bool:
        folder = self.folder(run)
        return (folder / DONE).is_file() and finished(folder, self.settings(run))

    def done(self) -> list[Run]:
        return [run for run in self.plan.runs if self.is_done(run)]


def work(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Do what is left of these runs, sharing them with whoever does the same.

    A run that failed is not tried again before the command is started anew. When all that is left has an owner, one more
    lease is waited for, so that runs of owners who died are taken over, and the living are left alone.
    """
    before = {run.name: _written(sweep, run) for run in runs}
    claims = {run.name: claim(sweep.folder(run) / CLAIM) for run in runs}
    waiting_since: float | None = None
    while True:
        left = [run for run in runs if not sweep.is_done(run) and _written(sweep, run) in (None, before[run.name])]
        if not left:
            break
        took_any = False
        for run in left:
            with held(claims[run.name]) as is_ours:
                if not is_ours or sweep.is_done(run) or _written(sweep, run) not in (None, before[run.name]):
                    continue
                took_any = True
                _say_where(sweep, run)
                _attempt(sweep, run, claims[run.name])
                if (sweep.folder(run) / FAILED).is_file():
                    before[run.name] = -1  # whatever was there before, this is the failure of now
        if took_any:
            waiting_since = None
            continue
        if waiting_since is None:
            waiting_since = time.monotonic()
            say(f"\nwaiting   {len(left)} runs have other owners; those whose owner is gone are taken over")
        if time.monotonic() - waiting_since > LEASE_SECONDS + 2 * LOOK_AGAIN_SECONDS:
            break
        time.sleep(LOOK_AGAIN_SECONDS)


def claim(path: Path) -> SoftFileLease:
    path.parent.mkdir(parents=True, exist_ok=True)
    return SoftFileLease(path, lease_duration=LEASE_SECONDS, heartbeat_interval=RENEW_SECONDS)


@contextmanager
def held(lease: SoftFileLease) -> Iterator[bool]:
    """Whether it could be had just now; given back at the end."""
    try:
        lease.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lease.release()


def failures(sweep: Sweep, runs: Sequence[Run]) -> dict[str, str]:
    """Name of a run that failed at last -> why."""
    paths = {run.name: sweep.folder(run) / FAILED for run in runs if not sweep.is_done(run)}
    return {
        name: str(json.loads(path.read_text(encoding="utf-8"))["reason"])
        for name, path in paths.items()
        if path.is_file()
    }


def _written(sweep: Sweep, run: Run) -> int | None:
    """When a failure was written, by the file system's clock alone; None without one."""
    path = sweep.folder(run) / FAILED
    return path.stat().st_mtime_ns if path.is_file() else None


def _attempt(sweep: Sweep, run: Run, lease: SoftFileLease) -> None:
    """Train and score; whatever goes wrong is written down, so that the other runs go on."""
    failed = sweep.folder(run) / FAILED
    try:
        _train_and_score(sweep, run, lease)
        failed.unlink(missing_ok=True)
    except SampeftError as error:
        reason = str(error)
        write_json(failed, {"reason": reason})
    except Exception as error:  # a fault of one run, such as a full GPU, must not end a night's sweep
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        write_json(failed, {"reason": reason, "traceback": traceback.format_exc()})
    else:
        return
    say(f"failed    {run.name}: {reason}")


def _train_and_score(sweep: Sweep, run: Run, lease: SoftFileLease) -> None:
    _free_memory()
    config, part, started = sweep.config(run), sweep.parts[run.part], time.monotonic()
    result = unless_stopped(train(config, part.dataset))
    segmenter = load(config.out, weights=config.weights)
    cases = checked_cases(part.dataset, part.scored)
    evaluation, looks = evaluate_segmenter(segmenter, part.dataset, cases, part.name, None, sweep.protocol)
    evaluation.meta["seeds"] = str(run.seed)
    if lease.compromise is not None:
        say(f"lost      {run.name}: another process took it over, after this one had not answered for long")
        return
    write_results(sweep.folder(run) / "eval", {segmenter.name: evaluation}, looks, segmenter, config.out)
    more = {"steps": result.steps, "minutes": result.minutes, "trainable": segmenter.description["trainable"]}
    finish(sweep.folder(run), sweep.settings(run), **more, seconds=round(time.monotonic() - started, 1))


def _free_memory() -> None:
    """Of the run before: a GPU keeps what it was given."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _say_where(sweep: Sweep, run: Run) -> None:
    """`run 3 of 24`: its place in the plan, how many are done, and the time left at the pace of those with these workers."""
    runs = sweep.plan.runs
    done = sweep.done()
    seconds = [
        json.loads((sweep.folder(other) / DONE).read_text(encoding="utf-8")).get("seconds", 0.0) for other in done
    ]
    workers = max(1, sum((sweep.folder(other) / CLAIM).is_file() for other in runs))
    pace = sum(seconds) / len(seconds) if seconds else float("nan")
    left = f", about {clock(pace * (len(runs) - len(done)) / workers)} left" if done else ""
    say(f"\nrun {runs.index(run) + 1} of {len(runs)}  {run.name}  ({len(done)} done{left})")
