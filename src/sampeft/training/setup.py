"""Model, optimizer and batches made ready for the first step, or for the step after a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from sampeft.data.slice_cache import Slices
from sampeft.model import SemanticSam
from sampeft.training.averaging import Average
from sampeft.training.batches import Batches
from sampeft.training.checkpoint import Checkpoint, TrainState
from sampeft.training.processes import refuse_unequal
from sampeft.training.settings import Training
from sampeft.training.step import TrainStep


@dataclass(frozen=True)
class Setup:
    """head_first: share of the training in which the head alone is trained. circumstances: see `Checkpoint`."""

    accelerator: Any
    step: TrainStep
    state: TrainState
    batches: Batches
    head_first: float
    circumstances: dict[str, Any]

    @classmethod
    def of(
        cls,
        model: SemanticSam,
        slices: Slices,
        config: Training,
        out: Path,
        settings: Mapping[str, Any],
        resumed: Checkpoint | None,
    ) -> Setup:
        """Joins the processes that train together. For the arguments see `fit`."""
        # Without anything to train behind the encoder there is no head to train first.
        head_first = config.head_first if trains_head(model) else 0.0
        accelerator = _accelerator(config, head_first > 0, out)
        if config.recompute:
            model.recompute_blocks()
        if config.compile:
            model.compile_encoder()
        refuse_unequal(accelerator, settings, resumed)
        wrapped, optimizer = accelerator.prepare(model, optimizer_of(model, config))
        state = TrainState(model, optimizer, Average(model, config.ema), accelerator.scaler)
        if resumed:
            state.restore(resumed)
            resumed.tensors.clear()  # up to four times the trained weights
        batches = Batches.of(slices, model, config, accelerator, settings.get("start_from") or "")
        step = TrainStep(model, config, accelerator, wrapped)
        return cls(accelerator, step, state, batches, head_first, _circumstances(accelerator))


def precision_for(device: torch.device, asked: str) -> str:
    """accelerate's name of the precision; `auto`: bf16 where the hardware multiplies it, else full precision."""
    if asked != "auto":
        return {"fp32": "no"}.get(asked, asked)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "no"
    return "no"


def trains_head(model: SemanticSam) -> bool:
    """Whether anything behind the encoder is trained."""
    return any(p.requires_grad and not n.startswith("sam.vision_encoder.") for n, p in model.named_parameters())


def optimizer_of(model: SemanticSam, config: Training) -> torch.optim.AdamW:
    """What is new in the model, and the pretrained weights that a method frees, which learn at a smaller rate. share, of
    each group: of the learning rate."""
    new: dict[str, Any] = {"params": [], "share": 1.0}
    base: dict[str, Any] = {"params": [], "share": config.base_lr}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            of_base = name.startswith("sam.") and not model.is_added(name)
            (base if of_base else new)["params"].append(parameter)
    groups = [group for group in (new, base) if group["params"]]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def _accelerator(config: Training, finds_unused: bool, out: Path) -> Any:
    """finds_unused: whether in some steps a trained weight gets no gradient, as the encoder's while the head is trained
    first."""
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, set_seed

    set_seed(config.seed)
    only_cpu = not torch.accelerator.is_available()  # accelerate joins CPU processes only when it is told
    # One machine may still prepare its slices while another waits: longer than the library's ten minutes.
    process = PartialState(cpu=only_cpu, timeout=timedelta(hours=2))
    AcceleratorState._reset_state()  # it would keep the precision of an earlier training in this process
    return Accelerator(
        cpu=only_cpu,
        mixed_precision=precision_for(process.device, config.precision),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=finds_unused)],
        log_with=list(config.trackers) or None,
        project_config=ProjectConfiguration(str(out), str(out / "logs")),
    )


def _circumstances(accelerator: Any) -> dict[str, Any]:
    return {
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
