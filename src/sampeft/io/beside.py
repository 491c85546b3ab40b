"""Files beside a raster that place or mask it, and what in them is not honoured."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

_NAME, _VALUE = "2", "5"  # GFU_Name, GFU_MinMax
_WHOLE = re.compile(r"\d{1,9}(\.0*)?")
_SAME_PLACE = 0.1  # of a pixel


def side_files(path: Path) -> list[Path]:
    """World files, GDAL's own descriptions, and masks."""
    names = [path.name + ".aux.xml", path.name + ".msk"]
    return [*world_files(path), *_there(path, names)]


def world_files(path: Path) -> list[Path]:
    ending = path.suffix[1:]
    kinds = [ending[:1] + ending[-1:] + "w", ending + "w", "wld"] if ending else []
    return _there(path, [f"{path.stem}.{kind}" for kind in kinds])


def category_names(path: Path) -> dict[int, str]:
    """Value -> name of a class, by the list or the attribute table that GDAL and GIS programs keep of the first band."""
    for described in _there(path, [path.name + ".aux.xml"]):
        try:
            band = ElementTree.parse(described).find("PAMRasterBand")
        except (ElementTree.ParseError, OSError):
            return {}
        if band is not None:
            listed = {n: one.text or "" for n, one in enumerate(band.iterfind("CategoryNames/Category"))}
            return {value: name for value, name in {**listed, **_attributes(band)}.items() if name.strip()}
    return {}


def _attributes(band: ElementTree.Element) -> dict[int, str]:
    """Value -> name of a raster attribute table: of its columns that are used as such, by GDAL's numbers."""
    table = "GDALRasterAttributeTable"
    used = [column.findtext("Usage", "") for column in band.iterfind(f"{table}/FieldDefn")]
    if _VALUE not in used or _NAME not in used:
        return {}
    rows = [[cell.text or "" for cell in row.iterfind("F")] for row in band.iterfind(f"{table}/Row")]
    found = [(row[used.index(_VALUE)], row[used.index(_NAME)]) for row in rows if len(row) == len(used)]
    return {int(float(value)): name for value, name in found if _WHOLE.fullmatch(value)}


def warn_of_unread(raster: Any, path: Path) -> None:
    """Warn, once, of each file beside an open raster that GDAL makes nothing of, or that says another place than what counts.

    raster: rasterio's, opened with these files.
    """
    for world in world_files(path)[:1]:
        if (stated := _transform(world)) is None:
            warn_once(
                f"{path}: {world.name} beside it is no world file of six numbers, and is not read; write it again"
            )
        elif _far(stated, tuple(raster.transform)[:6], (raster.width, raster.height)):
            warn_once(
                f"{path}: {world.name} beside it says another place than the file or its .aux.xml, which count; remove the one "
                "that is wrong"
            )
    for described in _there(path, [path.name + ".aux.xml"]):
        if fault := _xml_fault(described):
            warn_once(f"{path}: {described.name} beside it is no XML ({fault}), and is not read; write it again")
    if not any("per_dataset" in {flag.name for flag in flags} for flags in raster.mask_flag_enums):
        for mask in _there(path, [path.name + ".msk"]):
            warn_once(f"{path}: {mask.name} beside it holds no mask that can be read; write it again")


@cache
def warn_once(text: str) -> None:
    """A warning, the first time only: a raster is opened several times."""
    warnings.warn(text, stacklevel=3)


def _there(path: Path, names: Sequence[str]) -> list[Path]:
    """Those that there are, also with their ending in capital letters."""
    return [beside for name in names for beside in (path.with_name(name), _upper(path, name)) if beside.is_file()]


def _upper(path: Path, name: str) -> Path:
    stem, _, ending = name.rpartition(".")
    return path.with_name(f"{stem}.{ending.upper()}")


def _xml_fault(path: Path) -> str:
    """What is wrong with it; empty for well-formed XML."""
    try:
        expat.ParserCreate().Parse(path.read_bytes(), True)
    except (expat.ExpatError, OSError) as error:
        return str(error)
    return ""


def _transform(world: Path) -> tuple[float, ...] | None:
    """(a, b, c, d, e, f) of a world file, whose place is that of the first pixel's middle; None where it holds none."""
    try:
        a, d, b, e, x, y = (float(word.replace(",", ".")) for word in world.read_text(encoding="utf-8").split()[:6])
    except (OSError, ValueError):
        return None
    usable = all(map(math.isfinite, (a, b, d, e, x, y))) and a * e != b * d
    return (a, b, x - (a + b) / 2, d, e, y - (d + e) / 2) if usable else None


def _far(one: Sequence[float], other: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a corner of a raster (columns, rows) lies more than `_SAME_PLACE` of a pixel elsewhere by the other transform."""
    pixel = min(math.hypot(one[0], one[3]), math.hypot(one[1], one[4]))
    (a, b, c, d, e, f) = (x - y for x, y in zip(one, other, strict=True))
    corners = [(column, row) for column in (0, size[0]) for row in (0, size[1])]
    return any(
        math.hypot(a * column + b * row + c, d * column + e * row + f) > _SAME_PLACE * pixel for column, row in corners
    )
