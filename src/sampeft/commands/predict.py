"""Trained run and images in, label maps on the images' own grids out; no labels and no prompts."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sampeft.data.pairing import image_files, series_folders
from sampeft.errors import SampeftError, UsageError
from sampeft.inference import load, output_stem
from sampeft.io import IMAGE_SUFFIXES, is_series
from sampeft.progress import Bar, bar
from sampeft.refine.stored import chosen

POSITIONAL = {
    "run": {"type": Path, "help": "folder of a trained run"},
    "inputs": {"type": Path, "nargs": "+", "help": "image files, DICOM series folders, or folders of either"},
}


@dataclass(frozen=True)
class Config:
    """What to segment with what.

    Args:
        out: folder for the label maps.
        weights: file of the backbone's weights when it is not found by name.
        last: use the last model of the run instead of its best.
        batch: slices at a time; lower it when memory is short.
        refine: refiner of the class maps: components, crf, level-set, outline-points, or `fitted`: what
            `sampeft refine` kept in the run.
        refine_options: its options, such as --refine_options.smooth 2.
        nifti: write NIfTI for DICOM images, too, instead of DICOM SEG.
        force: overwrite label maps that are already there.
        json: print the written files as one JSON object on stdout.
    """

    run: Path
    inputs: list[Path]
    out: Path
    weights: str | None = None
    last: bool = False
    batch: int = 4
    refine: str | None = None
    refine_options: dict[str, Any] = field(default_factory=dict)
    nifti: bool = False
    force: bool = False
    json: bool = False


def all_files(inputs: list[Path]) -> list[Path]:
    """Files and DICOM series as given, and those inside folders. Raises UsageError when there is nothing to do."""
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
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder")
    stems = {output_stem(path) for path in found}
    if len(stems) < len(found):
        raise UsageError("two of the inputs have the same name, so that one label map would overwrite another")
    return found


def _show(shown: Bar, before: int, done: int, total: int) -> None:
    shown.update(before + done / total)


def run(config: Config) -> int:
    files = all_files(config.inputs)
    if config.out.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in files}:
        raise UsageError(f"{config.out}: holds the images themselves; choose another --out")
    refiner = chosen(config.run, config.refine, config.refine_options)
    segmenter = load(config.run, weights=config.weights, last=config.last, refiner=refiner)
    if segmenter.has_random_weights:
        print("warning: this run was trained from RANDOM WEIGHTS", file=sys.stderr)
    written, failed = [], []
    with bar("predicting", len(files)) as shown:
        for number, path in enumerate(files):
            if not config.force and config.out.is_dir() and (old := sorted(config.out.glob(f"{output_stem(path)}.*"))):
                raise UsageError(f"{old[0]}: is already there; choose another --out or overwrite with --force")
            try:
                target = segmenter.predict_file(
                    path, config.out, config.batch, partial(_show, shown, number), config.nifti
                )
            except SampeftError as error:  # the others are still worth having
                print(f"error: {error}", file=sys.stderr)
                failed.append(str(path))
                continue
            written.append(str(target))
    if config.json:
        print(json.dumps({"written": written, "failed": failed}))
    else:
        for target_name in written:
            print(target_name)
    return 1 if failed else 0
