"""What a training says of its model in adapter.json, without a training."""

from __future__ import annotations

from typing import Any

from sampeft.data.intensity import Intensity
from sampeft.data.preprocessing import Preparation
from sampeft.model import SemanticSam


def description_of(
    model: SemanticSam, method: str, options: dict[str, Any] | None = None, **other: Any
) -> dict[str, Any]:
    """Of a model with random weights of seed 7, as `make_tiny` gives; other: keys beside the necessary ones."""
    return {
        "backbone": model.spec.name,
        "weights_sha256": model.digest,
        "seed": 7,
        "method": method,
        "options": options or {},
        "label_map": model.labels.to_json(),
        "preparation": Preparation(Intensity("window", 0, 255), model.side).to_json(),
        **other,
    }
