"""Read a label file as class channels on its image's grid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Dataset, ImageFile
from sampeft.data.intensity import not_measured
from sampeft.errors import DataError
from sampeft.io import read_label_ids, read_volume
from sampeft.io.georeference import affine_of
from sampeft.volume import IGNORE, LabelVolume, Volume

Color = tuple[int, int, int]

GRID_TOLERANCE_VOXELS = 0.1
"""Grids whose corners are closer than this are the same: headers round differently."""


class Truth(NamedTuple):
    """label: on the image's grid. display: whether 255 was read as the only class. placed_by: what alone
    tells that the two lie on each other where only one of them states its place or coordinate system, or they are of two
    examinations, in words, else empty.
    by_name: whether ids went by the names or
    colours in the file, which are not those of the label map. foreign: names of ids in the file that no class has."""

    label: LabelVolume
    display: bool
    placed_by: str
    by_name: bool
    foreign: str


def read_labels(file: ImageFile, dataset: Dataset, image: Volume) -> LabelVolume:
    """The truth of an image as class channels on the image's grid.

    Applies the data set's colours and `label_values`; a mask with 255 for the only class is read as that class, unless
    255 means something else. A label that is stored with flipped or swapped axes is turned to the image's, be it a volume or
    a raster on the map. Where no band of the image was measured there is no truth, nor where the label holds what its own
    file calls nodata, unless that is the id of a class.
    Raises DataError for a missing label, a value or colour of no class, or another grid or place.
    """
    return read_truth(file, dataset, image).label


def read_truth(file: ImageFile, dataset: Dataset, image: Volume) -> Truth:
    """What `read_labels` gives, and what is worth saying of how it was read."""
    if file.label is None:
        raise DataError(f"{file.image}: has no label; add its label file, or take the image out of the data set")
    raw, by_color = _read_ids(file.label, dataset)
    ids = on_image_grid(raw, image)
    table = _channel_of_value(dataset)
    if (nodata := _stated_nodata(raw)) is not None:
        table.setdefault(nodata, IGNORE)
    values, counts = _values(ids)
    if getattr(raw.header, "is_part", False) and not dataset.labels.has_background and 0 not in dataset.label_values:
        table = {value: channel for value, channel in table.items() if value != 0 or channel == IGNORE}
    renamed, foreign = _by_name(raw, values, dataset)
    table |= renamed
    foreground = dataset.labels.foreground
    display = 255 in values and set(values) <= {0, 255} and 255 not in table and len(foreground) == 1
    if display:
        table[255] = foreground[0]
    if unknown := [(value, n) for value, n in zip(values, counts, strict=True) if value not in table]:
        raise DataError(_unknown_ids(file.label, unknown, values, dataset, "pixels" if image.is_raster else "voxels"))
    if all(table[value] == value for value in values):
        channels = ids.astype(np.int16)
    else:
        lowest = min(0, values[0])
        lookup = np.full(values[-1] - lowest + 1, IGNORE, dtype=np.int16)
        for value in values:
            lookup[value - lowest] = table[value]
        channels = lookup[ids - lowest if lowest else ids]
    if (missing := not_measured(image)) is not None:
        channels[missing] = IGNORE
    named = by_color or bool(renamed)
    return Truth(LabelVolume(channels, image.affine, file.label), display, _placed_by(raw, image), named, foreign)


def on_image_grid(label: Volume, image: Volume) -> npt.NDArray[Any]:
    """The label's array on the grid of the image, turned exactly where axes are flipped or swapped. Rasters of which one states
    no place on the map are taken as they are.

    Raises DataError when sizes, or the coordinate systems of maps, differ or a corner is off by GRID_TOLERANCE_VOXELS or
    more.
    """
    if label.is_raster != image.is_raster:
        raise DataError(_sizes_differ(label, image))
    label_affine, image_affine = _placed(label), _placed(image)
    if label_affine is None or image_affine is None:
        if label.grid != image.grid:
            raise DataError(_sizes_differ(label, image))
        return label.array
    theirs, ours = (getattr(volume.header, "crs", None) for volume in (label, image))
    if theirs and ours and theirs != ours:
        raise DataError(
            f"{label.path}: is in the coordinate system {_crs_name(theirs)}, its image {image.path.name} in "
            f"{_crs_name(ours)}; warp the label onto the image with nearest neighbour (rio warp --like), or correct the one "
            "that is wrong"
        )
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    to_image = np.linalg.inv(image_affine) @ label_affine
    turn = io_orientation(to_image)
    turned = apply_orientation(label.array, turn)
    # Maps an index of the turned array to the index in the image; the identity when the grids agree.
    index = to_image @ inv_ornt_aff(turn, label.grid)
    if getattr(label.header, "is_part", False):
        turned, index = _in_whole(turned, index, image.grid)
    if turned.shape != image.grid:
        raise DataError(_sizes_differ(label, image, turned.shape))
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in image.grid))]).T
    off = (index - np.eye(4)) @ corners
    if np.abs(off[:3]).max() >= GRID_TOLERANCE_VOXELS:
        distance = np.linalg.norm((image_affine @ off)[:3], axis=0).max()
        unit, wrong = (_map_unit(ours or theirs), "place") if image.is_raster else ("mm", "affine")
        lacking = "label" if ours and not theirs else "image" if theirs and not ours else ""
        more = f" (the {lacking} states no coordinate system)" if lacking else ""
        raise DataError(
            f"{label.path}: its grid is up to {f'{distance:.2f}' if distance >= 0.01 else f'{distance:.3g}'} {unit} away from "
            f"that of {image.path.name}{more}; resample the label to the image with nearest neighbour, or correct the {wrong} "
            "that is wrong"
        )
    return turned if (turn == [[0, 1], [1, 1], [2, 1]]).all() else np.ascontiguousarray(turned)


def _placed(volume: Volume) -> npt.NDArray[np.float64] | None:
    """Index (i, j, k, 1) of a voxel's or pixel's middle -> where it lies in the patient or on the map, by the transform or the
    ground control points; None where the file does not say. Raises DataError for a map transform that is none."""
    header = volume.header
    transform = affine_of(getattr(header, "transform", None), getattr(header, "gcps", None))
    if volume.affine is not None or transform is None:
        return volume.affine
    a, b, c, d, e, f = tuple(transform)[:6]  # (x, y) of the upper left corner of (column, row)
    if not np.isfinite([a, b, c, d, e, f]).all() or a * e == b * d:
        raise DataError(
            f"{volume.path}: its transform to the map is none ({a:g}, {b:g}, {c:g}, {d:g}, {e:g}, {f:g}); correct it, or the "
            "world file beside it"
        )
    return np.array(
        [[b, a, 0, c + (a + b) / 2], [e, d, 0, f + (d + e) / 2], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64
    )


def _in_whole(
    part: npt.NDArray[Any], index: npt.NDArray[np.float64], grid: tuple[int, ...]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """A part of an image's grid as the whole of it, 0 elsewhere, and its map to the index in the image; as it was where it does
    not lie inside."""
    index = index.copy()
    for axis in np.flatnonzero(np.equal(part.shape, 1)):
        index[:, axis] = np.eye(4)[axis]  # of one slice the step to the next is not known
    start = np.rint(index[:3, 3]).astype(int)
    stop = start + part.shape
    if (start < 0).any() or (stop > grid).any():
        return part, index
    whole = np.zeros(grid, part.dtype)
    whole[tuple(map(slice, start, stop))] = part
    back = np.eye(4)
    back[:3, 3] = -start
    return whole, index @ back


def _placed_by(label: Volume, image: Volume) -> str:
    frames = {getattr(volume.header, "frame_of_reference", "") for volume in (label, image)}
    if len(frames - {""}) > 1:
        return "positions alone, since image and label state other frames of reference, as of two examinations"
    placed = [_placed(volume) is not None for volume in (label, image)]
    if placed[0] != placed[1]:
        return "size alone, since image or label states no place on the map"
    known = [bool(getattr(volume.header, "crs", None)) for volume in (label, image)]
    return "transform alone, since image or label states no coordinate system" if known[0] != known[1] else ""


def _stated_nodata(label: Volume) -> int | None:
    """The id that a label file itself declares to be none."""
    nodata = getattr(label.header, "nodata", None)
    return int(nodata) if nodata is not None and np.isfinite(nodata) and nodata == int(nodata) else None


def _crs_name(crs: Any) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())[:60]


def _map_unit(crs: Any) -> str:
    if not crs:
        return "map units"
    return {"metre": "m", "meter": "m"}.get(crs.linear_units, crs.linear_units) if crs.is_projected else "degrees"


def count_channels(channels: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    """How often 0..classes-1 occur in (I, J, K). Slab by slab, because bincount makes a 64-bit copy, and 0 apart,
    because most pixels are."""
    counts = np.zeros(classes, dtype=np.int64)
    for slab in np.moveaxis(channels, 2, 0):
        flat = slab.ravel(order="K")
        counts += np.bincount(flat[flat > 0], minlength=classes)
        counts[0] += flat.size - np.count_nonzero(flat)
    return counts


def _by_name(raw: Volume, values: list[int], dataset: Dataset) -> tuple[dict[int, int], str]:
    """Value -> channel where the label file names its values otherwise than the label map; and, in words, the names that no
    class has. What the user maps is left alone.

    Raises DataError where some names are those of other classes and some of none, so that neither order can be right.
    """
    labels, said = dataset.labels, getattr(raw.header, "class_names", None) or {}
    channels = {_plain(name): channel for channel, name in enumerate(labels.names)}
    own = dict(zip(labels.ids, labels.names, strict=True))
    named = {v: said[v] for v in values if v in said and v not in dataset.label_values and not _NO_NAME.match(said[v])}
    found = {v: channels[_plain(name)] for v, name in named.items() if _plain(name) in channels}
    wrong = {v for v, channel in found.items() if labels.ids[channel] != v}
    without = labels.ids[0] if labels.has_background else None
    unknown = {v for v in values if v in own and v not in found and v not in dataset.label_values and v != without}
    lists = f"the file names its ids {_listed(named)}, the label map {_listed({v: own[v] for v in named if v in own})}"
    if wrong and unknown:
        raise DataError(f"{raw.path}: {lists}; rename the classes in one of the two, or tell which is which with --map")
    return (found if wrong else {}), lists if unknown & named.keys() else ""


_NO_NAME = re.compile(r"(segment|label|class)?[\s_-]*\d*$", re.IGNORECASE)
"""What programs call an id that nobody has named."""


def _plain(name: str) -> str:
    """A name as far as its spelling tells classes apart."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _listed(names: Mapping[int, object]) -> str:
    return "{" + ", ".join(f"{value}: {name}" for value, name in sorted(names.items())) + "}"


def _read_ids(path: Path, dataset: Dataset) -> tuple[Volume, bool]:
    """Ids as stored; those of the colours of a colour-coded mask, where the data set has such, and whether they went by the
    colours of a palette instead of its indices."""
    colors = dataset.label_colors
    if not colors:
        return read_label_ids(path), False
    if palette := _palette(path):
        return _by_palette(read_label_ids(path), palette, colors, dataset.label_values)
    picture = read_volume(path)
    if not picture.is_raster or picture.array.ndim == 3:
        return read_label_ids(path), False
    from sampeft.io.raster import colors_to_ids

    return Volume(colors_to_ids(picture.array, colors, path), None, path, picture.header), False


def _by_palette(
    raw: Volume, palette: Sequence[Color], colors: Mapping[Color, int], mapped: Mapping[int, int]
) -> tuple[Volume, bool]:
    """Ids of a picture of indices: the indices, unless all their colours are declared and mean other classes.

    Raises DataError where some are colours of other classes and some of none, or two indices have one colour.
    """
    indices = np.unique(raw.array).tolist()
    shown = {i: palette[i] for i in indices if 0 <= i < len(palette)}
    meant = {i: colors[color] for i, color in shown.items() if color in colors}
    if not any(id != i and i not in mapped for i, id in meant.items()):
        return raw, False
    if len(meant) < len(indices) or len(set(shown.values())) < len(indices):
        declared = _listed({id: color for color, id in colors.items()})
        raise DataError(
            f'{raw.path}: its palette has the colours {_listed(shown)}, "colors" of the data set are {declared}; make both '
            'equal, or leave out "colors" where the indices of the palette are the ids'
        )
    table = np.zeros(max(indices) + 1, dtype=np.int32)
    table[list(meant)] = list(meant.values())
    return replace(raw, array=table[raw.array]), True


def _palette(path: Path) -> list[Color] | None:
    """The colours of a picture that stores indices; None of any other file."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.mode not in ("P", "PA"):
                return None
            flat = picture.getpalette("RGB") or []
    except (OSError, Image.DecompressionBombError):  # no picture that Pillow opens; the readers say what is wrong
        return None
    return list(zip(flat[::3], flat[1::3], flat[2::3], strict=False))


def _channel_of_value(dataset: Dataset) -> dict[int, int]:
    """Value in label files -> class channel or IGNORE."""
    labels = dataset.labels
    table = {id: channel for channel, id in enumerate(labels.ids)}
    if labels.ignore is not None:
        table[labels.ignore] = IGNORE
    return {**table, **{value: table[id] for value, id in dataset.label_values.items()}}


_MANY = 30  # unknown values, of which a mask has fewer and a photograph more


def _unknown_ids(path: Path, unknown: list[tuple[int, int]], values: list[int], dataset: Dataset, unit: str) -> str:
    """The message for values that no class has. What they mean only the user knows: a class is named for one that is next to an
    id that the file does not use, as in labels 0, 1, 2, 4 for classes 0..3."""
    ids = dataset.labels.ids
    shown = ", ".join(f"{value} ({n} {unit})" for value, n in unknown[:5])
    more = f" and {len(unknown) - 5} others" if len(unknown) > 5 else ""
    known = f"{ids[0]}..{ids[-1]}" if ids == tuple(range(ids[0], ids[-1] + 1)) else ", ".join(map(str, ids))
    what = f"label id {shown} is" if len(unknown) == 1 else f"label ids {shown}{more} are"
    first = unknown[0][0]
    meant = next((id for id in ids if id not in values and abs(id - first) == 1), "ID")
    if first < 0:
        return (
            f"{path}: {what} not in the label map {{{known}}}; tell which class it is with --map={first}:ID, or, where it means "
            f'that nothing is known, map it to an id of its own with --map={first}:255 and put "ignore": 255 into dataset.json'
        )
    swapped = "are images and labels swapped? else " * (len(unknown) > _MANY)
    return (
        f"{path}: {what} not in the label map {{{known}}}; {swapped}add to it what is a class, tell which class it is with "
        f'--map={first}:{meant}, or put "ignore": {first} into dataset.json where it means that nothing is known'
    )


def _values(ids: npt.NDArray[Any]) -> tuple[list[int], list[int]]:
    """Distinct ids, ascending, and how often each occurs."""
    low, high = int(ids.min()), int(ids.max())
    if low >= 0 and high <= 65535:
        counts = count_channels(ids, high + 1)
        values = np.flatnonzero(counts)
        return values.tolist(), counts[values].tolist()
    found, times = np.unique(ids, return_counts=True)
    return found.tolist(), times.tolist()


def _sizes_differ(label: Volume, image: Volume, turned: tuple[int, ...] | None = None) -> str:
    """turned: the size of the label along the image's axes."""
    kinds = ["raster image" if volume.is_raster else "volume" for volume in (label, image)]
    along = f", {_sides(label, turned)} along the axes of its image" if turned and turned != label.grid else ""
    return (
        f"{label.path}: is a {kinds[0]} of size {_size(label)}{along}, its image {image.path.name} a {kinds[1]} of "
        f'{_size(image)}; give the label that was drawn on this image, or leave the pair out ("exclude" in dataset.json)'
    )


def _size(volume: Volume) -> str:
    return f"{_sides(volume, volume.grid)} {'(rows x columns)' if volume.is_raster else 'voxels'}"


def _sides(volume: Volume, grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid[:2] if volume.is_raster else grid))
