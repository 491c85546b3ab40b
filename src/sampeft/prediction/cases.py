"""A segmenter and image files in, label maps and what is known of each case out; one case's end overlaps the next's start."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.console import Timing
from sampeft.data.cache import digest_of
from sampeft.errors import SampeftError, UsageError, WeightsError, unforeseen
from sampeft.io import file_stem, read_volume, sha256, write_map
from sampeft.io.areas import class_areas
from sampeft.io.shares import write_shares
from sampeft.peft.run_files import tensors_file
from sampeft.prediction.batch_size import Batch
from sampeft.prediction.inference import Segmenter, output_stem
from sampeft.prediction.large_raster import RasterOptions, predict_raster, window_of, write_beside
from sampeft.prediction.overlap import ahead, behind
from sampeft.prediction.raster_reading import RowReader
from sampeft.prediction.reading import DISAGREEMENT, ENTROPY, PROBABILITIES, UNCERTAINTY, Reader, map_path
from sampeft.prediction.run_record import BEGUN, DONE, FAILED, RunRecord
from sampeft.volume import Volume


@dataclass(frozen=True)
class Job:
    """What is wanted of every case.

    probabilities, uncertainty: also write these maps. temperature: of the probabilities. nifti: NIfTI for DICOM, too.
    rasters: how pictures and rasters are looked at, and outlines and areas of them.
    """

    out: Path
    batch: Batch = "auto"
    probabilities: bool = False
    uncertainty: bool = False
    temperature: float = 1.0
    nifti: bool = False
    rasters: RasterOptions = field(default_factory=RasterOptions)

    def settings(self, segmenter: Segmenter, folders: Sequence[Path]) -> dict[str, Any]:
        """All that the written files depend on beside the image; cases of other settings are not mixed in a folder.

        folders: of the runs.
        """
        refiner = segmenter.refiner
        digests = [sha256(tensors_file(folder)) for folder in folders]
        fitted = {"least_share": segmenter.least_share} if segmenter.least_share else {}
        return {
            **fitted,
            "adapter_sha256": digests[0] if len(digests) == 1 else digests,
            "weights_sha256": segmenter.description["weights_sha256"],
            "engine": segmenter.engine.name if segmenter.engine else "torch",
            "views": segmenter.views,
            "refiner": {"name": refiner.name, **asdict(refiner)} if refiner else None,
            "temperature": self.temperature,
            PROBABILITIES: self.probabilities,
            UNCERTAINTY: self.uncertainty,
            "nifti": self.nifti,
            "rasters": asdict(self.rasters),
        }


@dataclass
class _Case:
    """One image on its way."""

    image: Path
    stages: Timing = field(default_factory=Timing)
    sha256: str = ""
    volume: Volume | None = None
    channels: npt.NDArray[np.uint8] | None = None
    reader: Reader | None = None
    fault: str | None = None


def key_of(settings: Mapping[str, Any]) -> str:
    """Short digest of settings, by which a finished case is known again."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def left_to_do(
    images: Sequence[Path], record: RunRecord, key: str, force: bool, shared: Sequence[Path] = ()
) -> tuple[list[Path], list[Path]]:
    """(images to segment, images whose finished maps are there, by this run with these settings).

    A map that was begun but not noted as finished is made again. Raises UsageError, before any work, for label maps that
    the record does not know as such; force: overwrite them, and finished ones too. Raises it, whatever force is, for those of
    other images with other settings, since one record and one table of classes stand for all.

    shared: images of other processes of the same command.
    """
    there: dict[str, list[Path]] = {}
    if record.folder.is_dir():
        for path in sorted(p for p in record.folder.iterdir() if p.is_file()):
            there.setdefault(file_stem(path), []).append(path)
    todo, finished, foreign = [], [], []
    own = {output_stem(image) for image in (*images, *shared)}
    for stem, known in record.cases.items():
        if stem not in own and known.get("settings") != key and known["status"] == DONE and stem in there:
            foreign.append(f"{there[stem][0]}: was written with other settings")
    for image in images:
        stem = output_stem(image)
        maps = there.get(stem, [])
        known = record.cases.get(stem, {})
        if force or not maps or (known.get("settings") == key and known["status"] == BEGUN):
            todo.append(image)
        elif known.get("settings") != key:
            foreign.append(f"{maps[0]}: was {'written with other settings' if known else 'not written by this run'}")
        elif known["status"] != DONE or known["sha256"] != digest_of(image):
            foreign.append(f"{maps[0]}: belongs to another content of {image.name}")
        elif (
            not (record.folder / known["map"]).is_file() or sha256(record.folder / known["map"]) != known["map_sha256"]
        ):
            foreign.append(f"{maps[0]}: was changed since it was written")
        else:
            finished.append(image)
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        if force:
            raise UsageError(
                f"{foreign[0]}{more}, and its image is not among those given: give all of them, so that --force overwrites all "
                "its maps, or choose another --out"
            )
        raise UsageError(f"{foreign[0]}{more}; it is already there: choose another --out or overwrite with --force")
    return todo, finished


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def predict_cases(
    segmenter: Segmenter,
    images: Iterable[Path],
    job: Job,
    record: RunRecord,
    key: str,
    progress: Callable[[Path, int, int], None] | None = None,
) -> Generator[tuple[Path, Path | None, str], None, None]:
    """(image, label map or None, what went wrong) of one case after another, each noted in the record.

    While a case goes through the network the next one is read and the last one written. A case that fails is told and the
    others go on; a disk that takes no more ends everything.
    """

    by_windows: list[Path] = []
    whole: list[Path] = []
    for image in images:
        (by_windows if _is_cut(segmenter, image, job.rasters) else whole).append(image)
    for image in by_windows:
        yield _raster(segmenter, image, job, record, key, progress)

    def read(image: Path) -> _Case:
        case = _Case(image)
        try:
            with case.stages.of("read"):
                case.sha256 = digest_of(image)
                case.volume = read_volume(image)
        except Exception as error:
            case.fault = _fault(image, error)
        return case

    def predicted() -> Iterator[_Case]:
        for case in ahead(read, whole, depth=1):
            record.add(output_stem(case.image), BEGUN, image=str(case.image), sha256=case.sha256, settings=key)
            if case.volume is not None:
                case.reader = Reader(
                    segmenter.labels, job.temperature, job.probabilities, job.uncertainty, _made(job.out)
                )
                way = segmenter.way(job.batch, case.reader, case.stages)
                each = None if progress is None else _of_case(progress, case.image)
                try:
                    volumes = [(case.volume, segmenter.preparation)]
                    case.channels = next(segmenter.predict_volumes(volumes, way, each))
                except Exception as error:
                    case.reader.close()
                    case.fault = _fault(case.image, error)
            yield case

    def write(case: _Case) -> tuple[_Case, dict[str, Any]]:
        if case.channels is None:
            return case, {}
        assert case.volume is not None
        assert case.reader is not None
        stem = output_stem(case.image)
        try:
            with case.stages.of("write"):
                target = write_map(job.out / stem, case.channels, segmenter.labels, case.volume, job.nifti)
                for name, shares in case.reader.maps():
                    kind = UNCERTAINTY if name in (ENTROPY, DISAGREEMENT) else PROBABILITIES
                    write_shares(map_path(job.out / kind, stem, name), shares, case.volume)
                facts = _facts(case, segmenter)
                if case.volume.is_raster and any(write_beside(target, job.out / stem, segmenter.labels, job.rasters)):
                    facts |= _square_metres(target, segmenter)
            return case, {"map": target.name, "map_sha256": sha256(target), **facts}
        except Exception as error:
            case.fault = _fault(case.image, error)
            return case, {}
        finally:
            case.reader.close()

    for case, known in behind(write, predicted(), depth=1):
        stem = output_stem(case.image)
        origin = {"image": str(case.image), "sha256": case.sha256, "settings": key}
        if case.fault is not None:
            record.add(stem, FAILED, **origin, message=case.fault)
            yield case.image, None, case.fault
        else:
            record.add(stem, DONE, **origin, **known)
            yield case.image, job.out / known["map"], ""


def _is_cut(segmenter: Segmenter, image: Path, options: RasterOptions) -> bool:
    """Whether it is cut into windows; what is wrong with one is left for `predict_raster` to tell."""
    try:
        return window_of(segmenter, image, options) is not None
    except SampeftError:
        return True


def _raster(
    segmenter: Segmenter,
    image: Path,
    job: Job,
    record: RunRecord,
    key: str,
    progress: Callable[[Path, int, int], None] | None,
) -> tuple[Path, Path | None, str]:
    """What `predict_cases` yields of an image that is cut into windows."""
    stem, stages = output_stem(image), Timing()
    origin: dict[str, Any] = {"image": str(image), "settings": key}
    try:
        origin["sha256"] = digest_of(image)
        record.add(stem, BEGUN, **origin)
        each = None if progress is None else _of_case(progress, image)
        with stages.of("network"):
            reader = RowReader(segmenter.labels, job.temperature, job.probabilities, job.uncertainty)
            files = predict_raster(segmenter, image, job.out, job.rasters, job.batch, each, reader)
        measured = _square_metres(files.map, segmenter)
    except Exception as error:
        fault = _fault(image, error)
        record.add(stem, FAILED, **origin, message=fault)
        return image, None, fault
    known: dict[str, Any] = {
        "map": files.map.name,
        "map_sha256": sha256(files.map),
        "window": files.window,
        "confidence": reader.confidence,
        "warnings": list(reader.warnings),
        **measured,
        "seconds": {stage: round(s, 3) for stage, s in stages.seconds.items()},
    }
    record.add(stem, DONE, **origin, **known)
    return image, files.map, ""


def _square_metres(map: Path, segmenter: Segmenter) -> dict[str, Any]:
    """Pixels and square metres of each class of a written map."""
    areas = class_areas(map, segmenter.labels)
    return {
        "pixels": {area.name: area.pixels for area in areas},
        "m2": {area.name: area.square_metres for area in areas},
    }


def _facts(case: _Case, segmenter: Segmenter) -> dict[str, Any]:
    """Size, spacing, confidence, pixels and millilitres of each class, seconds of each stage."""
    volume, channels, reader = case.volume, case.channels, case.reader
    assert volume is not None
    assert channels is not None
    assert reader is not None
    names = segmenter.labels.names
    counts = sum(np.bincount(part.ravel(), minlength=len(names)) for part in channels)
    assert isinstance(counts, np.ndarray)
    pixels = dict(zip(names, map(int, counts), strict=True))
    facts: dict[str, Any] = {
        "shape": list(volume.grid),
        "confidence": reader.confidence,
        "pixels": pixels,
        "warnings": list(reader.warnings),
    }
    if volume.affine is not None:
        voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
        facts["spacing_mm"] = list(volume.spacing_mm)
        facts["ml"] = {name: count * voxel_ml for name, count in pixels.items()}
    return {**facts, "seconds": {stage: round(s, 3) for stage, s in case.stages.seconds.items()}}


def _fault(image: Path, error: Exception) -> str:
    """What went wrong with a case, for people. Raises the error again where no other case could be written either."""
    if isinstance(error, WeightsError) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
        raise error
    if isinstance(error, MemoryError):
        return f"{image}: does not fit into the free memory; stop other programs or cut it into parts"
    if isinstance(error, SampeftError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.filename or image}: {error.strerror or error}; check the path, its permissions and the disk"
    else:
        text = unforeseen(error)
    return text if str(image) in text else f"{image}: {text}"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _of_case(progress: Callable[[Path, int, int], None], image: Path) -> Callable[[int, int], None]:
    return lambda done, total: progress(image, done, total)
