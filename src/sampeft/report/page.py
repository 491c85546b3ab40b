"""Evaluations, examples, training records and their origin in; report.html out, one file that needs nothing else."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampeft import __version__
from sampeft.io import write_atomically
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import FEW
from sampeft.report import tables
from sampeft.report.figures import DPI, Example, encode, figure_examples, figure_learning_curve, figure_per_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.html"
MAX_BYTES = 10_000_000
_PICTURES_BYTES = 6_500_000  # of pictures as such: base64 adds a third
_CASES_NAMED = 12

# What a reader looks for first in a run's config.json, and what to call it.
_FACTS = {
    "backbone": "backbone",
    "weights_sha256": "weights, SHA-256",
    "method": "method",
    "options": "options of the method",
    "trainable": "trained parameters",
    "total": "all parameters",
    "data": "training data",
    "preparation": "slices and intensity",
    "trained": "state",
    "seed": "seed",
    "versions": "versions",
    "git_commit": "source commit",
}


@dataclass(frozen=True)
class Failure:
    """Something that a mean hides: what went wrong with which class, and in which cases."""

    kind: str
    name: str
    text: str


def write_page(
    out: Path,
    *,
    title: str,
    evaluations: dict[str, Evaluation],
    examples: Sequence[Example],
    history: Sequence[dict[str, Any]],
    config: dict[str, Any],
    notes: Sequence[str],
    resources: dict[str, Any],
) -> Path:
    """Write `out`/report.html and return its path.

    evaluations: the one reported on first, then those to compare it with. examples: best, median, worst case.
    history: records of metrics.jsonl. config: the run's config.json. notes: warnings for the banner.
    resources: what it took, name -> value. Pictures are inlined, smaller the more there are, and the file stays under
    MAX_BYTES. Raises ValueError without evaluations.
    """
    from jinja2 import Environment, StrictUndefined

    if not evaluations:
        raise ValueError("a report needs at least one evaluation")
    first = next(iter(evaluations.values()))
    budget = _PICTURES_BYTES // (len(examples) + 2)
    drawable = any("loss" in record or "val_dsc" in record for record in history)
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(files("sampeft.report").joinpath("page.html").read_text(encoding="utf-8"))
    text = template.render(
        title=title,
        version=__version__,
        notes=notes,
        headlines=[_headline(name, evaluation) for name, evaluation in evaluations.items()],
        n_classes=len(first.labels.foreground),
        few=FEW,
        is_few=first.headline().too_few,
        meta=first.meta,
        legend=tables.legend(evaluations),
        columns=[tables.column_name(name, evaluation) for name, evaluation in evaluations.items()],
        rows=tables.class_rows(evaluations),
        colors={name: "#{:02x}{:02x}{:02x}".format(*color) for name, color in _named_colors(first)},
        interval_text=tables.interval_text,
        foreground=tables.FOREGROUND,
        with_background=tables.WITH_BACKGROUND,
        not_scored=tables.NOT_SCORED,
        per_class=_inline(figure_per_class(evaluations), budget),
        examples=[(e, _inline(figure_examples([e], first.labels), budget)) for e in examples],
        failures=failures(first),
        learning=_inline(figure_learning_curve(history, labels=first.labels), budget) if drawable else None,
        facts=_facts(config),
        settings=list(_flat(config)),
        resources=[(name, _shown(value)) for name, value in _flat(resources)],
    )
    content = text.encode()
    if len(content) > MAX_BYTES:
        raise ValueError(f"report of {len(content):,} bytes for {len(examples)} examples; give fewer")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / REPORT, content)
    return out / REPORT


def failures(evaluation: Evaluation) -> list[Failure]:
    """Classes that are never found, then missed or falsely found in some cases, then absent from the truth."""
    missed, false = evaluation.missed(), evaluation.false()
    cases, scores = len(evaluation.cases), evaluation.per_class()
    return [
        *(
            Failure("never found", c.name, f"scores 0 in all {c.n_truth} cases that have it; check labels and training")
            for c in scores
            if c.never_found
        ),
        *(
            Failure("missed", c.name, f"in {c.n_missed} of {c.n_truth} cases that have it: {_names(missed[c.name])}")
            for c in scores
            if c.n_missed and not c.never_found
        ),
        *(
            Failure("false", c.name, f"in {c.n_false} of {cases - c.n_truth} cases without it: {_names(false[c.name])}")
            for c in scores
            if c.n_false
        ),
        *(
            Failure("absent", c.name, "in the truth of no case, so nothing is known about how well it is found")
            for c in scores
            if c.n_truth == 0
        ),
    ]


def _names(cases: Sequence[str]) -> str:
    more = len(cases) - _CASES_NAMED
    return ", ".join(cases[:_CASES_NAMED]) + (f" and {more} more, all in scores.csv" if more > 0 else "")


def _headline(name: str, evaluation: Evaluation) -> dict[str, Any]:
    mean = evaluation.headline()
    return {
        "name": name,
        "oracle": tables.ORACLE if evaluation.is_oracle else "",
        "mean": tables.NOT_SCORED if math.isnan(mean.mean) else f"{mean.mean:.3f}",
        "interval": tables.interval_text(mean),
        "range": "" if math.isnan(mean.low) else f"{mean.low:.3f} to {mean.high:.3f}",
        "n": mean.n,
        "missed": sum(map(len, evaluation.missed().values())),
        "false": sum(map(len, evaluation.false().values())),
        "background": f"{evaluation.with_background_mean():.3f}" if evaluation.labels.has_background else "",
    }


def _named_colors(evaluation: Evaluation) -> Iterator[tuple[str, tuple[int, int, int]]]:
    return zip(evaluation.labels.names, evaluation.labels.colors, strict=True)


def _inline(figure: Figure, most_bytes: int) -> str:
    """The figure as a data URI: PNG, or JPEG and then a coarser one when it would be too large."""
    content, kind = encode(figure), "png"
    for dpi in (DPI, DPI * 2 // 3, DPI // 3):
        if len(content) <= most_bytes:
            break
        content, kind = encode(figure, "jpeg", dpi), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _facts(config: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts of a run that a reader looks for first, in words."""
    described = config.get("description", config)
    return [(name, _shown(described[key])) for key, name in _FACTS.items() if described.get(key) not in (None, {}, "")]


def _flat(content: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested config under its dotted name."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in _flat(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
