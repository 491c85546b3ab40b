"""Backbone, methods and number of classes in, exact parameter counts per part and the saved file's size out."""

from __future__ import annotations

import json
from typing import Any

from sampeft.backbones import backbone, sketch_backbone
from sampeft.configs.params import Config
from sampeft.labels import BACKGROUND, LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import METHODS, attach, count_parameters
from sampeft.peft.state import saved_bytes

PROMPTABLE = ("prompt encoder", "promptable mask head")
"""Parts that only points and boxes use."""


def count(config: Config, method: str, options: dict[str, Any]) -> dict[str, Any]:
    """Counts of one method: part -> parameters and trained ones, sums, and the bytes of the file that a run saves."""
    names = (BACKGROUND, *(f"class {k}" for k in range(1, config.classes + 1)))
    loaded = sketch_backbone(config.backbone)
    side = config.side or loaded.spec.native_side
    model = SemanticSam(loaded, LabelSet(names, tuple(range(len(names)))), side, config.head, config.head_options)
    attached = attach(model, method, options)
    parts = count_parameters(model)
    return {
        "backbone": config.backbone,
        "method": method,
        "options": attached.options,
        "classes": config.classes,
        "side": side,
        "sites": len(attached.sites),
        "parts": {part: {"total": t, "trainable": r} for part, (t, r) in parts.items()},
        "total": attached.total,
        "total_without_prompts": attached.total - sum(parts[part][0] for part in PROMPTABLE),
        "trainable": attached.trainable,
        "saved_bytes": saved_bytes(model),
    }


def run(config: Config) -> int:
    backbone(config.backbone)
    methods = list(METHODS) if config.method == "all" else [name.strip() for name in config.method.split(",")]
    counts = [count(config, method, _options_of(method, methods, config.options)) for method in methods]
    if config.json:
        print(json.dumps({"counts": counts}))
        return 0
    print(f"{config.backbone} at side {counts[0]['side']}, {config.classes} classes and background\n")
    if len(counts) == 1:
        print("\n".join(_parts_table(counts[0])))
    else:
        print("\n".join(_methods_table(counts)))
    print(f"\nPoints and boxes alone use: {', '.join(PROMPTABLE)}. A run saves what is trained and what a method adds.")
    return 0


def _options_of(method: str, methods: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Of several methods each takes the options that it has; of one an unknown option is the user's mistake."""
    if len(methods) == 1 or method not in METHODS:
        return options
    return {key: value for key, value in options.items() if key in METHODS[method].options.__dataclass_fields__}


def _parts_table(counted: dict[str, Any]) -> list[str]:
    rows = [f"| {part} | {c['total']:,} | {c['trainable']:,} |" for part, c in counted["parts"].items()]
    return [
        f"| {counted['method']} | parameters | trained |",
        "|---|---:|---:|",
        *rows,
        f"| **all** | **{counted['total']:,}** | **{counted['trainable']:,}** |",
        f"| all that runs without a prompt | {counted['total_without_prompts']:,} | {counted['trainable']:,} |",
        "",
        f"{counted['sites']} sites, file of {counted['saved_bytes']:,} bytes, options {counted['options']}",
    ]


def _methods_table(counts: list[dict[str, Any]]) -> list[str]:
    parts = ("image encoder", "decoder transformer", "default prompt", "class head", "added")
    head = " | ".join(f"{part}, trained" for part in parts)
    rows = [
        f"| {c['method']} | "
        + " | ".join(f"{c['parts'][part]['trainable']:,}" for part in parts)
        + f" | **{c['trainable']:,}** | {c['total']:,} | {c['total_without_prompts']:,} | {c['saved_bytes']:,} |"
        for c in counts
    ]
    return [
        f"| method | {head} | all trained | all | all without prompts | bytes saved |",
        "|---|" + "---:|" * (len(parts) + 4),
        *rows,
    ]
