"""A trained model -> an ONNX graph, and its engine by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sampeft.engines.graph import INPUT, LOGITS, example, tracing
from sampeft.errors import UsageError
from sampeft.model import SemanticSam

PACKAGES = ("onnx", "onnxruntime")
PRECISIONS = ("f32",)
FILE = "graph.onnx"
_OPSET = 17  # the oldest with layer norm; read by ONNX Runtime 1.12 and newer


def check(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision} goes with --engine openvino; onnx knows {', '.join(PRECISIONS)}")


def write(model: SemanticSam, folder: Path) -> None:
    """Write the graph image -> logits of one image."""
    export(model, folder / FILE, model.side, [LOGITS], 1)


def export(module: nn.Module, path: Path, side: int, names: Sequence[str], batch: int | None) -> None:
    """Write the graph of a module that takes images (B, 3, side, side), by tracing it. batch: None for any."""
    axes = {} if batch else {name: {0: "batch"} for name in (INPUT, *names)}
    with tracing(module):
        torch.onnx.export(
            module,
            (example(side, batch or 2),),
            path,
            dynamo=False,
            input_names=[INPUT],
            output_names=list(names),
            dynamic_axes=axes,
            opset_version=_OPSET,
        )


class OnnxEngine:
    """A graph by ONNX Runtime on the processor, one image after the other."""

    name = "onnx"

    def __init__(self, session: Any) -> None:
        self._session = session

    def __call__(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        images = np.ascontiguousarray(images_B3HW.detach().cpu().numpy(), dtype=np.float32)
        made = [self._session.run([LOGITS], {INPUT: images[i : i + 1]})[0] for i in range(len(images))]
        return torch.from_numpy(np.concatenate(made))


def open(file: Path, precision: str, threads: int, cache: Path | None = None) -> OnnxEngine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return OnnxEngine(onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]))
