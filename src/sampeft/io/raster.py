"""Bytes of a PNG, JPEG or TIFF in, Volume of one slice out; label ids in, bytes of a PNG out."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.io.nifti import whole_numbers
from sampeft.io.sizes import LARGE, check_promise
from sampeft.labels import LabelSet
from sampeft.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "TIFF")
Color = tuple[int, int, int]

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IGNORE_COLOR = (255, 255, 255)
# What Pillow raises for damaged files.
_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, MemoryError, OverflowError, struct.error)
_ERRORS_TAGS = (KeyError, IndexError, AttributeError, AssertionError, ZeroDivisionError, NotImplementedError)
# Pillow stretches grey values of 2 and 4 bits to 0..255.
_STRETCH = {"L;2": 85, "L;4": 17}
_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "LA": 2, "PA": 2}  # of a pixel by mode; any other mode 4
_ORIENTATION = 274  # EXIF
_NEW_SUBFILE = 254  # TIFF; bit 0: a smaller copy of another page


def recognises(content: bytes) -> bool:
    """Whether the bytes begin like a PNG, JPEG or TIFF."""
    return content.startswith(_MAGIC)


def image(content: bytes, path: Path) -> Volume:
    """(H, W, 1) grey or (H, W, 1, 3) colour, uint8 or uint16; palettes expanded to colours, transparency dropped.

    Pixels stay where they are stored: an EXIF orientation turns nothing and is warned of, as is dropped transparency.
    Raises DataError for a damaged file, another format, several frames, print colours (CMYK), or 16-bit colour, which
    would lose bits.
    """
    picture, _ = _open(content, path)
    if picture.mode in _TRANSPARENT or "transparency" in picture.info:
        warnings.warn("transparency (alpha) of images is left out", stacklevel=3)
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        warnings.warn(
            f"{path}: its EXIF orientation asks viewers to turn it; pixels are used as stored, and so must the labels "
            "be; turn the pixels themselves (mogrify -auto-orient) before drawing labels",
            stacklevel=3,
        )
    if picture.mode in ("1", "LA"):
        picture = picture.convert("L")
    elif picture.mode not in ("L", "RGB", "I", "F") and not picture.mode.startswith("I;16"):
        picture = picture.convert("RGB")
    return Volume(_native(picture)[:, :, None], None, path)


def ids(content: bytes, path: Path) -> Volume:
    """(H, W, 1) ids: palette indices, grey values, or 0 and 1 of a 1-bit file. Warns of lossy content, which changes ids.

    Floats within 1e-3 of whole numbers are rounded. Raises DataError as `image` does, for other fractions, and for colours,
    which are no ids.
    """
    picture, raw = _open(content, path)
    if _is_lossy(picture):
        warn_of_jpeg(path)
    array = _native(picture)
    if array.dtype.kind == "f":
        array = whole_numbers(array, path)
    if array.ndim == 3:
        grey = array[..., : 1 if picture.mode in ("LA", "PA") else 3]
        if (grey != grey[..., :1]).any():
            colors = len(np.unique(grey.reshape(-1, 3), axis=0))
            raise DataError(
                f'{path}: holds {colors} colours instead of ids; save it as grey values or palette indices, or declare "colors"'
            )
        array = grey[..., 0]
    return Volume(
        (array.astype(np.uint8) if array.dtype == bool else array // _STRETCH.get(raw, 1))[..., None], None, path
    )


def colors_to_ids(
    array: npt.NDArray[Any], table: Mapping[Color, int], path: Path, unknown: int | None = None
) -> npt.NDArray[np.int32]:
    """Colours (H, W, 1, 3) or grey levels (H, W, 1) of 8 bits, as `image` gives them -> ids (H, W, 1), exactly.

    table: (red, green, blue) of 0..255 -> id. unknown: id for colours that the table lacks; without it they raise a
    DataError with each colour and its pixels. Warns of lossy content, which makes such colours.
    """
    warn_of_lossy(path)
    if array.dtype != np.uint8:
        raise DataError(f"{path}: holds {array.dtype} values; a colour table needs 8-bit colours or grey levels")
    grey = array.ndim == 3
    codes = (array if grey else array[..., 0]).astype(np.int32) << 16
    for channel, shift in ((1, 8), (2, 0)):
        codes |= (array if grey else array[..., channel]).astype(np.int32) << shift
    found, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    known = {(red << 16) | (green << 8) | blue: id for (red, green, blue), id in table.items()}
    lacking = [(int(n), int(code)) for code, n in zip(found, counts, strict=True) if int(code) not in known]
    if lacking and unknown is None:
        shown = ", ".join(f"{_color(code)} ({n} pixels)" for n, code in sorted(lacking, reverse=True)[:5])
        more = f" and {len(lacking) - 5} other colours" if len(lacking) > 5 else ""
        raise DataError(
            f"{path}: colour {shown}{more} is not in the colour table of {len(known)} colours; add it to the table, or "
            "correct the mask"
        )
    ids = np.array([known.get(int(code), unknown) for code in found], dtype=np.int32)
    return ids[inverse].reshape(codes.shape)


def encode(ids_HW: npt.NDArray[Any], labels: LabelSet) -> bytes:
    """PNG of the same size: palette indices in the colours of `labels` for 8-bit ids, else 16-bit grey."""
    from PIL import Image

    if ids_HW.dtype == np.uint8:
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[list(labels.ids)] = labels.colors
        if labels.ignore is not None:
            palette[labels.ignore] = _IGNORE_COLOR
        picture = Image.frombytes("P", ids_HW.shape[::-1], ids_HW.tobytes())
        picture.putpalette(palette.tobytes())
    else:
        picture = Image.fromarray(ids_HW.astype(np.uint16))
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _open(content: bytes, path: Path) -> tuple[Image, str]:
    """The picture, loaded, and how the file packs its values, in Pillow's words."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(BytesIO(content), formats=FORMATS)
        width, height = picture.size
        check_promise(path, width * height * _BYTES.get(picture.mode, 4), len(content), LARGE // 2)
        packing = picture.tile[0].args if picture.tile else ""
        raw = str(packing[0] if isinstance(packing, tuple) else packing)
        frames = _frames(picture)
        picture.load()
    except Image.DecompressionBombError:
        raise DataError(
            f"{path}: has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels; cut it into tiles"
        ) from None
    except (*_ERRORS, *_ERRORS_TAGS) as error:
        reason = "in its first bytes" if isinstance(error, UnidentifiedImageError) else (str(error) or "content")
        raise DataError(f"{path}: damaged or truncated ({reason}); copy or download it again") from None
    if frames > 1:
        raise DataError(
            f"{path}: holds {frames} frames; save each as a file of its own, or a volume as NIfTI with its spacing"
        )
    if picture.mode in ("CMYK", "LAB", "HSV"):
        raise DataError(f"{path}: holds {picture.mode} colours, as for print; convert it to RGB")
    if ";16" in raw and not picture.mode.startswith("I"):
        raise DataError(f"{path}: 16-bit {picture.mode} would lose its lower 8 bits; save it as 8-bit or as grey")
    return picture, raw


def _frames(picture: Image) -> int:
    """Pictures of full size: previews of a phone's JPEG and smaller copies in a TIFF do not count."""
    count = int(getattr(picture, "n_frames", 1))
    if picture.format != "TIFF" or count == 1:
        return 1 if picture.format == "MPO" else count
    whole = 0
    for index in range(min(count, 1000)):
        picture.seek(index)
        whole += not int(picture.tag_v2.get(_NEW_SUBFILE, 0)) & 1  # type: ignore[attr-defined]
    picture.seek(0)
    return max(whole, 1)


def _is_lossy(picture: Image) -> bool:
    """Whether the content, whatever the file's name, is JPEG; in a TIFF, too."""
    return picture.format in ("JPEG", "MPO") or picture.info.get("compression") in ("jpeg", "tiff_jpeg")


def warn_of_lossy(path: Path) -> None:
    """Warn of a file of labels whose content is lossy; nothing of one that Pillow does not open."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            lossy = _is_lossy(picture)
    except (*_ERRORS, *_ERRORS_TAGS, Image.DecompressionBombError):  # the reader says what is wrong
        return
    if lossy:
        warn_of_jpeg(path)


def warn_of_jpeg(path: Path) -> None:
    warnings.warn(f"{path}: labels in a JPEG are not exact; make them again as PNG", stacklevel=4)


def _color(code: int) -> Color:
    return code >> 16, code >> 8 & 255, code & 255


def _native(picture: Image) -> npt.NDArray[Any]:
    array = np.asarray(picture)
    return array.astype(array.dtype.newbyteorder("="))
