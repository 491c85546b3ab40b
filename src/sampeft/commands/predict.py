"""Trained run and images in, label maps on the images' own grids out; no labels and no prompts."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from sampeft.configs.predict import Config
from sampeft.console import Bar, bar
from sampeft.engines import check_engine
from sampeft.errors import UsageError
from sampeft.io.dicom_series import series_chosen
from sampeft.io.fetched import is_dangling
from sampeft.launcher import launched
from sampeft.one_writer import one_writer
from sampeft.options import check_paths
from sampeft.peft.run_files import DESCRIPTION, tensors_file
from sampeft.prediction.case_tables import write_cases, write_classes, write_volumes
from sampeft.prediction.cases import key_of, left_to_do, predict_cases
from sampeft.prediction.inference import load
from sampeft.prediction.outputs import Job
from sampeft.prediction.run_record import RunRecord
from sampeft.prediction.tiling import RasterOptions
from sampeft.refine.stored import check_refiner_name, chosen
from sampeft.workflows.inputs import all_files

_MUCH_BYTES = 16 << 20  # of images; making a graph takes as long as 100 to 300 slices, a slice 50 to 500 kB


def check_names(config: Config) -> None:
    check_refiner_name(config.refine)
    check_engine(config.engine, config.precision)


def run(config: Config) -> int:
    check_paths(config)
    runs = [config.run, *itertools.takewhile(_is_run, config.inputs)]
    if len(runs) > len(config.inputs):
        raise UsageError(f"{', '.join(map(str, runs))}: are runs; give an image to segment, too")
    files = all_files(config.inputs[len(runs) - 1 :])
    if config.out.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in files}:
        raise UsageError(f"{config.out}: holds the images themselves; choose another --out")
    rasters = RasterOptions(
        *(config.tile, config.overlap, config.gsd, config.vector, config.min_area, config.simplify, config.volumes)
    )
    with one_writer(config.out), series_chosen(config.series):
        return _predict(config, runs, files, rasters)


def _predict(config: Config, runs: list[Path], files: list[Path], rasters: RasterOptions) -> int:
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
    versions = {name: version(name) for name in ("sampeft", "torch", "numpy")}
    header = {"run": " ".join(map(str, runs)), "settings": settings, "key": key, "versions": versions}
    written: list[str] = []
    failed: dict[str, str] = {}
    with RunRecord(config.out, header, rank, world) as record:
        own = files[rank::world]
        todo, finished = left_to_do(own, record, key, config.force, files)
        with (
            bar("predicting", len(todo)) as shown,
            closing(predict_cases(segmenter, todo, job, record, key, _shown(shown, todo))) as made,
        ):  # closed before the folder is given back: a thread may still write there
            for image, target, fault in made:
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
