"""How to train a denoiser, as asked; `training.denoiser` does it."""

from __future__ import annotations

from dataclasses import dataclass

from sampeft.errors import UsageError
from sampeft.options import MAX_BATCH, check_ranges, number


@dataclass(frozen=True)
class Denoising:
    """How to train a denoiser on images with synthetic noise.

    Args:
        noise: kind of noise; `sampeft info` lists them.
        low: lowest strength of the noise; each picture's is drawn uniformly between the two. Default: that of its
            kind.
        high: highest strength of the noise. Default: that of its kind.
        depth: layers of the network.
        width: channels of each layer.
        patch: side of a patch, in pixels.
        batch: batch size in patches.
        per_picture: patches drawn from one noisy picture; noise is made on whole pictures, as it is met later.
        lr: Adam's initial learning rate; it falls to 0 along half a cosine.
        validations: number of validations, at equal shares of the training; each saves the network if it is the
            best so far.
        pictures: largest number of slices kept in memory.
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
