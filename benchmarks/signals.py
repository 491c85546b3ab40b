"""Commands that are ended by signals at random moments, begun anew each time, beside ones that are left alone.

    python benchmarks/signals.py --out DIR [--points 20] [--seed 0] [--only train predict ...]

train, predict, evaluate and serve get Ctrl-C and SIGTERM in turn, every second one in a process that made and dropped two
OpenVINO engines before; evaluate, sweep, check and predict get SIGKILL. Models and data are tiny and made up, and
the moments are uniform over the seconds that the command takes when it is left alone. Prints how each command ended and what
was wrong; exit code 1 if anything was.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fabricate.interrupted import Nursery, commands, serve_trial, trials

GENTLE = (signal.SIGINT, signal.SIGTERM)
HARD = (signal.SIGKILL,)
PLAN = [("check", HARD), ("evaluate", GENTLE), ("evaluate", HARD), ("predict", GENTLE), ("predict", HARD),
        ("train", GENTLE), ("sweep", HARD)]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    asked = parser.parse_args()
    shutil.rmtree(asked.out, ignore_errors=True)
    faults = 0
    with Nursery(asked.out.resolve()) as nursery:
        known = commands(nursery)
        print("| command | signals | sent | too late | seconds alone | exit codes | faults |", flush=True)
        print("| --- | --- | ---: | ---: | ---: | --- | ---: |", flush=True)
        for name, numbers in [*PLAN, ("serve", GENTLE)]:
            if asked.only and name not in asked.only:
                continue
            moments = random.Random(f"{asked.seed} {name} {numbers}")
            if name == "serve":
                found = serve_trial(nursery, moments, numbers, asked.points)
            else:
                found = trials(nursery, known[name], moments, numbers, asked.points)
            codes = ", ".join(f"{code}: {n}" for code, n in sorted(Counter(found.codes).items()))
            sent = "SIGKILL" if numbers == HARD else "SIGINT, SIGTERM"
            print(
                f"| {name} | {sent} | {len(found.codes)} | {found.late} | {found.seconds:.1f} | {codes} | {len(found.faults)} |",
                flush=True,
            )
            for fault in found.faults:
                print(fault, flush=True)
            faults += len(found.faults)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
