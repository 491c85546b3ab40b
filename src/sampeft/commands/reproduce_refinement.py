"""A place in; what each refiner, fitted on held-out cases, changes in DSC, NSD and HD95 of the test cases out, as a table."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sampeft.commands.evaluate import evaluate_segmenter, run_config
from sampeft.commands.reproduction import Place, Row, trained
from sampeft.commands.train import say, versions
from sampeft.errors import UsageError
from sampeft.inference import load
from sampeft.io import write_atomically
from sampeft.metrics.measures import MEASURES
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Interval, bootstrap_interval
from sampeft.progress import bar
from sampeft.refine import REFINERS, Refiner
from sampeft.refining import Fitted, Rough, fit_refiner
from sampeft.report.tables import interval_text, markdown_table


def reproduce(place: Place, row: Row) -> Path:
    """Fit each refiner on the run's held-out cases and score it on the test cases. Returns the table's path."""
    run = trained(place, row, 0)
    segmenter = load(run, weights=place.weights)
    held_out = run_config(run).get("held_out_cases", [])
    known = {case.id: case for case in place.dataset.cases}
    cases = [known[name] for name in held_out if name in known]
    if not cases:
        raise UsageError(f"{run}: held no cases out to fit refiners on; give a larger --held_out")
    with bar("rough maps", len(cases)) as shown:
        rough = Rough.of(segmenter, place.dataset, cases, shown)
    fits: dict[str, Fitted] = {}
    found: dict[str, Evaluation] = {"none": _scored(place, run, None, "none")}
    for name, kind in REFINERS.items():
        with bar(f"fitting {name}") as shown:
            fits[name] = fit_refiner(name, rough, shown)
        # What does not help the held-out cases is scored with its defaults, so that its effect is known all the same.
        found[name] = _scored(place, run, fits[name].refiner or kind(), name)
    return _write(place, row, found, fits, len(cases))


def _scored(place: Place, run: Path, refiner: Refiner | None, name: str) -> Evaluation:
    folder = place.out / "refined" / name
    settings = None if refiner is None else {"name": refiner.name, **asdict(refiner)}
    if (folder / "summary.json").is_file():
        known = Evaluation.read(folder)
        if known.meta.get("refiner") == json.loads(json.dumps(settings)):
            return known
    say(f"scoring   {name}")
    segmenter = load(run, weights=place.weights, refiner=refiner)
    evaluation, _ = evaluate_segmenter(segmenter, place.dataset, place.cases, place.split)
    evaluation.write(folder)
    return Evaluation.read(folder)


def change(before: Evaluation, after: Evaluation, metric: str) -> tuple[Interval, int]:
    """Mean over classes of the mean over cases of after - before, where both are finite, and how many pairs are not."""
    channels = list(before.labels.foreground)
    with np.errstate(invalid="ignore"):
        differences = (after.matrix(metric) - before.matrix(metric))[:, channels]
        lost = (
            ~np.isfinite(differences) & ~(np.isnan(after.matrix(metric)) & np.isnan(before.matrix(metric)))[:, channels]
        )
    return bootstrap_interval(np.where(np.isfinite(differences), differences, np.nan)), int(lost.sum())


def _write(place: Place, row: Row, found: dict[str, Evaluation], fits: dict[str, Fitted], n_fit: int) -> Path:
    before = found["none"]
    metrics = [m for m in ("dsc", "nsd", "nsd_px", "hd95_mm", "hd95_px") if m in before.metrics]
    header = ["refiner", "held-out DSC before", "after fitting", "test DSC"]
    header += [f"change of {MEASURES[m].heading}" for m in metrics] + ["missed", "false"]
    rows = []
    record: dict[str, Any] = {"stamp": place.stamp, "versions": versions(), "refiners": {}}
    for name, evaluation in found.items():
        fit = fits.get(name)
        cells = [
            name,
            *([f"{fit.before:.4f}", f"{fit.after:.4f}" + ("" if fit.refiner else " (not kept)")] if fit else ["", ""]),
        ]
        cells.append(interval_text(evaluation.headline()))
        changes = {metric: change(before, evaluation, metric) for metric in metrics}
        for interval, lost in changes.values():
            text = f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
            cells.append("" if fit is None else text + (f", {lost} pairs infinite" if lost else ""))
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
        f"- {place.stamp}; here one seed. Parameters were fitted by the foreground DSC of {n_fit} held-out cases, never by the "
        "test cases; a refiner that does not help those is shown with its defaults and marked.\n"
        "- Changes are means over classes of the mean over cases, with 95 % interval over cases; a lower HD95 is better.\n"
    )
    place.out.mkdir(parents=True, exist_ok=True)
    write_atomically(place.out / "refinement.md", text.encode())
    write_atomically(place.out / "refinement.json", (json.dumps(record, indent=1, default=str) + "\n").encode())
    return place.out / "refinement.md"
