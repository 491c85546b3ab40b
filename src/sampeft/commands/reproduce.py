"""Name of a table or figure of the paper and the data in; the same of ours beside the paper's numbers out, resumable."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from sampeft.backbones import backbone
from sampeft.commands import params, reproduce_refinement, reproduce_robustness
from sampeft.commands.oracle import Masks
from sampeft.commands.reproduce_tables import PLANS, lora
from sampeft.commands.reproduce_tables import reproduce as reproduce_table
from sampeft.commands.reproduction import DATA, Place, StoppedError, find_data
from sampeft.commands.train import say
from sampeft.data.noise import noise
from sampeft.denoise.training import Denoising
from sampeft.errors import UsageError, unknown_name
from sampeft.io import write_atomically
from sampeft.one_writer import one_writer
from sampeft.report.paper import PARAMETERS
from sampeft.report.tables import markdown_table
from sampeft.training.loop import Training

WHAT = (*PLANS, "table3", "params", "robustness", "refinement")
POSITIONAL = {"what": {"type": str, "help": f"one of {', '.join(sorted(WHAT))}"}}


@dataclass(frozen=True)
class Config:
    """What to reproduce with which effort; the same command again goes on where it stopped.

    Args:
        data_root: folder that holds the data sets by their names (flare22, gid_mtl5, sirst, ...).
        out: folder for runs, scores, tables and figures, one for each data set, so that what is trained for a table serves
            the next; nothing: reproduced/flare22, reproduced/gid5 or reproduced/sirst.
        data: the data set itself, where its folder has another name; for robustness and refinement any data set.
        of: for robustness and refinement, which data set: flare22, gid5 or sirst.
        backbone: promptable model that the paper's SAM stands for.
        weights: its weights: a file, a `transformers` folder, a hub id, 'random', or nothing: found by name.
        second_backbone: what the paper's SAM 2 stands for; its rows are left out where its weights are not found.
        second_weights: its weights, as above.
        whole_decoder: LoRA in the encoder and the whole decoder trained (as SAMed does), not low ranks in both as in the paper.
        budget: minutes of all trainings together, shared out equally; stamped on the table.
        subset: so many test cases, evenly spread; stamped on the table.
        oracle_subset: so many of them for oracles, which take a minute a picture on a laptop; stamped on the table.
        seeds: trainings of each row; figures, robustness and refinement take one.
        side: pixels of the square network input of what is trained; nothing: the backbone's default.
        held_out: training cases that are held out for choosing the model; below 1 a share, else a number.
        masks: how oracles make their automatic masks, as in `oracle`.
        noise: kind of noise, for robustness.
        strengths: of the noise.
        denoising: how the DnCNN of robustness is trained; its noise and strengths are those above.
        denoising_minutes: minutes of its training.
        training: the training, as in `train`.
    """

    what: str
    data_root: Path = Path("data")
    out: Path | None = None
    data: Path | None = None
    of: str = "flare22"
    backbone: str = "lite-medsam"
    weights: str | None = None
    second_backbone: str = "sam2.1-hiera-t"
    second_weights: str | None = None
    whole_decoder: bool = False
    budget: float | None = None
    subset: int | None = None
    oracle_subset: int | None = None
    seeds: int = 2
    side: int | None = None
    held_out: float = 0.1
    masks: Masks = field(default_factory=Masks)
    noise: str = "gaussian"
    strengths: list[float] = field(default_factory=lambda: [0.0, 0.05, 0.1, 0.2, 0.3])
    denoising: Denoising = field(default_factory=Denoising)
    denoising_minutes: float = 3.0
    training: Training = field(default_factory=Training)


def run(config: Config) -> int:
    if config.what not in WHAT:
        raise unknown_name("table or figure", config.what, WHAT)
    if config.what in ("table3", "params"):
        return reproduce_params(config.out or Path("reproduced"))
    check(config)
    place = place_of(config)
    try:
        with one_writer(place.out):
            made = reproduce(config, place)
    except StoppedError:
        say(f"stopped; what was finished is kept in {place.out}, the same command again goes on from there")
        return 130
    if made.suffix == ".md":
        print(made.read_text(encoding="utf-8"))
    say(f"made      {made}")
    return 0


def check(config: Config) -> None:
    """Raises UsageError for what would otherwise be found out after hours."""
    for option in ("seeds", "subset", "oracle_subset", "budget", "denoising_minutes"):
        value = getattr(config, option)
        least = 0 if option in ("budget", "denoising_minutes") else 1
        if value is not None and not (value >= least and 0 < value < math.inf):
            raise UsageError(f"--{option} is {value:g}; give {'1 or more' if least else 'minutes above 0'}")
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
    """Where and with what effort; the budget is shared out to the trainings that there are."""
    plan = PLANS.get(config.what)
    data = plan.data if plan else config.of
    minutes = None
    if config.budget:
        trainings = 2 if config.what == "robustness" else 1
        if plan:
            rows = sum(row.kind == "trained" for row in plan.rows(config.whole_decoder))
            trainings = max(1, rows * (1 if plan.figure else config.seeds * len(plan.readings)))
        minutes = config.budget / trainings
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
        minutes=minutes,
        subset=config.subset,
        oracle_subset=config.oracle_subset,
        training=config.training,
        masks=config.masks,
    )


def reproduce(config: Config, place: Place) -> Path:
    """Make what is asked for; returns the file to look at first."""
    if config.what in PLANS:
        return reproduce_table(config.what, place, config.whole_decoder)
    row = lora(4, config.whole_decoder)
    if config.what == "refinement":
        return reproduce_refinement.reproduce(place, row)
    strengths = sorted(set(config.strengths))
    denoising = replace(config.denoising, noise=config.noise, low=strengths[0], high=strengths[-1])
    return reproduce_robustness.reproduce(place, row, strengths, denoising, config.denoising_minutes)


def reproduce_params(out: Path) -> int:
    """Table 3: parameters of SAM ViT-B with the paper's methods, for 14 classes and background as SAMed counts."""
    rows = []
    for name, (total, trained) in PARAMETERS.items():
        method = name.split()[0].lower()
        options = {"rank": int(name.split("=")[1])} if "=" in name else {}
        found = params.count(params.Config(backbone="sam-vit-b", head="mask", classes=14), method, options)
        millions = (found["total_without_prompts"] / 1e6, found["trainable"] / 1e6)
        exact = (f"{found['total_without_prompts']:,}", f"{found['trainable']:,}")
        paper = (f"{total:.1f}", f"{trained:.1f}")
        rows.append(
            [name, *(text for p, m, e in zip(paper, millions, exact, strict=True) for text in (p, f"{m:.2f}", e))]
        )
    header = ["method"]
    for what in ("all parameters", "trained"):
        header += [f"paper: {what} (M)", f"ours: {what} (M)", f"ours, exactly: {what}"]
    text = (
        f"# Table 3: parameters of SAM ViT-B\n\n{markdown_table(header, rows)}\n"
        "- Ours: 14 classes and background, as SAMed counts; all that runs without a prompt. The promptable head and the "
        "prompt encoder, which only points and boxes use, are not in it.\n"
        "- `sampeft params --backbone sam-vit-b --head mask --method lora --options.rank 4 --classes 14` counts every part.\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "table3.md", text)
    print(text)
    say(f"made      {out / 'table3.md'}")
    return 0
