"""One training step: forward, loss, backward, clipping, optimizer, the method's own update, average."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sampeft.heads.given import cut
from sampeft.losses import Loss, Objective
from sampeft.model import SemanticSam
from sampeft.training.batches import Batch
from sampeft.training.checkpoint import TrainState
from sampeft.training.processes import over_processes
from sampeft.training.settings import Training


@dataclass(frozen=True)
class TrainStep:
    """The step of `fit`; planning measures it without `update`.

    accelerator: accelerate's, or a `SingleProcess`. wrapped: the model as accelerate prepared it.
    """

    model: SemanticSam
    config: Training
    accelerator: Any
    wrapped: Any

    def loss(self, batch: Batch) -> tuple[torch.Tensor, Loss]:
        """What a step lessens, which is the loss and the method's penalty, and the loss alone."""
        self.wrapped.train()
        size = self.config.patch or 0
        whole = truth = batch.truth_BHW.to(self.accelerator.device).long()
        if batch.windows is not None:
            truth = cut(whole, batch.windows, size)
        with self.accelerator.autocast():
            given = batch.images_B3HW, batch.features, batch.block, batch.windows, size
            output = self.wrapped(*given, in_full=True)
        loss = objective_of(self.config)(output, truth, whole, partial(over_processes, self.accelerator))
        penalty = self.model.regulator.penalty() if self.model.regulator else 0.0
        return loss.total + penalty, loss

    def backward(self, batch: Batch) -> list[float]:
        """Gradients of the mean loss over the parts of a batch, each of which all processes share. Returns (total, ce, dice),
        averaged over the parts."""
        parts = self.config.parts(batch.count, self.accelerator.num_processes)
        sums = torch.zeros(3, device=self.accelerator.device)
        for number, part in enumerate(batch.split(parts), 1):
            # Processes average their gradients once, with the last part.
            with self.accelerator.no_sync(self.wrapped) if number < parts else nullcontext():
                total, loss = self.loss(part)
                self.accelerator.backward(total / parts)
                sums += torch.stack([term.detach() for term in loss]) / parts
        return sums.tolist()

    def update(self, state: TrainState, progress: float, loss: list[float]) -> bool:
        """Change the weights by the gradients, at the learning rate of this share of the training. Returns whether loss and
        gradients were finite; if not, the weights stay."""
        for group in state.optimizer.param_groups:
            group["lr"] = self.config.rate(progress) * group["share"]
        trained = [p for p in self.model.parameters() if p.requires_grad]
        norm = self.accelerator.clip_grad_norm_(trained, self.config.clip)
        is_finite = math.isfinite(loss[0]) and bool(torch.isfinite(torch.as_tensor(norm)))
        # In fp16 the gradient scaler itself skips the step and lowers its scale.
        if is_finite or self.accelerator.mixed_precision == "fp16":
            state.optimizer.step()
        if is_finite:
            if self.model.regulator:
                self.model.regulator.update(progress)
            state.average.update()
        state.optimizer.zero_grad(set_to_none=True)
        return is_finite


def objective_of(config: Training) -> Objective:
    weights = config.loss_weights, config.class_weights, config.presence_weight, config.whole_weight
    return Objective(config.loss, *weights, spread_foreground=bool(config.patch))
