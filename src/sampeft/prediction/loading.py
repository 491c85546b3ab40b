"""Load trained runs for prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from sampeft.backbones import RANDOM, LoadedBackbone, load_backbone
from sampeft.data.slice_cache import Preparation
from sampeft.errors import UsageError, WeightsError
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.run_files import read_description, read_tensors, tensors_file
from sampeft.peft.state import load_trained, merge
from sampeft.peft.whole import is_whole, load_whole
from sampeft.prediction.ensemble import EnsembleEngine, joined
from sampeft.prediction.model_lock import lock_of
from sampeft.prediction.segmenter import Segmenter
from sampeft.refine import Refiner


def load(
    run: Path | str | Sequence[Path | str],
    *,
    weights: str | None = None,
    last: bool = False,
    merged: bool = True,
    beside: Segmenter | None = None,
    refiner: Refiner | None = None,
    views: int = 1,
    engine: str = "torch",
    precision: str = "f32",
    make_graph: bool = True,
) -> Segmenter:
    """Load a trained run: its best model, or its `last`. Several runs (folds, seeds) segment by the mean of their
    probabilities.

    weights: base weights, when they are not where they were at training; they must have the same sha256.
    merged: fold the adapter into the weights (no extra cost at prediction); of several runs never, so that they share a base.
    beside: a loaded run of the same base, whose weights are then shared; whichever of the two is used puts its own adapter
    in place, so that several runs take the memory of one.
    views: how many views of each slice are averaged.
    engine, precision, make_graph: what runs the network, see `engine_for` (there `make`); with a kept graph the model is not
    made before it is needed.
    Raises WeightsError when something is missing or belongs to another base, UsageError for runs that do not go together.
    """
    runs = [run] if isinstance(run, (str, Path)) else list(run)
    folders = [Path(one) / "last" if last else Path(one) for one in runs]
    descriptions = [read_description(folder) for folder in folders]
    description = descriptions[0]
    labels = LabelSet.from_json(description["label_map"], folders[0] / "adapter.json")
    preparation = Preparation.from_json(description["preparation"], folders[0])
    if preparation.denoise:
        preparation.denoise.build()  # what is wrong with it is no picture's fault

    def make_all() -> list[SemanticSam]:
        made: list[SemanticSam] = []
        for folder, described in zip(folders, descriptions, strict=True):
            base = made[0].loaded if made else None
            made.append(_made(folder, described, labels, weights, merged and len(folders) == 1, base, beside))
        return made

    make: Callable[[], Any] = lambda: make_all()[0]  # noqa: E731
    if len(runs) > 1:
        description, make = joined([str(one) for one in runs], descriptions, make_all)
    if engine == "torch" and precision == "f32":
        return Segmenter(make(), labels, preparation, description, refiner, None, views)
    from sampeft.engines import engine_for
    from sampeft.engines.graph import Identity

    network = _Once(make)
    running = []
    for folder, described in zip(folders, descriptions, strict=True):
        one = (
            network if len(runs) == 1 else _Once(partial(_made, folder, described, labels, weights, True, None, beside))
        )
        identity = Identity.of(folder, described)
        running.append(engine_for(engine, one, identity, precision, make=make_graph))
    # The model itself goes the usual way, which shares it between threads and runs.
    chosen: Any = None if any(one.name == "torch" for one in running) else running[0]
    if chosen is not None and len(runs) > 1:
        chosen = EnsembleEngine(running, preparation.side)
    return Segmenter(network, labels, preparation, description, refiner, chosen, views)


class _Once:
    """Makes a model when it is first asked for."""

    def __init__(self, make: Callable[[], SemanticSam]) -> None:
        self._make, self._lock = make, Lock()
        self._model: SemanticSam | None = None

    def __call__(self) -> SemanticSam:
        with self._lock:
            if self._model is None:
                self._model = self._make()
            return self._model


def _made(
    folder: Path,
    description: dict[str, Any],
    labels: LabelSet,
    weights: str | None,
    merged: bool,
    base: LoadedBackbone | None,
    beside: Segmenter | None,
) -> SemanticSam:
    """base: loaded before, to be shared; None: that of `beside`, or a new one."""
    if is_whole(folder):
        model = load_whole(folder, description, labels)
        return model.cuda() if torch.cuda.is_available() else model
    wanted = description["weights_sha256"]
    if base is None and beside is not None:
        base = beside.model.loaded
    if base is not None:
        loaded = base
    else:
        if wanted == RANDOM:
            torch.manual_seed(description["seed"])
        loaded = load_backbone(description["backbone"], RANDOM if wanted == RANDOM else weights)
    same_seed = beside is None or wanted != RANDOM or beside.description["seed"] == description["seed"]
    if (loaded.spec.name, loaded.digest) != (description["backbone"], wanted) or not same_seed:
        raise WeightsError(
            f"{folder}: trained on {description['backbone']} with content {wanted[:8]}..., but {loaded.source} is "
            f"{loaded.spec.name} with {loaded.digest[:8]}...; give the right weights with --weights"
        )
    with lock_of(beside.model) if beside else nullcontext():
        try:
            model = SemanticSam.described(loaded, labels, description)
            attach(model, description["method"], description["options"])
        except (UsageError, RuntimeError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"{folder}: the model that its adapter.json describes cannot be made ({reason})"
            ) from None
        load_trained(model, read_tensors(folder, description), tensors_file(folder))
        if merged:
            merge(model)
        if torch.cuda.is_available():
            model.cuda()
        return model.eval()
