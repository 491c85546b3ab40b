"""Count the bytes that a process holds on a device, and those that a backward pass needs, while a step runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

_LOOK_EVERY = 16  # saved tensors between two looks at how much memory the process holds


@dataclass
class Place:
    """Where bytes are counted: the GPU by torch's own count, the machine by what the process holds, looked at on the way."""

    device: torch.device
    process: Any
    start: int = 0
    most: int = 0
    looks: int = 0

    def begin(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.start = torch.cuda.memory_allocated(self.device)
        elif not self.start:
            self.start = self.process.memory_info().rss

    def look(self, always: bool = False) -> None:
        self.looks += 1
        if self.device.type != "cuda" and (always or self.looks % _LOOK_EVERY == 0):
            self.most = max(self.most, self.process.memory_info().rss)

    def growth(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.start
        self.look(always=True)
        return max(0, self.most - self.start)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def gpu_room(self) -> int:
        if self.device.type != "cuda":
            return 0
        return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)


@dataclass
class Saved:
    """Counts each storage once that the backward pass needs and that is no weight. StorageWeakRef tells storages apart even
    after they are gone, when another may lie at the same address."""

    ignored: frozenset[int]
    place: Place
    keep: bool
    bytes: int = 0
    seen: set[Any] = field(default_factory=set)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor | None:
        from torch.multiprocessing.reductions import StorageWeakRef

        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        if storage.data_ptr() not in self.ignored and reference not in self.seen:
            self.seen.add(reference)
            self.bytes += storage.nbytes()
        self.place.look()
        return tensor if self.keep else None

    def unpack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.place.look()
        return tensor
