"""The loss that a training asks for."""

from __future__ import annotations

from sampeft.losses import Objective
from sampeft.training.settings import Training


def objective_of(config: Training) -> Objective:
    return Objective(
        config.loss,
        config.loss_weights,
        config.class_weights,
        config.presence_weight,
        config.whole_weight,
        bool(config.patch),
    )
