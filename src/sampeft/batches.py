"""Prepared slices and a step in, the augmented slices of that step out, or their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import Features
from sampeft.data.augment import augment
from sampeft.data.cache import Slices
from sampeft.errors import UsageError
from sampeft.model import SemanticSam
from sampeft.training_settings import Training
from sampeft.views import Views


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
    """Augmented slices of a process by step, in the order of no memory: what is drawn depends on seed, step and process.

    bank: what the untouched encoder gives for drawn slices, for the head. kept: where `cached_views` is set, what its frozen
    start gives for those views of every slice.
    """

    slices: Slices
    model: SemanticSam
    config: Training
    accelerator: Any
    probabilities_N: torch.Tensor
    bank: Views
    kept: Views | None

    @classmethod
    def of(cls, slices: Slices, model: SemanticSam, config: Training, accelerator: Any, start: str = "") -> Batches:
        """start: sha256 of the trained weights that the training starts from, if it does."""
        presence_NK = slices.presence(len(model.labels))
        probabilities_N = draw_probabilities(presence_NK, model.labels.foreground, config.balance)
        room = config.cache_mib << 20
        views = partial(
            Views, model, slices, augmentation=config.augmentation, accelerator=accelerator, most_bytes=room
        )
        always_the_same = torch.Generator().manual_seed(0)
        drawn = torch.multinomial(
            probabilities_N, config.head_bank, replacement=True, generator=always_the_same
        ).numpy()
        kept = None
        if config.cached_views:
            if (block := model.frozen_blocks()) < 0:
                raise UsageError(
                    "training.cached_views keeps what the frozen start of the encoder gives, but this method trains from the "
                    "start; leave it out, or train a method with --options.last"
                )
            kept = views(index=np.tile(np.arange(len(slices)), config.cached_views), block=block, start="")
        bank = views(index=drawn, block=None, start=start)
        return cls(slices, model, config, accelerator, probabilities_N, bank, kept)

    def generator(self, step: int) -> torch.Generator:
        """For all that a step draws; what a method draws by itself, such as dropout, is fixed by it as well."""
        entropy = np.random.SeedSequence([self.config.seed, step, self.accelerator.process_index])
        own, of_torch = map(int, entropy.generate_state(2))
        torch.manual_seed(of_torch)
        return torch.Generator().manual_seed(own)

    def drawn(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """images_B3HW on the device and channels_BHW."""
        pictures = self.slices.batch(self._index(generator).numpy())
        images, truth = augment(*pictures, self.model.labels, self.config.augmentation, generator)
        return images.to(self.accelerator.device), truth

    def started(self, generator: torch.Generator) -> tuple[Features, torch.Tensor]:
        """What enters the first trained block for one of the `cached_views` of drawn slices, and channels_BHW."""
        assert self.kept is not None
        index = self._index(generator)
        view = torch.randint(self.config.cached_views, index.shape, generator=generator)
        return self.kept.get((view * len(self.slices) + index).tolist())

    def encoded(self, generator: torch.Generator) -> tuple[Features, torch.Tensor]:
        """What the untouched encoder gives for `head_batch` of the bank, and channels_BHW."""
        return self.bank.get(
            torch.randint(len(self.bank.index), (self.config.head_batch,), generator=generator).tolist()
        )

    def _index(self, generator: torch.Generator) -> torch.Tensor:
        count = max(1, self.config.batch // self.accelerator.num_processes)
        return torch.multinomial(self.probabilities_N, count, replacement=True, generator=generator)
