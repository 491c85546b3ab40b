"""Name -> parameter-efficient method: what it adds to or frees in a SemanticSam, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sampeft.model import Patch, SemanticSam
from sampeft.options import options_by_name
from sampeft.peft import adapter, lora, partial
from sampeft.peft.placement import Options, Placement


@dataclass(frozen=True)
class Method:
    """title: as its authors write it. options: a frozen dataclass. attach: changes a model in place, returns the paths of the
    modules it touched.

    A wrapper keeps the module that it wraps as `base_layer`, as `peft` does: by that name added weights are told from the
    base's.
    """

    title: str
    options: type[Options]
    attach: Callable[[SemanticSam, Any], list[str]]


METHODS: dict[str, Method] = {
    "lora": Method("LoRA", lora.LoraOptions, lora.lora),
    "dora": Method("DoRA", lora.LoraOptions, lora.dora),
    "rslora": Method("rsLoRA", lora.LoraOptions, lora.rslora),
    "pissa": Method("PiSSA", lora.LoraOptions, lora.pissa),
    "adalora": Method("AdaLoRA", lora.AdaLoraOptions, lora.adalora),
    "vera": Method("VeRA", lora.VeraOptions, lora.vera),
    "oft": Method("OFT", lora.OftOptions, lora.oft),
    "lokr": Method("LoKr", lora.LokrOptions, lora.lokr),
    "adapter": Method("Adapter", adapter.AdapterOptions, adapter.adapter),
    "adaptformer": Method("AdaptFormer", adapter.AdaptFormerOptions, adapter.adaptformer),
    "houlsby": Method("Houlsby adapter", adapter.HoulsbyOptions, adapter.houlsby),
    "bitfit": Method("BitFit", Placement, partial.bitfit),
    "decoder": Method("decoder only", Options, partial.decoder),
    "full": Method("full fine-tuning", Options, partial.full),
}


@dataclass(frozen=True)
class Attached:
    """A method on a model: its name, its options in full, the modules it touched, parameters trained and in all."""

    method: str
    options: dict[str, Any]
    sites: tuple[str, ...]
    trainable: int
    total: int


def attach(model: SemanticSam, name: str, options: Mapping[str, Any] | None = None) -> Attached:
    """Attach a method by name. The model's output is the same as before; prompt and class head are trained whole, unless
    options say otherwise. With the backbone `none` these are all there is.

    Raises UsageError for an unknown method or option.
    """
    chosen = options_by_name(METHODS, "method", name, options)
    method = METHODS[name]
    before = dict(model.sam.named_modules())
    sites = method.attach(model, chosen) if model.spec.is_sam else []
    if model.prompt is not None:
        model.prompt.requires_grad_(chosen.prompt)
    model.head.requires_grad_(chosen.head)
    if model.prompt is not None and model.head.tokens is None:  # the mask decoder does not run
        model.sam.mask_decoder.requires_grad_(False)
        model.prompt.requires_grad_(False)
    model.patch = Patch.between(before, model.sam)
    model.patch.values = {
        name: parameter.detach().clone()
        for name, parameter in model.sam.named_parameters()
        if parameter.requires_grad and not model.is_added(f"sam.{name}")
    }
    counts = count_parameters(model)
    return Attached(
        name, asdict(chosen), tuple(sites), sum(c[1] for c in counts.values()), sum(c[0] for c in counts.values())
    )


def count_parameters(model: SemanticSam) -> dict[str, tuple[int, int]]:
    """Part -> (parameters, trained ones). `added` is what a method put into the base; the parts do not overlap.

    The promptable head and the prompt encoder are kept for points and boxes; without a prompt they do not run.
    """
    own = model.spec.family.PARTS
    parts = {
        "image encoder": _below("sam.", own.encoder),
        "prompt encoder": _below("sam.", own.prompts),
        "decoder transformer": _below("sam.", own.decoder),
        "promptable mask head": _below("sam.", own.mask_head),
        "default prompt": ("prompt.",),
        "class head": ("head.",),
    }
    counts = dict.fromkeys([*parts, "added"], (0, 0))
    for name, parameter in model.named_parameters():
        part = (
            "added"
            if model.is_added(name)
            else next(p for p, prefixes in parts.items() if f"{name}.".startswith(prefixes))
        )
        total, trainable = counts[part]
        size = parameter.numel()
        counts[part] = (total + size, trainable + size * parameter.requires_grad)
    return counts


def _below(root: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{root}{path}." for path in paths)
