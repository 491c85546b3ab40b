"""List what is installed and known: versions, devices, weights, and what each name means."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from typing import Any

from sampeft.backbones import BACKBONES
from sampeft.configs.info import Config
from sampeft.data import DATASETS
from sampeft.data.intensity import PRESETS
from sampeft.data.noise import NOISES
from sampeft.denoise import DENOISERS
from sampeft.errors import WeightsError
from sampeft.heads import HEADS
from sampeft.losses import LOSSES
from sampeft.metrics import counted
from sampeft.oracle.protocols import ORACLE_PROTOCOLS
from sampeft.peft import METHODS
from sampeft.provenance import versions
from sampeft.refine import REFINERS
from sampeft.store import cache_folder
from sampeft.training.setup import precision_for


def gather() -> dict[str, Any]:
    import torch

    def weights(name: str) -> str:
        if not BACKBONES[name].is_sam:
            return "needs none: the control without a Segment Anything model"
        try:
            return str(BACKBONES[name].find_weights())
        except WeightsError:
            return f"missing; {BACKBONES[name].where}"

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "versions": versions(),
        "devices": {
            "cpu_threads": torch.get_num_threads(),
            "cpu_count": os.cpu_count(),
            "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "training_precision": {"no": "fp32"}.get(found := precision_for(device, "auto"), found),
        },
        "cache": str(cache_folder()),
        "backbones": {
            name: {"weights": weights(name), "native_side": b.native_side, "side": b.side}
            for name, b in BACKBONES.items()
        },
        "methods": {name: f"{first_sentence(m.attach.__doc__)} {options_of(m.options)}" for name, m in METHODS.items()},
        "heads": {name: f"{first_sentence(h.build.__doc__)} {options_of(h.options)}" for name, h in HEADS.items()},
        "losses": list(LOSSES),
        "layouts": {name: first_sentence(getattr(layout, "__doc__", "")) for name, layout in DATASETS.items()},
        "intensity": {name: asdict(recipe) for name, recipe in PRESETS.items()},
        "noises": {name: first_paragraph(kind.__doc__) for name, kind in NOISES.items()},
        "denoisers": {name: f"{first_sentence(d.__doc__)} {options_of(d)}" for name, d in DENOISERS.items()},
        "refiners": {name: f"{kind.about} {options_of(kind)}" for name, kind in REFINERS.items()},
        "oracle protocols": {name: protocol.about for name, protocol in ORACLE_PROTOCOLS.items()},
        "metrics": {name: first_sentence(metric.__doc__) for name, metric in counted().items()},
    }


def first_paragraph(text: str | None) -> str:
    """Of a docstring, on one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split()).removesuffix(".")


def first_sentence(text: str | None) -> str:
    return first_paragraph(text).partition(". ")[0]


def options_of(kind: type[Any]) -> str:
    """`[rank, alpha]` of a dataclass."""
    return f"[{', '.join(option.name for option in fields(kind))}]"


def run(config: Config) -> int:
    found = gather()
    if config.json:
        print(json.dumps(found))
        return 0
    for title, content in found.items():
        if not isinstance(content, dict):
            print(f"{title}: {', '.join(content) if isinstance(content, list) else content}")
            continue
        print(f"{title}:")
        for name, value in content.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            if isinstance(value, dict):
                shown = ", ".join(f"{k} {v}" for k, v in value.items())
            print(f"  {name:<20}{shown}")
    return 0
