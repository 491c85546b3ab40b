"""What `sampeft sweep` is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from sampeft.configs.train import Config as TrainConfig
from sampeft.options import number


@dataclass(frozen=True)
class Config(TrainConfig):
    """How to train, as for `sampeft train`, and what to vary.

    Args:
        out: folder of the sweep; several processes and machines with the same one share the runs.
        split: split to train on, as for `train`; auto leaves the data set's test cases out of everything; test: train as by
            auto and score the test cases, which settings should not be chosen by.
        held_out: cases that are not trained on and pick the best step of a run; below 1 a share, else a number. Without
            --folds they are also what is scored.
        set: an option and its values such as options.rank=1,4,8; may be given several times, every combination is run.
        folds: number of folds, each scored by the models that did not see it; nothing: the held-out cases are scored.
        seeds: trainings of each setting, with seeds from training.seed on; their scores are averaged.
        only: a share of the runs such as 3/8, the third of eight, for job arrays; nothing: all.
        protocol: rules to score by: default, flare22, flare22-package, paper, pixels, targets, targets-256, land-cover.
        dry_run: print the runs as a table and do nothing.
        json: print the ranking as one JSON object on stdout.
    """

    set: list[str] | str | None = None
    folds: int | None = number(None, 2, 1000)
    seeds: int = number(1, 1, 1000)
    only: str | None = None
    protocol: str = "default"
    dry_run: bool = False
