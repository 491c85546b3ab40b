"""Volumes and class maps as NIfTI or PNG for a viewer in a browser."""

from __future__ import annotations

import gzip
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.io import nifti
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE, Volume

FLAT_AFFINE = np.diag([1.0, -1.0, 1.0, 1.0])
"""Of a flat picture in a viewer: columns run to the right, rows downwards, a pixel is 1 mm."""
_COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])  # NIfTI's RGB24
_TAILS = (0.5, 99.5)  # percentiles that are shown as black and white


def nifti_of(volume: Volume) -> bytes:
    """The image as .nii.gz: values as read, on its own grid; a flat picture on FLAT_AFFINE. Colours are 8-bit RGB, as are
    other bands, of which the first three are shown."""
    array = volume.array
    if array.ndim == 4:
        array = np.ascontiguousarray(shown(array)).view(_COLOUR)[..., 0]
    return _encoded(array, volume, 0)  # packing it would take longer than sending it within one machine


def map_nifti(channels: npt.NDArray[Any], labels: LabelSet, volume: Volume) -> bytes:
    """Class channels as a .nii.gz of ids on the grid of `nifti_of`."""
    return _encoded(ids_of(channels, labels), volume, 1)


def png_of(volume: Volume) -> bytes:
    """A flat picture (H, W, 1[, C]) as an 8-bit PNG for looking at."""
    from PIL import Image

    levels = shown(volume.array)[:, :, 0]
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(file, "PNG")
    return file.getvalue()


def shown(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """8-bit levels, as they are or from the 0.5 to the 99.5 percentile of each band; other than 1 or 3 bands: the first
    three, or the first. What is no number is black."""
    if array.ndim == 4 and array.shape[3] not in (1, 3):
        array = array[..., :3] if array.shape[3] > 3 else array[..., :1]
    if array.ndim == 4 and array.shape[3] == 1:
        array = np.repeat(array, 3, axis=3)
    if array.dtype == np.uint8:
        return array
    levels = np.empty(array.shape, dtype=np.uint8)
    bands = [(...,)] if array.ndim < 4 else [(..., c) for c in range(array.shape[3])]
    for band in bands:
        values = array[band].astype(np.float32)
        known = values[np.isfinite(values)]
        low, high = np.percentile(known, _TAILS) if known.size else (0.0, 1.0)
        scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-6)
        levels[band] = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    return levels


def ids_of(channels: npt.NDArray[Any], labels: LabelSet) -> npt.NDArray[Any]:
    """File ids of class channels; pixels without a truth hold the ignore id, or 0 where there is none."""
    ignored = channels == IGNORE
    if not ignored.any():
        return labels.to_ids(channels)
    ids = labels.to_ids(np.where(ignored, 0, channels))
    ids[ignored] = labels.ignore or 0
    return ids


def _encoded(array: npt.NDArray[Any], volume: Volume, level: int) -> bytes:
    if volume.is_raster:
        array, volume = array.swapaxes(0, 1), Volume(array, FLAT_AFFINE, volume.path)
    return gzip.compress(nifti.encode(array, volume, compressed=False), compresslevel=level, mtime=0)
