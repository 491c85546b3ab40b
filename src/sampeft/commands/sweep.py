"""Train every combination of options, folds and seeds, and rank the settings."""

from __future__ import annotations

import sys

from sampeft.configs.sweep import Config
from sampeft.console import say
from sampeft.errors import UsageError
from sampeft.experiments.sweep import PLAN, conclude, keep_plan, plan_json, planned
from sampeft.experiments.sweep import check_names as check_names
from sampeft.experiments.sweep_runs import work
from sampeft.launcher import launched
from sampeft.options import check_paths
from sampeft.report.tables import markdown_table
from sampeft.store import writable_cache


def run(config: Config) -> int:
    check_paths(config)
    if launched().world > 1:
        raise UsageError(
            "a sweep shares out whole runs: start the same command once for each GPU (CUDA_VISIBLE_DEVICES=0, 1, ...) "
            "instead of torchrun"
        )
    sweep = planned(config)
    share = sweep.plan.share(config.only)
    if config.dry_run:
        done = {run.name for run in sweep.done()} if (config.out / PLAN).is_file() else set()
        rows = [
            [
                run.name,
                str(min(sweep.parts[run.part].trained, sweep.config(run).cases or sys.maxsize)),
                str(len(sweep.parts[run.part].cases)),
                "done" * (run.name in done),
            ]
            for run in share
        ]
        print(markdown_table([f"{len(share)} runs", "cases to train on", "cases scored", ""], rows), end="")
        return 0
    writable_cache("slices")  # what is wrong with it is told at once
    keep_plan(sweep, plan_json(config, sweep))
    say(f"sweep     {len(sweep.plan.settings)} settings, {len(sweep.plan.runs)} runs; {config.out / PLAN}")
    try:
        work(sweep, share)
    except KeyboardInterrupt:
        say(f"\nstopped; all that is done is kept in {config.out}, and the same command goes on with it")
        raise
    return conclude(sweep, share, config)
