"""Find the images among the files, folders and patterns that a command was given."""

from __future__ import annotations

import glob
from pathlib import Path

from sampeft.data.pairing import image_files, natural_key, series_folders
from sampeft.errors import UsageError
from sampeft.io import IMAGE_SUFFIXES, is_series
from sampeft.io.fetched import is_dangling
from sampeft.prediction.outputs import output_stem


def all_files(inputs: list[Path]) -> list[Path]:
    """Files and DICOM series as given, those inside folders, and those that a pattern fits. Raises UsageError when there is
    nothing to do."""
    found: list[Path] = []
    for path in inputs:
        if path.is_dir() and is_series(path):
            found.append(path)
        elif path.is_dir():
            inside = [*image_files(path), *series_folders(path)]
            if not inside:
                raise UsageError(
                    f"{path}: no image in this folder; looked for {', '.join(IMAGE_SUFFIXES)} and DICOM series in sub-folders"
                )
            found += inside
        elif path.is_file() or is_dangling(path):
            found.append(path)
        elif glob.has_magic(str(path)):
            fitting = [Path(name) for name in glob.glob(str(path), recursive=True)]
            fitting = [p for p in fitting if p.is_file() or is_dangling(p) or (p.is_dir() and is_series(p))]
            if not fitting:
                raise UsageError(f"{path}: no file or DICOM series fits this pattern")
            found += sorted(fitting, key=lambda p: natural_key(str(p)))
        else:
            raise UsageError(f"{path}: no such file or folder")
    owner: dict[str, Path] = {}
    for path in found:
        if (other := owner.setdefault(output_stem(path), path)) is not path:
            raise UsageError(f"{other} and {path} have the same name, so that one label map would overwrite another")
    return found
