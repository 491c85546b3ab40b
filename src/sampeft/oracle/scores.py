"""Score oracles on labelled cases; every slice is encoded once for all protocols."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Case, Dataset
from sampeft.data.slice_cache import Preparation, PreparedVolume
from sampeft.evaluation.score import Look, Predictor, measure_case, stamp
from sampeft.labels import LabelSet
from sampeft.metrics.measures import CaseScore
from sampeft.metrics.places import Unit
from sampeft.metrics.protocols import PROTOCOLS, Protocol, Tally
from sampeft.metrics.scores import Evaluation
from sampeft.oracle.protocols import Chosen, Oracle
from sampeft.volume import IGNORE

Array = npt.NDArray[Any]


class _ChosenVolume:
    """What was chosen in all slices of a file: class maps by protocol, and pixels of single masks as flat places, which
    take a fraction of the memory of one mask per class and voxel."""

    def __init__(self, prepared: PreparedVolume, truth_SHW: Array) -> None:
        self.prepared, self.truth_SHW = prepared, truth_SHW
        self.maps: dict[str, list[npt.NDArray[np.uint8]]] = {}
        self.places: dict[str, list[dict[int, npt.NDArray[np.int64]]]] = {}

    def add(self, name: str, chosen: Chosen) -> None:
        self.maps.setdefault(name, []).append(chosen.channels_HW)
        self.places.setdefault(name, []).append({k: np.flatnonzero(mask) for k, mask in chosen.masks.items()})

    def mask_SHW(self, name: str, k: int) -> npt.NDArray[np.bool_]:
        mask = np.zeros(self.truth_SHW.shape, dtype=bool)
        for s, places in enumerate(self.places[name]):
            if k in places:
                mask[s].flat[places[k]] = True
        return mask

    def tally(self, name: str, rules: Protocol, labels: LabelSet) -> Tally:
        """Counts and surfaces of each class as if it alone had been predicted, put side by side."""
        volume, view = self.prepared.volume, self.prepared.view
        unit: Unit = "px" if volume.is_raster else "mm"
        truth = view.restore(self.truth_SHW)
        together: Tally | None = None
        for k in range(len(labels)):
            other = 1 if k == 0 else 0
            alone = np.where(truth == IGNORE, IGNORE, np.where(truth == k, k, other)).astype(np.int16)
            mask = np.where(view.restore(self.mask_SHW(name, k)), k, other).astype(np.int16)
            one = rules.tally(mask, alone, volume.spacing_mm, labels, unit, volume.affine)
            together = one if together is None else _with_class(together, one, k)
        assert together is not None, "a label map has at least two classes"
        return together


def _with_class(tally: Tally, one: Tally, k: int) -> Tally:
    """The tally with class k as another has it."""
    for mine, its in ((tally.counts, one.counts), (tally.kept, one.kept)):
        mine.tp[k], mine.fp[k], mine.fn[k] = its.tp[k], its.fp[k], its.fn[k]
    if tally.volumes_ml is not None and one.volumes_ml is not None:
        tally.volumes_ml[:, k] = one.volumes_ml[:, k]
    if tally.positions_K3 is not None and one.positions_K3 is not None:
        tally.positions_K3[k] = one.positions_K3[k]
    surfaces = tally.surfaces | ({k: one.surfaces[k]} if k in one.surfaces else {})
    targets = tally.targets | ({k: one.targets[k]} if k in one.targets else {})
    return replace(tally, surfaces=surfaces, targets=targets)


@dataclass
class _Choices:
    """What the oracle chose for a case, made when it is first asked for. found: automatic masks, slice by slice.

    progress: gets the share of the case, of as many files as said, that is done.
    """

    oracle: Oracle
    progress: Callable[[float], None]
    files: int
    volumes: dict[Path, _ChosenVolume] = field(default_factory=dict)
    found: list[int] = field(default_factory=list)

    def predictor(self, name: str) -> Predictor:
        """The class maps of a protocol."""

        def predict(prepared: PreparedVolume, truth_SHW: Array) -> Array:
            return np.stack(self._chosen(prepared, truth_SHW).maps[name])

        return predict

    def _chosen(self, prepared: PreparedVolume, truth_SHW: Array) -> _ChosenVolume:
        path = prepared.volume.path
        if path not in self.volumes:
            volume, before = _ChosenVolume(prepared, truth_SHW), len(self.volumes)

            def slice_done(part: float) -> None:
                self.progress((before + (s + part) / len(prepared)) / self.files)

            for s in range(len(prepared)):
                choices, count = self.oracle.choose(prepared, s, truth_SHW[s], slice_done)
                for name, choice in choices.items():
                    volume.add(name, choice)
                if count is not None:
                    self.found.append(count)
                slice_done(1.0)
            self.volumes[path] = volume
        return self.volumes[path]


def _within(done: int, progress: Callable[[float], None] | None) -> Callable[[float], None]:
    """Cases that are done, from the share of the current one."""

    def shown(part: float) -> None:
        if progress:
            progress(done + part)

    return shown


def score_oracles(
    oracle: Oracle,
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    meta: dict[str, Any],
    progress: Callable[[float], None] | None = None,
    save: Path | None = None,
    rules: Protocol = PROTOCOLS["default"],
) -> dict[str, tuple[Evaluation, list[Look]]]:
    """Protocol -> its evaluation and the telling slices.

    meta: origin (data, split...); the protocol's rule, the masks' settings and that the truth was used are added. Where
    masks are scored apart, `class_map_dsc` is the foreground mean of the one class map that they make.
    progress: gets the number of cases that are done, the part of the current one included. save: a folder that gets the
    class maps, PROTOCOL/maps.
    """
    rules.check(dataset.labels)
    scored: dict[str, dict[str, CaseScore]] = {protocol.name: {} for protocol in oracle.protocols}
    as_map: dict[str, dict[str, CaseScore]] = {protocol.name: {} for protocol in oracle.protocols}
    looks: dict[str, list[Look]] = {protocol.name: [] for protocol in oracle.protocols}
    found: list[int] = []
    started = time.monotonic()
    for number, case in enumerate(cases):
        choices = _Choices(oracle, _within(number, progress), len(case.files))
        for name, apart in [(protocol.name, protocol.apart) for protocol in oracle.protocols]:
            folder = save / name / "maps" if save else None
            score, look = measure_case(choices.predictor(name), dataset, case, preparation, rules, folder)
            looks[name].append(look)
            as_map[name][case.id] = score
            if apart:
                tallies = [volume.tally(name, rules, dataset.labels) for volume in choices.volumes.values()]
                score = rules.finish(reduce(lambda a, b: a + b, tallies), dataset.labels)
            scored[name][case.id] = score
        found += choices.found
    seconds = round(time.monotonic() - started, 1)
    results: dict[str, tuple[Evaluation, list[Look]]] = {}
    for protocol in oracle.protocols:
        said: dict[str, Any] = {
            **stamp(rules, dataset),
            **meta,
            "model": protocol.title,
            "oracle": True,
            "oracle_protocol": protocol.name,
            "oracle_rule": f"oracle: uses the truth; {protocol.about}",
            "scored": "each class's mask on its own" if protocol.apart else "one class map",
            "seconds_of_all_protocols": seconds,
        }
        if protocol.apart:
            whole = Evaluation.of(as_map[protocol.name], dataset.labels, said)
            said["class_map_dsc"] = whole.headline().mean
            said["automatic_masks"] = {**asdict(oracle.settings), "in_words": str(oracle.settings)}
            said["masks_per_slice"] = round(float(np.mean(found)), 1) if found else None
        results[protocol.name] = Evaluation.of(scored[protocol.name], dataset.labels, said), looks[protocol.name]
    return results
