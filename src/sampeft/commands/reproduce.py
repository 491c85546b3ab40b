"""Name of a table or figure of the paper and the data in; the same of ours beside the paper's numbers out, resumable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from sampeft.commands import params, reproduce_refinement, reproduce_robustness
from sampeft.commands.reproduce_tables import PLANS, lora
from sampeft.commands.reproduce_tables import reproduce as reproduce_table
from sampeft.commands.reproduction import DATA, Place, find_data
from sampeft.commands.train import say
from sampeft.denoise.training import Denoising
from sampeft.errors import UsageError, unknown_name
from sampeft.training import Training

WHAT = (*(name for name in PLANS), "table3", "params", "robustness", "refinement")
POSITIONAL = {"what": {"type": str, "help": f"one of {', '.join(sorted(WHAT))}"}}


@dataclass(frozen=True)
class Config:
    """What to reproduce with which effort; the same command again goes on where it stopped.

    Args:
        data_root: folder that holds the data sets by their names (flare22, gid_mtl5, sirst, ...).
        out: folder for runs, scores, tables and figures.
        data: the data set itself, where its folder has another name; for robustness and refinement any data set.
        of: for robustness and refinement without --data: flare22, gid5 or sirst.
        backbone: promptable model that the paper's SAM stands for.
        weights: its weights, when they are not found by name.
        second_backbone: what the paper's SAM 2 stands for; its rows are left out where its weights are not found.
        second_weights: its weights.
        whole_decoder: LoRA in the encoder and the whole decoder trained (as SAMed does), not low ranks in both as in the paper.
        budget: minutes of all trainings together, shared out equally; stamped on the table.
        subset: so many test cases, evenly spread; stamped on the table.
        oracle_subset: so many of them for oracles, which take a minute a picture on a laptop; stamped on the table.
        seeds: trainings of each row.
        side: pixels of the square network input; nothing: the backbone's default.
        held_out: training cases that are held out for choosing the model; below 1 a share, else a number.
        noise: kind of noise, for robustness.
        strengths: of the noise.
        denoising: how the DnCNN of robustness is trained, for denoising_minutes, on noise of that kind and these strengths.
        training: the training, as in `train`.
    """

    what: str
    data_root: Path = Path("data")
    out: Path = Path("reproduced")
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
    noise: str = "gaussian"
    strengths: list[float] = field(default_factory=lambda: [0.0, 0.05, 0.1, 0.2, 0.3])
    denoising: Denoising = field(default_factory=Denoising)
    denoising_minutes: float = 3.0
    training: Training = field(default_factory=Training)


def run(config: Config) -> int:
    if config.what not in WHAT:
        raise unknown_name("table or figure", config.what, WHAT)
    if config.what in ("table3", "params"):
        return reproduce_params()
    if config.seeds < 1 or (config.subset is not None and config.subset < 1):
        raise UsageError(f"--seeds and --subset must be at least 1, got {config.seeds} and {config.subset}")
    if config.of not in DATA:
        raise unknown_name("data set", config.of, DATA)
    plan = PLANS.get(config.what)
    data = plan.data if plan else config.of
    place = Place(
        data=data,
        root=find_data(data, config.data_root, config.data),
        out=config.out,
        backbone=config.backbone,
        weights=config.weights,
        second_backbone=config.second_backbone,
        second_weights=config.second_weights,
        held_out=config.held_out,
        seeds=config.seeds,
        side=config.side,
        subset=config.subset,
        oracle_subset=config.oracle_subset,
        training=config.training,
    )
    row = lora(4, config.whole_decoder)
    if config.budget:
        trainings = 2 if config.what == "robustness" else 1
        if plan:
            rows = sum(row.kind == "trained" for row in plan.rows(config.whole_decoder))
            trainings = max(1, rows * (1 if plan.figure else config.seeds * len(plan.readings)))
        place = replace(place, minutes=config.budget / trainings)
    if plan:
        made = reproduce_table(config.what, place, config.whole_decoder)
    elif config.what == "robustness":
        low, high = min(config.strengths), max(config.strengths)
        dncnn = replace(config.denoising, noise=config.noise, low=low, high=high)
        made = reproduce_robustness.reproduce(place, row, config.strengths, dncnn, config.denoising_minutes)
    else:
        made = reproduce_refinement.reproduce(place, row)
    if made.suffix == ".md":
        print(made.read_text(encoding="utf-8"))
    say(f"made      {made}")
    return 0


def reproduce_params() -> int:
    """Table 3: parameters of SAM ViT-B with the paper's methods, for 14 classes and background as SAMed counts."""
    print(
        "The paper's table 3, all and trained parameters: LoRA r=1 95.3 M and 2.4 M, r=4 95.5 M and 2.5 M, r=8 95.6 M and "
        "2.7 M, Adapter 106.1 M and 10.8 M\n"
    )
    for method, options in (("lora", {"rank": 1}), ("lora", {"rank": 4}), ("lora", {"rank": 8}), ("adapter", {})):
        params.run(params.Config(backbone="sam-vit-b", method=method, options=dict(options), classes=14))
        print()
    return 0
