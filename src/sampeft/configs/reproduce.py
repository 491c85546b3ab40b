"""What `sampeft reproduce` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.configs.oracle import Masks
from sampeft.denoise.settings import Denoising
from sampeft.options import MAX_MINUTES, MAX_SIDE, READ, check_ranges, number
from sampeft.training.settings import Training

WHAT = (
    *("figure5", "figure6", "figure7", "params", "refinement", "robustness"),
    *("table1", "table2", "table3", "table4", "table5", "table6"),
)
POSITIONAL = {"what": {"type": str, "help": f"table or figure of the paper: {', '.join(WHAT)}"}}


@dataclass(frozen=True)
class Config:
    """What to reproduce with which effort; the same command again goes on where it stopped.

    Args:
        data_root: folder that holds the data sets by their names (flare22, gid_mtl5, sirst, ...).
        out: folder for runs, scores, tables and figures, one for each data set, so that what is trained for a table serves
            the next; nothing: reproduced/flare22, reproduced/gid5 or reproduced/sirst.
        data: the data set itself, where its folder has another name; for robustness and refinement any data set. Nothing: by
            its name below data_root.
        of: for robustness and refinement, which data set: flare22, gid5 or sirst.
        backbone: promptable model that the paper's SAM stands for.
        weights: weights of the backbone: a file, a `transformers` folder, a hub id, or 'random'; nothing: found by name.
        second_backbone: what the paper's SAM 2 stands for; its rows are left out where its weights are not found.
        second_weights: weights of the second backbone, as above.
        whole_decoder: LoRA in the encoder and the whole decoder trained (as SAMed does), not low ranks in both as in the paper.
        budget: minutes of all trainings together, shared out equally; stamped on the table. Nothing: as `training` says.
        subset: number of test cases, evenly spread; stamped on the table. Nothing: all.
        oracle_subset: number of them for oracles, which take a minute a picture on a laptop; stamped on the table. Nothing:
            all.
        seeds: trainings of each row; figures, robustness and refinement take one.
        side: pixels of the side of the square network input of what is trained; nothing: the backbone's default.
        held_out: training cases that are held out for choosing the model; below 1 a share, else a number.
        masks: how oracles make their automatic masks, as in `oracle`.
        noise: kind of noise, for robustness; `sampeft info` lists them.
        strengths: strengths of the noise, for robustness.
        denoising: how the DnCNN of robustness is trained; its noise and strengths are those above.
        denoising_minutes: minutes of training the DnCNN.
        training: how the models are trained, as in `train`.
    """

    what: str
    data_root: Path = Path("data")
    out: Path | None = None
    data: Path | None = field(default=None, metadata=READ)
    of: str = "flare22"
    backbone: str = "lite-medsam"
    weights: str | None = None
    second_backbone: str = "sam2.1-hiera-t"
    second_weights: str | None = None
    whole_decoder: bool = False
    budget: float | None = number(None, 0, MAX_MINUTES, above=True)
    subset: int | None = number(None, 1, 1_000_000)
    oracle_subset: int | None = number(None, 1, 1_000_000)
    seeds: int = number(2, 1, 1000)
    side: int | None = number(None, 1, MAX_SIDE)
    held_out: float = number(0.1, 0, 1_000_000)
    masks: Masks = field(default_factory=Masks)
    noise: str = "gaussian"
    strengths: list[float] = number([0.0, 0.05, 0.1, 0.2, 0.3], 0)
    denoising: Denoising = field(default_factory=Denoising)
    denoising_minutes: float = number(3.0, 0, MAX_MINUTES, above=True)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        check_ranges(self, "--")
