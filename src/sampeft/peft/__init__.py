"""Name -> parameter-efficient method: what it adds to or frees in a SemanticSam, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sampeft.errors import UsageError, unknown_name
from sampeft.model import SemanticSam
from sampeft.peft import decoder, lora


@dataclass(frozen=True)
class Method:
    """options: a frozen dataclass. attach: changes a model in place, returns the paths of the modules it touched."""

    options: type[Any]
    attach: Callable[[SemanticSam, Any], list[str]]


METHODS: dict[str, Method] = {
    "lora": Method(lora.LoraOptions, lora.attach),
    "decoder": Method(decoder.DecoderOptions, decoder.attach),
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
    """Attach a method by name. The model's output is the same as before; prompt and class head are trained whole.

    Raises UsageError for an unknown method or option.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    method = METHODS[name]
    known = {field.name for field in fields(method.options)}
    for key in options or {}:
        if key not in known:
            raise (
                unknown_name(f"option of {name}", key, known)
                if known
                else UsageError(f"{name} has no options, got {key}")
            )
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()}
    chosen = method.options(**given)
    sites = method.attach(model, chosen)
    model.keep_base()
    counts = count_parameters(model)
    return Attached(
        name, asdict(chosen), tuple(sites), sum(c[1] for c in counts.values()), sum(c[0] for c in counts.values())
    )


def count_parameters(model: SemanticSam) -> dict[str, tuple[int, int]]:
    """Part -> (parameters, trainable parameters). `added` holds what a method put in; the parts do not overlap."""
    parts: dict[str, str | tuple[str, ...]] = {
        "image encoder": "sam.vision_encoder.",
        "prompt encoder": ("sam.prompt_encoder.", "sam.shared_image_embedding."),
        "decoder transformer": "sam.mask_decoder.transformer.",
        "promptable mask head": "sam.mask_decoder.",
        "default prompt": "prompt.",
        "class head": "head.",
    }
    counts = dict.fromkeys([*parts, "added"], (0, 0))
    for name, parameter in model.named_parameters():
        part = "added" if "lora_" in name else next(p for p, prefix in parts.items() if name.startswith(prefix))
        total, trainable = counts[part]
        size = parameter.numel()
        counts[part] = (total + size, trainable + size * parameter.requires_grad)
    return counts
