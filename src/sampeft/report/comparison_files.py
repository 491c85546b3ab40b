"""Write a comparison: tables, tests and figures."""

from __future__ import annotations

from pathlib import Path

from sampeft.io import write_atomically
from sampeft.metrics.comparison import Comparison
from sampeft.provenance import json_text
from sampeft.report.comparison import comparison_csv, comparison_json, comparison_md, comparison_tex, paired_tests_csv
from sampeft.report.comparison_figures import figure_classes, figure_ranks


def write_comparison(out: Path, comparison: Comparison) -> None:
    """Write tables, tests and figures; comparison.json comes last. There is no ranks.png with fewer than two methods."""
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "comparison.md": comparison_md(comparison),
        "comparison.csv": comparison_csv(comparison),
        "comparison.tex": comparison_tex(comparison),
        "tests.csv": paired_tests_csv(comparison),
    }
    for name, text in texts.items():
        write_atomically(out / name, text)
    figure_classes(comparison, out / "per_class.png")
    if len(comparison.methods) > 1:
        figure_ranks(comparison, out / "ranks.png")
    else:
        (out / "ranks.png").unlink(missing_ok=True)
    write_atomically(out / "comparison.json", json_text(comparison_json(comparison)))
