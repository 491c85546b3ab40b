"""What `sampeft reproduce` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.configs.oracle import Masks
from sampeft.denoise.settings import Denoising
from sampeft.options import MAX_MINUTES, MAX_SIDE, READ, WRITTEN, check_ranges, number, share_or_count
from sampeft.training.settings import Training

WHAT = (
    *("figure5", "figure6", "figure7", "params", "refinement", "robustness"),
    *("table1", "table2", "table3", "table4", "table5", "table6"),
)
POSITIONAL = {"what": {"type": str, "help": f"table or figure of the paper: {', '.join(WHAT)}"}}


@dataclass(frozen=True)
class Config:
    """What to reproduce, and with what effort; the same command goes on after a stop.

    Args:
        data_root: folder that holds the data sets by their names (flare22, gid_mtl5, sirst, ...).
        out: folder for runs, scores, tables and figures, one for each data set: a table reuses what was trained for
            another. Default: reproduced/flare22, reproduced/gid5 or reproduced/sirst.
        data: folder of the data set itself; for robustness and refinement any data set. Default: looked for by its
            name in --data_root.
        of: data set of robustness and refinement: flare22, gid5 or sirst.
        budget: minutes of each training, the same in every table and figure, so that one reuses what was trained
            for another; their number and sum are printed first. Shown on the table. Default: as --training.steps
            and --training.minutes say.
        subset: number of test cases, evenly spread; shown on the table. Default: all.
        oracle_subset: number of them for the oracles, which take a minute a picture on a laptop; shown on the
            table. Default: all of them.
        seeds: trainings of each row of a table; figures, robustness and refinement take one.
        held_out: training cases set aside to choose the best step.
        backbone: promptable model that stands for the paper's SAM.
        weights: weights of the backbone: a file, a `transformers` folder, a Hugging Face id, or 'random'. Default:
            found by the backbone's name.
        second_backbone: promptable model that stands for the paper's SAM 2; its rows are left out where its weights
            are not found.
        second_weights: weights of the second backbone, as for --weights. Default: found by its name.
        side: side of the square network input of trained models, in pixels. Default: the backbone's own.
        whole_decoder: train LoRA in the encoder and the whole decoder (as SAMed does), not LoRA in both (as the
            paper does).
        noise: kind of noise, for robustness; `sampeft info` lists them.
        strengths: strengths of the noise, for robustness.
        denoising_minutes: minutes of training the DnCNN denoiser, for robustness; --budget does not count them.
        training: how the models are trained, as for `sampeft train`.
        masks: how oracles make automatic masks, as for `sampeft oracle`.
        denoising: how the DnCNN denoiser is trained, apart from its noise.
    """

    what: str
    data_root: Path = Path("data")
    out: Path | None = field(default=None, metadata=WRITTEN)
    data: Path | None = field(default=None, metadata=READ)
    of: str = "flare22"
    budget: float | None = number(None, 0, MAX_MINUTES, above=True)
    subset: int | None = number(None, 1, 1_000_000)
    oracle_subset: int | None = number(None, 1, 1_000_000)
    seeds: int = number(2, 1, 1000)
    held_out: float = share_or_count(0.1)
    backbone: str = "lite-medsam"
    weights: str | None = None
    second_backbone: str = "sam2.1-hiera-t"
    second_weights: str | None = None
    side: int | None = number(None, 1, MAX_SIDE)
    whole_decoder: bool = False
    noise: str = "gaussian"
    strengths: list[float] = number([0.0, 0.05, 0.1, 0.2, 0.3], 0)
    denoising_minutes: float = number(3.0, 0, MAX_MINUTES, above=True)
    training: Training = field(default_factory=Training)
    masks: Masks = field(default_factory=Masks)
    denoising: Denoising = field(default_factory=Denoising)

    def __post_init__(self) -> None:
        check_ranges(self, "--")
