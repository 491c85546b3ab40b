"""What `sampeft serve` was told, as the parts of the server see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.prediction.batch_size import Batch
from sampeft.viewer.access import new_token

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What is shown and how much of the machine it may take.

    runs: folders of trained runs. data: folder of a data set. evals: folders of evaluations, or folders of such.
    corrections: where corrected cases are written; None: nowhere. weights: of the backbone, when not found by name. engine: what
    runs the network, as of `sampeft predict`.
    max_upload_bytes: of one request. max_waiting: predictions that may wait for the one that runs. keep_minutes: how long
    the files of a prediction are kept after they were last asked for. audit: file that gets a line for each act; None: none.
    token: that every request must carry; None: all are answered.
    """

    runs: tuple[Path, ...] = ()
    data: Path | None = None
    layout: str | None = None
    evals: tuple[Path, ...] = ()
    corrections: Path | None = None
    weights: str | None = None
    engine: str = "torch"
    batch: Batch = "auto"
    max_upload_bytes: int = 2048 * MIB
    max_waiting: int = 8
    keep_minutes: float = 120.0
    audit: Path | None = None
    token: str | None = field(default_factory=new_token, repr=False)
