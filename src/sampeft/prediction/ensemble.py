"""Several runs over one loaded base -> one network: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sampeft.backbones import RANDOM
from sampeft.engines import Engine
from sampeft.errors import UsageError
from sampeft.model import SemanticSam


def mean_logits(of_runs: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """Logits (B, K, h, w) of each run -> logits whose softmax is the mean of the runs' probabilities; where their grids differ,
    on the picture's of `side` pixels."""
    if len({logits.shape[-1] for logits in of_runs}) > 1:
        of_runs = [F.interpolate(m, (side, side), mode="bilinear", align_corners=False) for m in of_runs]
    logs = torch.stack([logits.float().log_softmax(dim=1) for logits in of_runs])
    return torch.logsumexp(logs, dim=0)  # less the same constant everywhere


class Ensemble(nn.Module):
    """image_B3HW -> logits of the mean of several models' probabilities. The models share one base: memory of one."""

    def __init__(self, models: Sequence[SemanticSam]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        first = models[0]
        self.labels, self.side, self.spec, self.loaded = first.labels, first.side, first.spec, first.loaded
        self.least_share = mean(model.least_share for model in models)

    @property
    def sam(self) -> Any:
        """The shared base."""
        return self.loaded.sam

    @property
    def mean(self) -> torch.Tensor:
        """Where the models are."""
        mean: torch.Tensor = self.models[0].mean  # type: ignore[assignment]
        return mean

    def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        return mean_logits([model(image_B3HW) for model in self.models], self.side)

    def segment_prompted(self, *_: Any, **__: Any) -> torch.Tensor:
        """Raises UsageError: a prompt is answered by one model."""
        raise UsageError("several runs together cannot be prompted; give one run")


class EnsembleEngine:
    """The same by an engine for each run."""

    def __init__(self, engines: Sequence[Engine], side: int) -> None:
        self.engines, self.side, self.name = engines, side, engines[0].name

    def __call__(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        return mean_logits([engine(images_B3HW) for engine in self.engines], self.side)


def joined(
    names: Sequence[str], descriptions: Sequence[dict[str, Any]], make: Callable[[], Sequence[SemanticSam]]
) -> tuple[dict[str, Any], Callable[[], Ensemble]]:
    """(what describes the runs together, what makes their network). Raises UsageError where they were not trained for the
    same classes on pictures prepared alike, or not on the same backbone."""
    first = descriptions[0]
    for name, other in zip(names[1:], descriptions[1:], strict=True):
        # Random weights have no digest; their seed stands for one.
        seeded = ("seed",) if first["weights_sha256"] == RANDOM else ()
        for key in ("label_map", "preparation", "backbone", "weights_sha256", *seeded):
            if other[key] != first[key]:
                raise UsageError(
                    f"{names[0]} and {name} differ in {key.replace('_', ' ')} ({_short(first[key])}; {_short(other[key])}): "
                    "only runs of the same classes, preparation and backbone can be averaged"
                )
    symmetries = min(description.get("symmetries", 1) for description in descriptions)
    together = {
        **first,
        "symmetries": symmetries,
        "least_share": mean(description.get("least_share", 0.0) for description in descriptions),
        "ensemble": [str(name) for name in names],
    }
    return together, lambda: Ensemble(make())


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
