"""Reproduce a table or figure of the paper and set it beside the paper's numbers; resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sampeft.backbones import backbone
from sampeft.configs.reproduce import WHAT, Config
from sampeft.console import say
from sampeft.data.noise import noise
from sampeft.errors import UsageError, counted, unknown_name
from sampeft.experiments import paper_parameters, paper_refinement, paper_robustness
from sampeft.experiments.paper import DATA, Place, find_data, minutes_text
from sampeft.experiments.paper_tables import PLANS, lora
from sampeft.experiments.paper_tables import reproduce as reproduce_table
from sampeft.one_writer import one_writer
from sampeft.options import check_paths


def run(config: Config) -> int:
    check_paths(config)
    check_names(config)
    if config.what in ("table3", "params"):
        return _show(paper_parameters.reproduce(config.out or Path("reproduced")))
    place = place_of(config)
    if config.budget and (number := trainings(config)):
        count, each, total = (
            counted(number, "training"),
            minutes_text(config.budget),
            minutes_text(number * config.budget),
        )
        say(f"budget    {count} of {each}, {total} in all, less what is there; scoring comes on top")
    try:
        with one_writer(place.out):
            made = reproduce(config, place)
    except KeyboardInterrupt:
        say(f"stopped; what was finished is kept in {place.out}, the same command again goes on from there")
        raise
    return _show(made)


def _show(made: Path) -> int:
    if made.suffix == ".md":
        print(made.read_text(encoding="utf-8"))
    say(f"made      {made}")
    return 0


def check_names(config: Config) -> None:
    """Raises UsageError for what would otherwise be found out after hours."""
    if config.what not in WHAT:
        raise unknown_name("table or figure", config.what, WHAT)
    if config.of not in DATA:
        raise unknown_name("data set", config.of, DATA)
    if not config.strengths:
        raise UsageError("--strengths are none; give some, such as [0,0.1,0.2]")
    for strength in config.strengths:
        noise(config.noise, strength)
    for name in (config.backbone, config.second_backbone):
        backbone(name)
    backbone(config.backbone).check_side(config.side or backbone(config.backbone).side)


def place_of(config: Config) -> Place:
    """Where and with what effort."""
    plan = PLANS.get(config.what)
    data = plan.data if plan else config.of
    return Place(
        data=data,
        root=find_data(data, config.data_root, config.data),
        out=config.out or Path("reproduced") / data,
        backbone=config.backbone,
        weights=config.weights,
        second_backbone=config.second_backbone,
        second_weights=config.second_weights,
        held_out=config.held_out,
        seeds=config.seeds if plan and not plan.figure else 1,
        side=config.side,
        minutes=config.budget,
        subset=config.subset,
        oracle_subset=config.oracle_subset,
        training=config.training,
        masks=config.masks,
    )


def trainings(config: Config) -> int:
    """How many there are, those of earlier tables and figures in the same folder among them."""
    plan = PLANS.get(config.what)
    if plan is None:
        return 2 if config.what == "robustness" else 1
    rows = sum(row.kind == "trained" for row in plan.rows(config.whole_decoder))
    return rows * (1 if plan.figure else config.seeds * len(plan.readings))


def reproduce(config: Config, place: Place) -> Path:
    """Make what is asked for; returns the file to look at first."""
    if config.what in PLANS:
        return reproduce_table(config.what, place, config.whole_decoder)
    row = lora(4, config.whole_decoder)
    if config.what == "refinement":
        return paper_refinement.reproduce(place, row)
    strengths = sorted(set(config.strengths))
    denoising = replace(config.denoising, noise=config.noise, low=strengths[0], high=strengths[-1])
    return paper_robustness.reproduce(place, row, strengths, denoising, config.denoising_minutes)
