"""What each switch of training costs and saves: CPU seconds a slice, peak memory, with LoRA r=4 and the whole decoder.

    python benchmarks/training_switches.py [--side 112] [--batch 4] [--steps 3] [--only WORDS]

LiteMedSAM with its own weights, where they are found, else random ones of the same shape. A process for each configuration,
one after the other, one thread; processor seconds, so that other work on the machine does not count. Steps are those of `fit`
on noise of the right size. The first step is left out (with compiling it is told apart); peaks are of the steps alone, over
what the process held before the first.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

CLASSES = 14
PLAIN = "plain: LoRA in all blocks, fp32"
RUNS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "recompute": {"training": {"recompute": True}},
    "accumulate: one slice at a time": {"training": {"accumulate": "batch"}},
    "compile": {"training": {"compile": True}},
    "channels-last weights and images": {"channels_last": True},
    "glibc gives large blocks back (M_MMAP_THRESHOLD)": {"mmap_threshold": 131072},
    "bf16 autocast": {"precision": "bf16"},
    "kept convolutional start (cached_views)": {"kept": True},
    "last 4 blocks": {"options": {"last": 4}},
    "last 4 blocks, kept start (cached_views)": {"options": {"last": 4}, "kept": True},
    "head phase, on kept embeddings": {"kept": "embedding"},
}


def measure(name: str, side: int, batch: int, steps: int, results: Any) -> None:
    given = RUNS[name]
    if "mmap_threshold" in given:
        ctypes.CDLL("libc.so.6").mallopt(-3, given["mmap_threshold"])
    import torch
    from accelerate import Accelerator

    from sampeft.backbones import RANDOM, load_backbone
    from sampeft.errors import SampeftError
    from sampeft.labels import LabelSet
    from sampeft.model import SemanticSam
    from sampeft.peft import attach
    from sampeft.training.batches import Batch
    from sampeft.training.settings import Training
    from sampeft.training.setup import optimizer_of
    from sampeft.training.step import TrainStep

    torch.manual_seed(0)
    torch.set_num_threads(1)
    labels = LabelSet(("background", *(f"organ {k}" for k in range(1, CLASSES))), tuple(range(CLASSES)))
    try:
        loaded = load_backbone("lite-medsam")
    except SampeftError:
        loaded = load_backbone("lite-medsam", RANDOM)
    model = SemanticSam(loaded, labels, side)
    attach(model, "lora", {"rank": 4, "whole_decoder": True, **given.get("options", {})})
    switches = {k: batch if v == "batch" else v for k, v in given.get("training", {}).items()}
    config = Training(batch=batch, **switches)
    accelerator = Accelerator(cpu=True, mixed_precision=given.get("precision", "no"))
    if config.recompute:
        model.recompute_blocks()
    if config.compile:
        model.compile_encoder()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, side, side, generator=generator)
    truth = torch.randint(CLASSES, (batch, side, side), generator=generator)
    if given.get("channels_last"):
        model.sam.vision_encoder.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    block, features = None, None
    if given.get("kept"):
        with torch.no_grad():
            if given["kept"] == "embedding":
                features = model.encode(images)
            else:
                block = model.frozen_blocks()
                features = model.encode_start(images, block)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer_of(model, config)
    wrapped = accelerator.prepare(model)
    wrapped.train()

    def step() -> None:
        shown = None if features is not None else images
        TrainStep(model, config, accelerator, wrapped).backward(Batch(truth, batch, shown, features, block))
        accelerator.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    before = _resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as account:  # the peak counts anew
        account.write("5")
    started = time.process_time()
    step()
    first = time.process_time() - started
    started = time.process_time()
    for _ in range(steps):
        step()
    results.put(((time.process_time() - started) / steps / batch, _resident("VmHWM") - before, first))


def _resident(what: str) -> int:
    """MiB: VmRSS, what this process holds, or VmHWM, the most that it held."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) >> 10 for line in status if line.startswith(what))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("peaks are read from /proc, which Linux has")
    context = multiprocessing.get_context("spawn")
    print(f"side {options.side}, batch {options.batch}, {options.steps} steps after the first\n")
    print("| switch | CPU seconds a slice | of plain | memory over the start (MiB) | of plain | first step (s) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    plain: tuple[float, int] | None = None
    for name in RUNS:
        if options.only not in name and name != PLAIN:
            continue
        results: Any = context.Queue()
        process = context.Process(target=measure, args=(name, options.side, options.batch, options.steps, results))
        process.start()
        process.join()
        if process.exitcode:
            print(f"| {name} | failed | | | | |", flush=True)
            continue
        seconds, peak, first = results.get()
        plain = plain or (seconds, peak)
        shares = f"{seconds:.2f} | {seconds / plain[0]:.2f} | {peak} | {peak / plain[1]:.2f} | {first:.1f}"
        print(f"| {name} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
