"""Write report.html, one file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampeft import __version__
from sampeft.io import write_atomically
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import FEW
from sampeft.report import sections, tables
from sampeft.report.failures import MOST_ROWS, Failure, failures, worst_found
from sampeft.report.figures import Example, figure_examples
from sampeft.report.run_card import facts, listed, origin
from sampeft.report.score_figures import figure_by_size, figure_case_means, figure_per_class, figure_reliability
from sampeft.report.style import DPI, encode, shown_name
from sampeft.report.training_figures import figure_learning_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MAX_BYTES", "REPORT", "Failure", "failures", "write_page"]

REPORT = "report.html"
MAX_BYTES = 10_000_000
_PICTURES_BYTES = 6_500_000  # of pictures as such: base64 adds a third
_PLOTS = 5  # besides the examples


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
    metrics = tables.second_metrics(evaluations)
    source = files("sampeft.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["words"] = shown_name
    template = environment.from_string(source.joinpath("page.html").read_text(encoding="utf-8"))
    rules = tables.rules(evaluations)
    failed, worst = failures(first), worst_found(first)
    text = template.render(
        title=title,
        style=source.joinpath("page.css").read_text(encoding="utf-8"),
        version=__version__,
        notes=notes,
        origin=origin(config),
        headlines=[sections.headline(name, evaluation, metrics) for name, evaluation in evaluations.items()],
        oracles=[evaluation.is_oracle for evaluation in evaluations.values()],
        n_classes=len(first.averaged),
        few=FEW,
        is_few=first.headline().too_few,
        meta=first.meta,
        rules=rules,
        legend=[line for line in tables.legend(evaluations) if line not in rules],
        metrics=[tables.short_heading(metric) for metric in metrics],
        rows=sections.class_table(evaluations, metrics),
        colors={name: "#{:02x}{:02x}{:02x}".format(*color) for name, color in _named_colors(first)},
        with_background=tables.WITH_BACKGROUND,
        failures=failed[:MOST_ROWS],
        n_more_failures=max(len(failed) - MOST_ROWS, 0),
        worst=worst[:MOST_ROWS],
        n_more_worst=max(len(worst) - MOST_ROWS, 0),
        sizes=sections.size_table(evaluations),
        readings=list(first.calibration),
        calibration=sections.calibration_table(first),
        calibration_eces=[f"{found.ece:.4f}" for found in first.calibration.values()],
        calibration_briers=[f"{found.brier_K.sum():.4f}" for found in first.calibration.values()],
        calibration_sentences=sections.calibration_sentences(first.calibration),
        facts=facts(config),
        settings=listed(config),
        resources=listed(resources),
        **_pictures(evaluations, examples, history),
    )
    content = text.encode("utf-8", "backslashreplace")  # a file name may hold what is no text
    if len(content) > MAX_BYTES:
        raise ValueError(f"report of {len(content):,} bytes for {len(examples)} examples; give fewer")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / REPORT, content)
    return out / REPORT


def _pictures(
    evaluations: dict[str, Evaluation], examples: Sequence[Example], history: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Name in the page -> data URI, None for what there is nothing to draw of."""
    first = next(iter(evaluations.values()))
    budget = _PICTURES_BYTES // (len(examples) + _PLOTS)
    drawable = any("loss" in record or "val_dsc" in record for record in history)
    by_size = figure_by_size(evaluations)
    return {
        "examples": [(example, _inline(figure_examples([example], first.labels), budget)) for example in examples],
        "per_class": _inline(figure_per_class(evaluations), budget),
        "case_means": _inline(figure_case_means(evaluations), budget),
        "by_size": _inline(by_size, budget) if by_size else None,
        "reliability": _inline(figure_reliability(first.calibration), budget) if first.calibration else None,
        "learning": _inline(figure_learning_curve(history, labels=first.labels), budget) if drawable else None,
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
