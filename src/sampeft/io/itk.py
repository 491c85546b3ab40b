"""Read NRRD and MetaImage (.nrrd .nhdr .mha .mhd), the affine turned to NIfTI's world."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.io.limits import check_promise
from sampeft.io.nifti import whole_numbers
from sampeft.volume import Volume

_META = re.compile(rb"\s*(ObjectType|ObjectSubType|NDims|Comment)\s*=", re.IGNORECASE)
ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
_HEADER_BYTES = 1 << 16  # read for fields; longer headers are all comments
_FIELD = re.compile(r"^\s*([A-Za-z][A-Za-z ]*?)\s*(?:=|:(?!=))\s*(.*?)\s*$")  # `key:=value` of NRRD is free text
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0))


@dataclass(frozen=True)
class Segments:
    """What a file of labels says of itself: value -> name of a class."""

    class_names: dict[int, str]


def recognises(content: bytes) -> bool:
    """Whether the bytes begin like an NRRD or a MetaImage header."""
    return content.startswith(b"NRRD00") or _META.match(content[:256]) is not None


def image(content: bytes, path: Path) -> Volume:
    """The image: int16 when stored as integers that fit, else float32.

    Raises DataError for a damaged file, vectors or colours, more than three axes, or without SimpleITK.
    """
    array, affine, _ = _read(content, path)
    fits = (array.dtype.kind == "i" and array.dtype.itemsize <= 2) or array.dtype == np.uint8
    return Volume(array.astype(np.int16 if fits else np.float32, copy=False), affine, path)


def ids(content: bytes, path: Path) -> Volume:
    """The label ids, and as the header the names that 3D Slicer gives them; fractions near whole numbers are rounded.

    Raises DataError as `image` does, and for others.
    """
    array, affine, names = _read(content, path)
    return Volume(whole_numbers(array, path) if array.dtype.kind == "f" else array, affine, path, Segments(names))


def pixel_files(path: Path) -> list[Path]:
    """The file beside a header that holds its pixels, whatever its name; none where the header holds them itself."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    named = _data_file(_fields(head, head.startswith(b"NRRD00")))
    beside = path.parent / named
    return [beside] if named and beside.is_file() else []


def _read(content: bytes, path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], dict[int, str]]:
    """Values (I, J, K), affine, and value -> name of a segment."""
    try:
        import SimpleITK as sitk  # noqa: N813
    except ImportError:
        raise DataError(f"{path}: NRRD and MetaImage files need SimpleITK; pip install 'sampeft[itk]'") from None

    nrrd = content.startswith(b"NRRD00")
    stored, compressed = _stored_bytes(content, path, nrrd)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size, parts = reader.GetSize(), reader.GetNumberOfComponents()
        if parts != 1:
            layers = "export overlapping segments as a labelmap (3D Slicer), or save each channel as a file of its own"
            raise DataError(f"{path}: holds {parts} numbers per voxel; {layers}")
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        bits = re.search(r"(\d+)-bit", kind)
        promised = int(np.prod(size, dtype=object)) * (int(bits[1]) // 8 if bits else 8)
        check_promise(path, promised, stored)
        if promised > stored * (1100 if compressed else 1) + (1 << 10) * compressed:
            raise RuntimeError(f"its header promises {promised} bytes, there are {stored}")
        while len(size) > 3 and size[-1] == 1:
            size = size[:-1]
        if len(size) > 3:
            raise DataError(
                f"{path}: is {len(size)}-D with size {size}; save each volume of the series as a file of its own"
            )
        read = reader.Execute()
        array = sitk.GetArrayFromImage(read).T
    except (RuntimeError, OverflowError, ValueError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or ["unreadable"])[-1]
        raise DataError(f"{path}: damaged or truncated ({reason}); copy or download it again") from None
    fields = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys() if key.startswith("Segment")}
    return array.reshape((*size, 1)[:3], order="F"), _affine(read, path), _segments(fields)


def _segments(fields: dict[str, str]) -> dict[int, str]:
    """Value -> name, of the fields Segment0_LabelValue and Segment0_Name and so on."""
    found = {}
    for key, value in fields.items():
        stem, _, kind = key.rpartition("_")
        name = fields.get(f"{stem}_Name", "")
        if kind == "LabelValue" and value.strip().isdecimal() and name:
            found[int(value)] = name
    return found


def _affine(read: Any, path: Path) -> npt.NDArray[np.float64]:
    n, dims = min(read.GetDimension(), 3), read.GetDimension()
    affine = np.eye(4)
    affine[:n, :n] = np.reshape(read.GetDirection(), (dims, dims))[:n, :n] * np.array(read.GetSpacing()[:n])
    affine[:n, 3] = read.GetOrigin()[:n]
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path}: its affine {affine[:3].round(3).tolist()} spans no volume; correct the header")
    return affine


def _stored_bytes(content: bytes, path: Path, nrrd: bool) -> tuple[int, bool]:
    """Bytes of the file that holds the pixels, and whether they are compressed.

    Raises DataError for pixels outside of the header's folder, in several files or missing.
    """
    fields = _fields(content, nrrd)
    named = _data_file(fields)
    # Compressed, or written as text, where a voxel may take fewer bytes than in memory.
    plain = {"encoding": "raw", "compresseddata": "false", "binarydata": "true"}
    compressed = any(fields.get(key, value).lower() != value for key, value in plain.items())
    if "compresseddatasize" in fields:
        claimed = fields["compresseddatasize"]
        if not claimed.isdecimal() or (not named and int(claimed) > len(content)):
            raise DataError(f"{path}: damaged or truncated (CompressedDataSize {claimed}); copy or download it again")
    if not named:
        return len(content), compressed
    beside = Path(named)
    if beside.is_absolute() or ".." in beside.parts:
        raise DataError(f"{path}: names its data {named}, outside of its folder; put the data beside the header")
    if (" " in named and not (path.parent / beside).is_file()) or named.upper().startswith("LIST"):
        raise DataError(
            f"{path}: spreads its pixels over several files ({named}); convert it to one .nrrd, .mha or .nii.gz"
        )
    try:
        return (path.parent / beside).stat().st_size, compressed
    except (OSError, ValueError):
        raise DataError(f"{path}: its data file {named} is missing; put it beside the header") from None


def _data_file(fields: dict[str, str]) -> str:
    """What a header names as the place of its pixels; empty where they follow it."""
    named = fields.get("datafile") or fields.get("elementdatafile", "")
    return "" if named.upper() == "LOCAL" else named


def _fields(content: bytes, nrrd: bool) -> dict[str, str]:
    """Fields of the header, names in lower case without spaces, up to where the pixels begin."""
    fields: dict[str, str] = {}
    for line in content[:_HEADER_BYTES].split(b"\n"):
        text = line.decode("latin-1").strip("\r")
        if nrrd and not text:
            break
        if match := _FIELD.match(text):
            fields[match[1].lower().replace(" ", "")] = match[2]
            if not nrrd and match[1].lower() == "elementdatafile":
                break
    return fields
