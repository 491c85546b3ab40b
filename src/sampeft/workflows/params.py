"""Count the parameters of a backbone with a method."""

from __future__ import annotations

from typing import Any

from sampeft.backbones import sketch_backbone
from sampeft.configs.params import Config
from sampeft.labels import BACKGROUND, LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach, count_parameters
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
