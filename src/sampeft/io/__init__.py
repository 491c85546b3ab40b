"""Image file in, Volume out; class channels in, label file on the same grid out. Content tells the format."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.io import nifti, raster
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE, Volume

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Endings of files that a folder of images is searched for."""


def file_stem(path: Path) -> str:
    """The name without its image suffix, whole for `.nii.gz`; any other name as it is."""
    suffix = next((s for s in IMAGE_SUFFIXES if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]


def read_volume(path: Path) -> Volume:
    """Read an image: NIfTI (also gzipped), PNG, JPEG or TIFF.

    NIfTI gives (I, J, K), int16 when the file stores unscaled integers that fit, else float32, scaling applied;
    raster files give (H, W, 1) or (H, W, 1, 3), uint8 or uint16, palettes as colours, transparency dropped.
    Raises DataError for a file that is missing, damaged, of another format, or 4-D.
    """
    content = _content(path)
    return nifti.image(content, path) if nifti.recognises(content) else raster.image(content, path)


def read_label_ids(path: Path) -> Volume:
    """Read a label file: array (I, J, K) or (H, W, 1) of integer ids exactly as stored.

    NIfTI values within 1e-3 of whole numbers are rounded; a palette PNG gives its indices, grey PNG its values, a
    1-bit PNG 0 and 1. Raises DataError for anything else, naming values and counts.
    """
    content = _content(path)
    return nifti.ids(content, path) if nifti.recognises(content) else raster.ids(content, path)


def label_suffix(volume: Volume) -> str:
    """Ending of the label file that goes with an image: `.png` for raster images, `.nii.gz` for volumes."""
    return ".png" if volume.is_raster else ".nii.gz"


def write_labels(path: Path, channels: npt.NDArray[Any], labels: LabelSet, like: Volume) -> Path:
    """Write class channels (I, J, K) as a label file on the grid of `like`, whole or not at all. Returns the path.

    A volume becomes NIfTI with the same shape and affine (sform = qform), unscaled ids of `labels.dtype`; a raster
    image becomes a PNG of the same size, with the palette of `labels` by id when ids fit 8 bits. IGNORE becomes the
    ignore id. Missing folders are made.
    Raises ValueError when channels do not fit labels, grid or the path's suffix; OSError when it cannot be written.
    """
    if channels.shape != like.grid:
        raise ValueError(f"channels {channels.shape} are not on the grid {like.grid} of {like.path}")
    if not path.name.endswith((".png",) if like.is_raster else (".nii.gz", ".nii")):
        raise ValueError(f"{path}: the labels of {like.path.name} are written as {label_suffix(like)}")
    ids = _ids(channels, labels)
    if like.is_raster:
        content = raster.encode(ids[:, :, 0], labels)
    else:
        content = nifti.encode(ids, like, compressed=path.name.endswith(".gz"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in its folder and rename it; on any failure nothing is left behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say on which file
        raise


def _ids(channels: npt.NDArray[Any], labels: LabelSet) -> npt.NDArray[Any]:
    ignored = channels == IGNORE
    if not ignored.any():
        known = channels
    elif labels.ignore is None:
        raise ValueError("channels hold IGNORE, but the label map has no ignore id")
    else:
        known = np.where(ignored, 0, channels)
    if known.size and not 0 <= known.min() <= known.max() < len(labels):
        raise ValueError(f"channels {known.min()}..{known.max()} do not fit {len(labels)} classes")
    ids = labels.to_ids(known)
    if labels.ignore is not None:
        ids[ignored] = labels.ignore
    return ids


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if not content:
        raise DataError(f"{path}: is empty; copy or download it again")
    return content
