"""Exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sampeft.model import SemanticSam


class Average:
    """a <- d a + (1 - d) w after every step, from the weights w at the start.

    d is `decay`, in the first steps only (1 + n) / (10 + n) after n updates, so that a short run does not remember its
    start. A decay of 0 keeps nothing and costs nothing.
    """

    def __init__(self, model: SemanticSam, decay: float) -> None:
        self.model, self.decay, self.updates = model, decay, 0
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad} if decay else {}
        self.values = {name: p.detach().clone() for name, p in self.trained.items()}

    def update(self) -> None:
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        if self.trained:
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            blend = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            blend([*self.values.values()], [*self.trained.values()], None)
            self.updates += 1

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block the model holds the average; after it the trained weights again, bit for bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        if self.trained:
            for name, parameter in self.trained.items():
                self.values[name], parameter.data = parameter.data, self.values[name]
            self.model.train()  # drops what a module derived from the other weights

    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(self.values)

    def restore(self, tensors: dict[str, torch.Tensor], updates: int) -> None:
        for name, value in self.values.items():
            value.copy_(tensors[name])
        self.updates = updates
