"""Backbone, methods and number of classes in, exact parameter counts per part out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sampeft.backbones import RANDOM, load_backbone
from sampeft.errors import UsageError
from sampeft.labels import BACKGROUND, LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach, count_parameters
from sampeft.peft.state import trained_state


@dataclass(frozen=True)
class Config:
    """What to count.

    Args:
        backbone: promptable model.
        method: one method, or several joined by commas.
        options: options of the method.
        classes: foreground classes; the background is added.
        json: print one JSON object instead of a table.
    """

    backbone: str = "lite-medsam"
    method: str = "lora"
    options: dict[str, Any] = field(default_factory=dict)
    classes: int = 13
    json: bool = False


def count(config: Config, method: str) -> dict[str, Any]:
    """Counts of one method: part -> (parameters, trained), and the bytes of the tensors that a run saves."""
    names = (BACKGROUND, *(f"class {k}" for k in range(1, config.classes + 1)))
    model = SemanticSam(load_backbone(config.backbone, RANDOM), LabelSet(names, tuple(range(len(names)))))
    attached = attach(model, method, config.options)
    saved = sum(tensor.numel() * tensor.element_size() for tensor in trained_state(model).values())
    return {
        "backbone": config.backbone,
        "method": method,
        "options": attached.options,
        "classes": config.classes,
        "sites": len(attached.sites),
        "parts": {part: {"total": t, "trainable": r} for part, (t, r) in count_parameters(model).items()},
        "total": attached.total,
        "trainable": attached.trainable,
        "saved_bytes": saved,
    }


def run(config: Config) -> int:
    if config.classes < 1:
        raise UsageError(f"--classes must be at least 1, got {config.classes}")
    counts = [count(config, method.strip()) for method in config.method.split(",")]
    if config.json:
        print(json.dumps({"counts": counts}))
        return 0
    print(f"{config.backbone}, {config.classes} classes and background\n")
    print("| part | " + " | ".join(f"{c['method']} total | trained" for c in counts) + " |")
    print("|---|" + "---:|---:|" * len(counts))
    for part in counts[0]["parts"]:
        cells = " | ".join(f"{c['parts'][part]['total']:,} | {c['parts'][part]['trainable']:,}" for c in counts)
        print(f"| {part} | {cells} |")
    print("| **all** | " + " | ".join(f"**{c['total']:,}** | **{c['trainable']:,}**" for c in counts) + " |")
    for c in counts:
        print(f"\n{c['method']}: {c['sites']} sites, {c['saved_bytes'] / 2**20:.1f} MiB saved, options {c['options']}")
    return 0
