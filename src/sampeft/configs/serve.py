"""What `sampeft serve` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import MAX_BATCH, MAX_MINUTES, READ, Batch, check_ranges, number

POSITIONAL = {"runs": {"type": Path, "nargs": "*", "help": "folders of trained runs"}}


@dataclass(frozen=True)
class Config:
    """What to show, on this machine alone; nothing is sent anywhere.

    Args:
        data: folder of a data set whose cases are shown.
        layout: layout of the data set; nothing: recognised by its files.
        evals: folders of evaluations, or folders with several; those beside a run are found.
        corrections: folder where corrected cases are written as a data set; nothing: they are not saved.
        port: port of the address 127.0.0.1; 0 takes any free one.
        max_upload_mib: largest image that is taken, in MiB.
        max_waiting: predictions that may wait for the one that runs.
        keep_minutes: minutes for which the files of a prediction are kept after they were last asked for.
        batch: slices at a time, or auto: by the free memory.
        weights: file of the backbone's weights; nothing: found by name.
        engine: what runs the network, as of `sampeft predict`: auto, torch, openvino or onnx.
        audit: file that gets a line of JSON for each look, prediction, correction and saving; it grows without limit; nothing:
            none is kept.
        no_token: answer requests without the token of the printed address; every user of this machine can then see and change
            what is served.
    """

    runs: list[Path] = field(metadata=READ)
    data: Path | None = field(default=None, metadata=READ)
    layout: str | None = None
    evals: list[Path] = field(default_factory=list, metadata=READ)
    corrections: Path | None = None
    port: int = number(8765, 0, 65_535)
    max_upload_mib: int = number(2048, 1, 1_048_576)
    max_waiting: int = number(8, 1, 10_000)
    keep_minutes: float = number(120.0, 1, MAX_MINUTES)
    batch: Batch = number("auto", 1, MAX_BATCH)
    weights: str | None = None
    engine: str = "torch"
    audit: Path | None = None
    no_token: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
