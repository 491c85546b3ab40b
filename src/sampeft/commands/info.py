"""Nothing in, what is installed and known out: versions, devices, weights, backbones, methods, layouts, recipes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from sampeft.backbones import BACKBONES
from sampeft.commands.train import versions
from sampeft.data import DATASETS
from sampeft.data.intensity import PRESETS
from sampeft.errors import WeightsError
from sampeft.folders import cache_folder
from sampeft.metrics.overlap import METRICS
from sampeft.peft import METHODS
from sampeft.training import precision_for


@dataclass(frozen=True)
class Config:
    """How to tell.

    Args:
        json: print one JSON object on stdout.
    """

    json: bool = False


def gather() -> dict[str, Any]:
    import torch

    def weights(name: str) -> str:
        try:
            return str(BACKBONES[name].find_weights())
        except WeightsError:
            return f"missing; {BACKBONES[name].where}"

    def first_line(text: str | None) -> str:
        return (text or "").splitlines()[0] if text else ""

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
        "methods": {
            name: f"{first_line(m.attach.__doc__)} [{', '.join(m.options.__dataclass_fields__)}]"
            for name, m in METHODS.items()
        },
        "layouts": {name: first_line(getattr(layout, "__doc__", "")) for name, layout in DATASETS.items()},
        "intensity": {name: asdict(recipe) for name, recipe in PRESETS.items()},
        "metrics": {name: first_line(metric.__doc__) for name, metric in METRICS.items()},
    }


def run(config: Config) -> int:
    found = gather()
    if config.json:
        print(json.dumps(found))
        return 0
    for title, content in found.items():
        if not isinstance(content, dict):
            print(f"{title}: {content}")
            continue
        print(f"{title}:")
        for name, value in content.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            if isinstance(value, dict):
                shown = ", ".join(f"{k} {v}" for k, v in value.items())
            print(f"  {name:<20}{shown}")
    return 0
