"""A process's share of the augmented slices of each training step, or of their features."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import Features
from sampeft.data.augment import Symmetry
from sampeft.data.slice_cache import Slices
from sampeft.data.unprepared import Truth
from sampeft.errors import UsageError
from sampeft.heads.given import Window
from sampeft.model import SemanticSam
from sampeft.training.settings import Training
from sampeft.training.views import Views, augmented
from sampeft.volume import IGNORE

_LOOKED_AT = 200  # slices whose pieces are measured
_EXAMPLES = 64
Drawn = TypeVar("Drawn")
Given = TypeVar("Given")


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
class Batch:
    """What one process is given in a step: images_B3HW, or features of them, which enter `block` (None: the head).

    truth_BHW: class channels. count: slices of all processes together. windows: the part of each slice that is drawn;
    None: the whole.
    """

    truth_BHW: torch.Tensor
    count: int
    images_B3HW: torch.Tensor | None = None
    features: Features | None = None
    block: int | None = None
    windows: list[Window] | None = None

    def split(self, parts: int) -> Iterator[Batch]:
        """Parts whose sizes differ by one at most."""
        for mine in torch.arange(len(self.truth_BHW)).tensor_split(parts):
            yield replace(
                self,
                truth_BHW=self.truth_BHW[mine],
                images_B3HW=None if self.images_B3HW is None else self.images_B3HW[mine],
                features=None if self.features is None else tuple(m[mine] for m in self.features),
                windows=None if self.windows is None else [self.windows[i] for i in mine.tolist()],
            )


@dataclass(frozen=True)
class Batches:
    """Augmented slices by step, in the order of no memory: what is drawn depends on seed and step, and several processes
    share the batch that one would draw. Each slice is augmented by itself, so that it is the same whoever takes it.

    bank: what the untouched encoder gives for drawn slices, for the head. kept: where `cached_views` is set, what its frozen
    start gives for those views of every slice. ahead: draws the next step's slices while a GPU works on this one's; on a CPU
    both would want the same cores, and there is none.
    """

    slices: Slices
    model: SemanticSam
    config: Training
    accelerator: Any
    probabilities_N: torch.Tensor
    bank: Views
    kept: Views | None
    ahead: ThreadPoolExecutor | None = None
    _next: dict[int, Future[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict, init=False, repr=False)

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
        if config.patch:
            unit = model.window_unit()
            if config.patch % unit or config.patch > model.side:
                near = min(model.side, max(unit, round(config.patch / unit) * unit))
                raise UsageError(
                    f"training.patch is {config.patch}; with pictures of {model.side} pixels and this encoder it is a multiple "
                    f"of {unit} up to {model.side}, such as {near}"
                )
        if accelerator.process_index == 0:
            _tell_idle("batch", config.batch, accelerator.num_processes)
            if config.head_first:
                _tell_idle("head_batch", config.head_batch, accelerator.num_processes)
        ahead = None if accelerator.device.type == "cpu" else ThreadPoolExecutor(1, "next slices")
        return cls(slices, model, config, accelerator, probabilities_N, bank, kept, ahead)

    def generator(self, step: int) -> torch.Generator:
        """For all that a step draws, equal in all processes; what a method draws by itself, such as dropout, is fixed as
        well, for every process on its own."""
        common, own = self._seeds(step)
        torch.manual_seed(own + self.accelerator.process_index)
        return torch.Generator().manual_seed(common)

    def batch(self, step: int, head_only: bool) -> Batch:
        """Of a step. head_only: the head alone is trained, on encoded slices."""
        config, generator = self.config, self.generator(step)
        images = features = block = None
        if head_only:
            features, truth = self.encoded(generator)
        elif self.kept:
            features, truth = self.started(generator)
            block = self.kept.block
        else:
            images, truth = self.images(step)
        count = config.head_batch if head_only else config.batch
        windows = self.windows(step, count, truth) if config.patch else None
        return Batch(truth, count, images, features, block, windows)

    def _seeds(self, step: int) -> tuple[int, int]:
        common, own = map(int, np.random.SeedSequence([self.config.seed, step]).generate_state(2))
        return common, own

    def images(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What `drawn` gives for a step, perhaps drawn during the step before."""

        def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            return self.drawn(torch.Generator().manual_seed(self._seeds(step)[0]))

        waiting = self._next.pop(step, None)
        found = waiting.result() if waiting else draw(step)
        if self.ahead:
            self._next[step + 1] = self.ahead.submit(draw, step + 1)
        return found

    def drawn(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """images_B3HW on the device and channels_BHW."""
        index = self._index(generator)
        changes = torch.randint(2**62, index.shape, generator=generator)
        return self._share(self._augmented, list(zip(index.tolist(), changes.tolist(), strict=True)))

    def started(self, generator: torch.Generator) -> tuple[Features, torch.Tensor]:
        """What enters the first trained block for one of the `cached_views` of drawn slices, and channels_BHW."""
        assert self.kept is not None
        index = self._index(generator)
        view = torch.randint(self.config.cached_views, index.shape, generator=generator)
        return self._share(self.kept.get, (view * len(self.slices) + index).tolist())

    def encoded(self, generator: torch.Generator) -> tuple[Features, torch.Tensor]:
        """What the untouched encoder gives for `head_batch` of the bank, and channels_BHW; turned or mirrored, all alike, where
        the augmentation does that, so that a kept view is more than one."""
        numbers = torch.randint(len(self.bank.index), (self.config.head_batch,), generator=generator)
        features, truth = self._share(self.bank.get, numbers.tolist())
        symmetry = Symmetry.drawn(self.config.augmentation, generator)
        swapped = symmetry.on(truth)
        if symmetry.mirrors:
            swap = torch.as_tensor(self.model.labels.mirror_channels, dtype=truth.dtype)
            swapped = torch.where(swapped == IGNORE, swapped, swap[swapped.long().clamp_min(0)])
        return tuple(map(symmetry.on, features)), swapped

    def examples(self) -> Iterator[Features]:
        """What the untouched encoder gives for some views of the bank, one by one."""
        for number in range(min(_EXAMPLES, len(self.bank.index))):
            yield self.bank.get([number])[0]

    def windows(self, step: int, count: int, truth_BHW: torch.Tensor) -> list[Window]:
        """Of each slice of this process's share of `count`: where the part lies that `patch` asks for. Each is drawn for the
        slice's place in the batch, so that it is the same whoever takes it."""
        config, side, length = self.config, truth_BHW.shape[-1], self.config.patch or 0
        unit = self.model.window_unit()
        first = count * self.accelerator.process_index // self.accelerator.num_processes
        found = []
        for place, truth_HW in enumerate(truth_BHW.numpy(), first):
            random = np.random.default_rng([config.seed, step, place])
            corner = random.integers(0, (side - length) // unit + 1, size=2) * unit
            if random.random() < config.forced and (middle := _piece(truth_HW, self.model.labels.foreground, random)):
                # The piece's pixel lies anywhere in the part's inner three quarters.
                wanted = np.array(middle) - random.integers(length // 8, length - length // 8, size=2)
                # To whole cells, but so that the pixel stays inside.
                lowest, highest = -(-(np.array(middle) - length + 1) // unit) * unit, np.array(middle) // unit * unit
                corner = np.clip(np.clip(wanted // unit * unit, lowest, highest), 0, (side - length) // unit * unit)
            found.append((int(corner[0]), int(corner[1])))
        return found

    def _index(self, generator: torch.Generator) -> torch.Tensor:
        return torch.multinomial(self.probabilities_N, self.config.batch, replacement=True, generator=generator)

    def _share(
        self, get: Callable[[Sequence[Drawn]], tuple[Given, torch.Tensor]], batch: Sequence[Drawn]
    ) -> tuple[Given, torch.Tensor]:
        """What `get` gives for this process's part of a batch; without any it takes one that counts nowhere: all IGNORE,
        of which the loss and every gradient are zero."""
        mine = shares(batch, self.accelerator.num_processes)[self.accelerator.process_index]
        given, truth = get(mine or batch[:1])
        return given, truth if mine else torch.full_like(truth, IGNORE)

    def _augmented(self, drawn: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each pair the slice with that number, changed as that seed says."""
        pairs = []
        for index, seed in drawn:
            generator = torch.Generator().manual_seed(seed)
            pairs.append(augmented(self.slices, index, self.model.labels, self.config.augmentation, generator))
        images, truth = map(torch.cat, zip(*pairs, strict=True))
        return images.to(self.accelerator.device), truth


def suited_patch(truth: Truth, model: SemanticSam) -> int:
    """The `patch` for these slices where none is asked for: half of the side, to whole cells, where nine tenths of the pieces
    of the foreground are smaller than an eighth of the side; else 0, as without a background or for a head that does not
    read pictures.

    truth: of the slices, some of which are looked at."""
    from scipy.ndimage import find_objects, label

    if not model.labels.has_background or not model.head.reads_encoder_maps:
        return 0
    extents = []
    for index in np.linspace(0, len(truth) - 1, min(len(truth), _LOOKED_AT)).astype(int):
        pieces_HW, _ = label(np.isin(truth[index], model.labels.foreground), np.ones((3, 3)))
        extents += [max(s.stop - s.start for s in box) for box in find_objects(pieces_HW)]
    if not extents or np.quantile(extents, 0.9) > model.side / 8:
        return 0
    unit = model.window_unit()
    return max(unit, model.side // 2 // unit * unit)


def _piece(
    truth_HW: npt.NDArray[Any], foreground: Sequence[int], random: np.random.Generator
) -> tuple[int, int] | None:
    """A pixel of a connected piece of the foreground, large and small pieces alike; None without any."""
    from scipy.ndimage import label

    pieces_HW, number = label(np.isin(truth_HW, foreground), np.ones((3, 3)))
    if not number:
        return None
    rows, columns = np.nonzero(pieces_HW == 1 + random.integers(number))
    at = random.integers(len(rows))
    return int(rows[at]), int(columns[at])


def shares(batch: Sequence[Drawn], processes: int) -> list[Sequence[Drawn]]:
    """Neighbouring parts, one a process, whose sizes differ by one at most; empty ones when there is not enough."""
    bounds = [len(batch) * rank // processes for rank in range(processes + 1)]
    return [batch[start:end] for start, end in pairwise(bounds)]


def _tell_idle(name: str, count: int, processes: int) -> None:
    if count < processes:
        warnings.warn(
            f"training.{name} is {count} slices for {processes} processes, of which {processes - count} have nothing to do; "
            f"--training.{name} {processes} or more would use them all",
            stacklevel=3,
        )
