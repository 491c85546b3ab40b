"""Predicted memory and seconds a step beside those of real trainings, for seven configurations.

    python benchmarks/planner.py DATA [--steps 6] [--repeats 3] [--only WORDS]

DATA: folder `btcv_slices`. Each configuration is planned in one process and trained, for a few steps, in another one right
after it, so many times over; medians are shown, and the ratios of all. Peaks are the kernel's account of each process, read
from outside (`wait4`); a step is what is between two updates of the optimizer, the first left out. Cached views start from
an empty cache. One thread: its processor seconds are what the clock would show on a machine without other work, and the
planner, which looks at the clock, is made to look at them here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

LAST = ("--options.last", "4", "--training.cached_views", "4")
RUNS: dict[str, tuple[str, ...]] = {
    "lite-medsam, LoRA in all blocks, side 112, batch 2": ("--side", "112", "--training.batch", "2"),
    "lite-medsam, LoRA in all blocks, side 112, batch 4": ("--side", "112", "--training.batch", "4"),
    "lite-medsam, LoRA in the last 4, cached views, side 112, batch 4": (
        "--side",
        "112",
        "--training.batch",
        "4",
        *LAST,
    ),
    "lite-medsam, decoder alone, side 112, batch 2": ("--method", "decoder", "--side", "112", "--training.batch", "2"),
    "lite-medsam, adapter, side 112, batch 2": ("--method", "adapter", "--side", "112", "--training.batch", "2"),
    "lite-medsam, LoRA in all blocks, side 168, batch 2": ("--side", "168", "--training.batch", "2"),
    "sam-vit-b (random), LoRA in the last 2, side 224, batch 2": (
        *(
            "--backbone",
            "sam-vit-b",
            "--weights",
            "random",
            "--side",
            "224",
            "--options.last",
            "2",
            "--training.batch",
            "2",
        ),
    ),
}


def outside(work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], int]:
    """What `work` returns in a process of its own, and the most bytes that this process held."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            with os.fdopen(writer, "w") as out:
                json.dump(work(), out)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as found:
        content = found.read()
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"a process ended with {status}")
    return json.loads(content), usage.ru_maxrss << 10


def planned(arguments: list[str]) -> dict[str, Any]:
    from jsonargparse import ArgumentParser

    from sampeft.commands.plan import Config, plan_command
    from sampeft.planning.memory_counts import Place

    parser = ArgumentParser()
    parser.add_class_arguments(Config)
    config = Config(**vars(parser.instantiate_classes(parser.parse_args(arguments))))
    Place.now = lambda self: time.process_time()
    return plan_command(config).to_json()


def trained(arguments: list[str], out: Path) -> dict[str, Any]:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from sampeft.cli import main

    ends: list[tuple[float, float]] = []
    register_optimizer_step_post_hook(lambda *_: ends.append((time.perf_counter(), time.process_time())))
    if code := main(["train", *arguments, "--out", str(out)]):
        raise SystemExit(code)
    (clock, processor), (last_clock, last_processor) = ends[0], ends[-1]
    number = len(ends) - 1
    return {"seconds": (last_clock - clock) / number, "processor": (last_processor - processor) / number}


def measured(data: Path, steps: int, chosen: Sequence[str]) -> tuple[float, float, float, float, float]:
    """Bytes planned and held; processor seconds a step planned and taken, and seconds by the clock."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAMPEFT_CACHE"] = folder  # nothing is there from before
        run = ("--training.steps", str(steps), "--training.validations", "1", "--training.head_first", "0")
        arguments = ["--data", str(data), "--held_out", "1", *run, *chosen]
        plan, _ = outside(lambda: planned(arguments))
        took, held = outside(lambda: trained(arguments, Path(folder) / "run"))
    course = plan["course"]["seconds"]
    seconds = (course["all that is trained"] + course["first sight of slices"]) / steps
    return plan["memory"][0]["peak"], held, seconds, took["processor"], took["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    head = (
        "MiB planned",
        "MiB held",
        "ratio",
        "CPU s a step planned",
        "CPU s a step",
        "ratio",
        "each ratio",
        "s by the clock",
    )
    print(f"| configuration | {' | '.join(head)} |\n| --- |{' ---: |' * len(head)}", flush=True)
    for name, chosen in RUNS.items():
        if options.only not in name:
            continue
        found = [measured(options.data, options.steps, chosen) for _ in range(options.repeats)]
        peak, held, seconds, processor, clock = map(median, zip(*found, strict=True))
        ratios = " ".join(f"{pair[2] / pair[3]:.2f}" for pair in found)
        print(
            f"| {name} | {peak / 2**20:.0f} | {held / 2**20:.0f} | {peak / held:.2f} | {seconds:.2f} | {processor:.2f} | "
            f"{median(pair[2] / pair[3] for pair in found):.2f} | {ratios} | {clock:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
