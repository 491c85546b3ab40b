"""Volume and preparation in, network input slice by slice out; training and prediction take this one path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sampeft.data.intensity import Intensity, Levels, examine, measure, nodata_value, select_bands
from sampeft.data.slices import Frame, SliceView
from sampeft.errors import DataError, UsageError
from sampeft.volume import Volume

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preparation:
    """What turns a file into network input; stored with the model and used again at prediction.

    side: pixels of the square. plane: see `SliceView.of`. context: what the three input channels of a grey slice hold:
    `repeat` the slice three times, `neighbours` the slice before it, itself and the slice after it.
    context_mm: how far the neighbours are away; the nearest slices are taken, in a stack of thick slices perhaps the
    slice itself. None: the next slices, at any spacing. Beyond the ends of a volume its last slice is repeated.
    """

    intensity: Intensity
    side: int
    plane: str = "auto"
    context: Literal["repeat", "neighbours"] = "repeat"
    context_mm: float | None = None

    def __post_init__(self) -> None:
        if self.context not in ("repeat", "neighbours"):
            raise UsageError(f"unknown context '{self.context}'; known: repeat, neighbours")
        if self.context_mm is not None and (self.context == "repeat" or self.context_mm <= 0):
            raise UsageError(
                f"context_mm is {self.context_mm:g}; it is a distance above 0 and goes with the context 'neighbours'"
            )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Preparation:
        """What `dataclasses.asdict` gave; keys that an older version did not write take their defaults."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(content.keys() - known):
            raise DataError(f"the stored preparation has unknown keys {', '.join(unknown)}; update sampeft to read it")
        return cls(**{**content, "intensity": Intensity(**content["intensity"])})


@dataclass(frozen=True)
class PreparedVolume:
    """A file as upright slices with its levels and frame worked out.

    slices: (S, H, W) or (S, H, W, 3) stored values of the bands that are looked at. reach: how many slices away the
    neighbours are that the first and the third channel show; None: the slice is repeated.
    """

    volume: Volume
    view: SliceView
    slices: npt.NDArray[Any]
    levels: Levels
    frame: Frame
    reach: int | None = None

    @classmethod
    def of(cls, volume: Volume, preparation: Preparation, quiet: bool = False) -> PreparedVolume:
        """Raises DataError when the bands or the context do not fit the volume, or no pixel has a value.

        quiet: do not warn of odd values.
        """
        recipe = preparation.intensity
        view = SliceView.of(volume, preparation.plane)
        slices = view.slices(select_bands(volume, recipe.bands))
        if not quiet:
            examine(volume, recipe)
        reach = None
        if preparation.context == "neighbours":
            if slices.ndim == 4:
                raise DataError(
                    f"{volume.path}: has colours, but the context 'neighbours' puts slices of a grey volume into the "
                    "three channels; use the context 'repeat', or choose one band"
                )
            wanted = preparation.context_mm
            reach = 1 if wanted is None else math.floor(wanted / view.spacing_mm[0] + 0.5)
        levels = measure(recipe, slices, nodata_value(volume))
        height, width = slices.shape[1:3]
        return cls(volume, view, slices, levels, Frame((height, width), levels.box, preparation.side), reach)

    def __len__(self) -> int:
        return len(self.slices)

    def compact(self, index: int) -> torch.Tensor:
        """(C, side, side) in 0..1; C is 1 where the three channels that the network sees are the same."""
        import torch

        top, left, bottom, right = self.frame.box
        shown = [index]
        if self.reach:
            shown = [max(index - self.reach, 0), index, min(index + self.reach, len(self) - 1)]
        levels = [self.levels.compact(self.slices[s][top:bottom, left:right]) for s in shown]
        return self.frame.scaled(torch.from_numpy(np.concatenate(levels) if self.reach else levels[0]))

    def image(self, index: int) -> torch.Tensor:
        """(3, side, side) in 0..1: the slice, or it between its neighbours."""
        return self.compact(index).expand(3, -1, -1).contiguous()
