"""The options of `train` in, predicted memory and time of that training out; nothing is trained, nothing is written."""

from __future__ import annotations

import json

from sampeft.backbones import backbone, load_backbone
from sampeft.commands.train import check_names as check_names
from sampeft.commands.train import chosen_denoiser, model_of, parse_map, say, split_cases
from sampeft.configs.plan import Config
from sampeft.data import open_dataset
from sampeft.data.cache import Preparation
from sampeft.data.recipe import chosen_intensity
from sampeft.errors import UsageError
from sampeft.options import check_paths
from sampeft.peft import attach
from sampeft.peft.warm_start import start_from
from sampeft.planning.planner import Plan
from sampeft.planning.trial_run import plan_training, workload_of


def run(config: Config) -> int:
    check_paths(config)
    found = plan_command(config)
    if config.json:
        print(json.dumps(found.to_json()))
    else:
        print("\n".join(found.lines()))
    return 0


def plan_command(config: Config) -> Plan:
    """Everything that `train` does before its first step, but for checking and preparing the data: of each file only so
    much is looked at as tells how many slices it has. Raises SampeftError as `train` does."""
    if config.task != "segment":
        raise UsageError("plan is for --task segment; a denoiser is small and is trained without a plan")
    check_names(config)
    side = config.side or backbone(config.backbone).side
    denoise = chosen_denoiser(config)
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    cases, held_out = split_cases(dataset, config.split, config.held_out, config.training.seed, config.cases)
    _, recipe = chosen_intensity(config.intensity, config.bands, cases, dataset.modality)
    preparation = Preparation(recipe, side, config.plane, config.context, config.context_mm, denoise)
    workload = workload_of(dataset, cases, held_out, preparation)
    say(f"data      {dataset.name}: {workload.slices} slices to train on, {workload.held_out_slices} held out")

    import torch

    torch.manual_seed(config.training.seed)
    model = model_of(config, load_backbone(config.backbone, config.weights), dataset.labels, side)
    attach(model, config.method, config.options)
    if config.start_from:
        start_from(model, config.start_from, config.head)
    if config.training.patch is None and dataset.labels.has_background and model.head.reads_encoder_maps:
        say("note      for small targets train draws parts of the pictures; give --training.patch to plan with them")
    if config.training.compile:
        say("note      the steps are measured as they are without --training.compile")
    return plan_training(model, config.training, workload, config.method)
