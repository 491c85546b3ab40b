"""What each process of a training holds in; what all of them hold together out, or an error where they must agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from sampeft.errors import UsageError
from sampeft.provenance import differences
from sampeft.training.checkpoint import Checkpoint


def over_processes(accelerator: Any, own: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, with n times the gradient of a process's own part: data parallelism takes the mean of n
    gradients, which is then the gradient of the loss of the whole batch."""
    total: torch.Tensor = accelerator.reduce(own.detach(), "sum")
    processes: int = accelerator.num_processes
    return total + processes * (own - own.detach())


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
    step = resumed.position.step if resumed else None
    first, *others = gather_object([json.loads(json.dumps({"step to go on from": step, **settings}))])
    for rank, other in enumerate(others, 1):
        if changed := differences(first, other, lost=True):
            raise UsageError(
                f"process {rank} would not train what process 0 does: {'; '.join(changed)}; start all with the same command, "
                "data and weights, and with an --out that all machines see"
            )
