"""Results of a sweep: one evaluation of each setting, their comparison and their order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sampeft.console import say
from sampeft.experiments.grid import flags, left_out
from sampeft.experiments.memo import DONE, write_json
from sampeft.experiments.sweep_runs import Sweep
from sampeft.io import write_atomically
from sampeft.metrics.comparison import Comparison, compare
from sampeft.metrics.pooling import mean_over_seeds, pooled
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import METHOD, Interval
from sampeft.provenance import without_nan
from sampeft.report.comparison_files import write_comparison
from sampeft.report.results import write_results
from sampeft.report.tables import interval_text, markdown_table

MOST_COMPARED = 10
"""Settings that are compared pair by pair, the best by mean: figures have ten markers, 24 settings took 2 GiB with 30 cases
of 13 classes, and with 276 pairs in Holm's family next to nothing could be shown."""


@dataclass(frozen=True)
class Ranked:
    """A setting with its score over all cases that were left out.

    headline: over cases, after averaging over seeds. each: of every seed. standing: as `compare` calls it, or nothing.
    minutes: of one training on average. trainable: parameters.
    """

    setting: str
    options: dict[str, str]
    headline: Interval
    each: tuple[float, ...]
    standing: str
    minutes: float
    trainable: int


def write_ranking(sweep: Sweep, failed: dict[str, str]) -> dict[str, Any]:
    """Write settings/, comparison/ (of two or more settings), ranking.md and sweep.json; returns what sweep.json holds.

    Only settings of which every run is done take part; the others are named.
    """
    lacking = left_out(sweep.plan, sweep.done())
    evaluations = {name: _evaluation(sweep, name) for name in sweep.plan.settings if name not in lacking}
    comparison = None
    if len(evaluations) > 1:
        best = sorted(evaluations, key=lambda name: -_level(evaluations[name][0].headline()))[:MOST_COMPARED]
        comparison = compare({_shown(name): mean for name, (mean, _) in evaluations.items() if name in best})
        write_comparison(sweep.out / "comparison", comparison)
        for note in comparison.notes:
            say(f"note      {note}")
    ranked = _ranked(sweep, evaluations, comparison)
    content = dict(
        without_nan(
            {
                "metric": "dsc",
                "interval": METHOD,
                "scored": list(sweep.plan.parts),
                "seeds": list(sweep.plan.seeds),
                "settings": [{"rank": i, **asdict(row)} for i, row in enumerate(ranked, start=1)],
                "left_out": {name: [run.name for run in runs] for name, runs in lacking.items()},
                "failed": failed,
            }
        )
    )
    text = _markdown(sweep, ranked, evaluations, list(lacking))
    write_atomically(sweep.out / "ranking.md", text)
    write_json(sweep.out / "sweep.json", content)
    return content


def _evaluation(sweep: Sweep, setting: str) -> tuple[Evaluation, list[Evaluation]]:
    """(averaged over seeds, of each seed), also written below settings/."""
    folder = sweep.out / "settings" / setting
    split = f"{len(sweep.plan.parts)} folds" if len(sweep.plan.parts) > 1 else sweep.plan.parts[0]
    each = []
    for seed in sweep.plan.seeds:
        folds = [Evaluation.read(sweep.folder(run) / "eval") for run in sweep.plan.of(setting, seed)]
        each.append(pooled(folds, model=setting, split=split))
    mean = mean_over_seeds(each, seeds=", ".join(map(str, sweep.plan.seeds)))
    if len(each) > 1:
        for seed, evaluation in zip(sweep.plan.seeds, each, strict=True):
            evaluation.write(folder / f"seed{seed}")
    write_results(folder, {setting: mean}, [])
    return mean, each


def _ranked(
    sweep: Sweep, evaluations: dict[str, tuple[Evaluation, list[Evaluation]]], comparison: Comparison | None
) -> list[Ranked]:
    rows = []
    for setting, (mean, each) in evaluations.items():
        runs = [run for seed in sweep.plan.seeds for run in sweep.plan.of(setting, seed)]
        records = [json.loads((sweep.folder(run) / DONE).read_text(encoding="utf-8")) for run in runs]
        rows.append(
            Ranked(
                setting,
                sweep.plan.settings[setting],
                mean.headline(),
                tuple(e.headline().mean for e in each),
                comparison.metrics[0].mean.standing(_shown(setting)) if comparison else "",
                float(np.mean([record["minutes"] for record in records])),
                int(records[0]["trainable"]),
            )
        )
    return sorted(rows, key=lambda row: -_level(row.headline))


def _shown(setting: str) -> str:
    """With room for a line break in figures and tables."""
    return setting.replace(",", ", ")


def _level(headline: Interval) -> float:
    """A mean that is no number is the worst."""
    return float(np.nan_to_num(headline.mean, nan=-1.0))


def _markdown(
    sweep: Sweep,
    ranked: Sequence[Ranked],
    evaluations: dict[str, tuple[Evaluation, list[Evaluation]]],
    lacking: Sequence[str],
) -> str:
    plan = sweep.plan
    if not ranked:
        return f"# No setting of {len(plan.settings)} is whole\n\nEach lacks runs; start the same command again.\n"
    first = evaluations[ranked[0].setting][0]
    seeds = f", mean of {len(plan.seeds)} seeds" if len(plan.seeds) > 1 else ""
    header = ["setting", f"DSC, {first.headline_name}", *(["of each seed"] if seeds else []), "standing",
              "trained parameters", "minutes of a run"]  # fmt: skip
    rows = [
        [
            f"{i}. `{row.setting}`",
            interval_text(row.headline),
            *([", ".join(f"{value:.3f}" for value in row.each)] if seeds else []),
            row.standing,
            f"{row.trainable:,}",
            f"{row.minutes:.1f}",
        ]
        for i, row in enumerate(ranked, start=1)
    ]
    where = {"held_out": "held-out cases", "test": "test cases"}.get(
        plan.parts[0], f"cases, each by the model of {len(plan.parts)} that did not see it"
    )
    lines = [f"# {len(ranked)} settings on {len(first.cases)} {where}{seeds}", markdown_table(header, rows).rstrip()]
    notes = [f"{METHOD}. Protocol {first.protocol.name}."]
    if len(ranked) > 1:
        best = ranked[0]
        alike = [row.setting for row in ranked if row.standing == "not shown to be worse"]
        notes.append(f"Best mean: `{best.setting}`. Train it with `{' '.join(flags(best.options))}`.")
        if alike:
            notes.append(f"Not shown to be worse: {', '.join(f'`{name}`' for name in alike)}.")
        if not any(row.standing for row in ranked):
            notes.append("So few cases cannot show any difference between settings; the order may be chance.")
        if len(ranked) > MOST_COMPARED:
            notes.append(
                f"Tested in pairs are the {MOST_COMPARED} best alone (comparison/); that the same scores picked them is not "
                "corrected for."
            )
        notes.append(
            f"The best of {len(ranked)} was picked by these very scores, so its own is too high on average. Score it once "
            "on cases that had no part in the choice, such as the test list."
        )
    if plan.parts[0] == "held_out":
        notes.append(
            "The same cases picked the best step of every run, which adds to that; --folds scores cases that picked nothing."
        )
    if plan.parts[0] == "test":
        notes.append("These are the test cases: chosen by them, a setting has no unseen test cases left.")
    if lacking:
        notes.append(f"Left out, since runs are missing: {', '.join(f'`{name}`' for name in lacking)}.")
    notes.append("Research software, not a medical device.")
    return "\n\n".join([*lines, "\n".join(f"- {note}" for note in notes)]) + "\n"
