"""How to train a denoiser, as asked; `training` does it."""

from __future__ import annotations

from dataclasses import dataclass

from sampeft.errors import UsageError
from sampeft.options import MAX_BATCH, check_ranges, number


@dataclass(frozen=True)
class Denoising:
    """How to train a denoiser on images with synthetic noise.

    Args:
        noise: kind of noise; `sampeft info` lists them.
        low: lowest strength of the noise, which is drawn uniformly for each picture; nothing: the kind's usual one.
        high: highest strength of the noise; nothing: the kind's usual one.
        depth: layers of the network.
        width: channels of each layer.
        patch: pixels of the side of a patch.
        batch: patches in a step.
        per_picture: how many of them come from one picture: noise is made on whole pictures, as it is met later.
        lr: Adam's learning rate at the start; it falls to 0 as half a cosine.
        validations: how often the network is tried and the best is saved, at equal shares of the training.
        pictures: slices that are kept in memory at most.
    """

    noise: str = "gaussian"
    low: float | None = number(None, 0)
    high: float | None = number(None, 0)
    depth: int = number(8, 2, 64)
    width: int = number(32, 1, 1024)
    patch: int = number(48, 1, 1024)
    batch: int = number(8, 1, MAX_BATCH)
    per_picture: int = number(4, 1, MAX_BATCH)
    lr: float = number(2e-3, 0, 10, above=True)
    validations: int = number(10, 1, 100_000)
    pictures: int = number(256, 1, 1_000_000)

    def __post_init__(self) -> None:
        check_ranges(self, "denoising.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise UsageError(f"strengths of noise go from low to high, got {self.low:g} to {self.high:g}")
