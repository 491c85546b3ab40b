"""Trained runs, a data set and evaluations in; a local web page to predict, correct and compare out, until Ctrl-C."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sampeft.errors import UsageError
from sampeft.prediction.batch_size import Batch
from sampeft.viewer.access import new_token
from sampeft.viewer.serving import serve
from sampeft.viewer.settings import MIB, Settings

POSITIONAL = {"runs": {"type": Path, "nargs": "*", "help": "folders of trained runs"}}


@dataclass(frozen=True)
class Config:
    """What to show, on this machine alone; nothing is sent anywhere.

    Args:
        data: folder of a data set whose cases are shown.
        layout: its layout; nothing: found by looking.
        evals: folders of evaluations, or folders with several; those beside a run are found.
        corrections: folder where corrected cases are written as a data set; nothing: they are not saved.
        port: of the address 127.0.0.1; 0 takes any free one.
        max_upload_mib: largest image that is taken.
        max_waiting: predictions that may wait for the one that runs.
        keep_minutes: how long the files of a prediction are kept after they were last asked for.
        batch: slices at a time, or `auto` by the free memory.
        weights: file of the backbone's weights when it is not found by name.
        engine: what runs the network, as of `sampeft predict`.
        audit: file that gets a line of JSON for each look, prediction, correction and saving; it grows without limit.
        no_token: answer requests without the token of the printed address; every user of this machine can then see and
            change what is served.
    """

    runs: list[Path]
    data: Path | None = None
    layout: str | None = None
    evals: list[Path] = field(default_factory=list)
    corrections: Path | None = None
    port: int = 8765
    max_upload_mib: int = 2048
    max_waiting: int = 8
    keep_minutes: float = 120.0
    batch: Batch = "auto"
    weights: str | None = None
    engine: str = "torch"
    audit: Path | None = None
    no_token: bool = False


def run(config: Config) -> int:
    for name, value, least in (
        ("max_upload_mib", config.max_upload_mib, 1),
        ("max_waiting", config.max_waiting, 1),
        ("keep_minutes", config.keep_minutes, 1),
    ):
        if not value >= least:
            raise UsageError(f"--{name} is {value:g}; give {least} or more")
    if not 0 <= config.port <= 65535:
        raise UsageError(f"--port is {config.port}; give 0..65535")
    settings = Settings(
        tuple(config.runs),
        config.data,
        config.layout,
        tuple(config.evals),
        config.corrections,
        config.weights,
        config.engine,
        config.batch,
        config.max_upload_mib * MIB,
        config.max_waiting,
        config.keep_minutes,
        config.audit,
        None if config.no_token else new_token(),
    )
    logging.basicConfig(format="%(message)s", level=logging.WARNING)

    def ready(address: str) -> None:
        print(f"{address}", flush=True)
        if config.no_token:
            print("warning: without a token every user of this machine can open this address", file=sys.stderr)
        print("open this address in a browser; Ctrl-C ends. Research software, not a medical device.", file=sys.stderr)

    with suppress(KeyboardInterrupt):  # the server has ended in order, and that was asked for
        serve(settings, config.port, ready)
    return 0
