"""A trained run, a kind of refiner and validation cases in; the parameters that help them most out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sampeft.data.cache import PreparedVolume
from sampeft.data.case import Case, Dataset
from sampeft.errors import DataError
from sampeft.evaluation import score_case
from sampeft.io import read_volume
from sampeft.io.windows import opened
from sampeft.metrics.scores import Evaluation
from sampeft.prediction.by_windows import channels_by_rows, check_refiner
from sampeft.prediction.inference import Segmenter, class_maps, slice_logits
from sampeft.prediction.large_raster import RasterOptions, window_of
from sampeft.refine import REFINERS, Channels, Refiner

_WHOLE_GRID = 24  # up to so many combinations all are tried; beyond, one parameter after the other


@dataclass(frozen=True)
class Fitted:
    """refiner: the best, or None when none beats the rough maps. before, after: foreground DSC of the validation cases
    without any and with the best. tried: (parameters, foreground DSC) in the order they were tried."""

    refiner: Refiner | None
    before: float
    after: float
    tried: list[tuple[dict[str, Any], float]] = field(default_factory=list)


@dataclass
class Rough:
    """What the network says of whole cases, so that no trial costs its time again: logits at the network's own resolution,
    and the class maps of large pictures, which are cut into windows as for prediction."""

    segmenter: Segmenter
    dataset: Dataset
    cases: Sequence[Case]
    logits: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    maps: dict[str, Channels] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        segmenter: Segmenter,
        dataset: Dataset,
        cases: Sequence[Case],
        progress: Callable[[int, int], None] | None = None,
    ) -> Rough:
        """Run the network once over every slice of the cases, as one view and without a refiner."""
        segmenter = replace(segmenter, refiner=None, engine=None, views=1)
        rough = cls(segmenter, dataset, cases)
        for done, case in enumerate(cases):
            for file in case.files:
                if window := window_of(segmenter, file.image, RasterOptions()):
                    with opened(file.image) as source:
                        rows = channels_by_rows(segmenter, source, window)
                        rough.maps[str(file.image)] = np.concatenate([channels_nW for channels_nW, _ in rows])
                    continue
                prepared = PreparedVolume.of(read_volume(file.image), segmenter.preparation)
                rough.logits[str(prepared.volume.path)] = [
                    logits for _, logits in slice_logits(segmenter.model, prepared)
                ]
            if progress:
                progress(done + 1, len(cases))
        return rough

    def dsc(self, refiner: Refiner | None) -> float:
        """Foreground DSC of the cases: mean over classes of the mean over cases."""

        def predict(prepared: PreparedVolume, _: Any) -> Iterator[tuple[int, Any]]:
            path = str(prepared.volume.path)
            if path in self.maps:
                rough_HW = self.maps[path]
                if refiner is None:
                    return iter([(0, rough_HW)])
                spacing_mm, labels = prepared.view.spacing_mm, self.segmenter.labels
                return enumerate(refiner.refine_measured(rough_HW[None], prepared.missing, spacing_mm, labels))
            kept = enumerate(self.logits[path])
            return class_maps(self.segmenter.model, prepared, kept, refiner)

        counts = {
            case.id: score_case(predict, self.dataset, case, self.segmenter.preparation)[0] for case in self.cases
        }
        return Evaluation(counts, self.dataset.labels).headline().mean


def fit_refiner(name: str, rough: Rough, progress: Callable[[int, int], None] | None = None) -> Fitted:
    """Try the values of a refiner's `grid` by the foreground DSC: all combinations where they are few, else one
    parameter after the other from the defaults, each at its best so far. Of equal ones the first of the grid is taken,
    which has the smallest effect.

    The cases must be held-out ones, neither trained on nor scored later. Raises DataError where they show no class, and
    UsageError for a refiner that looks at slices where pictures were cut into windows.
    """
    kind = REFINERS[name]
    for path, map_HW in rough.maps.items():
        check_refiner(kind(), Path(path), map_HW.shape)
    before = rough.dsc(None)
    if np.isnan(before):
        raise DataError(f"{rough.dataset.root}: the cases to fit on show no foreground class; give others")
    tried: list[tuple[dict[str, Any], float]] = []
    known: dict[Refiner, float] = {}
    combinations = prod(map(len, kind.grid.values()))
    total = combinations if combinations <= _WHOLE_GRID else sum(map(len, kind.grid.values()))

    def best_of(start: Refiner, choices: Iterable[dict[str, Any]]) -> Refiner:
        candidates = []
        for options in choices:
            candidate = replace(start, **options)
            if candidate not in known:
                found = rough.dsc(candidate)
                known[candidate] = -np.inf if np.isnan(found) else found
            candidates.append(candidate)
            tried.append((options, known[candidate]))
            if progress:
                progress(len(tried), total)
        return max(candidates, key=lambda candidate: known[candidate])

    best = kind()
    if combinations <= _WHOLE_GRID:
        whole = [dict(zip(kind.grid, values, strict=True)) for values in product(*kind.grid.values())]
        best = best_of(best, whole)
    else:
        for parameter, choices in kind.grid.items():
            found = best_of(best, [{parameter: value} for value in choices])
            best = found if best not in known or known[found] >= known[best] else best
    return Fitted(best if known[best] > before else None, before, known[best], tried)
