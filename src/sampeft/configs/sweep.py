"""What `sampeft sweep` is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from sampeft.configs.train import Config as TrainConfig
from sampeft.options import number


@dataclass(frozen=True)
class Config(TrainConfig):
    """The trainings, as for `sampeft train`, and what to vary.

    Args:
        out: folder of the sweep; several processes and machines with the same folder share the runs.
        split: split to train on, as for `sampeft train`; auto leaves the data set's test cases out of everything;
            test: train as by auto and score the test cases, by which settings should not be chosen.
        held_out: training cases set aside to pick the best step of each run; without --folds the settings are
            scored on them, too.
        set: an option and its values, such as options.rank=1,4,8; every combination is run.
        folds: number of folds, each scored by the models that did not see it. Default: the held-out cases are
            scored.
        seeds: trainings of each setting, with seeds from --training.seed on; their scores are averaged.
        only: a share of the runs, such as 3/8 for the third of eight, for job arrays. Default: all.
        protocol: scoring rules: default, flare22, flare22-package, paper, pixels, targets, targets-256 or
            land-cover.
        dry_run: print the runs as a table and train nothing.
        resume: changes nothing: a sweep always goes on where it was stopped.
        force: changes nothing: a finished run is kept; remove its folder to train it anew.
        plan: changes nothing: memory and time are not estimated before each run.
        json: print the ranking as one JSON object on stdout.
    """

    set: list[str] | str | None = None
    folds: int | None = number(None, 2, 1000)
    seeds: int = number(1, 1, 1000)
    only: str | None = None
    protocol: str = "default"
    dry_run: bool = False
