"""Save corrected class maps as cases of a data set in the `folder` layout, whole or not at all.

The table pairs.csv names the cases; it is replaced as the last step, so that a case is there when both its files are.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import uuid
from http import HTTPStatus
from io import StringIO
from pathlib import Path
from typing import Any

import numpy.typing as npt
from filelock import FileLock

from sampeft.data.layouts.pairs_csv import COLUMNS, NAME, read_pairs
from sampeft.errors import UsageError
from sampeft.io import IMAGE_SUFFIXES, file_stem, label_suffix, portable_name, sha256, write_atomically, write_labels
from sampeft.labels import LabelSet
from sampeft.viewer.errors import RequestError
from sampeft.volume import Volume

DESCRIPTION = "dataset.json"
_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{32}\.tmp$")


class CorrectedCases:
    """folder: gets dataset.json, pairs.csv, images/ and labels/. What a killed server left half is removed first.

    Raises UsageError for a folder that holds another data set.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / DESCRIPTION).is_file() and not (folder / NAME).is_file() and (folder / "images").exists():
            raise UsageError(
                f"{folder}: holds a data set without {NAME}, which was not made by `sampeft serve`; give another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            for place in (folder, folder / "images", folder / "labels"):
                for path in place.iterdir() if place.is_dir() else ():
                    if _TEMPORARY.match(path.name):
                        path.unlink(missing_ok=True)

    def save(
        self, name: str, case: str, image: Path, volume: Volume, channels: npt.NDArray[Any], labels: LabelSet
    ) -> tuple[str, str]:
        """Write a case, or its labels anew when its image is the same; returns both paths below the folder.

        image: the file to copy. volume: what was read from it. case: the patient or scene that it belongs to.
        Raises RequestError (409) for other classes than those of the folder and for a name that another image has.
        """
        name = _plain(name)
        suffix = next((s for s in IMAGE_SUFFIXES if image.name.lower().endswith(s)), "") or _suffix_of(image)
        own = f"images/{name}{suffix}"
        with self._lock():
            self._describe(labels)
            rows = self._rows()
            taken = next((row for row in rows if file_stem(Path(row["image"])).casefold() == name.casefold()), None)
            target = self.folder / own
            if taken and (taken["image"] != own or sha256(self.folder / taken["image"]) != sha256(image)):
                raise RequestError(HTTPStatus.CONFLICT, f"another image is saved as '{name}'; give another name")
            if not taken:
                _copy(image, target)
            like = volume if volume.is_raster else Volume(volume.array, volume.affine, target, _nifti_header(volume))
            written = write_labels(self.folder / "labels" / f"{name}{label_suffix(like)}", channels, labels, like)
            label = f"labels/{written.name}"
            if not taken:
                self._write_rows([*rows, {"image": own, "label": label, "case": case, "split": "train"}])
        return own, label

    def _lock(self) -> FileLock:
        return FileLock(self.folder / ".saving.lock")

    def _describe(self, labels: LabelSet) -> None:
        path = self.folder / DESCRIPTION
        if path.is_file():
            there = LabelSet.read(path)
            if (there.names, there.ids, there.ignore) != (labels.names, labels.ids, labels.ignore):
                raise RequestError(
                    HTTPStatus.CONFLICT,
                    f"the corrected cases are of the classes {', '.join(there.names)}, this run's are "
                    f"{', '.join(labels.names)}; start the server with another --corrections",
                )
            return
        content = {"name": f"{self.folder.resolve().name}", **labels.to_json()}
        if len(set(labels.colors)) < len(labels):
            del content["colors"]  # which tell classes apart in masks stored as colours
        write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _rows(self) -> list[dict[str, str]]:
        path = self.folder / NAME
        if not path.is_file():
            return []
        read_pairs(path, self.folder)  # says what is wrong with a table that was edited
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [{column: row.get(column) or "" for column in COLUMNS} for row in csv.DictReader(file)]

    def _write_rows(self, rows: list[dict[str, str]]) -> None:
        text = StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_atomically(self.folder / NAME, text.getvalue())


def _plain(name: str) -> str:
    """Letters, digits and `._+-` only, and no image ending, by which files are paired."""
    plain = re.sub(r"[^\w.+-]+", "_", file_stem(Path(name))).lstrip("._-")[:100]
    if not plain:
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "the name has no letter or digit; give another")
    return portable_name(plain)


def _suffix_of(image: Path) -> str:
    """Of a file whose name has no known ending: by its content."""
    from PIL import Image

    try:
        with Image.open(image) as picture:
            return {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif"}.get(picture.format or "", ".dcm")
    except OSError:
        return ".dcm"


def _nifti_header(volume: Volume) -> Any:
    """The image's NIfTI header, so that its labels get the same; what another format gave is no part of the new file."""
    import nibabel as nib

    return volume.header if isinstance(volume.header, nib.Nifti1Header) else None


def _copy(source: Path, target: Path) -> None:
    """Copy a file under a temporary name and rename it, so that it is whole when it is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with source.open("rb") as given, temporary.open("wb") as file:
            shutil.copyfileobj(given, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
