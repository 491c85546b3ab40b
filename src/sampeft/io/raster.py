"""Bytes of a PNG, JPEG or TIFF in, Volume of one slice out; label ids in, bytes of a PNG out."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.labels import LabelSet
from sampeft.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "TIFF")
_IGNORE_COLOR = (255, 255, 255)
# What Pillow raises for damaged files.
_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, MemoryError, struct.error)
# Pillow stretches grey values of 2 and 4 bits to 0..255.
_STRETCH = {"L;2": 85, "L;4": 17}


def image(content: bytes, path: Path) -> Volume:
    """(H, W, 1) grey or (H, W, 1, 3) colour, uint8 or uint16; palettes expanded to colours, transparency dropped.

    Raises DataError for a damaged file, another format, several frames, or 16-bit colour, which would lose bits.
    """
    picture, _ = _open(content, path)
    if picture.mode in ("1", "LA"):
        picture = picture.convert("L")
    elif picture.mode not in ("L", "RGB", "I", "F") and not picture.mode.startswith("I;16"):
        picture = picture.convert("RGB")
    return Volume(_native(picture)[:, :, None], None, path)


def ids(content: bytes, path: Path) -> Volume:
    """(H, W, 1) ids: palette indices, grey values, or 0 and 1 of a 1-bit file.

    Raises DataError as `image` does, and for colours, which are no ids.
    """
    picture, raw = _open(content, path)
    if picture.mode == "F":
        raise DataError(f"{path}: holds fractions; save the labels as whole numbers in a PNG")
    array = _native(picture)
    if array.ndim == 3:
        grey = array[..., : 1 if picture.mode in ("LA", "PA") else 3]
        if (grey != grey[..., :1]).any():
            colors = len(np.unique(grey.reshape(-1, 3), axis=0))
            raise DataError(f"{path}: holds {colors} colours instead of ids; save it as grey values or palette indices")
        array = grey[..., 0]
    return Volume(
        (array.astype(np.uint8) if array.dtype == bool else array // _STRETCH.get(raw, 1))[..., None], None, path
    )


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
        frames = getattr(picture, "n_frames", 1)
        packing = picture.tile[0].args if picture.tile else ""
        raw = str(packing[0] if isinstance(packing, tuple) else packing)
        picture.load()
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: neither NIfTI nor {', '.join(FORMATS)} (it begins with {content[:8]!r}), or its first bytes are "
            "damaged; convert it, or copy it again"
        ) from None
    except (*_ERRORS, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: damaged or truncated ({error}); copy or download it again") from None
    if frames > 1 and picture.format != "MPO":  # a phone's JPEG with a preview behind the photograph
        raise DataError(f"{path}: holds {frames} frames; save each as a file of its own")
    if ";16" in raw and not picture.mode.startswith("I"):
        raise DataError(f"{path}: 16-bit {picture.mode} would lose its lower 8 bits; save it as 8-bit or as grey")
    return picture, raw


def _native(picture: Image) -> npt.NDArray[Any]:
    array = np.asarray(picture)
    return array.astype(array.dtype.newbyteorder("="))
