"""Engines by name: what runs the network instead of PyTorch; graphs are made once and kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Protocol

import torch

from sampeft.engines import onnx, openvino
from sampeft.engines.graph import Identity
from sampeft.engines.kept import Kept
from sampeft.engines.parity import Parity
from sampeft.errors import UsageError, unknown_name
from sampeft.model import SemanticSam

AUTO = "auto"
TORCH = "torch"
Model = SemanticSam | Callable[[], SemanticSam]


class Engine(Protocol):
    """Runs a trained model. images_B3HW: float32 in 0..1, side x side; gives float32 logits (B, K, h, w) on the CPU."""

    @property
    def name(self) -> str: ...

    def __call__(self, images_B3HW: torch.Tensor) -> torch.Tensor: ...


class GraphKind(Protocol):
    """A module that makes and runs one kind of graph.

    PACKAGES: what must be installed. PRECISIONS: the numbers it computes with. FILE: the graph's name in its folder.
    """

    @property
    def PACKAGES(self) -> tuple[str, ...]: ...

    @property
    def FILE(self) -> str: ...

    def check(self, precision: str) -> None:
        """Raises UsageError when this machine cannot compute so."""
        ...

    @property
    def write(self) -> Callable[..., None]: ...

    @property
    def open(self) -> Callable[..., Engine]: ...


PRECISIONS = ("f32", "bf16", "int8")
ENGINES: dict[str, GraphKind | None] = {TORCH: None, "openvino": openvino, "onnx": onnx}
"""Engines by name; torch runs the model as it is, without a graph."""


class TorchEngine:
    """The model itself, on the device where it is."""

    name = TORCH

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        model = self._model = _model_of(self._model)
        with torch.inference_mode():
            logits: torch.Tensor = model(images_B3HW.to(model.mean.device)).float().cpu()
        return logits


def check_engine(name: str, precision: str = "f32") -> None:
    """Raises UsageError for a name or a precision that is not known."""
    if name not in (AUTO, *ENGINES):
        raise unknown_name("engine", name, {AUTO, *ENGINES})
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)


def missing_packages(name: str) -> list[str]:
    """What an engine needs and is not installed. Raises UsageError for an unknown name."""
    if name not in ENGINES:
        raise unknown_name("engine", name, {AUTO, *ENGINES})
    kind = ENGINES[name]
    return [package for package in kind.PACKAGES if find_spec(package) is None] if kind else []


def require(name: str) -> None:
    """Raises UsageError, with the command that helps, when what an engine needs is not installed."""
    if missing := missing_packages(name):
        raise UsageError(
            f"engine {name} needs {', '.join(missing)}, not installed here: pip install 'sampeft[export]', or use --engine torch"
        )


def engine_for(
    name: str,
    model: Model,
    identity: Identity,
    precision: str = "f32",
    threads: int | None = None,
    say: Callable[[str], None] = warnings.warn,
    make: bool = True,
) -> Engine:
    """The engine of that name for a trained model; its graph comes from the cache, or is made, compared with the model and
    kept.

    model: merged and in prediction mode, or what makes it so; it is not asked for when a kept graph is used.
    precision: f32, bf16 where the processor computes with it, or int8, which `sampeft export` must have made before.
    threads: of the processor; None: as many as torch uses.
    say: gets what the user should know: that `auto` fell back to torch, or that a graph differs from its model, in which
    case the engine is the model itself.
    make: whether `auto` makes a graph that is not kept yet, which takes as long as some hundred slices with torch.
    Raises UsageError for an unknown name or precision, a missing package, or an int8 graph that is not there.
    """
    if name == AUTO:
        return _automatic(model, identity, threads, say, make)
    require(name)
    kind = ENGINES[name]
    if kind is None:
        if precision != "f32":
            raise UsageError(
                f"precision {precision} goes with --engine openvino; torch computes as the model was trained"
            )
        return TorchEngine(model)
    kind.check(precision)
    kept = Kept.of(name, identity, precision)
    if not kept.is_whole():
        if precision == "int8":
            raise UsageError(
                "there is no int8 graph of this run yet: make it from your own images, and see what it costs, with "
                "sampeft export RUN --format openvino --precision int8 --images ... --out DIR"
            )
        say(f"making the {name} graph of this model, once")
        plain = _model_of(model)
        kept.make(partial(kind.write, plain))
    parity = kept.parity()
    engine = kind.open(kept.folder / kind.FILE, precision, threads or torch.get_num_threads(), kept.folder)
    if parity is None:
        parity = Parity.between(TorchEngine(model), engine, identity.side)
        kept.keep_parity(parity)
    else:
        kept.seal_derived()
    if not parity.passes(precision):
        say(f"WARNING: the {name} graph does not compute what the model does ({parity}); torch is used instead")
        return TorchEngine(model)
    return engine


def _automatic(model: Model, identity: Identity, threads: int | None, say: Callable[[str], None], make: bool) -> Engine:
    """OpenVINO where the processor does the work and it is installed, else torch."""
    if torch.cuda.is_available():
        return TorchEngine(model)
    if missing_packages("openvino"):
        say("engine torch; OpenVINO is faster on this processor: pip install 'sampeft[export]'")
        return TorchEngine(model)
    if not make and not Kept.of("openvino", identity, "f32").is_whole():
        return TorchEngine(model)
    try:
        return engine_for("openvino", model, identity, "f32", threads, say)
    except (RuntimeError, OSError, ValueError) as error:  # what tracing, OpenVINO and a full disk raise
        say(f"WARNING: OpenVINO cannot run this model ({str(error).strip().splitlines()[0]}); torch is used instead")
        return TorchEngine(model)


def _model_of(model: Model) -> SemanticSam:
    return model if isinstance(model, SemanticSam) else model()
