"""Predict memory and time of a training; nothing is trained, nothing is written."""

from __future__ import annotations

import json

from sampeft.backbones import backbone, load_backbone
from sampeft.configs.plan import Config
from sampeft.console import say
from sampeft.data import open_dataset
from sampeft.data.file_statistics import usual_plane
from sampeft.data.folds import split_cases
from sampeft.data.recipe import chosen_intensity
from sampeft.data.slice_cache import Preparation
from sampeft.data.unprepared import Unprepared, shapes_of
from sampeft.errors import UsageError
from sampeft.options import check_paths, parse_map
from sampeft.peft import attach
from sampeft.peft.warm_start import start_from
from sampeft.planning.planner import Plan
from sampeft.planning.trial_run import plan_training, workload_of
from sampeft.workflows.train import check_names as check_names
from sampeft.workflows.train import chosen_denoiser, chosen_plane, model_of, with_suited_patch


def run(config: Config) -> int:
    check_paths(config)
    found = plan_command(config)
    if config.json:
        print(json.dumps(found.to_json()))
    else:
        print("\n".join(found.lines()))
    return 0


def plan_command(config: Config) -> Plan:
    """Everything that `train` does before its first step, but for checking and preparing the data: files are looked at for
    how many slices they have in which plane, and some for the size of the targets. Raises SampeftError as `train` does."""
    if config.task != "segment":
        raise UsageError("plan is for --task segment; a denoiser is small and is trained without a plan")
    check_names(config)
    side = config.side or backbone(config.backbone).side
    denoise = chosen_denoiser(config)
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    cases, held_out = split_cases(dataset, config.split, config.held_out, config.training.seed, config.cases)
    _, recipe = chosen_intensity(config.intensity, config.bands, cases, dataset.modality)
    seen, held = shapes_of(cases), shapes_of(held_out)
    plane = chosen_plane(config.plane, usual_plane(shape.plane for shape in (*seen, *held)))
    preparation = Preparation(recipe, side, plane, config.context, config.context_mm, denoise)
    slices = Unprepared(dataset, seen, preparation)
    workload = workload_of(dataset, held, preparation, slices)
    say(f"data      {dataset.name}: {workload.slices} slices to train on, {workload.held_out_slices} held out")

    import torch

    torch.manual_seed(config.training.seed)
    model = model_of(config, load_backbone(config.backbone, config.weights), dataset.labels, side)
    attach(model, config.method, config.options)
    if config.start_from:
        start_from(model, config.start_from, config.head)
    training = with_suited_patch(config.training, slices, model)
    if config.training.compile:
        say("note      the steps are measured as they are without --training.compile")
    return plan_training(model, training, workload, config.method)
