"""A TIFF of bands or with a place on the map, or a picture that a file beside it places, and label ids as a GeoTIFF."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError
from sampeft.io.beside import category_names, side_files, warn_of_unread, warn_once
from sampeft.io.nifti import whole_numbers
from sampeft.io.raster import warn_of_jpeg
from sampeft.io.sizes import check_promise
from sampeft.labels import LabelSet
from sampeft.volume import Volume

_HEADS = {b"II*\0": 8, b"MM\0*": 8, b"II+\0": 16, b"MM\0+": 16}  # magic -> bytes of the file's header
_POSITION_TAGS = (33550, 33922, 34264, 34735, 42112, 42113)  # scale, tie points, matrix, CRS, GDAL's own two
_CLASS_TAG = re.compile(r"CLASS_\d{1,5}")
_DRIVERS = {b"\x89PN": "PNG", b"\xff\xd8\xff": "JPEG"}
_SAMPLES, _BITS, _EXTRA, _FORMAT = 277, 258, 338, 339
_ALPHA = (1, 2)  # values of ExtraSamples that mean transparency
_EXACT = {1: (1, 2, 4, 8, 12, 16), 2: (16, 32), 3: (32,)}
"""SampleFormat -> bits of a number that an image library reads as it is; it wraps, or takes for damage, all others."""


@dataclass(frozen=True)
class MapHeader:
    """Where a raster lies on the map and what its bands are.

    crs, transform, gcps: rasterio's, None where the file states none. bands: descriptions, "" where none is stated.
    nodata: value in the array that means "no measurement". missing: (H, W, 1) where no band has one, or None.
    class_names: of ids, as `describe` writes them, or a file beside the raster lists them.
    """

    crs: Any
    transform: Any
    gcps: Any
    nodata: float | None
    bands: tuple[str, ...]
    missing: npt.NDArray[np.bool_] | None
    area_or_point: str | None
    class_names: dict[int, str] = field(default_factory=dict)


def recognises(content: bytes) -> bool:
    """Whether the bytes are a TIFF that an image library would misread: a position on a map, bands beside grey, RGB
    and tagged RGBA, several bands of more than 8 bits, or numbers that it does not know (int8, uint32, 64 bits)."""
    return _misread(_tags_of(BytesIO(content)))


def is_map(path: Path) -> bool:
    """What `recognises` says of a file, of which only the tags are read; and of a TIFF whether a file beside it says more."""
    try:
        with path.open("rb") as file:
            is_tiff = file.read(4) in _HEADS
            file.seek(0)
            misread = _misread(_tags_of(file))
    except OSError:
        return False
    return misread or (is_tiff and is_described_beside(path))


def placed(volume: Volume) -> Volume:
    """A picture with the `MapHeader` that files beside it give it, where they do; its pixels stay those of the library that
    reads pictures, since GDAL unpacks a JPEG otherwise."""
    if not is_described_beside(volume.path):
        return volume
    with damage_told(volume.path), open_file(volume.path) as raster:
        missing_HW = np.asarray(_absent(raster, raster.read(), raster.indexes, None).all(axis=0))
        return replace(volume, header=_header(raster, [name or "" for name in raster.descriptions], missing_HW))


def is_described_beside(path: Path) -> bool:
    """Whether files beside a PNG, JPEG or TIFF, as GDAL reads them, say where it lies, or what of it was not measured.

    Warns of such files where rasterio is not installed.
    """
    if not (found := side_files(path)):
        return False
    try:
        raster = open_file(path)
    except DataError as error:
        if find_spec("rasterio") is None:
            warnings.warn(f"{path}: {found[0].name} beside it is not read; pip install 'sampeft[geo]'", stacklevel=2)
            return False
        raise error
    with raster:
        masked = any({flag.name for flag in flags} == {"per_dataset"} for flags in raster.mask_flag_enums)
        known = (*raster.nodatavals, *place_of(raster))
        return masked or any(value is not None for value in known) or set(raster.scales) != {1} or any(raster.offsets)


def open_file(path: Path) -> Any:
    """The rasterio data set of a file with what lies beside it: the one way to open a raster. Close it. Warns of such files that
    are not honoured.

    Raises DataError for a damaged file, one of several pages, and without rasterio.
    """
    with path.open("rb") as file:
        driver = _DRIVERS.get(file.read(3), "GTiff")
    with damage_told(path) as rasterio:
        raster = rasterio.open(path, driver=driver)
    if len(raster.subdatasets) > 1:
        raster.close()
        raise DataError(f"{path}: holds {len(raster.subdatasets)} pages; save each as a file of its own")
    warn_of_unread(raster, path)
    return raster


def place_of(raster: Any) -> tuple[Any, Any, Any]:
    """(crs, transform, gcps) of an open raster, None where neither the file nor one beside it states them.

    A .prj that lies beside a world file counts, although GDAL leaves it alone; warns of one that cannot be read.
    """
    gcps, gcps_crs = raster.gcps
    transform = None if raster.transform.is_identity else raster.transform
    crs = raster.crs or gcps_crs
    if not crs and transform is not None:
        crs = _crs_beside(Path(raster.name))
    return crs or None, transform, gcps or None


def _crs_beside(path: Path) -> Any:
    beside = next((p for p in (path.with_suffix(".prj"), path.with_suffix(".PRJ")) if p.is_file()), None)
    if beside is None:
        return None
    rasterio = _rasterio(path)
    try:
        return rasterio.crs.CRS.from_wkt(beside.read_text(encoding="utf-8-sig"), morph_from_esri_dialect=True)
    except (rasterio.errors.CRSError, OSError, UnicodeDecodeError):
        warn_once(f"{path}: {beside.name} beside it holds no coordinate system that can be read; write it again as WKT")
        return None


@dataclass(frozen=True)
class Bands:
    """An open raster and how its bands become an image.

    kept: numbers of the bands that are looked at, from 1. palette: (colours, 3) uint8 of an image of indices, or None.
    scales, offsets: stored value -> measurement, one per band kept.
    """

    raster: Any
    kept: tuple[int, ...]
    palette: npt.NDArray[np.uint8] | None
    scales: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.float64]

    @classmethod
    def of(cls, raster: Any, path: Path) -> Bands:
        """Warns of a band tagged as transparency, which is left out."""
        kept = [i for i, use in zip(raster.indexes, raster.colorinterp, strict=True) if use.name != "alpha"]
        kept = kept or list(raster.indexes)
        if len(kept) < raster.count:
            left = sorted(set(raster.indexes) - set(kept))
            warnings.warn(
                f"{path}: band {left[0]} is tagged as transparency and left out; if it is a measurement, such as near "
                f"infrared, tell so with: rio edit-info --colorinterp {left[0]}=undefined",
                stacklevel=3,
            )
        colors = raster.colormap(1) if raster.colorinterp[0].name == "palette" and raster.count == 1 else None
        palette = np.array([colors[i][:3] for i in range(len(colors))], dtype=np.uint8) if colors else None
        scales, offsets = (np.array([all_[i - 1] for i in kept]) for all_ in (raster.scales, raster.offsets))
        return cls(raster, tuple(kept), palette, scales, offsets)

    def read(self, path: Path, window: Any = None) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """(H, W) of one band or (H, W, C), and (H, W) where no band has a measurement, of the whole or a window of it.

        The stored type; float32 for 64-bit fractions and scaled bands. What was not measured keeps its stored value, or
        is NaN in scaled bands. Raises DataError for values that are no plain numbers.
        """
        stored_CHW = self.raster.read(list(self.kept), window=window)
        if stored_CHW.dtype.kind not in "iuf":
            raise DataError(f"{path}: holds {stored_CHW.dtype} values; convert it to plain numbers")
        absent_CHW = _absent(self.raster, stored_CHW, self.kept, window)
        if (self.scales != 1).any() or (self.offsets != 0).any():
            stored_CHW = stored_CHW * self.scales[:, None, None] + self.offsets[:, None, None]
            stored_CHW[absent_CHW] = np.nan
        if self.palette is not None:  # its indices are ids; as an image it is its colours
            stored_CHW = np.moveaxis(self.palette[stored_CHW[0]], -1, 0)
        if stored_CHW.dtype == np.float64:
            stored_CHW = stored_CHW.astype(np.float32)
        array = np.ascontiguousarray(np.moveaxis(stored_CHW, 0, -1))
        return array[..., 0] if array.shape[2] == 1 else array, np.asarray(absent_CHW.all(axis=0))

    def header(self, missing_HW: npt.NDArray[np.bool_]) -> MapHeader:
        header = _header(self.raster, [self.raster.descriptions[i - 1] or "" for i in self.kept], missing_HW)
        return header if self.palette is None else replace(header, nodata=None)


def image(content: bytes, path: Path) -> Volume:
    """(H, W, 1) for one band, else (H, W, 1, C), as `Bands.read` gives it; `MapHeader` tells what was not measured.

    A band tagged as transparency is left out with a warning. Raises DataError for a damaged file or without rasterio.
    """
    with _opened(content, path) as raster:
        bands = Bands.of(raster, path)
        array, missing_HW = bands.read(path)
        return Volume(array[:, :, None], None, path, bands.header(missing_HW))


def ids(content: bytes, path: Path) -> Volume:
    """(H, W, 1) ids as stored in the only band; indices of a colour table. Raises DataError for several bands."""
    with _opened(content, path) as raster:
        if raster.count != 1:
            raise DataError(f"{path}: has {raster.count} bands instead of ids; save the labels as one band")
        if raster.compression is not None and raster.compression.name == "jpeg":
            warn_of_jpeg(path)
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
    if header.missing is not None:
        ids_HW = without_measurement(ids_HW, header.missing[..., 0], labels)
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile(ids_HW.shape, ids_HW.dtype, labels.ignore, header), compress="deflate") as raster:
            describe(raster, labels, header)
            raster.write(ids_HW, 1)
        content: bytes = memory.read()
    return content


def without_measurement(
    ids_HW: npt.NDArray[Any], missing_HW: npt.NDArray[np.bool_], labels: LabelSet
) -> npt.NDArray[Any]:
    """The ids with the ignore id, or background where there is none, in pixels that have no measurement."""
    empty = labels.ignore if labels.ignore is not None else labels.ids[0] if labels.has_background else None
    if empty is None or not missing_HW.any():
        return ids_HW
    return np.where(missing_HW, np.asarray(empty, dtype=ids_HW.dtype), ids_HW)


def profile(
    size: tuple[int, ...], dtype: npt.DTypeLike, nodata: int | None, header: MapHeader | None
) -> dict[str, Any]:
    """What rasterio needs to open a file of one band (H, W) for writing: at the place of `header`, if it has one."""
    position = {name: getattr(header, name, None) for name in ("crs", "transform", "gcps")}
    return {
        "driver": "GTiff",
        "height": size[0],
        "width": size[1],
        "count": 1,
        "dtype": np.dtype(dtype).name,
        "nodata": nodata,
        **{key: value for key, value in position.items() if value is not None},
    }


def describe(raster: Any, labels: LabelSet, header: MapHeader | None) -> None:
    """Names of the classes as tags CLASS_<id>, their colours where ids have 8 bits, into a raster open for writing."""
    names = {f"CLASS_{id}": name for id, name in zip(labels.ids, labels.names, strict=True)}
    raster.update_tags(**names, **place_tags(header))
    if raster.dtypes[0] == "uint8":
        raster.write_colormap(1, dict(zip(labels.ids, labels.colors, strict=True)))


def place_tags(header: MapHeader | None) -> dict[str, str]:
    """What a file says of where in its pixels the places lie."""
    # GDAL moves ground control points by a pixel when a file says `Point` of itself after it was made.
    said = header.area_or_point if header and not header.gcps else None
    return {"AREA_OR_POINT": said} if said else {}


def _misread(tags: dict[int, Any]) -> bool:
    if any(tag in tags for tag in _POSITION_TAGS):
        return True
    samples = int(tags.get(_SAMPLES, 1))
    extra = tags.get(_EXTRA, ())
    alpha = len(extra) == 1 and extra[0] in _ALPHA
    bits, format = max(tags.get(_BITS, (1,))), max(tags.get(_FORMAT, (1,)))
    deep = samples > 1 and (bits > 8 or format > 1)
    return deep or bits not in _EXACT.get(format, ()) or not (samples in (1, 3) or (samples in (2, 4) and alpha))


def _tags_of(file: IO[bytes]) -> dict[int, Any]:
    """The tags of a TIFF's first page; empty when it is none, or damaged."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    start = file.read(16)
    size = _HEADS.get(start[:4])
    if size is None:
        return {}
    try:
        page = ImageFileDirectory_v2(start[:size])
        file.seek(page.next)
        page.load(file)
        return {tag: page[tag] for tag in (*_POSITION_TAGS, _SAMPLES, _BITS, _EXTRA, _FORMAT) if tag in page}
    except Exception:  # whatever Pillow raises for damaged tags; the reader then says what is wrong
        return {}


@contextmanager
def _opened(content: bytes, path: Path) -> Iterator[Any]:
    """The rasterio data set of the file that holds the bytes, once its size is believable."""
    with damage_told(path), open_file(path) as raster:
        size = sum(np.dtype(kind).itemsize for kind in raster.dtypes) * raster.width * raster.height
        check_promise(path, size, len(content))
        yield raster


@contextmanager
def damage_told(path: Path) -> Iterator[Any]:
    """rasterio for a file that is read; what it raises becomes a DataError. Raises DataError without rasterio."""
    rasterio = _rasterio(path)
    try:
        yield rasterio
    except (
        *(rasterio.errors.RasterioError, rasterio.errors.RasterioIOError, rasterio._err.CPLE_BaseError),
        *(ValueError, MemoryError),
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: damaged or truncated GeoTIFF ({reason}); copy or download it again") from None


def _rasterio(path: Path) -> Any:
    try:
        import rasterio
    except ImportError:
        raise DataError(
            f"{path}: bands, a position on the map or such numbers need rasterio; pip install 'sampeft[geo]'"
        ) from None
    # Said by `transform` of a file without a position, which is no fault here.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def _header(raster: Any, bands: list[str], missing_HW: npt.NDArray[np.bool_]) -> MapHeader:
    crs, transform, gcps = place_of(raster)
    tags = raster.tags()
    nodata = next((value for value in raster.nodatavals if value is not None), None)
    return MapHeader(
        crs=crs,
        transform=transform,
        gcps=gcps,
        nodata=nodata,
        bands=tuple(bands),
        missing=missing_HW[:, :, None] if missing_HW.any() else None,
        area_or_point=tags.get("AREA_OR_POINT"),
        class_names=category_names(Path(raster.name))
        | {int(tag[6:]): name for tag, name in tags.items() if _CLASS_TAG.fullmatch(tag)},
    )


def _absent(raster: Any, stored_CHW: npt.NDArray[Any], kept: Sequence[int], window: Any) -> npt.NDArray[np.bool_]:
    """(C, H, W) where a band holds its nodata value, or NaN, or a mask in the file hides the pixel."""
    absent_CHW = np.isnan(stored_CHW) if stored_CHW.dtype.kind == "f" else np.zeros(stored_CHW.shape, dtype=bool)
    for absent_HW, band_HW, i in zip(absent_CHW, stored_CHW, kept, strict=True):
        nodata = raster.nodatavals[i - 1]
        if nodata is not None:
            absent_HW |= band_HW == nodata
        elif {flag.name for flag in raster.mask_flag_enums[i - 1]} == {"per_dataset"}:
            absent_HW |= raster.read_masks(i, window=window) == 0
    return absent_CHW
