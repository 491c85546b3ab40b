"""Processes that train together: their sums, what they must agree on; and one process that trains alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sampeft.errors import UsageError
from sampeft.provenance import differences
from sampeft.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class SingleProcess:
    """What batches and a step's gradients ask of accelerate's Accelerator, for who measures them. An Accelerator would join
    the processes of a launch, which only the training may do: they do not measure in step."""

    device: torch.device
    mixed_precision: str
    num_processes: int = 1
    process_index: int = 0

    def autocast(self) -> torch.autocast:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.mixed_precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def reduce(self, own: torch.Tensor, how: str) -> torch.Tensor:
        return own

    def backward(self, loss: torch.Tensor) -> None:
        torch.autograd.backward(loss)


def over_processes(accelerator: Any, own: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, with n times the gradient of a process's own part: data parallelism takes the mean of n
    gradients, which is then the gradient of the loss of the whole batch."""
    total: torch.Tensor = accelerator.reduce(own.detach(), "sum")
    processes: int = accelerator.num_processes
    return total + processes * (own - own.detach())


def agree(accelerator: Any, progress: float, stop: list[int]) -> tuple[float, int]:
    """The largest progress of all processes, and a signal that any of them was stopped by, or 0: all must leave the loop
    at the same step."""
    number = max(stop, default=0)
    if accelerator.num_processes == 1:
        return progress, number
    values = torch.tensor([progress, float(number)], device=accelerator.device)
    largest = accelerator.gather(values[None]).amax(dim=0)
    return float(largest[0]), int(largest[1])


def refuse_unequal(accelerator: Any, settings: Mapping[str, Any], resumed: Checkpoint | None) -> None:
    """Raises UsageError in every process when one was given other settings, data or weights than the first, goes on from
    another step, or cannot be trained by so many parts."""
    from accelerate.utils import DistributedType, gather_object

    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise UsageError(
            f"accelerate was set up for {accelerator.distributed_type.value}, which cuts the model into parts; sampeft trains "
            "so few weights that every process holds the model whole: leave --use_fsdp, --use_deepspeed or the like out"
        )
    if accelerator.num_processes == 1:
        return
    step = resumed.progress.step if resumed else None
    first, *others = gather_object([json.loads(json.dumps({"step to go on from": step, **settings}))])
    for rank, other in enumerate(others, 1):
        if changed := differences(first, other, lost=True):
            raise UsageError(
                f"process {rank} would not train what process 0 does: {'; '.join(changed)}; start all with the same command, "
                "data and weights, and with an --out that all machines see"
            )
