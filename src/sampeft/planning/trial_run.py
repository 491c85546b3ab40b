"""Plan a training by a few measured steps: what `sampeft plan` and `sampeft train` say first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from sampeft.backbones import RANDOM
from sampeft.data.case import Case, Dataset
from sampeft.data.slice_cache import Preparation, PreparedVolume, Slices
from sampeft.data.unprepared import Shape, Unprepared
from sampeft.evaluation.score import score_case
from sampeft.model import SemanticSam
from sampeft.peft import METHODS
from sampeft.planning.machine import processes, room_bytes
from sampeft.planning.planner import Plan, Workload, plan
from sampeft.planning.step_trial import measure_costs
from sampeft.prediction.network import InferenceOptions
from sampeft.prediction.pipeline import predict_scenes
from sampeft.prediction.scene import SliceScene
from sampeft.prediction.sinks import ClassMap
from sampeft.training.settings import VALIDATION_BATCH, Training
from sampeft.training.setup import precision_for


def plan_training(
    model: SemanticSam, training: Training, workload: Workload, method: str, slices: Slices | None = None
) -> Plan:
    """Measure a few steps of this model on the device that `fit` would take, and reckon. slices: to draw from; None: noise
    of the right size."""
    # accelerate's own choice would join processes, which only the training may do.
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert device is not None
    precision = precision_for(device, training.precision)
    costs = measure_costs(model, training, precision, device, room_bytes(), slices)
    workload = replace(workload, views_on_disk=model.digest != RANDOM)  # as `Views` keeps them
    last = hasattr(METHODS[method].options, "last")
    return plan(costs, training, workload, model.spec, model.side, last)


def workload_of(
    dataset: Dataset, held_out: Sequence[Shape], preparation: Preparation, slices: Slices | Unprepared
) -> Workload:
    """slices: what is trained on."""
    held = sum(shape.slices(preparation.plane) for shape in held_out)
    seconds = _scoring_seconds(dataset, held_out[0].case, preparation) if held else 0.0
    return Workload(len(slices), slices.slice_bytes, held, seconds, processes=processes())


def _scoring_seconds(dataset: Dataset, case: Case, preparation: Preparation) -> float:
    """Seconds a slice for reading, scaling and counting, by a case and a model that costs nothing."""

    class Nothing(torch.nn.Module):
        """image_B3HW -> logits_BKHW of zeros."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
            return self.weight.new_zeros(len(image_B3HW), len(dataset.labels), *image_B3HW.shape[-2:])

    counted = 0

    def predict(prepared: PreparedVolume, _: Any) -> Any:
        nonlocal counted
        counted, made = len(prepared), ClassMap()
        watched = [(SliceScene(prepared), [made])]
        for _ in predict_scenes(Nothing(), watched, len(dataset.labels), InferenceOptions(batch=VALIDATION_BATCH)):
            pass
        return made.channels_SHW

    start = time.perf_counter()
    score_case(predict, dataset, case, preparation)
    return (time.perf_counter() - start) / max(1, counted)
