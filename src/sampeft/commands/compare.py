"""Compare methods on the same cases: a table with intervals and paired tests, and figures."""

from __future__ import annotations

import sys

from sampeft.configs.compare import Config
from sampeft.one_writer import one_writer
from sampeft.options import check_paths
from sampeft.provenance import plain_json
from sampeft.report.comparison_files import write_comparison
from sampeft.workflows.compare import check_names as check_names
from sampeft.workflows.compare import compared


def run(config: Config) -> int:
    check_paths(config)
    comparison = compared(config)
    with one_writer(config.out):
        write_comparison(config.out, comparison)
    made = config.out / ("comparison.json" if config.json else "comparison.md")
    print(plain_json(made) if config.json else made.read_text(encoding="utf-8"))
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"results in {config.out}", file=sys.stderr)
    return 0
