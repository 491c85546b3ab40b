"""`sampeft train`: a model, or with `--task denoise` a denoiser."""

from __future__ import annotations

import json
from dataclasses import asdict

from sampeft.configs.train import Config
from sampeft.errors import UsageError
from sampeft.options import check_paths
from sampeft.stopping import unless_stopped
from sampeft.workflows.train import check_names as check_names
from sampeft.workflows.train import train


def run(config: Config) -> int:
    check_paths(config)
    if config.task == "denoise":
        from sampeft.workflows.denoiser import train_denoiser

        if config.resume:
            raise UsageError("--resume goes on with the training of a model; a denoiser's is started anew")
        denoiser = train_denoiser(config)
        if config.json:
            print(json.dumps({"out": str(config.out), **asdict(denoiser)}))
        unless_stopped(denoiser)
        return 0
    result = train(config)
    if config.json:
        print(json.dumps({"out": str(config.out), **asdict(result)}))
    unless_stopped(result)
    return 0
