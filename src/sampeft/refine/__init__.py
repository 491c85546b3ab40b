"""Refiners by name: rough class map of a slice or a volume -> refined class map of the same grid.

Name -> refiner. A refiner is a frozen dataclass whose fields are its parameters; adding one is a file and a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sampeft.errors import UsageError, unknown_name
from sampeft.labels import LabelSet

Channels = npt.NDArray[np.uint8]
UNMEASURED = 255
"""Channel of pixels where nothing was measured: of no class, and what refines class maps gives or takes them none. What
refines slices sees the network's word on them, as of any pixel."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """One slice as a refiner sees it, all on the original grid.

    image_HWC: levels in 0..1, (H, W, 1) or (H, W, 3). probabilities_KHW: softmax, None where only a class map is known.
    channels_HW: rough class map, the argmax of the probabilities. spacing_mm: row, column; ones where unknown, so that
    millimetres are then pixels. prompt: prompt(boxes=[(x0, y0, x1, y1)], points=[[(x, y, inside)]]) -> mask logits
    (N, H, W) by the pretrained promptable model, whose encoding of the slice is shared by all calls.
    """

    image_HWC: npt.NDArray[np.float32]
    probabilities_KHW: npt.NDArray[np.float32] | None
    channels_HW: Channels
    labels: LabelSet
    spacing_mm: tuple[float, float]
    prompt: Callable[..., npt.NDArray[Any]] | None = None

    def __post_init__(self) -> None:
        size = self.channels_HW.shape
        if self.image_HWC.shape[:-1] != size:
            raise ValueError(f"image {self.image_HWC.shape} and class map {size} are not of one grid")
        if self.probabilities_KHW is not None and self.probabilities_KHW.shape != (len(self.labels), *size):
            raise ValueError(
                f"probabilities {self.probabilities_KHW.shape} are not of {len(self.labels)} classes on the grid {size}"
            )


@dataclass(frozen=True)
class Refiner:
    """Leaves everything as it is; what derives from it changes slices, or volumes, or both.

    name, about: how it is called and what it does. grid: parameter -> values to try when it is fitted on validation
    cases; the smallest effect comes first. limits: parameter -> lowest and highest value; choices: parameter -> words.
    Raises UsageError for a value out of its range.
    """

    name: ClassVar[str] = "none"
    about: ClassVar[str] = "leaves the class map as it is"
    needs_probabilities: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = False
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {}
    limits: ClassVar[dict[str, tuple[float, float]]] = {}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            if fault := self._fault(field.name, value, None if default is MISSING else default):
                raise UsageError(f"refiner {self.name}: {field.name} must be {fault}, got {value!r}")

    def _fault(self, parameter: str, value: Any, default: Any) -> str | None:
        """What the value must be, where it is not."""
        if parameter in self.choices:
            words = self.choices[parameter]
            return None if value in words else f"one of {', '.join(words)}"
        if isinstance(default, bool):
            return None if isinstance(value, bool) else "true or false"
        if parameter in self.limits:
            low, high = self.limits[parameter]
            whole = isinstance(default, int)
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else (int, float))
                or not low <= value <= high
            ):
                return f"a {'whole ' if whole else ''}number of {low:g}..{high:g}"
        return None

    @classmethod
    def looks_at_slices(cls) -> bool:
        """Whether it asks for images and what the network says of them; else a whole class map is enough."""
        return cls.refine_slice is not Refiner.refine_slice

    def refine_slice(self, evidence: Evidence) -> Channels:
        """(H, W) refined class channels of one slice."""
        return evidence.channels_HW

    def refine_volume(
        self, channels_SHW: Channels, spacing_mm: tuple[float, float, float], labels: LabelSet
    ) -> Channels:
        """(S, H, W) refined class channels of a whole volume, after its slices; spacing_mm: slice, row, column.

        Pixels may be UNMEASURED and stay so.
        """
        return channels_SHW

    def refine_measured(
        self,
        channels_SHW: Channels,
        missing_SHW: npt.NDArray[np.bool_] | None,
        spacing_mm: tuple[float, float, float],
        labels: LabelSet,
    ) -> Channels:
        """What `refine_volume` makes of the pixels that were measured; the others keep their channel, whatever it is."""
        if missing_SHW is None or not missing_SHW.any():
            return self.refine_volume(channels_SHW, spacing_mm, labels)
        measured = np.where(missing_SHW, np.uint8(UNMEASURED), channels_SHW)
        return np.where(missing_SHW, channels_SHW, self.refine_volume(measured, spacing_mm, labels))


# The refiners derive from what stands above, so they can only be imported below it.
from sampeft.refine.components import Components  # noqa: E402
from sampeft.refine.crf import Crf  # noqa: E402
from sampeft.refine.levelset import LevelSet  # noqa: E402
from sampeft.refine.outline_points import OutlinePoints  # noqa: E402

REFINERS: dict[str, type[Refiner]] = {kind.name: kind for kind in (Components, Crf, LevelSet, OutlinePoints)}


def refiner(name: str, **options: Any) -> Refiner:
    """The refiner of that name with its parameters; those not given keep their defaults.

    Raises UsageError for an unknown name or option, or a value out of range.
    """
    if name not in REFINERS:
        raise unknown_name("refiner", name, REFINERS)
    kind = REFINERS[name]
    known = {field.name for field in fields(kind)}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of refiner {name}", option, known)
    return kind(**options)
