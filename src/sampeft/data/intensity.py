"""Volume -> grey or colour levels in 0..1 and the box that holds the body; the recipe is stored with the trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError, UsageError, counted, unknown_name
from sampeft.volume import Volume

Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Intensity:
    """How stored values become 0..1, and what part of a slice is looked at.

    kind `window`: `low`..`high` in stored units (HU for CT). kind `percentile`: `low`..`high` are percentiles of the
    pixels of the body (crop `body`) or of all pixels that are not zero, per file, and per band where bands are chosen;
    0 and 100 are the minimum and the maximum. Pixels that are no numbers or have the file's no-data value count in no
    statistics and become 0.
    crop: `body` cuts every file to the box of its largest bright object, `none` looks at the whole slice.
    bands: the one or three channels of a multi-band image that are looked at, counted from 1 as GDAL does, in the
    order red, green, blue; None: the image's own, one or three.
    """

    kind: Literal["window", "percentile"]
    low: float
    high: float
    crop: Literal["body", "none"] = "none"
    bands: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("window", "percentile") or self.crop not in ("body", "none"):
            raise UsageError(
                f"intensity is of the kind '{self.kind}' with the crop '{self.crop}'; known are window and percentile, body "
                "and none"
            )
        least, most = (0.0, 100.0) if self.kind == "percentile" else (-np.inf, np.inf)
        if not (least <= self.low < self.high <= most and np.isfinite(self.high - self.low)):
            within = " within 0..100" if self.kind == "percentile" else ""
            raise UsageError(
                f"intensity is {self.kind} {self.low:g}..{self.high:g}; give two numbers{within}, the lower one first"
            )
        if self.bands is not None:
            object.__setattr__(self, "bands", tuple(self.bands))  # JSON has lists
            if len(self.bands) not in (1, 3) or min(self.bands) < 1:
                raise UsageError(f"bands are {self.bands}; give one or three, counted from 1, such as 3,2,1")

    def __str__(self) -> str:
        unit = {"window": "", "percentile": " %"}[self.kind]
        bands = f", bands {','.join(map(str, self.bands))}" if self.bands else ""
        return f"{self.kind} {self.low:g}..{self.high:g}{unit}, crop {self.crop}{bands}"


PRESETS: dict[str, Intensity] = {
    "ct-abdomen": Intensity("window", -160.0, 240.0, crop="body"),  # HU, as all of ct- but ct-8bit
    "ct-liver": Intensity("window", -45.0, 105.0, crop="body"),
    "ct-soft-tissue": Intensity("window", -125.0, 225.0, crop="body"),
    "ct-lung": Intensity("window", -1350.0, 150.0, crop="body"),
    "ct-bone": Intensity("window", -500.0, 1300.0, crop="body"),
    "ct-brain": Intensity("window", 0.0, 80.0, crop="body"),
    "ct-wide": Intensity("window", -1000.0, 1000.0, crop="body"),
    "ct-8bit": Intensity("percentile", 2.0, 98.0, crop="body"),  # CT exported as pictures, HU lost
    "mr": Intensity("percentile", 0.5, 99.5),
    "percentile": Intensity("percentile", 0.5, 99.5),
    "minmax": Intensity("percentile", 0.0, 100.0),
    "infrared": Intensity("percentile", 0.0, 100.0),  # a target is a few of the brightest pixels: nothing is cut off
    "8bit": Intensity("window", 0.0, 255.0),
    "16bit": Intensity("window", 0.0, 65535.0),
}

_CT_WORDS = {"ct-lung": ("lung", "chest", "thorax"), "ct-brain": ("brain", "head"), "ct-bone": ("bone", "spine")}
NO_NUMBERS = "NaN, infinite or beyond 1e30"
"""What floating values are that measure nothing."""
_LARGEST = 1e30
_AIR_HU = -300.0  # between lung or room air and fat
_CT_BELOW_HU = -200.0  # only CT holds such values


def preset(name: str, bands: str | None = None) -> Intensity:
    """The recipe of that name; bands: `3,2,1`, counted from 1. Raises UsageError for an unknown name or no numbers."""
    if name not in PRESETS:
        raise unknown_name("intensity recipe", name, PRESETS)
    return with_bands(PRESETS[name], bands)


def with_bands(recipe: Intensity, bands: str | None) -> Intensity:
    """The recipe for these bands, `3,2,1`, counted from 1; unchanged for None. Raises UsageError for anything else."""
    if bands is None:
        return recipe
    try:
        return replace(recipe, bands=tuple(int(band) for band in bands.split(",")))
    except ValueError:
        raise UsageError(f"bands are '{bands}'; give one or three numbers, counted from 1, such as 3,2,1") from None


def choose(volume: Volume, modality: str = "") -> tuple[str, Intensity]:
    """The preset that fits an image, by its values and the data set's own word on modality.

    Of an image with two bands the first is looked at, of one with four or more the first three; the recipe says so.
    """
    words = modality.lower()
    if not volume.is_raster:
        if extremes(volume.array, nodata_value(volume))[0] <= _CT_BELOW_HU and not words.startswith("mr"):
            name = next((n for n, known in _CT_WORDS.items() if any(w in words for w in known)), "ct-abdomen")
        else:
            name = "mr" if words.startswith("mr") else "percentile"
    elif volume.array.dtype == np.uint8:
        name = "ct-8bit" if words.startswith("ct") else "8bit"
    else:
        name = "infrared" if words.startswith(("infrared", "ir", "thermal")) else "percentile"
    count = volume.array.shape[3] if volume.array.ndim == 4 else 1
    if count in (1, 3):
        return name, PRESETS[name]
    return name, replace(PRESETS[name], bands=(1, 2, 3) if count > 3 else (1,))


def select_bands(volume: Volume, bands: Sequence[int] | None) -> Array:
    """(I, J, K) or (I, J, K, 3) of the bands, counted from 1; None: of an image with one or three channels, all.

    Raises DataError when the image has not these bands, or has others than one or three and none are chosen.
    """
    array = volume.array
    count = array.shape[3] if array.ndim == 4 else 1
    if bands is None:
        if count == 1:
            return array[..., 0] if array.ndim == 4 else array
        if count == 3:
            return array
        raise DataError(
            f"{volume.path}: has {count} bands, a model looks at one or three; `sampeft check` and `train` choose them with "
            "--bands, such as 3,2,1"
        )
    if max(bands) > count:
        raise DataError(
            f"{volume.path}: has {counted(count, 'band')}, but the recipe looks at bands "
            f"{','.join(map(str, bands))}; give an image with these bands, or train with others (--bands)"
        )
    if array.ndim == 3:
        return array if len(bands) == 1 else array[..., None].repeat(3, axis=3)
    return array[..., bands[0] - 1] if len(bands) == 1 else array[..., [band - 1 for band in bands]]


def nodata_value(volume: Volume) -> float | None:
    """The value that the file declares to mean `no data`, as GeoTIFF can; None for all others."""
    value = getattr(volume.header, "nodata", None)
    return None if value is None else float(value)


def not_measured(volume: Volume) -> npt.NDArray[np.bool_] | None:
    """(I, J, K) where the file says that no band has a value, as GeoTIFF can; None for all others."""
    missing: npt.NDArray[np.bool_] | None = getattr(volume.header, "missing", None)
    return missing


def without_value(array: Array, nodata: float | None) -> npt.NDArray[np.bool_]:
    """Where an array holds no measurement, or has the no-data value; of its own shape."""
    missing = _no_number(array) if array.dtype.kind == "f" else np.zeros(array.shape, dtype=bool)
    if nodata is not None and np.isfinite(nodata):
        missing |= array == nodata
    return missing


def _no_number(array: Array) -> npt.NDArray[np.bool_]:
    """Where a floating array is NaN, infinite, or as large as no measurement is, only fill values such as -3.4e38."""
    return ~((array > -_LARGEST) & (array < _LARGEST))


def extremes(array: Array, nodata: float | None = None) -> tuple[float, float]:
    """Lowest and highest value, pixels without a value left out; NaN when there is none."""
    if array.dtype.kind == "f" or nodata is not None:
        array = array[~without_value(array, nodata)]
    return (float(array.min()), float(array.max())) if array.size else (np.nan, np.nan)


def count_no_numbers(volume: Volume) -> int:
    """How many values are `NO_NUMBERS`, those aside that the file declares as no data.

    Raises DataError when no pixel has a value.
    """
    nodata, missing = nodata_value(volume), not_measured(volume)
    if volume.array.dtype.kind != "f" and nodata is None and missing is None:
        return 0
    if without_value(volume.array, nodata).all() or (missing is not None and missing.all()):
        raise DataError(f"{volume.path}: no pixel has a value (all are {NO_NUMBERS}, or no data); leave the file out")
    if volume.array.dtype.kind != "f":
        return 0
    wrong = _no_number(volume.array)
    if nodata is not None:
        wrong &= ~np.isnan(volume.array) if np.isnan(nodata) else volume.array != nodata
    if missing is not None:
        wrong &= ~(missing if wrong.ndim == 3 else missing[..., None])
    return int(wrong.sum())


@dataclass(frozen=True)
class Levels:
    """The recipe worked out for one file: stored values low..high (of each band, where there are three of them) become
    0..1; box is (top, left, bottom, right)."""

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]
    box: Box
    nodata: float | None = None

    def apply(self, slice_HWC: Array) -> npt.NDArray[np.float32]:
        """(H, W) or (H, W, 3) stored values -> (3, H, W) in 0..1; pixels without a value become 0."""
        channels = self.compact(slice_HWC)
        return channels if len(channels) == 3 else channels.repeat(3, axis=0)

    def compact(self, slice_HWC: Array) -> npt.NDArray[np.float32]:
        """What `apply` gives, but (1, H, W) for a grey slice."""
        low, high = np.asarray(self.low, dtype=np.float32), np.asarray(self.high, dtype=np.float32)
        scaled = slice_HWC.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # of fill values, which become 0 below
            scaled -= low
            scaled /= np.maximum(high - low, np.float32(1e-6))
        np.clip(scaled, 0.0, 1.0, out=scaled)
        if slice_HWC.dtype.kind == "f" or self.nodata is not None:
            scaled[without_value(slice_HWC, self.nodata)] = 0.0
        channels = scaled[None] if scaled.ndim == 2 else np.moveaxis(scaled, -1, 0)
        return np.ascontiguousarray(channels, dtype=np.float32)


def measure(recipe: Intensity, slices: Array, nodata: float | None = None) -> Levels:
    """Work out a recipe for the slices (S, H, W) or (S, H, W, 3) of one file; 24 to 47 slices of a long one are read."""
    height, width = slices.shape[1:3]
    box: Box = (0, 0, height, width)
    low: float | tuple[float, ...] = recipe.low
    high: float | tuple[float, ...] = recipe.high
    if recipe.kind == "window" and recipe.crop == "none":
        return Levels(low, high, box, nodata)
    sample = slices[:: max(1, len(slices) // 24)]
    missing = without_value(sample, nodata)
    if missing.any():
        known = sample[~missing]
        sample = np.where(missing, known.min() if known.size else 0, sample)
    grey = sample if sample.ndim == 3 else sample.mean(axis=-1)
    valid = ~(missing if missing.ndim == 3 else missing.any(axis=-1))
    if recipe.crop == "body":
        # Air is far below -300 HU; in a picture without HU the histogram's own gap separates it from the body.
        threshold = _AIR_HU if recipe.kind == "window" else _gap(grey)
        inside = np.stack([largest_object(np.ascontiguousarray(g > threshold)) for g in grey]) & valid
        box = bounding_box(np.asarray(inside.any(axis=0)), margin=max(2, width // 64))
    else:
        inside = (grey != 0) & valid
    if recipe.kind == "percentile":
        each = sample.ndim == 4 and recipe.bands is not None
        values = (sample if each else grey)[inside if inside.any() else np.ones_like(inside)]
        if inside.any():
            found = np.percentile(values, (recipe.low, recipe.high), axis=0)
        else:
            found = np.stack([values.min(axis=0), values.max(axis=0)])
        low, high = (tuple(map(float, v)) if each else float(v) for v in found)
    return Levels(low, high, box, nodata)


def _gap(grey: Array) -> float:
    """Level between air and body. The lowest level is left out: scanners pad with it outside their field of view."""
    from skimage.filters import threshold_otsu

    inside = grey[grey > grey.min()]
    return float(threshold_otsu(inside)) if inside.size and inside.min() < inside.max() else float(grey.min())


def largest_object(mask_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest connected object after thin parts (a scanner's table) are cut off; empty if there is none."""
    from scipy import ndimage

    opened = _opened(mask_HW, steps=max(1, min(mask_HW.shape) // 128))
    top, left, bottom, right = bounding_box(opened, margin=0)  # less to search
    objects, count = ndimage.label(opened[top:bottom, left:right])
    if count == 0:
        return np.asarray(mask_HW, dtype=bool)
    largest = 1 if count == 1 else np.bincount(objects[objects > 0]).argmax()
    found = np.zeros_like(opened)
    np.equal(objects, largest, out=found[top:bottom, left:right])
    return found


def _opened(mask_HW: npt.NDArray[np.bool_], steps: int) -> npt.NDArray[np.bool_]:
    """scipy's `binary_opening` with so many iterations, in a tenth of the time: a row is followed by an empty pixel, so
    that the four neighbours of all pixels are the same memory shifted."""
    height, width = mask_HW.shape
    row = width + 1
    padded = np.zeros((height + 2, row), dtype=bool)
    padded[1:-1, :-1] = mask_HW
    cells = padded.ravel()
    for join in (*[np.logical_and] * steps, *[np.logical_or] * steps):
        joined = np.zeros_like(cells)
        inner = joined[row:-row]
        join(cells[row:-row], cells[: -2 * row], out=inner)
        join(inner, cells[2 * row :], out=inner)
        join(inner, cells[row - 1 : -row - 1], out=inner)
        join(inner, cells[row + 1 : len(cells) - row + 1], out=inner)
        joined[row - 1 :: row] = False
        cells = joined
    return np.ascontiguousarray(cells.reshape(padded.shape)[1:-1, :-1])


def bounding_box(mask_HW: npt.NDArray[np.bool_], margin: int) -> Box:
    """(top, left, bottom, right), half open, with a margin in pixels; the whole slice when the mask is empty or tiny."""
    height, width = mask_HW.shape
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if len(rows) < max(1, height // 8) or len(columns) < max(1, width // 8):
        return 0, 0, height, width
    return (
        max(0, int(rows[0]) - margin),
        max(0, int(columns[0]) - margin),
        min(height, int(rows[-1]) + 1 + margin),
        min(width, int(columns[-1]) + 1 + margin),
    )
