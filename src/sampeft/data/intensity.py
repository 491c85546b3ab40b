"""Volume -> grey or colour levels in 0..1 and the box that holds the body; the recipe is stored with the trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sampeft.errors import unknown_name
from sampeft.volume import Volume

Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Intensity:
    """How stored values become 0..1, and what part of a slice is looked at.

    kind `window`: `low`..`high` in stored units (HU for CT). kind `percentile`: `low`..`high` are percentiles of the
    pixels of the body (crop `body`) or of all pixels that are not zero, per file.
    crop: `body` cuts every file to the box of its largest bright object, `none` looks at the whole slice.
    """

    kind: Literal["window", "percentile"]
    low: float
    high: float
    crop: Literal["body", "none"] = "none"


PRESETS: dict[str, Intensity] = {
    "ct-abdomen": Intensity("window", -160.0, 240.0, crop="body"),  # HU
    "ct-8bit": Intensity("percentile", 2.0, 98.0, crop="body"),  # CT exported as pictures, HU lost
    "percentile": Intensity("percentile", 0.5, 99.5),
    "8bit": Intensity("window", 0.0, 255.0),
}

_AIR_HU = -300.0  # between lung or room air and fat


def preset(name: str) -> Intensity:
    if name not in PRESETS:
        raise unknown_name("intensity recipe", name, PRESETS)
    return PRESETS[name]


def choose(volume: Volume, modality: str = "") -> tuple[str, Intensity]:
    """The preset that fits an image, by its values and the data set's own word on modality."""
    if not volume.is_raster:
        name = "ct-abdomen" if float(volume.array.min()) <= -200 else "percentile"
    elif volume.array.dtype == np.uint8:
        name = "ct-8bit" if modality.upper().startswith("CT") else "8bit"
    else:
        name = "percentile"
    return name, PRESETS[name]


@dataclass(frozen=True)
class Levels:
    """The recipe worked out for one file: stored values low..high become 0..1; box is (top, left, bottom, right)."""

    low: float
    high: float
    box: Box

    def apply(self, slice_HWC: Array) -> npt.NDArray[np.float32]:
        """(H, W) or (H, W, 3) stored values -> (3, H, W) in 0..1."""
        scaled = np.clip((slice_HWC.astype(np.float32) - self.low) / max(self.high - self.low, 1e-6), 0.0, 1.0)
        channels = scaled[None].repeat(3, axis=0) if scaled.ndim == 2 else np.moveaxis(scaled, -1, 0)
        return np.ascontiguousarray(channels, dtype=np.float32)


def measure(recipe: Intensity, slices: Array) -> Levels:
    """Work out a recipe for the slices (S, H, W) or (S, H, W, 3) of one file; every 8th slice of a long one is read."""
    sample = slices[:: max(1, len(slices) // 24)]
    grey = sample if sample.ndim == 3 else sample.mean(axis=-1)
    height, width = slices.shape[1:3]
    box: Box = (0, 0, height, width)
    low, high = recipe.low, recipe.high
    inside = grey != 0
    if recipe.crop == "body":
        # Air is far below -300 HU; in a picture without HU the histogram's own gap separates it from the body.
        threshold = _AIR_HU if recipe.kind == "window" else _gap(grey)
        inside = np.stack([largest_object(slice_HW > threshold) for slice_HW in grey])
        box = bounding_box(np.asarray(inside.any(axis=0)), margin=max(2, width // 64))
    if recipe.kind == "percentile":
        values = grey[inside]
        if values.size:
            low, high = (float(v) for v in np.percentile(values, (recipe.low, recipe.high)))
        else:
            low, high = float(grey.min()), float(grey.max())
    return Levels(low, high, box)


def _gap(grey: Array) -> float:
    """Level between air and body. The lowest level is left out: scanners pad with it outside their field of view."""
    from skimage.filters import threshold_otsu

    inside = grey[grey > grey.min()]
    return float(threshold_otsu(inside)) if inside.size and inside.min() < inside.max() else float(grey.min())


def largest_object(mask_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest connected object after thin parts (a scanner's table) are cut off; empty if there is none."""
    from scipy import ndimage

    opened = ndimage.binary_opening(mask_HW, iterations=max(1, min(mask_HW.shape) // 128))
    objects, count = ndimage.label(opened)
    if count == 0:
        return np.asarray(mask_HW, dtype=bool)
    sizes = np.bincount(objects.ravel())
    sizes[0] = 0
    return np.asarray(objects == sizes.argmax())


def bounding_box(mask_HW: npt.NDArray[np.bool_], margin: int) -> Box:
    """(top, left, bottom, right), half open, with a margin in pixels; the whole slice when the mask is empty or tiny."""
    height, width = mask_HW.shape
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if len(rows) < height // 8 or len(columns) < width // 8:
        return 0, 0, height, width
    return (
        max(0, int(rows[0]) - margin),
        max(0, int(columns[0]) - margin),
        min(height, int(rows[-1]) + 1 + margin),
        min(width, int(columns[-1]) + 1 + margin),
    )
