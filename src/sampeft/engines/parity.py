"""Compare two engines of one model: how far their logits and class maps differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

Run = Callable[[torch.Tensor], torch.Tensor]
LEAST_AGREEMENT = {"f32": 0.999, "bf16": 0.99, "int8": 0.99}
"""Precision -> share of pixels in which two class maps must be the same."""
MOST_DIFFERENCE = 0.01
"""Most that logits may differ by at f32, in standard deviations of the logits."""
_TIE = (
    1e-6  # of the largest logit: closer than this, rounding alone decides, as between the equal classes of a new head
)


@dataclass(frozen=True)
class Parity:
    """How well an engine computes what its model does.

    difference: largest absolute difference of two logits. spread: standard deviation of the model's logits.
    agreement: share of pixels of the same class; a pixel where the model itself has two equally high logits agrees with
    either. dsc: Dice of both maps for each class that either holds. images: how many were looked at.
    """

    difference: float
    spread: float
    agreement: float
    dsc: dict[int, float]
    images: int

    @classmethod
    def between(cls, reference: Run, other: Run, side: int, images: Sequence[torch.Tensor] = ()) -> Parity:
        """images: (3, side, side) in 0..1 each; none: three made ones, smooth and coarse."""
        shown = list(images) or list(pictures(side))
        difference, agreeing, pixels = 0.0, 0, 0
        sums = torch.zeros(3, dtype=torch.float64)
        both: dict[int, int] = {}
        either: dict[int, int] = {}
        for image in shown:
            wanted, found = reference(image[None]), other(image[None])
            difference = max(difference, float((wanted - found).abs().max()))
            exact = wanted.double()
            sums += torch.tensor([exact.numel(), exact.sum(), exact.square().sum()], dtype=torch.float64)
            a, b = wanted.argmax(dim=1), found.argmax(dim=1)
            best, chosen = wanted.amax(dim=1), wanted.gather(1, b[:, None])[:, 0]
            agreeing += int((best - chosen <= _TIE * wanted.abs().max()).sum())
            pixels += a.numel()
            for k in {*a.flatten().tolist(), *b.flatten().tolist()}:
                both[k] = both.get(k, 0) + int(((a == k) & (b == k)).sum())
                either[k] = either.get(k, 0) + int((a == k).sum() + (b == k).sum())
        count, total, squares = sums.tolist()
        spread = max(squares / count - (total / count) ** 2, 0.0) ** 0.5
        dsc = {k: 2 * both[k] / either[k] for k in sorted(either)}
        return cls(difference, spread, agreeing / pixels, dsc, len(shown))

    def passes(self, precision: str = "f32") -> bool:
        """Whether this is the same model to within what the precision is known to cost."""
        # An untrained head gives nearly the same everywhere, so that there is no spread to measure by.
        close = precision != "f32" or self.difference <= MOST_DIFFERENCE * max(self.spread, 1e-3)
        return close and self.agreement >= LEAST_AGREEMENT[precision]

    def __str__(self) -> str:
        return (
            f"largest logit difference {self.difference:.2g}, spread of the logits {self.spread:.3g}, class maps agree in "
            f"{self.agreement:.4%} of the pixels of {self.images} image{'s' * (self.images != 1)}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "dsc": {str(k): v for k, v in self.dsc.items()}}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Parity:
        dsc = {int(k): float(v) for k, v in content["dsc"].items()}
        return cls(content["difference"], content["spread"], content["agreement"], dsc, content["images"])


def pictures(side: int) -> list[torch.Tensor]:
    """Three made images (3, side, side) in 0..1, the same at every call: large, middle and fine structures."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for cells in (4, 16, side):
        coarse = torch.rand(1, 3, cells, cells, generator=generator)
        made.append(F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)[0])
    return made
