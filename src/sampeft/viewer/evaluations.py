"""Evaluations as the page shows them: headlines, scores case by case, comparisons."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sampeft.errors import SampeftError, UsageError
from sampeft.metrics.comparison import compare
from sampeft.metrics.scores import SUMMARY, Evaluation
from sampeft.provenance import without_nan
from sampeft.report.comparison import comparison_json
from sampeft.viewer.errors import RequestError, not_found
from sampeft.viewer.runs import Run, distinct

REPORT = "report.html"
_BESIDE = ("eval*", "scores*")


@dataclass(frozen=True)
class Scored:
    """An evaluation folder and the content of its summary.json."""

    id: str
    folder: Path
    summary: dict[str, Any]

    @property
    def report(self) -> Path | None:
        """Its report.html, only if that is a file of this very folder and no link to elsewhere."""
        path = self.folder / REPORT
        return path if path.is_file() and path.resolve().parent == self.folder.resolve() else None

    def to_json(self) -> dict[str, Any]:
        meta, headline = self.summary["meta"], self.summary["headline"]
        return {
            "id": self.id,
            "model": str(meta.get("model", self.id)),
            "data": str(meta.get("data", "")),
            "split": str(meta.get("split", "")),
            "protocol": str(meta.get("protocol", "default")),
            "oracle": bool(meta.get("oracle", False)),
            "cases": self.summary["n_cases"],
            "over": headline["over"],
            "headline": {name: value for name, value in headline.items() if name != "over"},
            "report": self.report is not None,
        }


class Evaluations:
    """folders: evaluations, or folders with evaluations one level below. Those in a run's own folder, and those beside it
    that say they are of its model, are found by themselves."""

    def __init__(self, folders: Sequence[Path], runs: Mapping[str, Run]) -> None:
        given = [folder for above in folders for folder in _inside(above)]
        own = {id: _of_run(run) for id, run in runs.items()}
        every = list(
            {folder.resolve(): folder for folder in [*given, *(f for some in own.values() for f in some)]}.values()
        )
        found = [(id, folder, _summary(folder)) for id, folder in distinct(every).items()]
        self.by_id = {id: Scored(id, folder, summary) for id, folder, summary in found if summary is not None}
        places = {scored.folder.resolve(): id for id, scored in self.by_id.items()}
        self.of_run = {id: [places[f.resolve()] for f in some if f.resolve() in places] for id, some in own.items()}
        self._lock = threading.Lock()  # one comparison at a time: intervals take memory

    def __getitem__(self, id: str) -> Scored:
        """Raises RequestError (404) for an unknown id."""
        if id not in self.by_id:
            raise not_found("evaluation", id)
        return self.by_id[id]

    def cases(self, id: str) -> dict[str, Any]:
        """Every metric of every class of every case: {case: {metric: {class: value}}}."""
        evaluation = Evaluation.read(self[id].folder)
        names = evaluation.labels.names
        table: dict[str, dict[str, dict[str, float]]] = {case: {} for case in evaluation.cases}
        for metric in evaluation.metrics:
            for case, values in zip(evaluation.cases, evaluation.matrix(metric), strict=True):
                table[case][metric] = dict(zip(names, values.tolist(), strict=True))
        return dict(without_nan(table))

    def compared(self, ids: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
        """What `sampeft compare` finds, and the cases side by side, those that some method does worst first.

        Raises RequestError (422) for evaluations that do not compare.
        """
        folders = {id: self[id].folder for id in ids}
        if len(folders) < 2 or len(folders) < len(ids):
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "give the ids of two or more different evaluations")
        with self._lock:
            comparison = compare({id: Evaluation.read(folder) for id, folder in folders.items()}, metrics)
        content = comparison_json(comparison)
        foreground = [comparison.labels.names[k] for k in comparison.labels.foreground]
        for found in comparison.metrics:
            rows: list[dict[str, Any]] = [
                {
                    "case": case,
                    "mean": {name: float(means[i]) for name, means in found.case_means_N.items()},
                    "classes": {
                        name: dict(zip(foreground, values[i].tolist(), strict=True))
                        for name, values in found.values_NK.items()
                    },
                }
                for i, case in enumerate(comparison.cases)
            ]
            worst = min if found.measure.better == "higher" else max
            rows.sort(key=lambda row: worst(row["mean"].values()), reverse=worst is max)
            content["metrics"][found.metric]["by_case"] = rows
        return {**dict(without_nan(content)), "reports": {id: self[id].report is not None for id in ids}}


def _inside(above: Path) -> list[Path]:
    """The folder itself or the evaluations right below it. Raises UsageError when there is none."""
    if (above / SUMMARY).is_file():
        return [above]
    below = sorted(p for p in above.iterdir() if (p / SUMMARY).is_file()) if above.is_dir() else []
    below = [p for p in below if p.resolve().parent == above.resolve()]
    if not below:
        raise UsageError(f"{above}: no evaluation here or one level below; give what `sampeft evaluate` wrote")
    return below


def _of_run(run: Run) -> list[Path]:
    """Evaluations in the run's folder, and beside it those of a model of its name."""
    folder = run.folder.resolve()
    inside = [folder, *(p for pattern in _BESIDE for p in folder.glob(pattern))]
    beside = [folder.parent, *(p for pattern in _BESIDE for p in folder.parent.glob(pattern))]
    found = [p for p in inside if _summary(p) is not None]
    for path in beside:
        summary = _summary(path)
        if summary is not None and summary["meta"].get("model") == run.model:
            found.append(path)
    return found


def _summary(folder: Path) -> dict[str, Any] | None:
    """The content of summary.json; None where there is none that can be read."""
    try:
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return dict(content) if {"meta", "headline", "n_cases"} <= content.keys() else None
    except (OSError, ValueError, AttributeError, SampeftError):
        return None
