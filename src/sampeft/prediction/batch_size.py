"""Choose the batch size from free memory; turn out-of-memory into a readable error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from sampeft.errors import SampeftError, UsageError
from sampeft.options import Batch as Batch

_MOST = {"cpu": 4, "cuda": 16}  # more gain nothing: measured on the CPU, where one slice already keeps all cores busy
_SHARE = 0.5  # of the free memory
_MAPS = 4  # times the largest input and output of a layer: what else of a slice lives at the same moment


class BatchSize:
    """now: slices at a time. With `auto` it is 1 until a slice has been `measured`, then what the free memory allows."""

    def __init__(self, batch: Batch) -> None:
        if batch != "auto" and batch < 1:
            raise UsageError(f"--batch is {batch}; give 1 or more slices at a time, or auto")
        self.open = batch == "auto"
        self.now = 1 if batch == "auto" else int(batch)

    @contextmanager
    def measured(self, model: torch.nn.Module, slices: int) -> Iterator[None]:
        """Within this block the model is run on so many slices; the largest layer then decides."""
        if not self.open:
            yield
            return
        largest = 0

        def look(_: torch.nn.Module, given: Any, made: Any) -> None:
            nonlocal largest
            largest = max(largest, _bytes(given) + _bytes(made))

        with ExitStack() as stack:
            for module in model.modules():
                if next(module.children(), None) is None:
                    stack.callback(module.register_forward_hook(look).remove)
            yield
        device = next(model.parameters()).device
        wanted = _MAPS * max(largest, 1) // slices
        self.now = int(min(max(_SHARE * free_bytes(device) // wanted, 1), _MOST.get(device.type, 4)))
        self.open = False


def free_bytes(device: torch.device) -> int:
    """Free memory of a device: of the graphics card, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # type: ignore[import-untyped]

    return int(psutil.virtual_memory().available)


@contextmanager
def memory_in_words(slices: int) -> Iterator[None]:
    """Running out of memory within this block becomes a SampeftError that names the option."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        out = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not out:
            raise
        if slices > 1:
            raise SampeftError(
                f"out of memory with {slices} slices at a time; give a smaller --batch, such as {slices // 2}"
            ) from None
        raise SampeftError(
            "out of memory with --batch 1, one slice at a time; stop other programs, or use a run of a smaller --side"
        ) from None


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0
