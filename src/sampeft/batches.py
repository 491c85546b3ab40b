"""Prepared slices and a step in, the augmented slices of that step out, or their features; nothing is remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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


def draw_probabilities(presence_NK: npt.NDArray[np.bool_], foreground: Sequence[int], balance: float) -> torch.Tensor:
    """(N,) probability of every slice: `balance` of it by class, equally, then by slice; the rest uniform."""
    count_N = len(presence_NK)
    uniform = np.full(count_N, 1 / count_N)
    classes = [k for k in foreground if presence_NK[:, k].any()]
    if not classes:
        return torch.from_numpy(uniform)
    by_class = np.mean([presence_NK[:, k] / presence_NK[:, k].sum() for k in classes], axis=0)
    return torch.from_numpy((1 - balance) * uniform + balance * by_class)


@dataclass
class Kept:
    """Computed things by key, as many as fit into so many bytes; what does not is computed each time."""

    most_bytes: int
    entries: dict[tuple[int, int], tuple[Features, torch.Tensor]] = field(default_factory=dict)
    used_bytes: int = 0

    def get(
        self, key: tuple[int, int], compute: Callable[[], tuple[Features, torch.Tensor]]
    ) -> tuple[Features, torch.Tensor]:
        if key in self.entries:
            return self.entries[key]
        features, truth = compute()
        size = sum(tensor.nbytes for tensor in (*features, truth))
        if self.used_bytes + size <= self.most_bytes:
            self.entries[key] = features, truth
            self.used_bytes += size
        return features, truth


@dataclass(frozen=True)
class Batches:
    """Augmented slices of a process by step, in the order of no memory: what is drawn depends on seed, step and process."""

    slices: Slices
    model: SemanticSam
    config: Training
    accelerator: Any
    probabilities_N: torch.Tensor
    block: int = -1
    kept: Kept = field(default_factory=lambda: Kept(0))

    @classmethod
    def of(cls, slices: Slices, model: SemanticSam, config: Training, accelerator: Any) -> Batches:
        presence_NK = slices.presence(len(model.labels))
        probabilities_N = draw_probabilities(presence_NK, model.labels.foreground, config.balance)
        block = model.frozen_blocks() if config.cached_views else -1
        if config.cached_views and block < 0:
            raise UsageError(
                "training.cached_views keeps what the frozen start of the encoder gives, but this method trains from the "
                "start; leave it out, or train a method with --options.last"
            )
        return cls(slices, model, config, accelerator, probabilities_N, block, Kept(config.cache_mib << 20))

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

    def started(self, generator: torch.Generator) -> tuple[Features, torch.Tensor]:
        """What enters the first trained block for augmented views of slices, and channels_BHW. Each slice has
        `cached_views` views, each computed when it is first drawn and kept while there is room."""
        count = max(1, self.config.batch // self.accelerator.num_processes)
        index = torch.multinomial(self.probabilities_N, count, replacement=True, generator=generator).tolist()
        views = torch.randint(self.config.cached_views, (count,), generator=generator).tolist()
        entries = [self.kept.get(key, partial(self._view, *key)) for key in zip(index, views, strict=True)]
        maps = zip(*(features for features, _ in entries), strict=True)
        features = tuple(torch.stack(m).to(self.accelerator.device) for m in maps)
        return features, torch.stack([truth for _, truth in entries])

    def _view(self, index: int, view: int) -> tuple[Features, torch.Tensor]:
        """By itself, so that it is the same to the bit whatever it is drawn with."""
        seed = int(np.random.SeedSequence([self.config.seed, index, view]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        pictures = self.slices.batch(np.array([index]))
        images, truth = augment(*pictures, self.model.labels, self.config.augmentation, generator)
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            maps = self.model.encode_start(images.to(self.accelerator.device), self.block)
        return tuple(m[0].cpu() for m in maps), truth[0].short()

    def encoded(self, generator: torch.Generator) -> list[tuple[Features, torch.Tensor]]:
        """(features, truth) of each slice, halved in precision, in the computer's memory."""
        images, truth = self.drawn(generator)
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            maps = self.model.encode(images)
        slices_of = zip(*(m.half().cpu() for m in maps), strict=True)
        return list(zip(slices_of, truth.short(), strict=True))
