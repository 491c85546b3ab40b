"""LoRA on chosen projections of every attention layer (the paper's section 3.3), and its relatives, by the `peft` library."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from sampeft.errors import UsageError
from sampeft.model import SemanticSam
from sampeft.options import number
from sampeft.peft.placement import Placement
from sampeft.peft.projections import split_fused
from sampeft.sites import TARGETS

ADAPTER = "default"
START = "start"
"""Names of a layer's paths in `peft`: the one that is trained, and the frozen one that takes PiSSA's start away."""


@dataclass(frozen=True)
class ProjectionOptions(Placement):
    """targets: linear layers, of q, k, v, proj (the attention's output) and mlp."""

    targets: tuple[str, ...] = ("q", "v")

    def __post_init__(self) -> None:
        super().__post_init__()
        if bad := [t for t in self.targets if t not in TARGETS]:
            raise UsageError(f"targets are of {', '.join(TARGETS)}; got {', '.join(bad)}")


@dataclass(frozen=True)
class LoraOptions(ProjectionOptions):
    """rank: width r of the added low-rank path. alpha: the path is scaled by alpha / rank; None: alpha = rank, so that
    the weight is W + B A as in the paper's eq. 3. dropout: before the path.
    """

    rank: int = number(4, 1, 4096)
    alpha: float | None = number(None, 0, above=True)
    dropout: float = number(0.0, 0, 1, below=True)

    def settings(self) -> dict[str, Any]:
        """In the words of `peft`'s LoraConfig."""
        alpha = self.rank if self.alpha is None else self.alpha
        return {"r": self.rank, "lora_alpha": alpha, "lora_dropout": self.dropout}


@dataclass(frozen=True)
class AdaLoraOptions(LoraOptions):
    """rank: mean rank that is left at the end; `start_rank` is that of every layer at the start.
    orthogonality: weight of the penalty that keeps the directions of a layer apart.
    """

    start_rank: int = number(8, 1, 4096)
    orthogonality: float = number(0.5, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_rank <= self.rank:
            raise UsageError(f"start_rank must be above rank ({self.rank}), got {self.start_rank}")


@dataclass(frozen=True)
class VeraOptions(ProjectionOptions):
    """rank: width of the random projections that all layers share; only two vectors a layer are trained."""

    rank: int = number(256, 1, 4096)


@dataclass(frozen=True)
class OftOptions(ProjectionOptions):
    """block: side of the orthogonal blocks that rotate a layer's input; it divides the widths of all backbones here."""

    block: int = number(16, 1, 4096)


@dataclass(frozen=True)
class LokrOptions(ProjectionOptions):
    """rank: of the second Kronecker factor. alpha: the path is scaled by alpha / rank; None: alpha = rank."""

    rank: int = number(4, 1, 4096)
    alpha: float | None = number(None, 0, above=True)


def inject(model: SemanticSam, options: ProjectionOptions, config: Callable[[list[str]], Any]) -> tuple[list[str], Any]:
    """Split fused projections and let `peft` attach to the chosen ones. Returns their paths and peft's tuner."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    sites = options.sites(model)
    paths = [path for site in sites for target in options.targets for path in site.linears(target)]
    tuner = None
    if sites and not paths:
        raise UsageError(f"none of the chosen blocks has a layer {', '.join(options.targets)}")
    if paths:
        split_fused(model.sam, [site for site in sites if {"q", "k", "v"} & set(options.targets)])
        made = config(paths)
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[made.peft_type](model.sam, made, adapter_name=ADAPTER)
        del model.sam.peft_config  # peft leaves its settings on the model; another method may follow
    return paths + options.free_decoder(model), tuner


def lora(model: SemanticSam, options: LoraOptions, **flags: Any) -> list[str]:
    """Low-rank paths, zero at the start. flags: of LoraConfig, such as `use_dora` and `use_rslora`."""
    from peft import LoraConfig

    return inject(model, options, lambda paths: LoraConfig(target_modules=paths, **options.settings(), **flags))[0]


def dora(model: SemanticSam, options: LoraOptions) -> list[str]:
    """LoRA on the directions of the weight's rows, whose lengths are trained apart."""
    return lora(model, options, use_dora=True)


def rslora(model: SemanticSam, options: LoraOptions) -> list[str]:
    """LoRA scaled by alpha / sqrt(rank)."""
    return lora(model, options, use_rslora=True)


def pissa(model: SemanticSam, options: LoraOptions) -> list[str]:
    """LoRA that starts at the weight's principal singular vectors.

    PiSSA as published puts the rest of the weight into the base. Here the base keeps its weight and a second, frozen path
    takes the start away again: W + B A - B0 A0, which is the same function and the same gradient, so that the base stays
    bit-equal and the method can be taken off.
    """
    from peft.tuners.lora import LoraLayer

    from peft import LoraConfig

    paths = lora(model, options)
    frozen = LoraConfig(**{**options.settings(), "lora_dropout": 0.0})
    for layer in [m for m in model.sam.modules() if isinstance(m, LoraLayer)]:
        weight = layer.get_base_layer().weight
        pretrained = weight.data
        layer.update_layer(START, options.rank, frozen.lora_alpha, config=frozen)
        if not pretrained.is_meta:
            layer.pissa_init(ADAPTER, "pissa")
            weight.data = pretrained
            layer.lora_A[START].weight.data.copy_(layer.lora_A[ADAPTER].weight.data)
            layer.lora_B[START].weight.data.copy_(-layer.lora_B[ADAPTER].weight.data)
        layer.set_adapter([ADAPTER, START])
        layer.lora_A[START].requires_grad_(False)
        layer.lora_B[START].requires_grad_(False)
    return paths


def adalora(model: SemanticSam, options: AdaLoraOptions) -> list[str]:
    """Singular-value paths whose ranks are shared out between layers by importance while training goes on."""
    from peft import AdaLoraConfig

    alpha = options.start_rank if options.alpha is None else options.alpha

    def config(paths: list[str]) -> Any:
        return AdaLoraConfig(
            init_r=options.start_rank,
            target_r=options.rank,
            lora_alpha=alpha,
            lora_dropout=options.dropout,
            orth_reg_weight=options.orthogonality,
            total_step=RankBudget.STEPS,
            tinit=int(RankBudget.STEPS * 0.35),  # the encoder's paths learn only after `head_first`
            tfinal=int(RankBudget.STEPS * 0.4),
            target_modules=paths,
        )

    paths, tuner = inject(model, options, config)
    if tuner is not None:
        model.regulator = RankBudget(tuner)
    return paths


class RankBudget:
    """AdaLoRA's part in a training: `peft`'s allocator, driven by the share of the run that is over."""

    STEPS = 1000
    _IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what the allocator remembers of every weight

    def __init__(self, tuner: Any) -> None:
        self.model, self.allocator = tuner.model, tuner.rankallocator
        self.weight = tuner.peft_config[ADAPTER].orth_reg_weight
        self.pattern: dict[str, Any] | None = None

    def penalty(self) -> torch.Tensor:
        """Mean distance of P P^T from the identity over all layers, for the directions P on either side, weighted."""
        off = []
        for name, p in self.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                gram = p @ p.T if "lora_A" in name else p.T @ p
                off.append(torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)))
        return cast(torch.Tensor, self.weight * torch.stack(off).mean())

    def update(self, progress: float) -> None:
        """Judge the importance of every rank by its gradient and zero those beyond the budget of this moment."""
        parameters = [p for n, p in self.model.named_parameters() if "lora_" in n and p.requires_grad]
        if any(p.grad is None for p in parameters):
            return
        allocator, step = self.allocator, int(progress * self.STEPS)
        last = self.STEPS - allocator.peft_config.tfinal
        if step < last:
            allocator.update_ipt(self.model)
            budget, due = allocator.budget_schedule(step)
            if due and budget < allocator.init_bgt:
                allocator.mask_to_budget(self.model, budget)
        elif self.pattern is None:
            allocator.update_ipt(self.model)
            self.pattern = allocator.mask_to_budget(self.model, allocator.target_bgt)
        else:
            allocator.mask_using_rank_pattern(self.model, self.pattern)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Importance of every weight so far, and the ranks once they are fixed."""
        remembered = {term: getattr(self.allocator, term) for term in self._IMPORTANCE}
        tensors = {f"{term}/{name}": t for term, named in remembered.items() for name, t in named.items()}
        return tensors, {"pattern": self.pattern}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        device = next(self.model.parameters()).device
        remembered: dict[str, dict[str, torch.Tensor]] = {term: {} for term in self._IMPORTANCE}
        for key, tensor in tensors.items():
            term, _, name = key.partition("/")
            remembered[term][name] = tensor.to(device)
        for term, named in remembered.items():
            setattr(self.allocator, term, named)
        if not isinstance(pattern := values["pattern"], dict | None):
            raise TypeError(f"pattern of ranks is {type(pattern).__name__}")
        self.pattern = pattern


def vera(model: SemanticSam, options: VeraOptions) -> list[str]:
    """Random projections that all layers share, drawn from a fixed seed; two scaling vectors a layer are trained."""
    from peft import VeraConfig

    with warnings.catch_warnings():
        # peft would rather save the projections; drawn on the CPU from one key they are the same everywhere.
        warnings.filterwarnings("ignore", message="Specified to not save vera_A")
        return inject(
            model, options, lambda paths: VeraConfig(r=options.rank, target_modules=paths, save_projection=False)
        )[0]


def oft(model: SemanticSam, options: OftOptions) -> list[str]:
    """Orthogonal rotation of a layer's input, in blocks."""
    from peft.tuners.oft import Linear

    from peft import OFTConfig

    paths, _ = inject(model, options, lambda paths: OFTConfig(oft_block_size=options.block, r=0, target_modules=paths))

    class RowwiseLinear(Linear):  # type: ignore[misc]
        """peft takes any 4-D input of an OFT layer for the image of a convolution; here it is rows on a grid."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = cast(torch.Tensor, super().forward(x.flatten(0, -2)))
            return rows.reshape(*x.shape[:-1], -1)

    for layer in model.sam.modules():
        if isinstance(layer, Linear):
            layer.__class__ = RowwiseLinear
    return paths


def lokr(model: SemanticSam, options: LokrOptions) -> list[str]:
    """A Kronecker product of two small matrices, the second of low rank."""
    from peft import LoKrConfig

    alpha = options.rank if options.alpha is None else options.alpha
    return inject(model, options, lambda paths: LoKrConfig(r=options.rank, alpha=alpha, target_modules=paths))[0]
