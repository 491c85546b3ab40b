"""Many images: what is predicted and written of each, and the record of it; one case's end overlaps the next's start."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampeft.console import Timing
from sampeft.data.slice_cache import digest_of
from sampeft.errors import SampeftError, UsageError, WeightsError, unforeseen
from sampeft.io import file_stem, sha256
from sampeft.prediction.background import map_in_background, prefetch
from sampeft.prediction.manifest import BEGUN, DONE, FAILED, RunRecord
from sampeft.prediction.outputs import Job, Output, output_of, output_stem
from sampeft.prediction.segmenter import Segmenter


@dataclass
class _Case:
    """One image on its way."""

    image: Path
    stages: Timing = field(default_factory=Timing)
    sha256: str = ""
    output: Output | None = None
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
    unfinished: set[Output] = set()

    def read(image: Path) -> _Case:
        case = _Case(image)
        try:
            with case.stages.of("read"):
                case.sha256 = digest_of(image)
                case.output = output_of(segmenter.scene(image, job.rasters), image, job, segmenter)
        except Exception as error:
            case.fault = _fault(image, error)
        return case

    def predicted() -> Iterator[_Case]:
        for case in prefetch(read, images, depth=1):
            record.add(output_stem(case.image), BEGUN, image=str(case.image), sha256=case.sha256, settings=key)
            if case.output is not None:
                each = None if progress is None else _of_case(progress, case.image)
                unfinished.add(case.output)
                try:
                    segmenter.predict_output(case.output, each, case.stages)
                except Exception as error:
                    case.output.close()
                    case.fault = _fault(case.image, error)
            yield case

    def write(case: _Case) -> tuple[_Case, dict[str, Any]]:
        if case.output is None or case.fault is not None:
            return case, {}
        try:
            with case.output as output, case.stages.of("write"):
                target, facts = output.write()
            seconds = {stage: round(s, 3) for stage, s in case.stages.seconds.items()}
            return case, {"map": target.name, "map_sha256": sha256(target), **facts, "seconds": seconds}
        except Exception as error:
            case.fault = _fault(case.image, error)
            return case, {}

    try:
        with closing(map_in_background(write, predicted(), depth=1)) as written:
            for case, known in written:
                stem = output_stem(case.image)
                if case.output:
                    unfinished.discard(case.output)
                origin = {"image": str(case.image), "sha256": case.sha256, "settings": key}
                if case.fault is not None:
                    record.add(stem, FAILED, **origin, message=case.fault)
                    yield case.image, None, case.fault
                else:
                    record.add(stem, DONE, **origin, **known)
                    yield case.image, job.out / known["map"], ""
    finally:  # what was being made when all was stopped
        for output in unfinished:
            output.close()


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


def _of_case(progress: Callable[[Path, int, int], None], image: Path) -> Callable[[int, int], None]:
    return lambda done, total: progress(image, done, total)
