"""Score a predictor, or label maps, on labelled cases; and the slices worth looking at."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, reduce
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.ground_truth import read_labels, read_truth
from sampeft.data.slice_cache import Preparation, PreparedVolume
from sampeft.data.values import warn
from sampeft.errors import SampeftError, UsageError, unforeseen
from sampeft.io import portable_name, read_label_ids, read_volume, write_map
from sampeft.metrics.counts import Counts, count
from sampeft.metrics.measures import CaseScore
from sampeft.metrics.places import Unit
from sampeft.metrics.protocols import PROTOCOLS, Protocol, Tally
from sampeft.metrics.scores import Evaluation
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.sinks import Sink
from sampeft.stopping import not_for_children
from sampeft.volume import LabelVolume, Volume

Array = npt.NDArray[Any]
Predictor = Callable[[PreparedVolume, Array], Array]
"""Prepared file and its truth (S, H, W) -> class channels (S, H, W). Only an oracle looks at the truth."""


@dataclass(frozen=True)
class Look:
    """The slice of a case that shows most classes: grey or colour levels in 0..1 and class channels, all (H, W)."""

    case: str
    file: str
    slice: int
    slices: int
    image: npt.NDArray[np.float32]
    truth: Array
    prediction: Array

    @property
    def place(self) -> str:
        """Where in the case: the file of a picture, the slice of a volume."""
        return f"slice {self.slice + 1} of {self.slices}" if self.slices > 1 else self.file


@dataclass(frozen=True)
class TellingSlice:
    """The slice of a case whose truth shows most classes, of those the one that shows most of them."""

    case: str
    file: str
    index: int
    prepared: PreparedVolume
    truth_HW: Array

    def look(self, prediction_HW: Array) -> Look:
        """As it is shown: with the levels that the model sees, and what was predicted."""
        image = np.moveaxis(self.prepared.levels.apply(self.prepared.slices[self.index]), 0, -1)
        return Look(
            self.case, self.file, self.index, len(self.prepared), image, self.truth_HW.copy(), prediction_HW.copy()
        )


def predictor_of(segmenter: Segmenter, sink: Callable[[Array], Sink] | None = None) -> Predictor:
    """Predicts as `sampeft predict` does. sink: truth (S, H, W) -> what else looks at the prediction."""

    def predict(prepared: PreparedVolume, truth_SHW: Array) -> Array:
        made = segmenter.class_map()
        scene = segmenter.scene(prepared)
        for _ in segmenter.predict_scenes([(scene, [made, *([sink(truth_SHW)] if sink else [])])], batch=4):
            pass
        return made.channels_SHW

    return predict


def telling_slice(dataset: Dataset, case: Case, preparation: Preparation) -> TellingSlice:
    """The same slice as that of every `Look`, found without predicting anything."""
    slices = (
        TellingSlice(case.id, file.id, s, prepared, truth_HW)
        for file, prepared, _, truth in read_case(dataset, case, preparation)
        for s, truth_HW in enumerate(truth)
    )
    return max(slices, key=lambda one: _richness(one.truth_HW, dataset))


def score_case(
    predict: Predictor, dataset: Dataset, case: Case, preparation: Preparation, save: Path | None = None
) -> tuple[Counts, Look]:
    """Counts of a case pooled over its files and slices, on the files' own grids, and its telling slice.

    save: a folder that gets the predicted label maps.
    """
    total = Counts.zeros(len(dataset.labels))

    def add(prediction: LabelVolume, truth: LabelVolume, image: Volume) -> None:
        nonlocal total
        total = total + count(prediction.array, truth.array, len(dataset.labels))

    look = _predict_case(predict, dataset, case, preparation, add, save)
    return total, look


def measure_case(
    predict: Predictor,
    dataset: Dataset,
    case: Case,
    preparation: Preparation,
    protocol: Protocol,
    save: Path | None = None,
) -> tuple[CaseScore, Look]:
    """As `score_case`, with everything that the protocol measures."""
    tallies: list[Tally] = []
    look = _predict_case(
        predict,
        dataset,
        case,
        preparation,
        lambda prediction, truth, image: tallies.append(_tally(protocol, prediction, truth, image, dataset)),
        save,
    )
    return _joined(protocol, tallies, dataset), look


def score_cases(
    predict: Predictor,
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    meta: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
    save: Path | None = None,
    protocol: Protocol = PROTOCOLS["default"],
) -> tuple[Evaluation, list[Look]]:
    """Score every case. meta: what the evaluation's summary says of its origin (model, data, split, oracle).

    A case that fails for a reason that was not foreseen is warned of, listed in the summary as `failed`, and in no score.
    Raises SampeftError when all fail.
    """
    protocol.check(dataset.labels)
    scored: dict[str, CaseScore] = {}
    failed: dict[str, str] = {}
    looks: list[Look] = []
    for done, case in enumerate(cases):
        try:
            scored[case.id], look = measure_case(predict, dataset, case, preparation, protocol, save)
            looks.append(look)
        except (SampeftError, OSError):
            raise
        except Exception as error:
            failed[case.id] = unforeseen(error)
        if progress:
            progress(done + 1, len(cases))
    return Evaluation.of(scored, dataset.labels, {**stamp(protocol, dataset), **meta, **_told(failed, cases)}), looks


def score_maps(
    dataset: Dataset,
    cases: Sequence[Case],
    meta: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
    protocol: Protocol = PROTOCOLS["default"],
    processes: int = 1,
) -> Evaluation:
    """Score label maps: each file's image is the predicted map, its label the true one.

    processes: how many share the cases; the result is the same for any number, bit for bit. Cases fail as in `score_cases`.
    Raises SampeftError when a process ends by itself.
    """
    protocol.check(dataset.labels)
    if processes < 1:
        raise UsageError(f"--processes is {processes}; give 1 or more")
    score = partial(_score_map, dataset, protocol)
    scored: dict[str, CaseScore] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        results: Iterable[CaseScore | str]
        if min(processes, len(cases)) > 1:
            # Spawned, not forked: safe beside threads, and the same on every system.
            pool = ProcessPoolExecutor(min(processes, len(cases)), get_context("spawn"))
            stack.callback(pool.shutdown, cancel_futures=True)
            with not_for_children():  # they end with the pool
                results = pool.map(score, cases)
        else:
            results = map(score, cases)
        try:
            for case, result in zip(cases, results, strict=True):
                if isinstance(result, str):
                    failed[case.id] = result
                else:
                    scored[case.id] = result
                if progress:
                    progress(len(scored) + len(failed), len(cases))
        except BrokenProcessPool:
            raise SampeftError(
                f"a scoring process ended by itself after {len(scored)} of {len(cases)} cases, most likely for want of "
                f"memory; give fewer than {processes} --processes"
            ) from None
    return Evaluation.of(scored, dataset.labels, {**stamp(protocol, dataset), **meta, **_told(failed, cases)})


def _told(failed: dict[str, str], cases: Sequence[Case]) -> dict[str, Any]:
    """For an evaluation's summary, after a warning of each case. Raises SampeftError when all cases failed."""
    if failed and len(failed) == len(cases):
        case, reason = next(iter(failed.items()))
        raise SampeftError(f"none of {len(cases)} cases could be scored; {case} {reason}")
    for case, reason in failed.items():
        warnings.warn(f"{case}: {reason}; it is in no score", stacklevel=3)
    return {"failed": failed} if failed else {}


def stamp(protocol: Protocol, dataset: Dataset) -> dict[str, Any]:
    """What an evaluation says of its rules: the protocol's name and the tolerance of each class."""
    said: dict[str, Any] = {"protocol": protocol.name}
    if protocol.elements and dataset.labels.foreground:
        names = [dataset.labels.names[k] for k in dataset.labels.foreground]
        said["nsd_tolerance_mm"] = {name: protocol.tolerance(name, "mm") for name in names}
        if not protocol.flare22:
            said["nsd_tolerance_px"] = {name: protocol.tolerance(name, "px") for name in names}
    return said


def _score_map(dataset: Dataset, protocol: Protocol, case: Case) -> CaseScore | str:
    """Of a case, or what was not foreseen in it."""
    tallies = []
    try:
        for file in case.files:
            grid = read_label_ids(file.image)
            if getattr(grid.header, "is_part", False) and file.label:  # of a DICOM SEG, without empty frames
                grid = read_label_ids(file.label)
            prediction = read_labels(ImageFile(file.id, file.image, file.image), dataset, grid)
            truth = read_truth(file, dataset, grid)
            if truth.placed_by:
                warn([f"{dataset.root}: true maps and predicted ones are placed by their {truth.placed_by}"])
            tallies.append(_tally(protocol, prediction, truth.label, grid, dataset))
        return _joined(protocol, tallies, dataset)
    except (SampeftError, OSError):
        raise
    except Exception as error:
        return unforeseen(error)


def _tally(protocol: Protocol, prediction: LabelVolume, truth: LabelVolume, image: Volume, dataset: Dataset) -> Tally:
    unit: Unit = "px" if image.is_raster else "mm"
    return protocol.tally(prediction.array, truth.array, image.spacing_mm, dataset.labels, unit, image.affine)


def _joined(protocol: Protocol, tallies: Sequence[Tally], dataset: Dataset) -> CaseScore:
    return protocol.finish(reduce(lambda a, b: a + b, tallies), dataset.labels)


def _predict_case(
    predict: Predictor,
    dataset: Dataset,
    case: Case,
    preparation: Preparation,
    score: Callable[[LabelVolume, LabelVolume, Volume], None],
    save: Path | None,
) -> Look:
    """Predict the files of a case, hand each with its truth to `score`, and pick the telling slice."""
    telling: tuple[TellingSlice, Array] | None = None
    richest = -1.0
    for file, prepared, label, truth in read_case(dataset, case, preparation):
        volume = prepared.volume
        result = predict(prepared, truth).astype(np.int16, copy=False)
        for s, channels_HW in enumerate(result):
            if (richness := _richness(truth[s], dataset)) > richest:
                richest = richness
                telling = TellingSlice(case.id, file.id, s, prepared, truth[s]), channels_HW
        prediction = LabelVolume(prepared.view.restore(result), volume.affine, file.image)
        score(prediction, label, volume)
        if save is not None:
            write_map(save / portable_name(file.id), prediction.array, dataset.labels, volume)
    assert telling is not None, "a case has at least one file with at least one slice"
    return telling[0].look(telling[1])


def read_case(
    dataset: Dataset, case: Case, preparation: Preparation
) -> Iterator[tuple[ImageFile, PreparedVolume, LabelVolume, Array]]:
    """Each file of the case, prepared, with its truth on its own grid and as upright slices (S, H, W)."""
    for file in case.files:
        prepared = PreparedVolume.of(read_volume(file.image), preparation)
        label = read_labels(file, dataset, prepared.volume)
        yield file, prepared, label, prepared.view.slices(label.array)


def _richness(truth_HW: Array, dataset: Dataset) -> float:
    """How many foreground classes a slice shows, and as the fraction how much of it they cover."""
    present = np.bincount(truth_HW[truth_HW >= 0].ravel(), minlength=len(dataset.labels))
    present = present[list(dataset.labels.foreground)]
    return float((present > 0).sum() + present.sum() / (1 + truth_HW.size))
