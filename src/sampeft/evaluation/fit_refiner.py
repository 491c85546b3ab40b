"""Fit a refiner's parameters on held-out cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sampeft.data.case import Case, Dataset
from sampeft.data.slice_cache import PreparedVolume
from sampeft.errors import DataError
from sampeft.evaluation.score import score_case
from sampeft.metrics.scores import Evaluation
from sampeft.prediction.pipeline import watch
from sampeft.prediction.scene import SliceScene, WindowLogits
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.sinks import ClassMap, KeptLogits, check_refiner
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
    """What the network says of whole cases, so that no trial costs its time again: logits of slices at the network's own
    resolution, and class maps of what is cut into windows, of which refiners see no more."""

    segmenter: Segmenter
    dataset: Dataset
    cases: Sequence[Case]
    logits: dict[Path, list[torch.Tensor | None]] = field(default_factory=dict)
    maps: dict[Path, Channels] = field(default_factory=dict)

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
                scene, logits, made = segmenter.scene(file.image), KeptLogits(), ClassMap()
                is_whole = isinstance(scene, SliceScene)
                for _ in segmenter.predict_scenes([(scene, [logits if is_whole else made])], batch=4):
                    pass
                if is_whole:
                    rough.logits[scene.path] = logits.windows
                else:
                    rough.maps[scene.path] = made.channels_SHW
            if progress:
                progress(done + 1, len(cases))
        return rough

    def dsc(self, refiner: Refiner | None) -> float:
        """Foreground DSC of the cases: mean over classes of the mean over cases."""

        labels = self.segmenter.labels

        def predict(prepared: PreparedVolume, _: Any) -> Any:
            path = prepared.volume.path
            if path in self.maps:
                rough_SHW, spacing_mm = self.maps[path], prepared.view.spacing_mm
                return (
                    refiner.refine_measured(rough_SHW, prepared.missing, spacing_mm, labels) if refiner else rough_SHW
                )
            scene, made = SliceScene(prepared), replace(self.segmenter, refiner=refiner).class_map()
            watch(map(WindowLogits, scene.windows(), self.logits[path]), scene, [made], len(labels))
            return made.channels_SHW

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
    for path, map_SHW in rough.maps.items():
        check_refiner(kind(), path, map_SHW.shape[1:])
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
