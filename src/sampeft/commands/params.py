"""Count parameters per part, and the size of the saved file, for a backbone, methods and a number of classes."""

from __future__ import annotations

import json
from typing import Any

from sampeft.backbones import backbone
from sampeft.configs.params import Config
from sampeft.peft import METHODS
from sampeft.workflows.params import PROMPTABLE, count


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
