"""What `sampeft serve` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import MAX_BATCH, MAX_MINUTES, READ, WRITTEN, Batch, check_ranges, number

POSITIONAL = {"runs": {"type": Path, "nargs": "*", "help": "folders of trained runs"}}


@dataclass(frozen=True)
class Config:
    """What to show, on this machine alone; nothing is sent anywhere.

    Args:
        data: folder of a data set whose cases are shown. Default: images are opened in the page.
        corrections: folder to which corrected cases are written, as a data set. Default: they are not saved.
        evals: folders of evaluations, or folders that hold several; those beside a run are found without it.
        layout: layout of the data set; `sampeft info` lists layouts. Default: recognised by its files.
        port: port of the address 127.0.0.1; 0 takes any free one.
        engine: what runs the network, as for `sampeft predict`: auto, torch, openvino or onnx.
        batch: batch size in slices; auto: by the free memory.
        weights: file of the backbone's weights. Default: found by the name of the run's backbone.
        audit: file to which each viewing, prediction, correction and saving is appended as a line of JSON; it grows
            without limit. Default: none.
        no_token: answer requests without the token of the printed address; every user of this machine can then see
            and change what is served.
        max_upload_mib: size of the largest image that is accepted, in MiB.
        max_waiting: predictions that may queue behind the running one.
        keep_minutes: minutes for which the files of a prediction are kept after they were last used.
    """

    runs: list[Path] = field(metadata=READ)
    data: Path | None = field(default=None, metadata=READ)
    corrections: Path | None = field(default=None, metadata=WRITTEN)
    evals: list[Path] = field(default_factory=list, metadata=READ)
    layout: str | None = None
    port: int = number(8765, 0, 65_535)
    engine: str = "torch"
    batch: Batch = number("auto", 1, MAX_BATCH)
    weights: str | None = None
    audit: Path | None = None
    no_token: bool = False
    max_upload_mib: int = number(2048, 1, 1_048_576)
    max_waiting: int = number(8, 1, 10_000)
    keep_minutes: float = number(120.0, 1, MAX_MINUTES)

    def __post_init__(self) -> None:
        check_ranges(self, "--")
