"""Read NIfTI, and write label ids as NIfTI on the grid of their image."""

from __future__ import annotations

import gzip
import math
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.io.limits import check_promise
from sampeft.volume import Volume

ID_TOLERANCE = 1e-3
"""Label values this close to a whole number are that number: a stored scale factor makes them drift."""

SHEAR_DEG = 0.5
"""Axes that are further than this from a right angle are worth a warning."""

_GZIP = b"\x1f\x8b"
_PAIR_MAGIC, _MAGIC = (b"ni1\0", b"ni2\0"), (b"n+1\0", b"n+2\0")
_FIRST = (b"\x5c\x01\0\0", b"\0\0\x01\x5c")  # the header's own size, 348, in both byte orders
_HEADER_BYTES = 540  # of NIfTI-2; 348 of NIfTI-1
_GZIP_LARGE = 1 << 31  # a sparse label map in 64-bit numbers shrinks a thousandfold and is no trap
_SLACK = 1 << 20  # what may follow the voxels
_ALIGNED = 2  # form code "aligned to some other scan", for files that state none
_UNIT_MM = {1: 1000.0, 3: 0.001}  # metres, micrometres; any other code is taken as millimetres


def recognises(content: bytes) -> bool:
    """Whether the bytes begin like a NIfTI or Analyze header, or like a gzip stream, which may hold one."""
    return content.startswith((_GZIP, *_FIRST)) or _magic(content) != b""


def header_of(path: Path) -> Path:
    """The .hdr file that stands beside an .img file and describes it; any other path as it is."""
    for image, header in ((".img", ".hdr"), (".img.gz", ".hdr.gz")):
        if path.name.lower().endswith(image):
            beside = path.with_name(path.name[: -len(image)] + header)
            return beside if beside.is_file() else path
    return path


def image(content: bytes, path: Path) -> Volume:
    """The image: int16 when stored as unscaled integers that fit, else float32 with scaling applied.

    Warns where axes are not at right angles or the header contradicts itself about the position.
    Raises DataError for a damaged file, a true 4-D one, colour or complex numbers, or an affine without volume.
    """
    file = _open(content, path)
    stored, proxy = file.get_data_dtype(), file.dataobj
    unscaled = (proxy.slope, proxy.inter) == (1.0, 0.0)
    fits = (stored.kind == "i" and stored.itemsize <= 2) or (stored.kind == "u" and stored.itemsize == 1)
    volume = _volume(file, _values(file, path, np.dtype(np.int16 if unscaled and fits else np.float32)), path)
    _warn_about_geometry(file, path)
    return volume


def ids(content: bytes, path: Path) -> Volume:
    """The label ids; floats within ID_TOLERANCE of whole numbers are rounded.

    Raises DataError as `image` does, and for other fractions, with values and voxel counts.
    """
    file = _open(content, path)
    values = _values(file, path, None)
    if values.dtype.kind == "f":
        values = whole_numbers(values, path)
    native = np.dtype(np.int64) if values.dtype.itemsize == 8 else values.dtype.newbyteorder("=")
    return _volume(file, values.astype(native, copy=False), path)


def encode(ids: npt.NDArray[Any], like: Volume, *, compressed: bool) -> bytes:
    """A NIfTI file with the shape, affine (sform = qform, both codes set), units and version of the file `like`.

    An image of another format gives a NIfTI-1 in millimetres.
    """
    import nibabel as nib

    header = like.header if isinstance(like.header, nib.Nifti1Header) else None
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    affine, code, units = np.array(like.affine, dtype=np.float64), _ALIGNED, ("mm", "sec")
    if header is not None:
        code = int(header["sform_code"]) or int(header["qform_code"]) or _ALIGNED
        units = header.get_xyzt_units()
        affine[:3] /= _unit_mm(header)
        if len(header.get_data_shape()) == 2:
            ids = ids[:, :, 0]
    file = kind(ids, affine)
    file.set_sform(affine, code)
    file.set_qform(affine, code)
    file.header.set_xyzt_units(*units)
    content: bytes = file.to_bytes()
    return gzip.compress(content, compresslevel=6, mtime=0) if compressed else content


def whole_numbers(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int32]:
    """Fractions within ID_TOLERANCE of whole numbers as these. Raises DataError with the others and their counts."""
    rounded: npt.NDArray[Any] = np.rint(values)
    with np.errstate(invalid="ignore"):  # inf - inf
        off = ~(np.abs(values - rounded) <= ID_TOLERANCE)
    if nowhere := int((~np.isfinite(values)).sum()):
        raise DataError(
            f"{path}: {nowhere} label values are NaN or infinite, as outside a field of view; write an id of its own there, such "
            'as 255, and put "ignore": 255 into dataset.json, or the id of the background'
        )
    if off.any():
        found, counts = np.unique(values[off], return_counts=True)
        shown = ", ".join(f"{v:.6g} ({n} voxels)" for v, n in zip(found[:5], counts[:5], strict=True))
        more = f" and {len(found) - 5} other values" if len(found) > 5 else ""
        raise DataError(
            f"{path}: label values {shown}{more} are not whole numbers, as after an interpolation or of probabilities; make the "
            "labels again with nearest-neighbour resampling, or give the most probable class"
        )
    if np.abs(rounded).max(initial=0) > np.iinfo(np.int32).max:
        raise DataError(f"{path}: label values reach {np.abs(rounded).max():g}; ids are 0..65535")
    whole: npt.NDArray[np.int32] = rounded.astype(np.int32)
    return whole


def shear_deg(affine: npt.NDArray[np.float64]) -> float:
    """Largest angle by which two of the three axes miss the right angle, 0 where an axis has no length."""
    axes = affine[:3, :3]
    sizes = np.linalg.norm(axes, axis=0)
    if not (sizes > 0).all():
        return 0.0
    cosines = np.triu((axes / sizes).T @ (axes / sizes), k=1)
    return float(np.degrees(np.arcsin(np.clip(np.abs(cosines).max(), 0, 1))))


def _magic(content: bytes) -> bytes:
    found = content[344:348], content[4:8]
    return next((m for m, known in zip(found, zip(_MAGIC, _PAIR_MAGIC, strict=True), strict=True) if m in known), b"")


def _unit_mm(header: Any) -> float:
    """Millimetres per unit of length that the header states."""
    return _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _open(content: bytes, path: Path) -> Any:
    """The nibabel image of the bytes; the voxels of a pair are read from the .img file beside the header."""
    import nibabel as nib

    zipped = content.startswith(_GZIP)
    try:
        head = gzip.GzipFile(fileobj=BytesIO(content)).read(_HEADER_BYTES) if zipped else content[:_HEADER_BYTES]
        magic = _magic(head)
        if not magic:
            raise _no_nifti(head, path)
        pair = magic in _PAIR_MAGIC
        kinds = (nib.Nifti1Pair, nib.Nifti1Image), (nib.Nifti2Pair, nib.Nifti2Image)
        kind = kinds[magic in (_MAGIC[1], _PAIR_MAGIC[1])][not pair]
        header = kind.header_class(head[: kind.header_class.sizeof_hdr], check=False)
        shape = header.get_data_shape()
        if not shape or min(shape) < 1:
            raise ValueError(f"its header states the size {shape}")
        size = math.prod(shape) * header.get_data_dtype().itemsize
        wanted = 0 if pair else size + max(int(header["vox_offset"]), 0)
        plain = _unzipped(content, wanted, path) if zipped else content
        if pair:
            return _pair(kind, plain, size, path)
        _enough(len(plain), wanted)
        return kind.from_bytes(plain)
    except _errors() as error:
        raise _damaged(path, error) from None


def _pair(kind: Any, header: bytes, size: int, path: Path) -> Any:
    """The image of a two-file NIfTI: bytes of the header, and the .img or .img.gz file beside it."""
    from nibabel.fileholders import FileHolder

    stem = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    stem = stem[: -len(".hdr")] if stem.lower().endswith(".hdr") else stem
    beside = [path.with_name(stem + ending) for ending in (".img", ".IMG", ".img.gz")]
    image = next((p for p in beside if p.is_file()), None)
    if image is None:
        raise DataError(f"{path}: is the header of a two-file NIfTI, but {beside[0].name} is missing; put it beside")
    stored = image.read_bytes()
    if stored.startswith(_GZIP):
        stored = _unzipped(stored, size, image)
    _enough(len(stored), size)
    return kind.from_file_map(
        {"header": FileHolder(fileobj=BytesIO(header)), "image": FileHolder(fileobj=BytesIO(stored))}
    )


def _unzipped(content: bytes, wanted: int, path: Path) -> bytes:
    """The plain bytes, to their end, where the checksum is; never many more than wanted."""
    check_promise(path, wanted, len(content), _GZIP_LARGE)
    if wanted > 1100 * len(content) + _SLACK:  # deflate gives at most 1032 bytes for one
        raise EOFError(f"its header promises {wanted} bytes, {len(content)} compressed ones cannot hold them")
    plain = gzip.GzipFile(fileobj=BytesIO(content)).read(wanted + _SLACK)
    if len(plain) == wanted + _SLACK:
        raise ValueError(f"its header promises {wanted} bytes, there are more than {len(plain)}")
    return plain


def _enough(there: int, wanted: int) -> None:
    if wanted > there:
        raise EOFError(f"its header promises {wanted} bytes, there are {there}")


def _no_nifti(head: bytes, path: Path) -> DataError:
    if head.startswith(_FIRST):
        return DataError(
            f"{path}: is an Analyze 7.5 header, which does not tell left from right, or a NIfTI whose magic number is "
            "damaged; convert it to NIfTI with a tool that knows its origin"
        )
    return DataError(f"{path}: is gzipped but holds no NIfTI; convert the file to NIfTI")


def _warn_about_geometry(file: Any, path: Path) -> None:
    """Shear (a tilted gantry), two positions that disagree, or none at all: read on, but say so once."""
    header = file.header
    codes = int(header["sform_code"]), int(header["qform_code"])
    said = ""
    if (angle := shear_deg(file.affine)) > SHEAR_DEG:
        said = f"its axes miss the right angle by {angle:.1f} degrees; slices are used as stored, distances follow the affine"
    elif codes == (0, 0):
        said = "its header states no position; left and right are taken as NIfTI's default (x grows to the left)"
    elif all(codes) and (off := _forms_differ(header)) > 0.1:
        said = f"its sform and qform are up to {off:.1f} voxels apart; the sform is used"
    elif (unit := _unit_mm(header)) != 1:
        said = f"its unit of length is {unit:g} mm; sizes are turned into mm"
    if said:
        warnings.warn(f"{path}: {said}", stacklevel=4)


def _forms_differ(header: Any) -> float:
    """How far a corner of the grid moves, in voxels, between the header's two positions."""
    corners = np.array([(*corner, 1.0) for corner in np.ndindex(2, 2, 2)]).T
    corners[:3] *= (np.array((*header.get_data_shape(), 1, 1)[:3])[:, None] - 1).clip(1)
    try:
        moved = np.linalg.inv(header.get_sform()) @ header.get_qform() @ corners
    except _errors():
        return 0.0
    return float(np.abs(moved - corners).max())


def _values(file: Any, path: Path, dtype: np.dtype[Any] | None) -> npt.NDArray[Any]:
    """(I, J, K) values with scaling applied; those of labels, where `dtype` is None, of the stored type. Trailing axes of length
    1 are dropped, a flat image gets K = 1."""
    shape = file.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        what = f"{path}: is {len(shape)}-D with shape {shape}, a volume has 3 axes"
        if dtype is None:
            axis = 0 if shape[0] < shape[-1] else -1  # classes are fewer than voxels
            raise DataError(
                f"{what}; if each of the {shape[axis]} holds the mask of one class, join them to one volume whose voxels hold "
                f"the ids of their classes: numpy.where(masks.any({axis}), masks.argmax({axis}) + 1, 0)"
            )
        raise DataError(f"{what}; save each volume of the series as a file of its own")
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
    affine[:3] *= _unit_mm(file.header)
    return Volume(array, affine, path, file.header)


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
