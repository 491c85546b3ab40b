"""How slices are changed while a model is trained, as asked; `augment` does it."""

from __future__ import annotations

from dataclasses import dataclass

from sampeft.errors import UsageError, unknown_name
from sampeft.options import check_ranges, number


@dataclass(frozen=True)
class Augmentation:
    """How slices are changed while training, each amount drawn uniformly for each slice; 0 switches one off.

    Args:
        shift: largest shift each way, as a share of the side.
        scale: largest zoom: the factor is drawn from 1 - scale to 1 + scale.
        rotation_deg: largest rotation each way, in degrees.
        contrast: largest change of contrast about mid-grey: a factor from 1 - contrast to 1 + contrast.
        brightness: largest brightness added or taken away, as a share of the full range.
        gamma: largest change of gamma: an exponent from exp(-gamma) to exp(gamma).
        noise: largest standard deviation of Gaussian noise, as a share of the full range.
        elastic: largest local displacement of an elastic deformation, as a share of the side, smooth between a grid
            of 5 x 5 points.
        inverted_gamma: probability that gamma acts on the negative instead, which changes bright tones where it
            otherwise changes dark ones.
        blur: largest standard deviation of a Gaussian blur, in thousandths of the side; applied to half of the
            slices.
        low_resolution: largest factor by which a slice is downsampled and enlarged again, such as 2; applied to
            half of the slices; 1 switches it off.
        copy_paste: probability that pieces of the foreground of another slice are pasted into this one, each at a
            random place and with its brightness adapted to that place; for targets that lie anywhere, not for
            organs.
        mirror: probability of a left-right flip, with the ids of left/right pairs swapped; organs without a pair
            (the liver) still change sides.
        unchanged: probability that a slice stays as it is, apart from `noises`. A model that never sees slices as
            users have them, without black corners and shifted tones, can do worse on these than on changed ones.
        noises: kinds of noise, such as [gaussian,speckle]; `sampeft info` lists them. One is added to the image
            after all else. Default: none.
        noise_probability: probability that a slice gets one of `noises`.
        noise_strength: lowest and highest strength of `noises`, such as [0.02,0.2]. Default: those of each kind.
    """

    shift: float = number(0.06, 0, 1)
    scale: float = number(0.15, 0, 1, below=True)
    rotation_deg: float = number(15.0, 0, 180)
    contrast: float = number(0.2, 0, 1)
    brightness: float = number(0.08, 0, 1)
    gamma: float = number(0.2, 0, 10)
    noise: float = number(0.03, 0, 1)
    elastic: float = number(0.0, 0, 1)
    inverted_gamma: float = number(0.0, 0, 1)
    blur: float = number(0.0, 0, 1000)
    low_resolution: float = number(1.0, 1, 64)
    copy_paste: float = number(0.0, 0, 1)
    mirror: float = number(0.0, 0, 1)
    unchanged: float = number(0.25, 0, 1)
    noises: tuple[str, ...] = ()
    noise_probability: float = number(0.5, 0, 1)
    noise_strength: tuple[float, float] | None = number(None, 0)

    def __post_init__(self) -> None:
        if self.noises:
            from sampeft.data.noise import NOISES

            for name in self.noises:
                if name not in NOISES:
                    raise unknown_name("noise", name, NOISES)
        check_ranges(self, "training.augmentation.")
        if self.noise_strength is not None and self.noise_strength[0] > self.noise_strength[1]:
            low, high = self.noise_strength
            raise UsageError(f"training.augmentation.noise_strength goes from low to high, got {low:g} to {high:g}")
