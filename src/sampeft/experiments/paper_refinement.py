"""What each refiner, fitted on held-out cases, changes in DSC, NSD and HD95 of the test cases."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sampeft.console import bar, say
from sampeft.errors import UsageError, counted
from sampeft.evaluation.fit_refiner import Fitted, Rough, fit_refiner
from sampeft.experiments.memo import scored_before, write_json
from sampeft.experiments.paper import Place, Row, trained
from sampeft.io import write_atomically
from sampeft.metrics import METRICS
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Interval, bootstrap_interval
from sampeft.prediction.loading import load
from sampeft.provenance import run_config, versions
from sampeft.refine import REFINERS, Refiner
from sampeft.report.tables import NOT_SCORED, interval_text, markdown_table
from sampeft.workflows.evaluate import cut_of, evaluate_segmenter


def reproduce(place: Place, row: Row) -> Path:
    """Fit each refiner on the run's held-out cases and score it on the test cases. Returns the table's path."""
    run = trained(place, row, 0)
    segmenter = load(run, weights=place.weights)
    held_out = run_config(run).get("held_out_cases", [])
    known = {case.id: case for case in place.dataset.cases}
    cases = [known[name] for name in held_out if name in known]
    if not cases:
        raise UsageError(f"{run}: held no cases out to fit refiners on; give a larger --held_out")
    kinds = dict(REFINERS)
    if cut := cut_of(segmenter, [*cases, *place.cases]):
        kinds = {name: kind for name, kind in kinds.items() if not kind.looks_at_slices()}
        say(f"note      {cut[0]} is cut into windows; the refiners that look at whole images are left out")
    with bar("rough maps", len(cases)) as shown:
        rough = Rough.of(segmenter, place.dataset, cases, shown)
    fits: dict[str, Fitted] = {}
    found: dict[str, Evaluation] = {"none": _scored(place, run, None, "none")}
    for name, kind in kinds.items():
        with bar(f"fitting {name}") as shown:
            fits[name] = fit_refiner(name, rough, shown)
        # What does not help the held-out cases is scored with its defaults, so that its effect is known all the same.
        found[name] = _scored(place, run, fits[name].refiner or kind(), name)
    return _write(place, row, found, fits, len(cases), len(cut))


def _scored(place: Place, run: Path, refiner: Refiner | None, name: str) -> Evaluation:
    folder = place.runs / "refined" / name
    settings = {} if refiner is None else {"refiner": {"name": refiner.name, **asdict(refiner)}}
    if known := scored_before(folder, place.cases, {"data": place.dataset.name, **settings}):
        return known
    say(f"scoring   {'without a refiner' if refiner is None else name}")
    segmenter = load(run, weights=place.weights, refiner=refiner)
    evaluation, _ = evaluate_segmenter(segmenter, place.dataset, place.cases, place.split)
    evaluation.write(folder)
    return evaluation


def change(before: Evaluation, after: Evaluation, metric: str) -> tuple[Interval, int]:
    """Mean over classes of the mean over cases of after - before where both are finite, and how many pairs of scores are
    left out because one or both are infinite or only one is there. The cases must be the same, in the same order."""
    channels = list(before.labels.foreground)
    first, second = (evaluation.matrix(metric)[:, channels] for evaluation in (before, after))
    finite = np.isfinite(first) & np.isfinite(second)
    nothing = np.isnan(first) & np.isnan(second)
    differences = np.full(first.shape, np.nan)
    np.subtract(second, first, out=differences, where=finite)
    return bootstrap_interval(differences), int((~finite & ~nothing).sum())


def change_text(interval: Interval, left_out: int) -> str:
    """`+0.0120 [+0.0010, +0.0230], 2 pairs left out`; without an interval where only one case has a change."""
    more = f", {counted(left_out, 'pair')} left out" if left_out else ""
    if math.isnan(interval.mean):
        return NOT_SCORED + more
    limits = "" if math.isnan(interval.low) else f" [{interval.low:+.4f}, {interval.high:+.4f}]"
    return f"{interval.mean:+.4f}{limits}{more}"


def _write(
    place: Place, row: Row, found: dict[str, Evaluation], fits: dict[str, Fitted], n_fit: int, n_cut: int
) -> Path:
    before = found["none"]
    metrics = [m for m in ("dsc", "nsd", "nsd_px", "hd95_mm", "hd95_px") if m in before.metrics]
    header = ["refiner", "held-out DSC before", "after fitting", "test DSC"]
    header += [f"change of {METRICS[m].heading}" for m in metrics] + ["missed", "false"]
    rows = []
    stamp = place.stamp([row])
    record: dict[str, Any] = {"stamp": stamp, "versions": versions(), "refiners": {}}
    for name, evaluation in found.items():
        fit = fits.get(name)
        cells = [
            name,
            *([f"{fit.before:.4f}", f"{fit.after:.4f}" + ("" if fit.refiner else " (not kept)")] if fit else ["", ""]),
        ]
        cells.append(interval_text(evaluation.headline()))
        changes = {metric: change(before, evaluation, metric) for metric in metrics}
        cells += [change_text(*found_change) if fit else "" for found_change in changes.values()]
        cells += [str(sum(map(len, by.values()))) for by in (evaluation.missed(), evaluation.false())]
        rows.append(cells)
        record["refiners"][name] = {
            "fitted": asdict(fit.refiner) if fit and fit.refiner else None,
            "tried": fit.tried if fit else [],
            "seconds": evaluation.meta.get("seconds"),
            "change": {metric: asdict(interval) for metric, (interval, _) in changes.items()},
        }
    text = (
        f"# Refiners after {row.heading} on {place.dataset.name}\n\n{markdown_table(header, rows)}\n"
        f"- {stamp}.\n"
        f"- Parameters were fitted by the foreground DSC of {counted(n_fit, 'held-out case')}, never by test cases. A refiner "
        "that does not help the held-out cases is not kept; it is shown with its defaults.\n"
        "- Changes are means over classes of the mean over cases, with 95 % interval over cases; a lower HD95 is better. Pairs "
        "are left out where a score is infinite or there is none, before or after.\n"
        + (
            f"- {counted(n_cut, 'picture')} larger than those of training were looked at by windows; refiners that look "
            "at whole images were left out.\n"
            if n_cut
            else ""
        )
        + "- missed and false: classes of cases of which not one pixel was found, and that are predicted without being there.\n"
    )
    place.out.mkdir(parents=True, exist_ok=True)
    write_atomically(place.out / "refinement.md", text)
    write_json(place.out / "refinement.json", record)
    return place.out / "refinement.md"
