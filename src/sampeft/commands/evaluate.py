"""`sampeft evaluate`: a trained run, or any label maps, scored on labelled data."""

from __future__ import annotations

from sampeft.configs.evaluate import Config
from sampeft.console import say
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.metrics.protocols import Protocol, protocol_of
from sampeft.one_writer import one_writer
from sampeft.options import check_paths
from sampeft.provenance import plain_json
from sampeft.report.results import begin_results, check_origin, write_results
from sampeft.workflows.evaluate import check_names, evaluate_maps, evaluate_run, origin_of


def run(config: Config) -> int:
    check_paths(config)
    check_names(config)
    protocol = protocol_of(config.protocol, config.tolerances)
    with one_writer(config.out):
        return _evaluate(config, protocol)


def _evaluate(config: Config, protocol: Protocol) -> int:
    if config.pred or config.truth:
        if config.run or config.data:
            raise UsageError("to score label maps give --pred, --truth and --labels, and neither a run nor --data")
        if not (config.pred and config.truth and config.labels):
            missing = [f"--{name}" for name in ("pred", "truth", "labels") if getattr(config, name) is None]
            raise UsageError(f"to score label maps without a run give {' and '.join(missing)}, too")
        check_origin(config.out, origin := origin_of(config), config.force)
        evaluation = evaluate_maps(config.pred, config.truth, LabelSet.read(config.labels), protocol, config.processes)
        begin_results(config.out, origin)
        write_results(config.out, {str(config.pred): evaluation}, [])
    elif config.run and config.data:
        evaluation = evaluate_run(config, protocol)
    else:
        raise UsageError("give a run and --data, or --pred, --truth and --labels")
    if config.json:
        print(plain_json(config.out / "summary.json"))
    else:
        print((config.out / "table.md").read_text(encoding="utf-8"))
        say(f"results in {config.out}")
    return 1 if evaluation.meta.get("failed") else 0
