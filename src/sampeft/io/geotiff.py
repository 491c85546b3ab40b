"""Bytes of a TIFF with bands or a map position in, Volume of one slice out; label ids in, bytes of a GeoTIFF out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.io.nifti import whole_numbers
from sampeft.io.sizes import check_promise
from sampeft.labels import LabelSet
from sampeft.volume import Volume

_HEADS = {b"II*\0": 8, b"MM\0*": 8, b"II+\0": 16, b"MM\0+": 16}  # magic -> bytes of the file's header
_POSITION_TAGS = (33550, 33922, 34264, 34735, 42112, 42113)  # scale, tie points, matrix, CRS, GDAL's own two
_SAMPLES, _BITS, _EXTRA, _FORMAT = 277, 258, 338, 339
_ALPHA = (1, 2)  # values of ExtraSamples that mean transparency


@dataclass(frozen=True)
class MapHeader:
    """Where a raster lies on the map and what its bands are.

    crs, transform, gcps: rasterio's, None where the file states none. bands: descriptions, "" where none is stated.
    nodata: value in the array that means "no measurement". missing: (H, W, 1) where no band has one, or None.
    """

    crs: Any
    transform: Any
    gcps: Any
    nodata: float | None
    bands: tuple[str, ...]
    missing: npt.NDArray[np.bool_] | None
    area_or_point: str | None


def recognises(content: bytes) -> bool:
    """Whether the bytes are a TIFF that an image library would misread: a position on a map, bands beside grey, RGB
    and tagged RGBA, or several bands of more than 8 bits."""
    tags = _tags(content)
    if any(tag in tags for tag in _POSITION_TAGS):
        return True
    samples = int(tags.get(_SAMPLES, 1))
    extra = tags.get(_EXTRA, ())
    alpha = len(extra) == 1 and extra[0] in _ALPHA
    deep = samples > 1 and (max(tags.get(_BITS, (1,))) > 8 or max(tags.get(_FORMAT, (1,))) > 1)
    return deep or not (samples in (1, 3) or (samples in (2, 4) and alpha))


def image(content: bytes, path: Path) -> Volume:
    """(H, W, 1) for one band, else (H, W, 1, C); the stored type, float32 for 64-bit fractions and scaled bands.

    A band tagged as transparency is left out with a warning. What was not measured keeps its stored value, or is NaN
    in scaled bands; `MapHeader` tells where. Raises DataError for a damaged file or without rasterio.
    """
    with _opened(content, path) as raster:
        kept = [i for i, use in zip(raster.indexes, raster.colorinterp, strict=True) if use.name != "alpha"]
        kept = kept or list(raster.indexes)
        if len(kept) < raster.count:
            left = sorted(set(raster.indexes) - set(kept))
            warnings.warn(
                f"{path}: band {left[0]} is tagged as transparency and left out; if it is a measurement, such as near "
                f"infrared, tell so with: rio edit-info --colorinterp {left[0]}=undefined",
                stacklevel=3,
            )
        stored_CHW = raster.read(kept)
        if stored_CHW.dtype.kind not in "iuf":
            raise DataError(f"{path}: holds {stored_CHW.dtype} values; convert it to plain numbers")
        absent_CHW = _absent(raster, stored_CHW, kept)
        header = _header(raster, [raster.descriptions[i - 1] or "" for i in kept], np.asarray(absent_CHW.all(axis=0)))
        palette = raster.colormap(1) if raster.colorinterp[0].name == "palette" and raster.count == 1 else None
        scales, offsets = (np.array([all_[i - 1] for i in kept]) for all_ in (raster.scales, raster.offsets))
    if (scales != 1).any() or (offsets != 0).any():
        stored_CHW = stored_CHW * scales[:, None, None] + offsets[:, None, None]
        stored_CHW[absent_CHW] = np.nan
    if palette is not None:  # its indices are ids; as an image it is its colours
        colors = np.array([palette[index][:3] for index in range(len(palette))], dtype=np.uint8)
        stored_CHW, header = np.moveaxis(colors[stored_CHW[0]], -1, 0), replace(header, nodata=None)
    if stored_CHW.dtype == np.float64:
        stored_CHW = stored_CHW.astype(np.float32)
    array = np.ascontiguousarray(np.moveaxis(stored_CHW, 0, -1))[:, :, None, :]
    return Volume(array[..., 0] if array.shape[3] == 1 else array, None, path, header)


def ids(content: bytes, path: Path) -> Volume:
    """(H, W, 1) ids as stored in the only band; indices of a colour table. Raises DataError for several bands."""
    with _opened(content, path) as raster:
        if raster.count != 1:
            raise DataError(f"{path}: has {raster.count} bands instead of ids; save the labels as one band")
        stored_HW = raster.read(1)
        header = _header(raster, ["ids"], np.zeros(stored_HW.shape, dtype=bool))
    if stored_HW.dtype.kind == "f":
        stored_HW = whole_numbers(stored_HW, path)
    if stored_HW.dtype.kind not in "iu":
        raise DataError(f"{path}: holds {stored_HW.dtype} values; save the labels as whole numbers")
    return Volume(stored_HW[:, :, None], None, path, header)


def encode(ids_HW: npt.NDArray[Any], labels: LabelSet, like: Volume) -> bytes:
    """GeoTIFF of the same size with the CRS and the transform of `like`; the colours of `labels` for 8-bit ids.

    Pixels that `like` has no measurement for become the ignore id, which the file then states as nodata, or
    background where the label map has no ignore id.
    """
    rasterio = _rasterio(like.path)
    header: MapHeader = like.header
    empty = labels.ignore if labels.ignore is not None else labels.ids[0] if labels.has_background else None
    if header.missing is not None and empty is not None:
        ids_HW = np.where(header.missing[..., 0], np.asarray(empty, dtype=ids_HW.dtype), ids_HW)
    height, width = ids_HW.shape
    position = {"crs": header.crs, "transform": header.transform, "gcps": header.gcps}
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=width,
            height=height,
            count=1,
            dtype=ids_HW.dtype.name,
            nodata=labels.ignore,
            compress="deflate",
            **{key: value for key, value in position.items() if value is not None},
        ) as raster:
            if header.area_or_point:
                raster.update_tags(AREA_OR_POINT=header.area_or_point)
            if ids_HW.dtype == np.uint8:
                raster.write_colormap(1, dict(zip(labels.ids, labels.colors, strict=True)))
            raster.write(ids_HW, 1)
        content: bytes = memory.read()
    return content


def _tags(content: bytes) -> dict[int, Any]:
    """The tags of a TIFF's first page; empty when it is none, or damaged."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    size = _HEADS.get(content[:4])
    if size is None:
        return {}
    try:
        page = ImageFileDirectory_v2(content[:size])
        stream = BytesIO(content)
        stream.seek(page.next)
        page.load(stream)
        return {tag: page[tag] for tag in (*_POSITION_TAGS, _SAMPLES, _BITS, _EXTRA, _FORMAT) if tag in page}
    except Exception:  # whatever Pillow raises for damaged tags; the reader then says what is wrong
        return {}


@contextmanager
def _opened(content: bytes, path: Path) -> Iterator[Any]:
    """The rasterio data set of the bytes, once its size is believable."""
    rasterio = _rasterio(path)
    try:
        with rasterio.MemoryFile(content) as memory, memory.open(driver="GTiff") as raster:
            size = sum(np.dtype(kind).itemsize for kind in raster.dtypes) * raster.width * raster.height
            check_promise(path, size, len(content))
            if len(raster.subdatasets) > 1:
                raise DataError(f"{path}: holds {len(raster.subdatasets)} pages; save each as a file of its own")
            yield raster
    except (rasterio.errors.RasterioError, rasterio.errors.RasterioIOError, ValueError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: damaged or truncated GeoTIFF ({reason}); copy or download it again") from None


def _rasterio(path: Path) -> Any:
    try:
        import rasterio
    except ImportError:
        raise DataError(f"{path}: bands or a position on the map need rasterio; pip install 'sampeft[geo]'") from None
    # Said by `transform` of a file without a position, which is no fault here.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def _header(raster: Any, bands: list[str], missing_HW: npt.NDArray[np.bool_]) -> MapHeader:
    gcps, gcps_crs = raster.gcps
    placed = raster.transform if not raster.transform.is_identity else None
    nodata = next((value for value in raster.nodatavals if value is not None), None)
    return MapHeader(
        crs=raster.crs or gcps_crs,
        transform=placed,
        gcps=gcps or None,
        nodata=nodata,
        bands=tuple(bands),
        missing=missing_HW[:, :, None] if missing_HW.any() else None,
        area_or_point=raster.tags().get("AREA_OR_POINT"),
    )


def _absent(raster: Any, stored_CHW: npt.NDArray[Any], kept: list[int]) -> npt.NDArray[np.bool_]:
    """(C, H, W) where a band holds its nodata value, or NaN, or a mask in the file hides the pixel."""
    absent_CHW = np.isnan(stored_CHW) if stored_CHW.dtype.kind == "f" else np.zeros(stored_CHW.shape, dtype=bool)
    for absent_HW, band_HW, i in zip(absent_CHW, stored_CHW, kept, strict=True):
        nodata = raster.nodatavals[i - 1]
        if nodata is not None:
            absent_HW |= band_HW == nodata
        elif {flag.name for flag in raster.mask_flag_enums[i - 1]} == {"per_dataset"}:
            absent_HW |= raster.read_masks(i) == 0
    return absent_CHW
