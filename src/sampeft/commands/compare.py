"""Evaluations of the same cases by several methods in; one table with intervals and paired tests, and figures, out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sampeft.configs.compare import Config
from sampeft.errors import UsageError, unknown_name
from sampeft.io import write_atomically
from sampeft.io.plain import json_text, plain_json
from sampeft.metrics.comparable import comparable
from sampeft.metrics.comparison import Comparison, compare
from sampeft.metrics.measures import MEASURES
from sampeft.metrics.scores import Evaluation
from sampeft.options import check_paths
from sampeft.report.comparison import comparison_csv, comparison_json, comparison_md, comparison_tex, paired_tests_csv
from sampeft.report.comparison_figures import figure_classes, figure_ranks


def check_names(config: Config) -> None:
    for metric in listed(config.metrics):
        if metric not in MEASURES:
            raise unknown_name("metric", metric, MEASURES)


def run(config: Config) -> int:
    check_paths(config)
    comparison = compared(config)
    write_comparison(config.out, comparison)
    made = config.out / ("comparison.json" if config.json else "comparison.md")
    print(plain_json(made) if config.json else made.read_text(encoding="utf-8"))
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"results in {config.out}", file=sys.stderr)
    return 0


def compared(config: Config, written: bool = True) -> Comparison:
    """The evaluations side by side. written: whether figures will go to `out`, which must then be none of them."""
    folders = config.evaluations
    if len(folders) < 2:
        raise UsageError(f"a comparison needs at least two evaluation folders, got {len(folders)}: {folders[0]}")
    resolved = [folder.resolve() for folder in folders]
    for folder, times in Counter(resolved).items():
        if times > 1:
            raise UsageError(f"{folder} is given {times} times; an evaluation does not compare with itself")
    if written and config.out.resolve() in resolved:
        raise UsageError(f"--out {config.out} is one of the evaluations, whose figures it would replace; give another")
    loaded = [Evaluation.read(folder) for folder in folders]
    metrics = listed(config.metrics)
    # By folder first, so that a refusal says where to look; names may be alike in all but a seed.
    comparable(dict(zip(map(str, folders), loaded, strict=True)), metrics)
    names = distinct_names(folders, loaded, listed(config.names))
    return compare(dict(zip(names, loaded, strict=True)), metrics)


def listed(values: Sequence[str] | str | None) -> list[str]:
    """`a, b` or a list as a list."""
    parts = values.split(",") if isinstance(values, str) else values or ()
    return [part.strip() for part in parts if part.strip()]


def distinct_names(folders: Sequence[Path], evaluations: Sequence[Evaluation], given: Sequence[str] = ()) -> list[str]:
    """The given names, else each model's name, with as much of the folder's path as tells equal ones apart.

    Raises UsageError for another number of names, or equal ones.
    """
    if given:
        if len(given) != len(folders):
            raise UsageError(f"--names has {len(given)} names ({', '.join(given)}) for {len(folders)} evaluations")
        if twice := [name for name, times in Counter(given).items() if times > 1]:
            raise UsageError(f"--names gives '{twice[0]}' to more than one evaluation; names must differ")
        return list(given)
    models = [str(e.meta.get("model") or folder.name) for folder, e in zip(folders, evaluations, strict=True)]
    paths = [folder.resolve() for folder in folders]
    names = models
    for depth in range(1, 1 + max(len(path.parts) for path in paths)):
        again = Counter(names)
        if max(again.values()) == 1:
            break
        longer = [f"{model} ({'/'.join(path.parts[-depth:])})" for model, path in zip(models, paths, strict=True)]
        alike = Counter(models)
        names = [more if alike[model] > 1 else model for model, more in zip(models, longer, strict=True)]
    return names


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
