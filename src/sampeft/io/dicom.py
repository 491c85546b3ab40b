"""Read DICOM images and series as volumes in RAS+ millimetres."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError, counted
from sampeft.io import dicom_stack
from sampeft.io.dicom_stack import Plane, reading
from sampeft.io.fetched import check_fetched
from sampeft.volume import Volume

Array = npt.NDArray[Any]

INSTALL = "pip install 'sampeft[dicom]'"
_HEAD = 144  # bytes that tell the format
_OLD_STARTS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_TEXT_TYPES = (b"UL", b"UI", b"CS", b"SH", b"LO", b"DA", b"TM", b"DT")
_NO_PICTURES = ("SEG", "RTDOSE")  # modalities whose pixels belong to another image
_BOMB_BYTES, _BOMB_RATIO = 1 << 28, 1000  # a frame this large, from a file this many times smaller, is no picture


@dataclass(frozen=True)
class Series:
    """What a DICOM SEG needs of its source: the Volume's `header`.

    datasets: headers without pixel data, one per slice in slice order (along K), or the one of a multi-frame file.
    frames: 0-based frame of each slice in its file; all 0 where every slice is a file. nodata: value in the array of the
    pixels that are padding, None where none are.
    """

    datasets: tuple[Any, ...]
    frames: tuple[int, ...]
    nodata: float | None = None

    @property
    def frame_of_reference(self) -> str:
        """What positions are measured in: those of another examination are in another; empty where it is not stated."""
        return str(self.datasets[0].get("FrameOfReferenceUID") or "")


def recognises(content: bytes) -> bool:
    """Whether the bytes begin like DICOM: DICM after the preamble, or the old form that starts with group 2 or 8."""
    if content[128:132] == b"DICM":
        return True
    if len(content) < _HEAD or content[:2] not in _OLD_STARTS:
        return False
    length = int.from_bytes(content[4:8], "little")
    return content[4:6] in _TEXT_TYPES or (content[:2] != b"\x00\x08" and length <= 128 and length % 2 == 0)


def image(path: Path) -> Volume:
    """The image of one file, or of the one series in a folder (its sub-folders are not searched), or the one that was chosen of
    several (`dicom_series`).

    array: (columns, rows, slices), and a last axis of 3 for colour; slices in order of position along their normal,
    never of file name. int16 where all values are whole and fit, else float32; colour keeps its unsigned type.
    Each file's own rescale slope and intercept are applied, 1 and 0 where absent. MONOCHROME1 is inverted, except for
    CT, whose HU do not depend on the display. Pixels with PixelPaddingValue get a value that no other has, `Series.nodata`,
    so that they count in no statistics and become the lowest level.
    A single image without position (X-ray, ultrasound, photograph) is a raster: affine None, array (rows, columns, 1)
    or (rows, columns, 1, 3), uint8 where stored so.
    A gantry tilt stays in the affine as shear. Skipped files, dropped duplicates and a tilt give one warning each.
    Raises DataError for several series of which none is chosen, missing or uneven slices, damage, and compression without a
    decoder.
    """
    found = _folder(path) if path.is_dir() else [(path, _header_of(path))]
    planes = dicom_stack.chosen_planes(found, path)
    with reading(path):
        is_raster = len({plane.path for plane in planes}) == 1 and not dicom_stack.has_position(planes[0].dataset)
    if is_raster:
        return _raster(planes[0].path, planes[0].dataset)
    with reading(path):
        planes = dicom_stack.sorted_along_normal(dicom_stack.one_series(planes, path))
    planes = _without_duplicates(planes, path)
    with reading(path):
        affine, tilt_degrees = dicom_stack.affine(planes, path)
    if tilt_degrees > 0.5:
        _warn(
            f"{path}: slices are sheared by {tilt_degrees:.1f} degrees (gantry tilt); kept as stored, with the affine"
        )
    stack_KHWC, nodata = _stack([*_decoded(planes)])
    array = np.moveaxis(stack_KHWC, (2, 1, 0), (0, 1, 2))
    datasets = tuple({id(plane.dataset): plane.dataset for plane in planes}.values())
    return Volume(array, affine, path, Series(datasets, tuple(plane.frame for plane in planes), nodata))


def _folder(folder: Path) -> list[tuple[Path, Any]]:
    """The DICOM images of a folder; anything else is skipped, with a count."""
    files = sorted(p for p in folder.iterdir() if not (p.is_dir() or p.name.startswith(".")))
    for path in files:
        check_fetched(path)
    found = [(path, dataset) for path in files if (dataset := _header(path)) is not None]
    skipped = len(files) - len(found)
    if not found:
        inner = sum(p.is_dir() for p in folder.iterdir())
        raise DataError(
            f"{folder}: holds no DICOM image ({skipped} other files, {inner} sub-folders); give the folder of one series"
        )
    if skipped:
        _warn(f"{folder}: skipped {skipped} file{'s' * (skipped > 1)} that hold no DICOM image")
    return found


def only_file(folder: Path) -> Path:
    """The only DICOM file of a folder. Raises DataError unless there is one."""
    found = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    for path in found:
        check_fetched(path)
    with reading(folder):
        found = [path for path in found if recognises(_head(path))]
    if len(found) != 1:
        raise DataError(
            f"{folder}: cannot be read as labels, it is a folder with {counted(len(found), 'DICOM file')}; give the label file"
        )
    return found[0]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _header_of(path: Path) -> Any:
    dataset = _header(path)
    if dataset is None:
        raise DataError(f"{path}: holds no DICOM image of its own; give an image file or the folder of one series")
    return dataset


def _header(path: Path) -> Any | None:
    """The header of a DICOM image; None for other files and for DICOM without a picture."""
    with reading(path):
        head = _head(path)
    if not recognises(head):
        return None
    try:
        dataset = _read(path, stop_before_pixels=True)
        with reading(path):
            if dataset.get("Rows"):
                return None if dataset.get("Modality") in _NO_PICTURES else dataset
            kinds = (dataset.file_meta.get("MediaStorageSOPClassUID"), dataset.get("SOPClassUID"))
            names = [kind.name for kind in kinds if kind]
            if not names or any("Image Storage" in name for name in names):
                raise DataError(f"{path}: ends within its header, it is truncated; copy it again")
            return None
    except DataError:
        if head[128:132] == b"DICM":
            raise
        return None


def _read(path: Path, *, stop_before_pixels: bool) -> Any:
    """The dataset; transfer syntax and identifiers of the instance are completed from where else they are stated."""
    try:
        import pydicom
        from pydicom import uid
    except ImportError:
        raise DataError(f"{path}: is DICOM, which needs pydicom; {INSTALL}") from None
    with reading(path):
        dataset = pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, force=True)
        meta = dataset.file_meta
        if not meta.get("TransferSyntaxUID"):
            implicit, little = dataset.original_encoding
            explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
            meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
        for keyword in ("SOPClassUID", "SOPInstanceUID"):
            if not dataset.get(keyword) and (stated := meta.get(f"MediaStorage{keyword}")):
                setattr(dataset, keyword, stated)
    return dataset


@dataclass(frozen=True)
class _Pixels:
    """One slice. values: (rows, columns) rescaled, or (rows, columns, 3). padding: (rows, columns) truth, or None."""

    values: Array
    padding: Array | None = None


def _decoded(planes: Sequence[Plane]) -> Iterator[_Pixels]:
    """The pixels of one slice after another. Files are read again here, so that a series is held in memory once."""
    for path, frames in groupby(planes, key=lambda plane: plane.path):
        dataset = _read(path, stop_before_pixels=False)
        if "Rows" not in dataset:  # pydicom gives up the header, too, when compressed pixels end early
            raise DataError(f"{path}: ends before its pixels do, it is truncated; copy it again")
        with reading(path):
            _check_decodable(dataset, path)
        for plane in frames:
            with reading(path):
                pixels = _pixels(plane, dataset)
            yield pixels


def _pixels(plane: Plane, dataset: Any) -> _Pixels:
    from pydicom import uid
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    # pylibjpeg-rle, where installed, panics past every `except` on damaged RLE; pydicom's own decoder does not.
    plugin = "pydicom" if dataset.file_meta.TransferSyntaxUID == uid.RLELossless else ""
    stored = pixel_array(dataset, index=plane.frame, decoding_plugin=plugin)
    interpretation = str(dataset.PhotometricInterpretation)
    if interpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)[..., :3]
    if stored.ndim == 3:
        return _Pixels(stored)
    padding = _padding(stored, dataset)
    if interpretation == "MONOCHROME1" and dataset.get("Modality") != "CT":
        top = -1 if dataset.PixelRepresentation else (1 << int(dataset.BitsStored)) - 1
        stored = top - stored.astype(np.int64)
    slope, intercept = plane.rescale
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ValueError(f"rescale slope {slope:g}, intercept {intercept:g}")
    if dataset.get("ModalityLUTSequence"):
        values = apply_modality_lut(stored, dataset)
    elif stored.dtype.kind != "f" and slope.is_integer() and intercept.is_integer():
        values = stored.astype(np.int64) * int(slope) + int(intercept)
    else:
        values = stored * slope + intercept
    return _Pixels(_narrow(values), padding)


def _narrow(values: Array) -> Array:
    """int16 where whole numbers fit, else float32."""
    limits = np.iinfo(np.int16)
    fits = values.dtype.kind in "iu" and limits.min <= values.min() and values.max() <= limits.max
    return values.astype(np.int16 if fits else np.float32)


def _padding(stored: Array, dataset: Any) -> Array | None:
    """Where a slice holds PixelPaddingValue (to PixelPaddingRangeLimit); None where nothing is padded."""
    value = dataset.get("PixelPaddingValue")
    if value is None or stored.dtype.kind == "f":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    # Written as unsigned for signed pixels, or the other way round, it is the same bits.
    ends = np.array([value, value if limit is None else limit], dtype=np.int64).astype(stored.dtype)
    padding: Array = (stored >= ends.min()) & (stored <= ends.max())
    return padding if padding.any() else None


def _stack(slices: Sequence[_Pixels], least: int = np.iinfo(np.int16).min) -> tuple[Array, float | None]:
    """(K, rows, columns[, 3]) of one type, and the value of padding in it, which no other pixel has; None without any.

    least: the lowest whole number that may stand for padding.
    """
    stack = np.stack([s.values for s in slices])
    if all(s.padding is None for s in slices):
        return stack, None
    padding = np.stack([np.zeros(s.values.shape, bool) if s.padding is None else s.padding for s in slices])
    nodata = _unused(stack[~padding], least)
    stack[padding] = nodata
    return stack, float(nodata)


def _unused(values: Array, least: int) -> Any:
    """A value that is not among these: just below them where there is room."""
    if not values.size:
        return values.dtype.type(max(least, 0))
    floor = values.min()
    if values.dtype.kind == "f":
        return np.nextafter(floor, np.array(-np.inf, values.dtype))
    if floor > least:
        return floor - 1
    return np.setdiff1d(np.arange(least, int(values.max()) + 2), values)[0]


def _raster(path: Path, dataset: Any) -> Volume:
    with reading(path):
        frames, bits = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("BitsAllocated") or 0)
    if frames > 1:
        raise DataError(
            f"{path}: holds {frames} frames without position, as a film does; save each as a file of its own"
        )
    lowest = 0 if bits == 8 else np.iinfo(np.int16).min
    stack, nodata = _stack([*_decoded([Plane(path, dataset)])], lowest)
    array = np.moveaxis(stack, 0, 2)
    if bits == 8 and array.dtype == np.int16 and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    return Volume(array, None, path, None if nodata is None else Series((dataset,), (0,), nodata))


def _without_duplicates(planes: Sequence[Plane], source: Path) -> list[Plane]:
    """Slices at distinct positions. Raises DataError where different pixels share one."""
    kept = [planes[0]]
    for plane in planes[1:]:
        if not dicom_stack.share_a_place(kept[-1], plane):
            kept.append(plane)
        elif not _same_pixels(kept[-1], plane):
            with reading(source):
                raise dicom_stack.overlapping(planes, source)
    if dropped := len(planes) - len(kept):
        _warn(f"{source}: dropped {dropped} slice{'s' * (dropped > 1)} that repeat another, {len(kept)} are left")
    return kept


def _same_pixels(a: Plane, b: Plane) -> bool:
    first, second = (pixels.values for pixels in _decoded([a, b]))
    return np.array_equal(first, second)


def _check_decodable(dataset: Any, path: Path) -> None:
    """Raise DataError when no decoder can read the pixels, or when a small file promises a huge frame."""
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            raise DataError(
                f"{path}: its compression {syntax.name} is not read; convert it to Explicit VR Little Endian"
            ) from None
        if not decoder.is_available:
            raise DataError(f"{path}: is compressed with {syntax.name}, for which no decoder is installed; {INSTALL}")
        bits = int(dataset.BitsStored)
        if syntax == uid.JPEGExtended12Bit and bits > 8 and "pylibjpeg" not in decoder.available_plugins:
            raise DataError(
                f"{path}: is compressed with {syntax.name} at {bits} bits, which only pylibjpeg-libjpeg reads; install that "
                "(its licence is GPL-3), or convert the file to Explicit VR Little Endian"
            )
    promised = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
    promised *= int(dataset.BitsAllocated) // 8
    if promised > _BOMB_BYTES and promised > _BOMB_RATIO * path.stat().st_size:
        raise DataError(f"{path}: promises a frame of {promised} bytes, which it cannot hold; copy it again")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)
