"""Layout by a table: pairs.csv lists images, labels, cases and splits."""

from __future__ import annotations

import csv
import os
from collections import Counter
from io import StringIO
from pathlib import Path

from sampeft.data.case import ImageFile
from sampeft.data.pairing import inside
from sampeft.errors import FormError
from sampeft.io import composed, file_stem
from sampeft.strict_json import text_of

NAME = "pairs.csv"
COLUMNS = ("image", "label", "case", "split")


def read_pairs(path: Path, root: Path) -> tuple[list[ImageFile], dict[str, str], dict[str, tuple[str, ...]]]:
    """(files, id -> case, split -> ids) of a table with the columns image, label, and perhaps case and split.

    Paths are relative to the root and lead to files below it, an image also to the folder of a DICOM series; an empty
    label is none, an empty split none. An id is the image's stem, or, where two have the same, its path with `_` for `/`.
    Raises FormError, with the number of the line, for anything else.
    """
    files, cases, split_of = [], {}, {}
    lines = _lines(path)
    stems = Counter(file_stem(Path(row["image"])) for _, row in lines)
    by_case = any(row.get("case") for _, row in lines)
    seen: dict[str, int] = {}
    for number, row in lines:
        where = f"{path}: line {number}"
        image = _existing(root, row["image"], where, folders=True)
        label = _existing(root, row["label"], where) if row.get("label") else None
        id = file_stem(image)
        if stems[id] > 1:
            id = composed("_".join((*Path(os.path.relpath(image, root)).parts[:-1], id)))
        if id in seen:
            raise FormError(f"{where}: the image '{row['image']}' has the name of that in line {seen[id]}; keep one")
        if by_case and not row.get("case"):
            raise FormError(f"{where}: has no case, while other lines have one; fill the column or leave it out")
        seen[id] = number
        files.append(ImageFile(id, image, label))
        cases[id] = composed(row.get("case") or id)
        split_of[id] = (row.get("split") or "").lower()
    names = [name for name in dict.fromkeys(split_of.values()) if name]
    return (
        files,
        cases if by_case else {},
        {n: tuple(id for id, split in split_of.items() if split == n) for n in names},
    )


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and values by column, of the lines that are not empty."""
    try:
        text = text_of(path)
    except (OSError, ValueError) as error:
        raise FormError(f"{path}: the table of pairs cannot be read ({error}); save it as a CSV in UTF-8") from None
    head = text.partition("\n")[0]
    reader = csv.reader(StringIO(text, newline=""), delimiter=";" if ";" in head and "," not in head else ",")
    rows: list[tuple[int, dict[str, str]]] = []
    columns: list[str] = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not columns:
                columns = [cell.lower() for cell in cells]
                if {"image", "label"} - {*columns} or len({*columns}) < len(columns):
                    raise FormError(f"{path}: line 1: has the columns {cells}; expected {', '.join(COLUMNS)}")
            elif any(cells):
                if len(cells) != len(columns) or not cells[columns.index("image")]:
                    raise FormError(
                        f"{path}: line {reader.line_num}: {len(cells)} values for the columns {', '.join(columns)}, "
                        "the first two of which are needed; correct the line"
                    )
                rows.append((reader.line_num, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise FormError(f"{path}: line {reader.line_num}: not CSV ({error}); correct the line") from None
    if not rows:
        raise FormError(f"{path}: names no image; expected lines such as images/a.png,labels/a.png")
    return rows


def _existing(root: Path, text: str, where: str, *, folders: bool = False) -> Path:
    path = inside(root, text, where)
    if not (path.is_file() or (folders and path.is_dir())):
        raise FormError(f"{where}: there is no file '{text}' below {root}; correct the path or add the file")
    return path
