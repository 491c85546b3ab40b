"""Trained run and images in, label maps on the images' own grids out; no labels and no prompts."""

from __future__ import annotations

import glob
import itertools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from sampeft.data.pairing import image_files, natural_key, series_folders
from sampeft.errors import UsageError
from sampeft.io import IMAGE_SUFFIXES, is_series
from sampeft.io.fetched import is_dangling
from sampeft.prediction.batch_size import Batch
from sampeft.prediction.case_tables import write_cases, write_classes, write_volumes
from sampeft.prediction.cases import Job, key_of, left_to_do, predict_cases
from sampeft.prediction.inference import load, output_stem
from sampeft.prediction.large_raster import RasterOptions
from sampeft.prediction.run_record import RunRecord
from sampeft.progress import Bar, bar
from sampeft.refine.stored import chosen

POSITIONAL = {
    "run": {"type": Path, "help": "folder of a trained run; several (folds, seeds) segment by their mean"},
    "inputs": {
        "type": Path,
        "nargs": "+",
        "help": "image files, DICOM series folders, folders of either, or patterns such as 'scans/**/*.nii.gz'",
    },
}

_MUCH_BYTES = 16 << 20  # of images; making a graph takes as long as 100 to 300 slices, a slice 50 to 500 kB


@dataclass(frozen=True)
class Config:
    """What to segment with what.

    A case that is finished in --out, by this run with these settings, is left as it is; so a stopped or killed prediction
    goes on when the same command is given again. Several processes (torchrun, accelerate launch) share the cases.

    Args:
        out: folder for the label maps, `predictions.json` (what became of each case), and `cases.csv` (the same as a table,
            those to look at first at the top), and `classes.csv` (id, name and colour of each class).
        weights: file of the backbone's weights when it is not found by name.
        last: use the last model of the run instead of its best.
        batch: slices at a time, or `auto` by the free memory; lower it when memory is short.
        engine: what runs the network: auto, torch, openvino, onnx (docs/export.md). `auto`: OpenVINO on a processor where
            it is installed and computes the same, else torch; for images of under 16 MiB only when the graph is there.
        precision: numbers the engine computes with: f32, bf16 or int8.
        views: average so many views of each slice, moved, scaled and windowed, mirrored and turned ones where the run was
            trained on such; costs as many times the network's time.
        refine: refiner of the class maps: components, crf, level-set, outline-points, or `fitted`: what
            `sampeft refine` kept in the run.
        refine_options: its options, such as --refine_options.smooth 2.
        probabilities: also write a map of each class's probability (0..1 in steps of 1/255) into `probabilities`.
        uncertainty: also write the entropy of each pixel (0: certain, 1: all classes alike), and with views the share of
            them that see another class, into `uncertainty`.
        temperature: divides the logits for probabilities, entropy and confidence; `sampeft evaluate` fits one.
        volumes: also write `volumes.csv`: pixels and millilitres of each class in each case.
        tile: cut pictures and rasters into windows of so many pixels a side; `auto`: as the training pictures, by their size
            or by the ground; `off`: look at each in one piece.
        overlap: share of a window that the next one sees, too.
        gsd: metres on the ground of a pixel of the network's square, where the run does not say.
        vector: also write the outlines of pictures and rasters: geojson or gpkg (GeoPackage).
        min_area: leave out smaller outlines; square metres, or pixels without a place on the map.
        simplify: leave out corners of outlines about so many pixels wide.
        nifti: write NIfTI for DICOM images, too, instead of DICOM SEG.
        force: overwrite label maps that are already there.
        json: print the written files as one JSON object on stdout.
    """

    run: Path
    inputs: list[Path]
    out: Path
    weights: str | None = None
    last: bool = False
    batch: Batch = "auto"
    engine: str = "auto"
    precision: str = "f32"
    views: int = 1
    refine: str | None = None
    refine_options: dict[str, Any] = field(default_factory=dict)
    probabilities: bool = False
    uncertainty: bool = False
    temperature: float = 1.0
    volumes: bool = False
    tile: str = "auto"
    overlap: float = 0.25
    gsd: float | None = None
    vector: Literal["geojson", "gpkg"] | None = None
    min_area: float = 0.0
    simplify: float = 0.0
    nifti: bool = False
    force: bool = False
    json: bool = False


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


def run(config: Config) -> int:
    runs = [config.run, *itertools.takewhile(_is_run, config.inputs)]
    if len(runs) > len(config.inputs):
        raise UsageError(f"{', '.join(map(str, runs))}: are runs; give an image to segment, too")
    files = all_files(config.inputs[len(runs) - 1 :])
    if config.out.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in files}:
        raise UsageError(f"{config.out}: holds the images themselves; choose another --out")
    rasters = RasterOptions(
        *(config.tile, config.overlap, config.gsd, config.vector, config.min_area, config.simplify, config.volumes)
    )
    refiner = chosen(config.run, config.refine, config.refine_options)
    rank, world = _process()
    segmenter = load(
        runs,
        weights=config.weights,
        last=config.last,
        refiner=refiner,
        views=config.views,
        engine=config.engine,
        precision=config.precision,
        make_graph=sum(map(_size, files)) >= _MUCH_BYTES,
    )
    if segmenter.has_random_weights:
        print("warning: this run was trained from RANDOM WEIGHTS", file=sys.stderr)
    job = Job(
        config.out, config.batch, config.probabilities, config.uncertainty, config.temperature, config.nifti, rasters
    )
    settings = job.settings(segmenter, [run / "last" if config.last else run for run in runs])
    key = key_of(settings)
    versions = {name: version(name) for name in ("sampeft", "torch", "numpy")}
    header = {"run": " ".join(map(str, runs)), "settings": settings, "key": key, "versions": versions}
    written: list[str] = []
    failed: dict[str, str] = {}
    with RunRecord(config.out, header, rank, world) as record:
        own = files[rank::world]
        todo, finished = left_to_do(own, record, key, config.force)
        with bar("predicting", len(todo)) as shown:
            for image, target, fault in predict_cases(segmenter, todo, job, record, key, _shown(shown, todo)):
                if target is None:
                    print(f"error: {fault}", file=sys.stderr)
                    failed[str(image)] = fault
                else:
                    written.append(str(target))
    if record.cases:
        write_cases(config.out, record.cases)
        write_classes(config.out, segmenter.labels)
        if config.volumes:
            write_volumes(config.out, record.cases, segmenter.labels)
    _say(config, len(own), written, failed, finished)
    return 1 if failed else 0


def _is_run(path: Path) -> bool:
    return (path / "adapter.json").is_file()


def _size(image: Path) -> int:
    """Bytes of a file or a DICOM series."""
    files = image.iterdir() if image.is_dir() else [image]
    return sum(path.stat().st_size for path in files if not is_dangling(path))


def _process() -> tuple[int, int]:
    """(number of this process, of all) that torchrun or `accelerate launch` started; each has its own graphics card."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return int(os.environ.get("RANK", "0")), world


def _shown(shown: Bar, todo: list[Path]) -> Callable[[Path, int, int], None]:
    place = {path: number for number, path in enumerate(todo)}
    return lambda image, done, total: shown.update(place[image] + done / total, image.name)


def _say(config: Config, cases: int, written: list[str], failed: dict[str, str], finished: list[Path]) -> None:
    if finished:
        print(f"{len(finished)} of {cases} cases were finished before and are left as they are", file=sys.stderr)
    if failed and cases > 1:
        print(f"{len(failed)} of {cases} cases failed:", file=sys.stderr)
        for fault in failed.values():
            print(f"  {fault}", file=sys.stderr)
    if config.json:
        print(json.dumps({"written": written, "failed": list(failed), "finished_before": list(map(str, finished))}))
    else:
        for target in written:
            print(target)
