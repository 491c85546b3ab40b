"""Write maps of probabilities as 0..255 (0 to 1 in steps of 1/255), in the image's own kind and grid."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.io import geotiff, nifti, write_atomically
from sampeft.volume import Volume

_SLOPE = {348: (112, "f4"), 540: (176, "f8")}  # size of a NIfTI header -> where its slope is, and its type


def write_shares(stem: Path, shares_IJK: npt.NDArray[np.uint8], like: Volume) -> Path:
    """Write shares (I, J, K) on the grid of an image, whole or not at all; `stem` is the path without its ending.

    A volume or DICOM series gives a NIfTI whose slope of 1/255 makes readers see 0..1; a GeoTIFF one with that scale at
    the same position; a picture a grey PNG of 0..255.
    """
    if isinstance(like.header, geotiff.MapHeader):
        suffix, content = ".tif", _geotiff(shares_IJK[:, :, 0], like.header)
    elif like.is_raster:
        suffix, content = ".png", png(shares_IJK[:, :, 0])
    else:
        suffix, content = ".nii.gz", _nifti(shares_IJK, like)
    path = stem.parent / f"{stem.name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def png(shares_HW: npt.NDArray[np.uint8]) -> bytes:
    """A grey picture of 0..255."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(shares_HW).save(buffer, format="PNG")
    return buffer.getvalue()


def describe(raster: Any, header: geotiff.MapHeader | None) -> None:
    """The scale by which readers see 0..1, into a raster open for writing."""
    raster.scales = (1 / 255,)
    raster.update_tags(**geotiff.place_tags(header))


def _nifti(shares_IJK: npt.NDArray[np.uint8], like: Volume) -> bytes:
    import gzip

    content = bytearray(nifti.encode(shares_IJK, like, compressed=False))
    order = "<" if int.from_bytes(content[:4], "little") in _SLOPE else ">"
    size = int.from_bytes(content[:4], "little" if order == "<" else "big")
    start, kind = _SLOPE[size]
    slope = np.array(1 / 255, dtype=f"{order}{kind}").tobytes()
    content[start : start + len(slope)] = slope
    return gzip.compress(bytes(content), compresslevel=1, mtime=0)


def _geotiff(shares_HW: npt.NDArray[np.uint8], header: geotiff.MapHeader) -> bytes:
    import rasterio

    with rasterio.MemoryFile() as memory:
        with memory.open(**geotiff.profile(shares_HW.shape, np.uint8, None, header), compress="deflate") as raster:
            describe(raster, header)
            raster.write(shares_HW, 1)
        content: bytes = memory.read()
    return content
