"""The commands as functions for Python: the same names, options and code, results as objects instead of text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampeft.data.check import CheckReport
    from sampeft.metrics.comparison import Comparison
    from sampeft.metrics.scores import Evaluation

Folder = Path | str


def check(data: Folder, **options: Any) -> CheckReport:
    """Every pairing, label and geometry fault of a data set. options: of `sampeft check`, such as `side=256`.

    The report has `faults`, `errors` and `warnings`; nothing is written. Raises UsageError where there is no data set.
    """
    from sampeft.configs.check import Config
    from sampeft.workflows.check import check_names, report_of

    config = Config(data=Path(data), **options)
    check_names(config)
    return report_of(config)[-1]


def evaluate(run: Folder | Sequence[Folder], data: Folder, out: Folder, **options: Any) -> Evaluation:
    """Score a trained run, or the mean of several, on a labelled data set, and write what `sampeft evaluate` writes to `out`.

    options: of `sampeft evaluate`, such as `split="val"`. Raises UsageError, DataError or WeightsError.
    """
    from sampeft.configs.evaluate import Config
    from sampeft.metrics.protocols import protocol_of
    from sampeft.one_writer import one_writer
    from sampeft.options import check_paths
    from sampeft.workflows.evaluate import check_names, evaluate_run

    first, *others = [Path(one) for one in ([run] if isinstance(run, Path | str) else run)]
    config = Config(run=first, others=others, data=Path(data), out=Path(out), **_with_paths(options))
    check_names(config)
    check_paths(config)
    protocol = protocol_of(config.protocol, config.tolerances)
    with one_writer(config.out):
        return evaluate_run(config, protocol)


def compare(evaluations: Sequence[Folder], out: Folder | None = None, **options: Any) -> Comparison:
    """Evaluations of the same cases side by side, with intervals and paired tests.

    evaluations: folders that `evaluate` wrote. out: where `sampeft compare` would write its tables and figures; None:
    nothing is written. options: of `sampeft compare`, such as `metrics=["dsc", "hd95_mm"]`. Raises UsageError where cases or
    classes differ.
    """
    from sampeft.configs.compare import Config
    from sampeft.options import check_paths
    from sampeft.report.comparison_files import write_comparison
    from sampeft.workflows.compare import check_names, compared

    config = Config([Path(one) for one in evaluations], Path(out or "."), **options)
    check_names(config)
    check_paths(config)
    comparison = compared(config, written=out is not None)
    if out is not None:
        write_comparison(Path(out), comparison)
    return comparison


def _with_paths(options: dict[str, Any]) -> dict[str, Any]:
    """Paths given as text."""
    found = dict(options)
    for name in ("tolerances", "labels"):
        if isinstance(found.get(name), str):
            found[name] = Path(found[name])
    if "beside" in found:
        found["beside"] = [Path(folder) for folder in found["beside"]]
    return found
