"""A trained model -> an OpenVINO graph for processors of the x86 and ARM kinds, and its engine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import local
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from sampeft.backbones import Features
from sampeft.engines.graph import INPUT, LOGITS, example, tracing
from sampeft.engines.parity import pictures
from sampeft.errors import UsageError
from sampeft.model import SemanticSam

PACKAGES = ("openvino",)
PRECISIONS = ("f32", "bf16", "int8")
FILE = "graph.xml"
_MOST_OFF = 1e-3  # of a map's standard deviation: the encoder that others train on


def check(precision: str) -> None:
    """Raises UsageError for an unknown precision, or bf16 where the processor would only emulate it."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision '{precision}' of openvino; known: {', '.join(PRECISIONS)}")
    if precision == "bf16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UsageError("this processor does not compute with bf16 (AVX-512 BF16 or AMX); use --precision f32 or int8")


def convert(module: nn.Module, side: int, names: Sequence[str], batch: int | None) -> Any:
    """The `openvino.Model` of a module that takes images (B, 3, side, side). batch: None for any."""
    openvino = _library()
    image = example(side, batch or 2)
    with tracing(module):
        # Traced here: OpenVINO would run the module three times more to check it, which parity does.
        trace: Any = torch.jit.trace
        traced = trace(module, image, check_trace=False, strict=False)
        shape = openvino.PartialShape([batch or -1, 3, side, side])
        graph = openvino.convert_model(traced, example_input=image, input=[shape])
    graph.inputs[0].get_tensor().set_names({INPUT})
    for output, name in zip(graph.outputs, names, strict=True):
        output.get_tensor().set_names({name})
    return graph


def write(model: SemanticSam, folder: Path) -> None:
    """Write the graph image -> logits of one image. A fixed batch makes the logits the same in any batch, and costs no
    time on a processor."""
    save(convert(model, model.side, [LOGITS], 1), folder / FILE)


def save(graph: Any, path: Path) -> None:
    """Write a graph with weights in full precision: halves would be the one thing that differs from the model."""
    _library().save_model(graph, path, compress_to_fp16=False)


def quantise(graph: Any, images: Sequence[torch.Tensor]) -> Any:
    """A graph that computes with 8-bit integers where it can, calibrated on images (3, side, side) in 0..1. Raises
    UsageError when the package for it is not installed."""
    _library()
    try:
        import nncf
    except ImportError:
        raise UsageError("int8 needs nncf, not installed here: pip install 'sampeft[export]'") from None
    dataset = nncf.Dataset([image[None].numpy() for image in images])
    return nncf.quantize(graph, dataset, subset_size=len(images), model_type=nncf.ModelType.TRANSFORMER)


class OpenVinoEngine:
    """A graph on the processor, one image after the other; each thread of the program has its own buffers."""

    name = "openvino"

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._own = local()

    def __call__(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        images = np.ascontiguousarray(images_B3HW.detach().cpu().numpy(), dtype=np.float32)
        made = [self._own.request.infer([images[i : i + 1]])[LOGITS][0].copy() for i in range(len(images))]
        return torch.from_numpy(np.stack(made))


class _Encoder(nn.Module):
    """image -> what the encoder gives, without the picture itself."""

    def __init__(self, model: SemanticSam) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> Features:
        features = self.model.encode(image)
        return features[:-1] if self.model.head.reads_encoder_maps else features


def encoder_of(model: SemanticSam, threads: int) -> Callable[[torch.Tensor], Features] | None:
    """What `model.encode` does for one image, by OpenVINO, with the weights that the encoder has now; None where it is not
    installed, cannot run it, or differs by more than a thousandth of a map's standard deviation."""
    if find_spec("openvino") is None:
        return None
    plain = _Encoder(model)
    shown = pictures(model.side)[0][None]
    with tracing(plain):
        wanted = plain(shown)
        try:
            graph = convert(plain, model.side, [f"map{i}" for i in range(len(wanted))], 1)
            request = _core().compile_model(graph, "CPU", _settings("f32", threads)).create_infer_request()
        except (RuntimeError, ValueError) as error:  # what tracing and OpenVINO raise
            logging.getLogger("sampeft").warning("OpenVINO cannot run the encoder (%s); torch is used", error)
            return None

    def encode(image_B3HW: torch.Tensor) -> Features:
        found = request.infer([np.ascontiguousarray(image_B3HW.numpy(), dtype=np.float32)])
        maps = tuple(torch.from_numpy(found[i].copy()) for i in range(len(wanted)))
        if not model.head.reads_encoder_maps:
            return maps
        return *maps, image_B3HW[:, :1] if image_B3HW.stride(1) == 0 else image_B3HW

    off = max(float((a - b).abs().max() / a.std()) for a, b in zip(wanted, encode(shown), strict=False))
    if off > _MOST_OFF:
        logging.getLogger("sampeft").warning("OpenVINO's encoder differs by %.2g from the model; torch is used", off)
        return None
    return encode


def open(file: Path, precision: str, threads: int, cache: Path | None = None) -> OpenVinoEngine:
    return OpenVinoEngine(compiled(file, precision, threads, cache))


def compiled(file: Path, precision: str, threads: int, cache: Path | None = None) -> Any:
    """A graph ready to run on the processor. cache: folder for its compiled form, which then need not be made again on this
    machine."""
    settings = {**_settings(precision, threads), **({"CACHE_DIR": str(cache)} if cache else {})}
    return _core().compile_model(str(file), "CPU", settings)


def _settings(precision: str, threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # several processes would all sit on the same cores
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }


def _library() -> Any:
    """OpenVINO with what it would tell its makers switched off: it does not ask, waits where there is no network, and
    images and their names may be patients'. Without that package it goes on with a stand-in that does nothing."""
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    import openvino

    return openvino


@cache
def _core() -> Any:
    """One for the process, which is never dropped. A core puts an alternative signal stack into the thread that makes it and
    takes back the one of before when it goes: cores that do not go in the reverse order leave a stack that is no more,
    and the next signal ends the process."""
    return _library().Core()
