"""Bytes of a NIfTI file in, Volume out; label ids and the image they belong to in, bytes of a NIfTI file out."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.volume import Volume

ID_TOLERANCE = 1e-3
"""Label values this close to a whole number are that number: a stored scale factor makes them drift."""

_GZIP = b"\x1f\x8b"
_ALIGNED = 2  # form code "aligned to some other scan", for files that state none


def recognises(content: bytes) -> bool:
    """Whether the bytes begin like a NIfTI file or a gzip stream, which holds one."""
    return content.startswith(_GZIP) or content[344:347] in (b"n+1", b"ni1") or content[4:7] in (b"n+2", b"ni2")


def image(content: bytes, path: Path) -> Volume:
    """The image: int16 when stored as unscaled integers that fit, else float32 with scaling applied.

    Raises DataError for a damaged file, a true 4-D one, colour or complex numbers, or an affine without volume.
    """
    file = _open(content, path)
    stored, proxy = file.get_data_dtype(), file.dataobj
    unscaled = (proxy.slope, proxy.inter) == (1.0, 0.0)
    fits = (stored.kind == "i" and stored.itemsize <= 2) or (stored.kind == "u" and stored.itemsize == 1)
    return _volume(file, _values(file, path, np.dtype(np.int16 if unscaled and fits else np.float32)), path)


def ids(content: bytes, path: Path) -> Volume:
    """The label ids; floats within ID_TOLERANCE of whole numbers are rounded.

    Raises DataError as `image` does, and for other fractions, with values and voxel counts.
    """
    file = _open(content, path)
    values = _values(file, path, None)
    if values.dtype.kind == "f":
        values = _rounded(values, path)
    native = np.dtype(np.int64) if values.dtype.itemsize == 8 else values.dtype.newbyteorder("=")
    return _volume(file, values.astype(native, copy=False), path)


def encode(ids: npt.NDArray[Any], like: Volume, *, compressed: bool) -> bytes:
    """A NIfTI file with the shape, affine (sform = qform, both codes set), units and version of the file `like`."""
    import nibabel as nib

    header = like.header
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    code = _ALIGNED
    if header is not None:
        code = int(header["sform_code"]) or int(header["qform_code"]) or _ALIGNED
        if len(header.get_data_shape()) == 2:
            ids = ids[:, :, 0]
    file = kind(ids, like.affine)
    file.set_sform(like.affine, code)
    file.set_qform(like.affine, code)
    file.header.set_xyzt_units(*(header.get_xyzt_units() if header is not None else ("mm", "sec")))
    content: bytes = file.to_bytes()
    return gzip.compress(content, compresslevel=6, mtime=0) if compressed else content


def _open(content: bytes, path: Path) -> Any:
    """The nibabel image of the bytes."""
    import nibabel as nib

    try:
        plain = gzip.decompress(content) if content.startswith(_GZIP) else content
        if plain[344:347] == b"ni1" or plain[4:7] == b"ni2":
            raise DataError(f"{path}: is the header of a two-file NIfTI (.hdr and .img); convert it to one .nii.gz")
        if not recognises(plain) or plain.startswith(_GZIP):
            raise DataError(f"{path}: is gzipped but holds no NIfTI; convert the file to NIfTI")
        file = (nib.Nifti2Image if plain[4:7] == b"n+2" else nib.Nifti1Image).from_bytes(plain)
        wanted = file.dataobj.offset + math.prod(file.shape) * file.get_data_dtype().itemsize
        if wanted > len(plain):
            raise EOFError(f"its header promises {wanted} bytes, there are {len(plain)}")
        return file
    except _errors() as error:
        raise _damaged(path, error) from None


def _values(file: Any, path: Path, dtype: np.dtype[Any] | None) -> npt.NDArray[Any]:
    """(I, J, K) values with scaling applied; trailing axes of length 1 are dropped, a flat image gets K = 1."""
    shape = file.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise DataError(
            f"{path}: is {len(shape)}-D with shape {shape}, a volume has 3 axes; save each volume of the series as a "
            "file of its own"
        )
    stored = file.get_data_dtype()
    if stored.kind not in "iuf" or len(shape) < 2 or 0 in shape:
        raise DataError(f"{path}: holds {stored} values of shape {shape}; convert it to a volume of plain numbers")
    try:
        return np.asanyarray(file.dataobj, dtype=dtype).reshape((*shape, 1)[:3])
    except _errors() as error:
        raise _damaged(path, error) from None


def _volume(file: Any, array: npt.NDArray[Any], path: Path) -> Volume:
    affine = np.array(file.affine, dtype=np.float64)
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * sizes.prod():
        raise DataError(f"{path}: its affine {affine[:3].round(3).tolist()} spans no volume; correct the header")
    return Volume(array, affine, path, file.header)


def _rounded(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int32]:
    rounded: npt.NDArray[Any] = np.rint(values)
    with np.errstate(invalid="ignore"):  # inf - inf
        off = ~(np.abs(values - rounded) <= ID_TOLERANCE)
    if off.any():
        found, counts = np.unique(values[off], return_counts=True)
        shown = ", ".join(f"{v:.6g} ({n} voxels)" for v, n in zip(found[:5], counts[:5], strict=True))
        more = f" and {len(found) - 5} other values" if len(found) > 5 else ""
        raise DataError(
            f"{path}: label values {shown}{more} are not whole numbers, as after an interpolation; make the labels "
            "again with nearest-neighbour resampling"
        )
    if np.abs(rounded).max(initial=0) > np.iinfo(np.int32).max:
        raise DataError(f"{path}: label values reach {np.abs(rounded).max():g}; ids are 0..65535")
    whole: npt.NDArray[np.int32] = rounded.astype(np.int32)
    return whole


def _errors() -> tuple[type[Exception], ...]:
    """What gzip and nibabel raise for damaged files."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    library = (ImageFileError, HeaderDataError, WrapStructError, np.linalg.LinAlgError)
    return OSError, EOFError, ValueError, zlib.error, struct.error, OverflowError, *library


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path}: damaged or truncated NIfTI ({reason}); copy or download it again")
