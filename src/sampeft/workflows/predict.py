"""Segment many images with a trained run, or the mean of several, into a folder."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sampeft.configs.predict import Config
from sampeft.console import Bar, bar
from sampeft.errors import UsageError
from sampeft.io.dicom_series import series_chosen
from sampeft.io.fetched import is_dangling
from sampeft.launcher import launched
from sampeft.one_writer import one_writer
from sampeft.peft.run_files import DESCRIPTION, tensors_file
from sampeft.prediction.case_tables import write_cases, write_classes, write_volumes
from sampeft.prediction.cases import key_of, left_to_do, predict_cases
from sampeft.prediction.loading import load
from sampeft.prediction.manifest import RunRecord
from sampeft.prediction.outputs import Job
from sampeft.prediction.tiling import RasterOptions
from sampeft.provenance import versions
from sampeft.refine.stored import chosen
from sampeft.workflows.inputs import all_files

_MUCH_BYTES = 16 << 20  # of images; making a graph takes as long as 100 to 300 slices, a slice 50 to 500 kB


@dataclass
class Predicted:
    """cases: of this process. written: label maps. failed: image -> what went wrong. finished: images whose maps were there."""

    cases: int
    finished: list[Path]
    written: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


def predict_files(config: Config) -> Predicted:
    """Segment what is not finished yet; each case that fails is told on stderr, and the others go on."""
    runs = [config.run, *itertools.takewhile(_is_run, config.inputs)]
    if len(runs) > len(config.inputs):
        if not _is_run(config.run):
            raise UsageError(f"{config.run}: is no run, but {config.inputs[0]} is; give the run first, then the images")
        raise UsageError(f"{', '.join(map(str, runs))}: are runs; give an image to segment, too")
    files = all_files(config.inputs[len(runs) - 1 :])
    if config.out.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in files}:
        raise UsageError(f"{config.out}: holds the images themselves; choose another --out")
    with one_writer(config.out), series_chosen(config.series):
        return _predict(config, runs, files)


def _predict(config: Config, runs: list[Path], files: list[Path]) -> Predicted:
    rasters = RasterOptions(
        *(config.tile, config.overlap, config.gsd, config.vector, config.min_area, config.simplify, config.volumes)
    )
    last = tensors_file(config.run / "last") if config.last else None
    refiner = chosen(config.run, tensors_file(config.run), config.refine, config.refine_options, last)
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
    for caution in segmenter.cautions:
        print(f"warning: {caution}", file=sys.stderr)
    job = Job(
        config.out, config.batch, config.probabilities, config.uncertainty, config.temperature, config.nifti, rasters
    )
    settings = job.settings(segmenter, [run / "last" if config.last else run for run in runs])
    key = key_of(settings)
    header = {"run": " ".join(map(str, runs)), "settings": settings, "key": key, "versions": versions()}
    with RunRecord(config.out, header, rank, world) as record:
        own = files[rank::world]
        todo, finished = left_to_do(own, record, key, config.force, files)
        outcome = Predicted(len(own), finished)
        with (
            bar("predicting", len(todo)) as shown,
            closing(predict_cases(segmenter, todo, job, record, key, _shown(shown, todo))) as made,
        ):  # closed before the folder is given back: a thread may still write there
            for image, target, fault in made:
                if target is None:
                    print(f"error: {fault}", file=sys.stderr)
                    outcome.failed[image] = fault
                else:
                    outcome.written.append(target)
    if record.cases:
        write_cases(config.out, record.cases)
        write_classes(config.out, segmenter.labels)
        if config.volumes:
            write_volumes(config.out, record.cases, segmenter.labels)
    return outcome


def _is_run(path: Path) -> bool:
    return (path / DESCRIPTION).is_file()


def _size(image: Path) -> int:
    """Bytes of a file or a DICOM series."""
    files = image.iterdir() if image.is_dir() else [image]
    return sum(path.stat().st_size for path in files if not is_dangling(path))


def _process() -> tuple[int, int]:
    """(number of this process, of all) that torchrun or `accelerate launch` started; each has its own graphics card."""
    rank, world, local_rank = launched()
    if world > 1:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank % torch.cuda.device_count())
    return rank, world


def _shown(shown: Bar, todo: list[Path]) -> Callable[[Path, int, int], None]:
    place = {path: number for number, path in enumerate(todo)}
    return lambda image, done, total: shown.update(place[image] + done / total, image.name)
