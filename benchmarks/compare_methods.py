"""Methods side by side at equal CPU minutes on one core, then a figure of foreground DSC against trained parameters.

    python benchmarks/compare_methods.py run DATA OUT --seed 0 --minutes 8     # one core; several seeds side by side
    python benchmarks/compare_methods.py show OUT                             # table.md and methods.png from all seeds

The budget counts the CPU time of the process, which has one thread, so that other work on the machine takes nothing away
from a method. Runs that are there are kept, so that a stopped comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

METHODS: dict[str, tuple[str, dict[str, object]]] = {
    "decoder": ("decoder", {}),
    "lora r=1": ("lora", {"rank": 1}),
    "lora r=4": ("lora", {"rank": 4}),
    "lora r=8": ("lora", {"rank": 8}),
    "dora r=4": ("dora", {"rank": 4}),
    "adapter": ("adapter", {}),
    "adaptformer": ("adaptformer", {}),
    "bitfit": ("bitfit", {}),
}


def run(data: Path, out: Path, seed: int, minutes: float, side: int) -> None:
    import torch

    from sampeft.training import loop as training
    from sampeft.workflows import evaluate, train

    class CpuClock:
        monotonic = staticmethod(time.process_time)

    training.time = CpuClock  # type: ignore[assignment,attr-defined]
    torch.set_num_threads(1)
    for name, (method, options) in METHODS.items():
        folder = out / f"{name.replace(' ', '-').replace('=', '')}-seed{seed}"
        if not (folder / "done").exists():
            settings = training.Training(
                minutes=minutes,
                seed=seed,
                validations=3,
                # Nothing in the encoder is trained: all of the run is on embeddings.
                head_first=1.0 if method == "decoder" else 0.3,
            )
            begin = time.monotonic()
            result = train.train(
                train.Config(
                    data, folder, method=method, options=options, side=side, held_out=2, training=settings, force=True
                )
            )
            steps = {"name": name, "steps": result.steps, "wall_minutes": (time.monotonic() - begin) / 60}
            (folder / "done").write_text(json.dumps(steps))
        scores = out / f"eval-{folder.name}"
        if not (scores / "summary.json").exists():
            evaluate.evaluate_run(evaluate.Config(folder, scores, data=data))


def show(out: Path) -> None:
    import matplotlib.pyplot as plt
    from safetensors import safe_open

    from sampeft.metrics.scores import Evaluation
    from sampeft.report.figures import METHODS as COLORS

    rows = []
    for name in METHODS:
        runs = sorted(out.glob(f"{name.replace(' ', '-').replace('=', '')}-seed*"))
        scored = [(r, out / f"eval-{r.name}") for r in runs if (out / f"eval-{r.name}/summary.json").exists()]
        for folder, scores in scored:
            interval = Evaluation.read(scores).headline()
            done = json.loads((folder / "done").read_text())
            size = (folder / "adapter.safetensors").stat().st_size
            seed = folder.name.rsplit("seed", 1)[1]
            with safe_open(folder / "adapter.safetensors", "pt") as file:
                added = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys() if key.startswith("sam."))  # noqa: SIM118  # not a dict
            rows.append((name, seed, added, size, done["steps"], interval))
    lines = [
        "| method | seed | trained beside prompt and head | saved MiB | steps | foreground DSC, 5 test patients [95 %] |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {name} | {seed} | {count:,} | {size / 2**20:.1f} | {steps} | {i.mean:.3f} [{i.low:.3f}, {i.high:.3f}] |"
        for name, seed, count, size, steps, i in rows
    ]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    figure, axes = plt.subplots(figsize=(8.5, 5))
    names = list(METHODS)
    for name, seed, count, _, _, i in rows:
        color = COLORS[names.index(name) % len(COLORS)]
        x = count * (1 + 0.08 * (int(seed) - 0.5))
        axes.errorbar(x, i.mean, [[i.mean - i.low], [i.high - i.mean]], fmt="os"[int(seed) % 2], color=color, capsize=3)
        if seed == "0":
            ends = [(row[-1].low, row[-1].high) for row in rows if row[0] == name]
            above = name.startswith("dora")  # LoRA of the same rank is right below
            y, offset = (max(e[1] for e in ends), 5) if above else (min(e[0] for e in ends), -13)
            axes.annotate(
                name, (count, y), (0, offset), textcoords="offset points", color=color, fontsize=9, ha="center"
            )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0.15)
    axes.set_xlabel("parameters trained beside the default prompt and the class head (2.0 million)")
    axes.set_ylabel("foreground DSC, mean of 5 test patients, 95 % interval")
    axes.set_title("LiteMedSAM at side 128 on CT slices; equal CPU minutes; circle seed 0, square seed 1", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out / "methods.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("run", "show"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--side", type=int, default=128)
    given = parser.parse_args()
    if given.what == "run":
        run(*given.paths, seed=given.seed, minutes=given.minutes, side=given.side)
    else:
        show(*given.paths)
