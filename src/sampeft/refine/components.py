"""Remove small components and fill holes.

A component is what touches, corners included: 26 neighbours in a volume, 8 in a picture. The background then hangs
together by faces only, 6 or 4 neighbours, so that inside and outside cannot cross. A volume of one slice is a picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sampeft.errors import UsageError, unknown_name
from sampeft.labels import LabelSet
from sampeft.refine import UNMEASURED, Channels, Refiner

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Components(Refiner):
    """Keeps the components of each class that are large enough and fills holes.

    keep: `all` components of a class, or only its `largest` (measured in pixels; of equal ones the first).
    least_size: smaller components go; mm3 in a volume, mm2 in a picture, pixels where the spacing is unknown (ones).
    least_sizes: name of a class -> its own least size, in place of `least_size`.
    fill_holes: background that the faces of one class alone enclose becomes that class; a hole that touches a second
    class or the edge of the array stays, and no other class is ever eaten. Done after the removal.

    What is removed becomes background; of a label map without background it takes the class of the nearest pixel kept,
    and stays where none is kept. Where nothing was measured the array ends, as at its edge.
    """

    name: ClassVar[str] = "components"
    about: ClassVar[str] = "keeps each class's largest component or those above a size, and fills holes"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "fill_holes": (False, True),
        "keep": ("all", "largest"),
        "least_size": (0.0, 20.0, 100.0, 500.0, 2000.0, 8000.0),
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {"least_size": (0.0, 1e9)}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"keep": ("all", "largest")}

    keep: str = "all"
    least_size: float = 0.0
    fill_holes: bool = True
    least_sizes: dict[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, size in self.least_sizes.items():
            if isinstance(size, bool) or not isinstance(size, int | float) or not 0 <= size <= 1e9:
                raise UsageError(
                    f"refiner {self.name}: least_sizes of {name} must be a number of 0..1e+09, got {size!r}"
                )

    def refine_volume(
        self, channels_SHW: Channels, spacing_mm: tuple[float, float, float], labels: LabelSet
    ) -> Channels:
        """(S, H, W) -> the same with other values. A picture has S = 1 and its areas count."""
        if channels_SHW.shape[0] == 1:
            return self._refined(channels_SHW[0], float(np.prod(spacing_mm[1:])), spacing_mm[1:], labels)[None]
        return self._refined(channels_SHW, float(np.prod(spacing_mm)), spacing_mm, labels)

    def _refined(
        self, channels: Channels, pixel_size: float, spacing_mm: tuple[float, ...], labels: LabelSet
    ) -> Channels:
        removed = self._removed(channels, pixel_size, labels)
        result = channels.copy()
        if removed is not None and removed.any():
            if labels.has_background:
                result[removed] = 0
            else:
                _take_nearest(result, removed, spacing_mm)
        if self.fill_holes and labels.has_background:
            _fill_holes(result)
        return result

    def _removed(self, channels: Channels, pixel_size: float, labels: LabelSet) -> Mask | None:
        """Pixels of the components that do not stay; None where every component does."""
        least = np.full(256, self.least_size)
        for name, size in self.least_sizes.items():
            if name not in labels.names:
                raise unknown_name("class in least_sizes", name, labels.names)
            least[labels.names.index(name)] = size
        if self.keep == "all" and least.max() <= pixel_size:
            return None
        from skimage.measure import label

        # No class; one pass then numbers the components of all classes.
        ground = 0 if labels.has_background else UNMEASURED
        numbers, count = label(channels, background=ground, connectivity=channels.ndim, return_num=True)
        sizes = np.bincount(numbers.ravel(), minlength=count + 1)
        classes = np.zeros(count + 1, dtype=np.uint8)
        if self.keep == "largest" or self.least_sizes:
            classes[numbers] = channels
        stays = sizes * pixel_size >= least[classes]
        if self.keep == "largest":
            order = np.lexsort((np.arange(count + 1), -sizes, classes))
            order = order[order != 0]  # number 0 is the background
            first = np.ones(len(order), dtype=bool)
            first[1:] = classes[order[1:]] != classes[order[:-1]]
            stays[order[~first]] = False
        stays[0] = True
        removed: Mask = ~stays[numbers] & (channels != UNMEASURED)
        return removed


def _take_nearest(channels: Channels, removed: Mask, spacing_mm: tuple[float, ...]) -> None:
    """Give removed pixels the class of the nearest kept one, in place."""
    from scipy.ndimage import distance_transform_edt

    unknown = removed | (channels == UNMEASURED)
    if unknown.all():
        return
    nearest = distance_transform_edt(unknown, sampling=spacing_mm, return_distances=False, return_indices=True)
    channels[removed] = channels[tuple(axis[removed] for axis in nearest)]


def _fill_holes(channels: Channels) -> None:
    """Fill components of the background (0) whose face neighbours are all of one class, in place."""
    from scipy.ndimage import find_objects, label

    box = find_objects((channels != 0).astype(np.int8))
    if not box:
        return
    inner = channels[box[0]]
    numbers, count = label(inner == 0)
    open_ones = np.zeros(count + 1, dtype=bool)
    open_ones[0] = True
    for axis in range(inner.ndim):
        # A hole lies strictly inside the box: beyond its faces is background, or the end of the array.
        open_ones[np.unique(np.take(numbers, [0, -1], axis=axis))] = True
    if open_ones.all():
        return
    lowest = np.full(count + 1, 255, dtype=np.uint8)
    highest = np.zeros(count + 1, dtype=np.uint8)
    at = np.flatnonzero(~open_ones[numbers])
    steps = [int(np.prod(inner.shape[axis + 1 :])) for axis in range(inner.ndim)]
    flat, owners = inner.ravel(), numbers.ravel()[at]
    for step in [s * sign for s in steps for sign in (-1, 1)]:
        classes = flat[at + step]
        beside = classes != 0
        np.minimum.at(lowest, owners[beside], classes[beside])
        np.maximum.at(highest, owners[beside], classes[beside])
    fillable = ~open_ones & (lowest == highest) & (highest != UNMEASURED)
    holes = fillable[numbers]
    inner[holes] = highest[numbers[holes]]
