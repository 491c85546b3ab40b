"""Segment images with a trained run; no labels and no prompts."""

from __future__ import annotations

import json
import sys

from sampeft.configs.predict import Config
from sampeft.engines import check_engine
from sampeft.options import check_paths
from sampeft.refine.stored import check_refiner_name
from sampeft.workflows.predict import Predicted, predict_files


def check_names(config: Config) -> None:
    check_refiner_name(config.refine)
    check_engine(config.engine, config.precision)


def run(config: Config) -> int:
    check_paths(config)
    outcome = predict_files(config)
    _say(outcome, config.json)
    return 1 if outcome.failed else 0


def _say(outcome: Predicted, as_json: bool) -> None:
    finished, written, failed = (
        [str(path) for path in paths] for paths in (outcome.finished, outcome.written, outcome.failed)
    )
    if finished:
        print(
            f"{len(finished)} of {outcome.cases} cases were finished before and are left as they are", file=sys.stderr
        )
    if failed and outcome.cases > 1:
        print(f"{len(failed)} of {outcome.cases} cases failed:", file=sys.stderr)
        for fault in outcome.failed.values():
            print(f"  {fault}", file=sys.stderr)
    if as_json:
        print(json.dumps({"written": written, "failed": failed, "finished_before": finished}))
    else:
        for target in written:
            print(target)
