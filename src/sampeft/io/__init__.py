"""Read images and write label files; the content tells the format."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import uuid
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.io import dicom, geotiff, itk, nifti, raster
from sampeft.io.fetched import check_fetched
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE, Volume

IMAGE_SUFFIXES = (
    *(".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".ima"),
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff"),
)
"""Endings of files that a folder of images is searched for."""


class Format(Protocol):
    """A module that reads the files of one format (or two) by their content."""

    def recognises(self, content: bytes) -> bool: ...

    def image(self, content: bytes, path: Path) -> Volume: ...

    def ids(self, content: bytes, path: Path) -> Volume: ...


FORMATS: tuple[Format, ...] = (nifti, itk, geotiff, raster)
"""The first that recognises a file reads it; what none does may be DICOM, whose old form has no sure sign."""


_DEVICE = re.compile(r"con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]", re.IGNORECASE)


def file_stem(path: Path) -> str:
    """The name without its image suffix, whole for `.nii.gz`, with accents composed; any other name as it is."""
    suffix = next((s for s in IMAGE_SUFFIXES if path.name.lower().endswith(s)), "")
    return composed(path.name[: len(path.name) - len(suffix)])


def composed(name: str) -> str:
    """The name in the one form in which names are compared: a Mac writes the accent of an `e` as a character of its own."""
    return unicodedata.normalize("NFC", name)


def portable_name(name: str) -> str:
    """A file's name that Windows takes, too: its devices (CON, NUL, COM1, ...), with whatever ending, and names that end in a
    dot or a space get an underscore. Other names are as they were."""
    stem, dot, rest = name.partition(".")
    if _DEVICE.fullmatch(stem.rstrip()):
        name = f"{stem.rstrip()}_{dot}{rest}"
    kept = name.rstrip(". ")
    return name if kept == name else f"{kept}_"


def read_volume(path: Path) -> Volume:
    """Read an image: NIfTI (also gzipped or .hdr/.img), NRRD, MetaImage, DICOM, PNG, JPEG, TIFF or GeoTIFF; or the
    folder of one DICOM series.

    Volumes give (I, J, K), int16 when the file stores unscaled integers that fit, else float32, scaling applied.
    Raster files give (H, W, 1) or (H, W, 1, C) of the stored type, palettes as colours, transparency dropped; a
    GeoTIFF all its bands, with a `geotiff.MapHeader`, as have pictures whose place, nodata or mask is in a file beside them.
    Raises DataError for a file that is missing, damaged, of another format, or 4-D.
    """
    if path.is_dir():
        return dicom.image(path)
    path = nifti.header_of(path)
    content = _content(path)
    known = _format(content, path)
    if known is None:
        return dicom.image(path)
    volume = known.image(content, path)
    return geotiff.placed(volume) if known is raster else volume


def read_label_ids(path: Path) -> Volume:
    """Read a label file: array (I, J, K) or (H, W, 1) of integer ids exactly as stored.

    Fractions within 1e-3 of whole numbers are rounded; a palette PNG gives its indices, grey PNG its values, a 1-bit
    PNG 0 and 1, a DICOM SEG, also as the only DICOM file of a folder, the numbers of its segments (`dicom_seg.ids`). Raises
    DataError for anything else, naming values and counts.
    """
    path = nifti.header_of(dicom.only_file(path) if path.is_dir() else path)
    content = _content(path)
    known = _format(content, path)
    if known is None:
        from sampeft.io import dicom_seg

        return dicom_seg.ids(content, path)
    volume = known.ids(content, path)
    return geotiff.placed(volume) if known is raster else volume


def is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM files, so that it is one image, and not a folder of images."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return any(_is_dicom(_head(path)) for path in files[:20])


def label_suffix(volume: Volume) -> str:
    """Ending of the label file that goes with an image: `.png` for raster images and `.tif` for GeoTIFF, `.nii.gz`
    for volumes, `.dcm` (DICOM SEG) for DICOM where the extra `dicom` is installed."""
    return _label_suffixes(volume)[0]


def write_labels(path: Path, channels: npt.NDArray[Any], labels: LabelSet, like: Volume) -> Path:
    """Write class channels (I, J, K) as a label file on the grid of `like`, whole or not at all. Returns the path.

    A volume becomes NIfTI with the same shape and affine (sform = qform), unscaled ids of `labels.dtype`; a DICOM
    series also a DICOM SEG; a raster image a PNG of the same size, with the palette of `labels` by id when ids fit 8
    bits; a GeoTIFF a GeoTIFF at the same position. IGNORE becomes the ignore id. Missing folders are made.
    Raises ValueError when channels do not fit labels, grid or the path's suffix; OSError when it cannot be written.
    """
    if channels.shape != like.grid:
        raise ValueError(f"channels {channels.shape} are not on the grid {like.grid} of {like.path}")
    suffix = next((s for s in _label_suffixes(like) if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise ValueError(f"{path}: the labels of {like.path.name} are written as {label_suffix(like)}")
    ids = _ids(channels, labels)
    if suffix == ".dcm":
        from sampeft.io import dicom_seg

        content = dicom_seg.encode(channels, labels, like)
    elif suffix in (".tif", ".tiff"):
        content = geotiff.encode(ids[:, :, 0], labels, like)
    elif suffix == ".png":
        content = raster.encode(ids[:, :, 0], labels)
    else:
        content = nifti.encode(ids, like, compressed=suffix == ".nii.gz")
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


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name in its folder and rename it; on any failure nothing is left behind.

    content: bytes, or text, which is written as UTF-8. What a file name holds that is no text is written as JSON escapes it.

    The name is drawn: processes on several machines have equal ids.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say on which file
        raise


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a .npy file as `numpy.save` does, but with an OSError for a full disk that says so and names the file."""
    described = np.lib.format.header_data_from_array_1_0(array)
    try:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, described)
            file.write(np.ascontiguousarray(array.T if described["fortran_order"] else array).data)
    except OSError as error:
        error.filename = str(path)
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


def _label_suffixes(like: Volume) -> tuple[str, ...]:
    """Endings that the labels of an image may have, the usual one first."""
    if isinstance(like.header, geotiff.MapHeader):
        return ".tif", ".tiff"
    if like.is_raster:
        return (".png",)
    volume = ".nii.gz", ".nii"
    if not isinstance(like.header, dicom.Series):
        return volume
    return (".dcm", *volume) if find_spec("highdicom") else volume


def _format(content: bytes, path: Path) -> Format | None:
    """The reader of the bytes, None for DICOM. DataError for bytes of no known format."""
    known = next((known for known in FORMATS if known.recognises(content)), None)
    if known is raster and geotiff.is_map(path):
        return geotiff  # what its tags do not say a file beside it does
    if known is None and not _is_dicom(content):
        raise DataError(
            f"{path}: neither NIfTI nor {', '.join(raster.FORMATS)}, DICOM, NRRD, MetaImage (it begins with "
            f"{content[:8]!r}), or its first bytes are damaged; convert it, or copy it again"
        )
    return known


def _is_dicom(content: bytes) -> bool:
    return not any(known.recognises(content) for known in FORMATS) and dicom.recognises(content)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _content(path: Path) -> bytes:
    check_fetched(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if not content:
        raise DataError(f"{path}: is empty; copy or download it again")
    check_fetched(path, content)
    return content


def write_map(stem: Path, channels: npt.NDArray[Any], labels: LabelSet, volume: Volume, nifti: bool = False) -> Path:
    """Write class channels as a label file of the image's own kind; `stem` is its path without the ending.

    nifti: NIfTI for DICOM, too. It is written as well when nothing was found, of which no DICOM SEG can tell.
    """
    suffix = label_suffix(volume)
    if suffix == ".dcm" and (nifti or not np.isin(channels, labels.foreground).any()):
        suffix = ".nii.gz"
        if not nifti:
            warnings.warn(f"{volume.path}: nothing was found in it; written as NIfTI, not as DICOM SEG", stacklevel=2)
    return write_labels(stem.parent / f"{stem.name}{suffix}", channels, labels, volume)
