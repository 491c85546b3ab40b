"""SAM and SAM 2 at their full size and native side on a CPU, random weights: every path once, timed.

    python benchmarks/full_size.py [--backbones sam-vit-b sam2.1-hiera-t]

CPU seconds of one thread, and peak memory of the process of each backbone. Random weights: it shows that the paths run
and what they cost, not what they find.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np


def measure(name: str) -> None:
    import torch

    from sampeft.backbones import RANDOM, load_backbone
    from sampeft.data.intensity import Intensity
    from sampeft.data.slice_cache import Preparation, PreparedVolume
    from sampeft.labels import LabelSet
    from sampeft.losses import segmentation_loss
    from sampeft.model import SemanticSam
    from sampeft.oracle.automatic_masks import MaskSettings
    from sampeft.oracle.protocols import ORACLE_PROTOCOLS, Oracle
    from sampeft.peft import attach
    from sampeft.prediction.pipeline import predict_scenes
    from sampeft.prediction.prompting import Prompter
    from sampeft.prediction.scene import SliceScene
    from sampeft.prediction.sinks import ClassMap
    from sampeft.provenance import peak_memory_mib
    from sampeft.volume import Volume

    torch.manual_seed(0)
    torch.set_num_threads(1)
    labels = LabelSet(("background", *(f"organ {k}" for k in range(1, 14))), tuple(range(14)))

    def timed(what: str, function: Callable[[], object]) -> object:
        started = time.process_time()
        result = function()
        print(f"| {name} | {what} | {time.process_time() - started:.1f} | {peak_memory_mib()} |", flush=True)
        return result

    loaded = load_backbone(name, RANDOM)
    model = SemanticSam(loaded, labels, loaded.spec.native_side)
    attach(model, "lora", {"rank": 4})
    side = model.side
    picture = np.random.default_rng(0).integers(0, 256, size=(512, 512, 1), dtype=np.uint8)
    volume = Volume(picture, None, Path("picture.png"))
    preparation = Preparation(Intensity("window", 0, 255), side)
    prepared = PreparedVolume.of(volume, preparation)
    truth = np.zeros((512, 512), dtype=np.int16)
    truth[100:200, 150:260], truth[300:340, 300:400] = 1, 2

    def step() -> None:
        model.train()
        logits = model(prepared.image(0)[None])
        target = torch.from_numpy(truth.astype(np.int64))[None]
        logits = torch.nn.functional.interpolate(logits, target.shape[-2:], mode="bilinear")
        segmentation_loss(logits, target).total.backward()

    timed(f"LoRA r=4, one step (forward and backward) at side {side}", step)
    made = ClassMap()
    watched = [(SliceScene(prepared), [made])]
    timed("class map of a 512 x 512 picture", lambda: list(predict_scenes(model, watched, len(model.labels))))
    assert made.on_own_grid().shape == volume.grid
    prompter = Prompter(model, prepared, 0)
    masks = timed(
        "mask by a box, by the pretrained model (encoder taken in)", lambda: prompter(boxes=[(150, 100, 260, 200)])
    )
    assert isinstance(masks, np.ndarray)
    assert masks.shape == (1, 512, 512)
    timed("mask by a box on the same encoding", lambda: prompter(boxes=[(300, 300, 400, 340)]))
    settings = MaskSettings(points_per_side=4, predicted_iou=0.0, stability=0.0)
    oracle = Oracle(model, tuple(ORACLE_PROTOCOLS.values()), settings)
    timed("oracles boxes, points, masks, union with 4 x 4 points", lambda: oracle.choose(prepared, 0, truth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["sam-vit-b", "sam2.1-hiera-t"])
    print("| backbone | what | CPU seconds | peak memory so far (MiB) |\n| --- | --- | ---: | ---: |", flush=True)
    for name in parser.parse_args().backbones:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(name,))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
