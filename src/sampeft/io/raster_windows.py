"""Read rasters of any size by windows, and write tiled GeoTIFFs or PNGs row by row."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.io import geotiff, probability_maps, raster, read_volume, write_atomically
from sampeft.io.georeference import affine_of, pixel_metres
from sampeft.io.geotiff import MapHeader
from sampeft.labels import LabelSet
from sampeft.volume import Volume

BLOCK = 512  # side of the output's tiles
_LEAST_CACHE = 32 << 20
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Source(Protocol):
    """An image of which rows are read: (H, W) or (H, W, C) of the stored type, and where it has no measurement.

    size: (H, W). header: None for a picture without a place on the map; its `missing` is never set.
    """

    path: Path
    size: tuple[int, int]
    header: MapHeader | None

    def read(
        self, top: int, bottom: int, left: int = 0, right: int | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]: ...


class Picture:
    """A whole picture in memory."""

    def __init__(self, volume: Volume) -> None:
        self.path = volume.path
        header = volume.header if isinstance(volume.header, MapHeader) else None
        self.header = header and replace(header, missing=None)
        self._array = volume.array[:, :, 0]
        self.size = (self._array.shape[0], self._array.shape[1])
        missing = header.missing if header else None
        self._missing = np.zeros(self.size, dtype=bool) if missing is None else missing[:, :, 0]

    def read(
        self, top: int, bottom: int, left: int = 0, right: int | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        return self._array[top:bottom, left:right], self._missing[top:bottom, left:right]


class MapFile:
    """A GeoTIFF, of which only what is asked for is read; `opened` makes it."""

    def __init__(self, path: Path, opened: Any) -> None:
        self.path = path
        self.size = (opened.height, opened.width)
        self._bands = geotiff.Bands.of(opened, path)
        self.header: MapHeader | None = self._bands.header(np.zeros((0, 0), dtype=bool))

    def read(
        self, top: int, bottom: int, left: int = 0, right: int | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Raises DataError for a damaged file."""
        with geotiff.damage_told(self.path) as rasterio:
            right = self.size[1] if right is None else right
            window = rasterio.windows.Window(left, top, right - left, bottom - top)
            return self._bands.read(self.path, window)


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The image as it can be read: a GeoTIFF, or a TIFF that only rasterio understands, by windows; others whole.

    Raises DataError as `read_volume` does.
    """
    if not geotiff.is_map(path):
        yield Picture(read_volume(path))
        return
    with geotiff.open_file(path) as file:
        import rasterio

        # A row of the file's own blocks must fit, or each is unpacked for every window.
        pixel = sum(np.dtype(kind).itemsize for kind in file.dtypes)
        row = pixel * file.width * max(height for height, _ in file.block_shapes)
        with rasterio.Env(GDAL_CACHEMAX=max(_LEAST_CACHE, 2 * row)):
            yield MapFile(path, file)


def looks_like_picture(path: Path) -> bool:
    """Whether a file begins like a PNG, JPEG or TIFF."""
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(_PICTURES)
    except OSError:
        return False


def glance(path: Path) -> tuple[tuple[int, int], tuple[float, float] | None]:
    """(H, W) of a picture or raster and (down, across) metres of its pixels, None where it has no place on the map.

    Only the beginning of the file is read. Raises DataError for a damaged one.
    """
    if not (geotiff.is_map(path) or geotiff.is_described_beside(path)):
        return picture_size(path), None
    with geotiff.damage_told(path), geotiff.open_file(path) as file:
        crs, transform, gcps = geotiff.place_of(file)
        size = (file.height, file.width)
        return size, pixel_metres(crs, affine_of(transform, gcps), size)


def picture_size(path: Path) -> tuple[int, int]:
    """(H, W) of a PNG, JPEG or plain TIFF by its header. Raises DataError for a damaged one."""
    from PIL import Image

    try:
        with Image.open(path, formats=raster.FORMATS) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: damaged or truncated ({error}); copy or download it again") from None


class Content(Protocol):
    """What a written raster holds. overviews: how smaller copies are made of it."""

    dtype: np.dtype[Any]
    nodata: int | None
    overviews: str

    def describe(self, file: Any, header: MapHeader | None) -> None: ...

    def png(self, array_HW: npt.NDArray[Any]) -> bytes: ...


class Ids:
    """Ids of classes, with their names and colours."""

    overviews = "mode"

    def __init__(self, labels: LabelSet) -> None:
        self.labels, self.nodata = labels, labels.ignore
        self.dtype: np.dtype[Any] = np.dtype(labels.dtype)

    def describe(self, file: Any, header: MapHeader | None) -> None:
        geotiff.describe(file, self.labels, header)

    def png(self, array_HW: npt.NDArray[Any]) -> bytes:
        return raster.encode(array_HW, self.labels)


class Shares:
    """Shares as 0..255, as `write_shares` writes them."""

    overviews = "average"
    nodata: int | None = None

    def __init__(self) -> None:
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)

    def describe(self, file: Any, header: MapHeader | None) -> None:
        probability_maps.describe(file, header)

    def png(self, array_HW: npt.NDArray[Any]) -> bytes:
        return probability_maps.png(array_HW)


class MapWriter:
    """Takes rows from top to bottom and makes a file of them: for a map a cloud-optimised GeoTIFF (tiled, deflated, with
    smaller copies), else a PNG. The file is there when `finish` returns, and not before.

    Raises OSError when it cannot be written.
    """

    def __init__(self, path: Path, source: Source, content: Content) -> None:
        self.path, self.content, self._like = path, content, source
        self._temporary = [path.with_name(f".{path.name}.{uuid.uuid4().hex}.{part}.tmp") for part in ("rows", "whole")]
        self._waiting: list[npt.NDArray[Any]] = []
        self._written = self._checksum = 0
        self._file: Any = None
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.header is not None:
            with disk_told(path) as rasterio:
                self._file = rasterio.open(
                    self._temporary[0],
                    "w",
                    **geotiff.profile(source.size, content.dtype, content.nodata, source.header),
                    tiled=True,
                    blockxsize=BLOCK,
                    blockysize=BLOCK,
                    compress="deflate",
                    zlevel=1,
                    bigtiff="if_safer",
                )
                content.describe(self._file, source.header)

    def append(self, rows_nW: npt.NDArray[Any]) -> None:
        """The next rows; whole rows of tiles are written, so that none is packed twice."""
        self._waiting.append(np.ascontiguousarray(rows_nW, dtype=self.content.dtype))
        self._checksum = zlib.crc32(self._waiting[-1].data, self._checksum)
        count = sum(len(rows) for rows in self._waiting)
        last = self._written + count == self._like.size[0]
        ready = count if last else count // BLOCK * BLOCK
        if self._file is None or not ready:
            return
        rows = np.concatenate(self._waiting)
        with disk_told(self.path) as rasterio:
            window = rasterio.windows.Window(0, self._written, rows.shape[1], ready)
            self._file.write(rows[:ready], 1, window=window)
        self._waiting, self._written = [rows[ready:]], self._written + ready

    def finish(self) -> None:
        if self._file is None:
            write_atomically(self.path, self.content.png(np.concatenate(self._waiting)))
            return
        unfinished, whole = self._temporary
        with disk_told(self.path) as rasterio:
            from rasterio.shutil import copy

            self._file.close()
            options = {"compress": "deflate", "blocksize": BLOCK, "bigtiff": "if_safer"}
            copy(unfinished, whole, driver="COG", overview_resampling=self.content.overviews, **options)
            with rasterio.open(whole) as made:
                found = 0
                for top in range(0, made.height, BLOCK):
                    window = rasterio.windows.Window(0, top, made.width, min(BLOCK, made.height - top))
                    found = zlib.crc32(made.read(1, window=window), found)
        if found != self._checksum:  # GDAL may say nothing when the disk is full
            raise _unwritten(self.path, "the file is not what was written to it")
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(whole, self.path)

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None and not self._file.closed:
            with suppress(Exception):  # the file is thrown away, whatever is wrong with it
                self._file.close()
        for temporary in self._temporary:
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_told(path: Path) -> Iterator[Any]:
    """rasterio for a file that is written; what it raises becomes an OSError that names the path."""
    import rasterio

    try:
        yield rasterio
    except (rasterio.errors.RasterioError, rasterio.errors.RasterioIOError, rasterio._err.CPLE_BaseError) as error:
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        raise _unwritten(path, (str(cause).splitlines() or [type(cause).__name__])[0]) from None


def _unwritten(path: Path, reason: str) -> OSError:
    full = shutil.disk_usage(path.parent).free < _LEAST_CACHE
    return OSError(errno.ENOSPC if full else errno.EIO, os.strerror(errno.ENOSPC) if full else reason, str(path))
