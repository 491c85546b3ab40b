"""Commands that are ended by signals at random moments and given again each time, beside ones that are left alone.

    python benchmarks/signals.py --out DIR [--points 20] [--seed 0] [--only train predict ...]

train, predict, evaluate and serve get Ctrl-C and SIGTERM in turn, every second pair of them in processes that made and dropped
two OpenVINO engines before; evaluate, sweep, check and predict get SIGKILL. Models and data are tiny and made up, and the
moments are uniform over the seconds that the command takes when it is left alone. Prints how each command ended, how long it
took at most until it said that it had heard the signal (or was gone), and what was wrong; exit code 1 if anything was.
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

from fabricate.interrupted import Found, Nursery, Run, commands, serve_trials, trials

GENTLE = (signal.SIGINT, signal.SIGTERM)
HARD = (signal.SIGKILL,)
PLAN = [("train", GENTLE), ("predict", GENTLE), ("evaluate", GENTLE), ("serve", GENTLE), ("check", HARD), ("evaluate", HARD),
        ("predict", HARD), ("sweep", HARD)]  # fmt: skip
COLUMNS = ("command", "signals", "sent", "too late", "seconds alone", "exit codes",
           "longest until answered, s", "faults")  # fmt: skip


def row(name: str, numbers: tuple[int, ...], found: Found) -> str:
    codes = Counter(run.code for run in found.runs)
    signals = ", ".join(signal.Signals(number).name for number in numbers)
    cells = [
        name,
        signals,
        len(found.runs),
        found.late,
        f"{found.seconds:.1f}",
        ", ".join(f"{code}: {count}" for code, count in sorted(codes.items())),
        "" if numbers == HARD else f"{max(map(answer, found.runs), default=0.0):.2f}",
        len(found.faults),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def answer(run: Run) -> float:
    """Seconds; a command that was over already owes none."""
    return 0.0 if run.is_at_pythons_end or run.code == 0 else run.answered_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    asked = parser.parse_args()
    shutil.rmtree(asked.out, ignore_errors=True)
    faults = 0
    with Nursery(asked.out.resolve(), draws=True) as nursery:
        known = commands(nursery)
        print(f"| {' | '.join(COLUMNS)} |\n| --- | --- | ---: | ---: | ---: | --- | ---: | ---: |", flush=True)
        for name, numbers in PLAN:
            if asked.only and name not in asked.only:
                continue
            moments = random.Random(f"{asked.seed} {name} {numbers}")
            if name == "serve":
                found = serve_trials(nursery, moments, numbers, asked.points)
            else:
                found = trials(nursery, name, known, moments, numbers, asked.points)
            print(row(name, numbers, found), flush=True)
            for fault in found.faults:
                print(fault, file=sys.stderr, flush=True)
            faults += len(found.faults)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
