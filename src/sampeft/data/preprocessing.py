"""Preprocessing: volume -> network input, slice by slice; training and prediction share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sampeft.data.intensity import Intensity, Levels, measure, nodata_value, not_measured, select_bands
from sampeft.data.slices import PICTURE, PLANES, Frame, SliceView
from sampeft.data.values import Seen, examine, warn
from sampeft.denoise import Denoise, Denoiser
from sampeft.errors import DataError, UsageError, unknown_name
from sampeft.options import check_ranges, number, read_options
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
    denoise: what each slice goes through on the file's own grid, after the intensity recipe and before it is scaled.
    seen: what the run was trained on, so that an image of another kind is told of; it changes no pixel.
    """

    intensity: Intensity
    side: int = number(low=1, high=1 << 13)
    plane: str = "auto"
    context: Literal["repeat", "neighbours"] = "repeat"
    context_mm: float | None = None
    denoise: Denoise | None = None
    seen: Seen | None = None

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.plane not in PLANES:
            raise unknown_name("slice plane", self.plane, PLANES)
        if self.context not in ("repeat", "neighbours"):
            raise UsageError(f"unknown context '{self.context}'; known: repeat, neighbours")
        if self.context_mm is not None and (self.context == "repeat" or self.context_mm <= 0):
            raise UsageError(
                f"context_mm is {self.context_mm:g}; it is a distance above 0 and goes with the context 'neighbours'"
            )

    def as_shown(self, stack: bool) -> Preparation:
        """The same for an array of a picture, or of a `stack` of slices, which are looked at as they are."""
        seen = replace(self.seen, planes=()) if self.seen and stack else self.seen
        return replace(self, plane="axial" if stack else self.plane, seen=seen)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; without a denoiser and what was seen as older versions wrote and read it."""
        content = asdict(self)
        return {key: value for key, value in content.items() if value is not None or key not in ("denoise", "seen")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], folder: Path | None = None) -> Preparation:
        """What `to_json` gave; keys that an older version did not write take their defaults.

        folder: of the run, where the weights of a denoiser are looked for first.
        """
        made: Preparation = read_options(cls, content, "the stored preparation")
        return replace(made, denoise=made.denoise.found(folder)) if made.denoise else made


@dataclass(frozen=True)
class PreparedVolume:
    """A file as upright slices with its levels and frame worked out.

    slices: (S, H, W) or (S, H, W, 3) stored values of the bands that are looked at. reach: how many slices away the
    neighbours are that the first and the third channel show; None: the slice is repeated. noise: (levels (C, H, W) of
    the box, slice) -> the same with noise, before the denoiser; for measuring how much noise a model bears. warnings: what
    is odd about the file, in words.
    """

    volume: Volume
    view: SliceView
    slices: npt.NDArray[Any]
    levels: Levels
    frame: Frame
    reach: int | None = None
    denoiser: Denoiser | None = None
    noise: Callable[[torch.Tensor, int], torch.Tensor] | None = None
    warnings: tuple[str, ...] = ()
    _kept: dict[int, torch.Tensor] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    def of(cls, volume: Volume, preparation: Preparation, quiet: bool = False) -> PreparedVolume:
        """Raises DataError when the bands or the context do not fit the volume, or no pixel has a value.

        quiet: do not warn of odd values.
        """
        recipe = preparation.intensity
        view = SliceView.of(volume, preparation.plane)
        slices = view.slices(select_bands(volume, recipe.bands))
        warnings = (
            () if quiet else (*examine(volume, recipe, preparation.seen), *_other_plane(volume, view, preparation))
        )
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
        frame = Frame((height, width), levels.box, preparation.side)
        denoiser = preparation.denoise.build() if preparation.denoise else None
        return cls(volume, view, slices, levels, frame, reach, denoiser, warnings=warnings)

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def missing(self) -> npt.NDArray[np.bool_] | None:
        """(S, H, W) where the file says that nothing was measured; None where it says so of no pixel."""
        missing = not_measured(self.volume)
        return None if missing is None else self.view.slices(missing)

    def compact(self, index: int) -> torch.Tensor:
        """(C, side, side) in 0..1; C is 1 where the three channels that the network sees are the same."""
        import torch

        shown = [index]
        if self.reach:
            shown = [max(index - self.reach, 0), index, min(index + self.reach, len(self) - 1)]
        return self.frame.scaled(torch.cat([self._shown(s) for s in shown]))

    def _shown(self, index: int) -> torch.Tensor:
        """What `box_levels` gives; where neighbours would be denoised three times, the last slices are kept."""
        if not (self.denoiser and self.reach):
            return self.box_levels(index)
        if index not in self._kept:
            if len(self._kept) > 2 * self.reach:
                del self._kept[next(iter(self._kept))]
            self._kept[index] = self.box_levels(index)
        return self._kept[index]

    def box_levels(self, index: int) -> torch.Tensor:
        """(C, box height, box width) in 0..1 on the file's own grid: the slice by its recipe, with the noise that is
        asked for, denoised."""
        import torch

        top, left, bottom, right = self.frame.box
        levels = torch.from_numpy(self.levels.compact(self.slices[index][top:bottom, left:right]))
        if self.noise:
            levels = self.noise(levels, index)
        return self.denoiser(levels) if self.denoiser else levels

    def with_noise(self, name: str, strength: float, seed: int) -> PreparedVolume:
        """The same volume seen through synthetic noise (see `sampeft.data.noise`), other in each slice."""
        from sampeft.data.noise import noise, noisy

        noise(name, strength)  # a wrong name is told now
        return replace(self, noise=lambda levels, s: noisy(levels[None], name, strength, seed + s)[0])

    def image(self, index: int) -> torch.Tensor:
        """(3, side, side) in 0..1: the slice, or it between its neighbours."""
        return self.compact(index).expand(3, -1, -1).contiguous()


def _other_plane(volume: Volume, view: SliceView, preparation: Preparation) -> tuple[str, ...]:
    """A warning, which is given, too, of an image that asks for another plane than all that the run was trained on."""
    planes, own = preparation.seen.planes if preparation.seen else (), SliceView.of(volume)
    is_volume = own.plane != PICTURE and planes != (PICTURE,)
    if not planes or own.plane in planes or (is_volume and view.spacing_mm[0] >= 0.99 * own.spacing_mm[0]):
        return ()
    what = "picture" if own.plane == PICTURE else f"volume of {own.plane} slices, {own.spacing_mm[0]:.3g} mm apart"
    trained = " and ".join("pictures" if plane == PICTURE else f"{plane} slices" for plane in planes)
    how = f"; it is looked at in {view.plane} ones" if own.plane != view.plane else "; look at the result with care"
    warn([text := f"{volume.path}: is a {what}, but the run was trained on {trained}{how}"])
    return (text,)
