"""One of several processes that validate a known "model" on the data set of a folder; the first prints what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sampeft.data import open_dataset
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation
from sampeft.training.validation import validate


class Threshold(torch.nn.Module):
    """Calls everything above mid-grey the second class."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full_like(images[:, 0], 0.5), images[:, 0]], dim=1)


if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    dataset = open_dataset(Path(sys.argv[1]))
    preparation = Preparation(Intensity("window", 0, 255), 16)
    model: Any = Threshold()
    (evaluation,) = validate(model, dataset, dataset.cases, preparation, accelerator).values()
    if accelerator.is_main_process:
        scores = dict(zip(evaluation.cases, evaluation.matrix()[:, 1].tolist(), strict=True))
        print(
            json.dumps({"mean": evaluation.headline().mean, "scores": scores, "processes": accelerator.num_processes})
        )
    accelerator.wait_for_everyone()  # one that leaves early may end the others' connections before they have left
    accelerator.end_training()
