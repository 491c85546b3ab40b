"""Prepared slices and a step in, the augmented slices of that step out, or their features; nothing is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import Features
from sampeft.data.augment import augment
from sampeft.data.cache import Slices
from sampeft.model import SemanticSam
from sampeft.training_settings import Training


def draw_probabilities(presence_NK: npt.NDArray[np.bool_], foreground: Sequence[int], balance: float) -> torch.Tensor:
    """(N,) probability of every slice: `balance` of it by class, equally, then by slice; the rest uniform."""
    count_N = len(presence_NK)
    uniform = np.full(count_N, 1 / count_N)
    classes = [k for k in foreground if presence_NK[:, k].any()]
    if not classes:
        return torch.from_numpy(uniform)
    by_class = np.mean([presence_NK[:, k] / presence_NK[:, k].sum() for k in classes], axis=0)
    return torch.from_numpy((1 - balance) * uniform + balance * by_class)


@dataclass(frozen=True)
class Batches:
    """Augmented slices of a process by step, in the order of no memory: what is drawn depends on seed, step and process."""

    slices: Slices
    model: SemanticSam
    config: Training
    accelerator: Any
    probabilities_N: torch.Tensor

    @classmethod
    def of(cls, slices: Slices, model: SemanticSam, config: Training, accelerator: Any) -> Batches:
        presence_NK = slices.presence(len(model.labels))
        probabilities_N = draw_probabilities(presence_NK, model.labels.foreground, config.balance)
        return cls(slices, model, config, accelerator, probabilities_N)

    def generator(self, step: int) -> torch.Generator:
        """For all that a step draws; what a method draws by itself, such as dropout, is fixed by it as well."""
        entropy = np.random.SeedSequence([self.config.seed, step, self.accelerator.process_index])
        own, of_torch = map(int, entropy.generate_state(2))
        torch.manual_seed(of_torch)
        return torch.Generator().manual_seed(own)

    def drawn(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """images_B3HW on the device and channels_BHW."""
        count = max(1, self.config.batch // self.accelerator.num_processes)
        index = torch.multinomial(self.probabilities_N, count, replacement=True, generator=generator).numpy()
        pictures = self.slices.batch(index)
        images, truth = augment(*pictures, self.model.labels, self.config.augmentation, generator)
        return images.to(self.accelerator.device), truth

    def encoded(self, generator: torch.Generator) -> list[tuple[Features, torch.Tensor]]:
        """(features, truth) of each slice, halved in precision, in the computer's memory."""
        images, truth = self.drawn(generator)
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            maps = self.model.encode(images)
        slices_of = zip(*(m.half().cpu() for m in maps), strict=True)
        return list(zip(slices_of, truth.short(), strict=True))
