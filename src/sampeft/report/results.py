"""Write an evaluation: scores, tables, figures and report.html."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sampeft.errors import UsageError
from sampeft.evaluation.score import Look
from sampeft.io import write_atomically
from sampeft.metrics.scores import CALIBRATION, COUNTS, SCORES, SUMMARY, Evaluation
from sampeft.prediction.segmenter import Segmenter
from sampeft.provenance import differences, history_of, run_config
from sampeft.report.figures import Example, figure_examples, figure_learning_curve, figure_per_class
from sampeft.report.page import REPORT, write_page
from sampeft.report.score_figures import case_means
from sampeft.report.tables import table_csv, table_md
from sampeft.strict_json import read_object

MAPS = "maps"
"""Folder of an evaluation's predicted label maps."""
ORIGIN = "origin.json"
"""Of which run, or maps, and data an evaluation is."""
_PICTURES = ("per_class.png", "examples.png", "learning.png")
_FILES = (SUMMARY, SCORES, COUNTS, CALIBRATION, "table.md", "table.csv", REPORT, *_PICTURES)


def check_origin(out: Path, origin: Mapping[str, Any], force: bool) -> None:
    """Raises UsageError where the folder holds results of another origin, or of one that is not known, unless by force."""
    if force or not (out / SUMMARY).is_file():
        return
    path = out / ORIGIN
    if not path.is_file():
        raise UsageError(
            f"{out}: holds an evaluation that does not say of what it is; choose another --out or overwrite it with --force"
        )
    before = read_object(path)
    if changed := differences(before, {**dict.fromkeys(before), **origin}):
        raise UsageError(
            f"{out}: holds another evaluation ({'; '.join(changed)}); choose another --out or overwrite it with --force"
        )


def begin_results(out: Path, origin: Mapping[str, Any]) -> None:
    """Note of what the results are that will be written; nothing of another evaluation stays."""
    path = out / ORIGIN
    if path.is_file() or (out / SUMMARY).is_file():
        if path.is_file() and read_object(path) == origin:
            return
        for name in _FILES:  # the summary first: without it there is no evaluation
            (out / name).unlink(missing_ok=True)
        maps = (out / MAPS).resolve()
        if not any(Path(str(place)).is_relative_to(maps) for place in origin.values()):  # else they are what was scored
            shutil.rmtree(maps, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(origin, indent=1) + "\n")


def trained_on_note(number: int, scored: int) -> str:
    return f"{number} of the {scored} scored cases were trained on; what a model has seen says nothing of new images"


def write_results(
    out: Path,
    evaluations: dict[str, Evaluation],
    looks: Sequence[Look],
    segmenter: Segmenter | None = None,
    run: Path | None = None,
    extra_notes: Sequence[str] = (),
) -> None:
    """Write scores.csv and summary.json of the first evaluation; table.md, report.html and figures of all of them."""
    first = next(iter(evaluations.values()))
    first.write(out)
    write_atomically(out / "table.md", table_md(evaluations))
    write_atomically(out / "table.csv", table_csv(evaluations))
    notes = [*extra_notes]
    if by_windows := first.meta.get("by_windows"):
        notes.append(
            f"{by_windows} pictures are larger than those of training and were looked at by windows, as `predict` does; "
            "calibration is of the others."
        )
    if failed := first.meta.get("failed"):
        notes.append(f"{len(failed)} cases could not be scored and are in no number: {', '.join(failed)}.")
    if seen := first.meta.get("trained_on"):
        notes.append(f"{trained_on_note(seen, len(first.cases))}.")
    if segmenter and segmenter.has_random_weights:
        notes.append("RANDOM WEIGHTS: this model did not start from pretrained weights.")
    if segmenter and segmenter.description.get("data", {}).get("synthetic"):
        notes.append("SYNTHETIC DATA: this model was trained on images that a program drew, not on real ones.")
    shown = examples(first, looks)
    history = history_of(run)
    config = run_config(run) if run else {}
    for name in _PICTURES:  # of an evaluation before there may be one more
        (out / name).unlink(missing_ok=True)
    figure_per_class(evaluations, path=out / "per_class.png")
    if shown:
        figure_examples(shown, first.labels, out / "examples.png")
    if any("loss" in record or "val_dsc" in record for record in history):
        figure_learning_curve(history, out / "learning.png", first.labels)
    write_page(
        out,
        title=f"{first.meta.get('model', 'label maps')}{trained_share(segmenter)} on {first.meta.get('data', 'data')}",
        evaluations=evaluations,
        examples=shown,
        history=history,
        config=config,
        notes=notes,
        resources=resources(first, history, config),
    )


def trained_share(segmenter: Segmenter | None) -> str:
    """`, 12.5 % of its parameters trained`, so that no name of a method promises less than was done."""
    described = segmenter.description if segmenter else {}
    if not (described.get("trainable") and described.get("total")):
        return ""
    return f", {100 * described['trainable'] / described['total']:.3g} % of its parameters trained,"


def resources(evaluation: Evaluation, history: Sequence[dict[str, Any]], config: dict[str, Any]) -> dict[str, Any]:
    """What training and scoring took, as the report shows it."""
    minutes = [record["minutes"] for record in history if "minutes" in record]
    described = config.get("description", {})
    seconds = evaluation.meta.get("seconds")
    return {
        **({"training (minutes)": round(max(minutes), 1)} if minutes else {}),
        **({"trained parameters": described["trainable"]} if "trainable" in described else {}),
        **(
            {"scoring (s)": seconds, "scoring a case (s)": round(seconds / len(evaluation.cases), 2)} if seconds else {}
        ),
        **evaluation.meta.get("resources", {}),
    }


def examples(evaluation: Evaluation, looks: Sequence[Look]) -> list[Example]:
    """Best, median and worst case by the mean DSC of its classes, each by its slice that shows most classes; of two cases
    the best and the worst, of one that. Cases without a score are shown only where no other is."""
    by_case = dict(zip(evaluation.cases, case_means(evaluation), strict=True))
    scored = [look for look in looks if not np.isnan(by_case[look.case])] or list(looks)
    ranked = sorted({look.case: look for look in scored}.values(), key=lambda look: -by_case[look.case])
    if not ranked:
        return []
    last = len(ranked) - 1
    picks = {0: "best", len(ranked) // 2: "median", last: "worst"} if last > 1 else {0: "best", last: "worst"}
    if last == 0:
        picks = {0: "the only"}
    return [
        Example(
            case=ranked[i].case,
            title=f"{title} case {ranked[i].case}, {ranked[i].place}",
            image_HW=ranked[i].image,
            truth_HW=ranked[i].truth,
            predictions={str(evaluation.meta.get("model", "prediction")): ranked[i].prediction},
            score=float(by_case[ranked[i].case]),
        )
        for i, title in picks.items()
    ]
