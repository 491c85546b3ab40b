"""Training log: metrics.jsonl, and experiment trackers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampeft.io import write_atomically


@dataclass
class Log:
    """metrics.jsonl, one JSON object a line, and accelerate's trackers; written by the main process only."""

    path: Path
    accelerator: Any

    @classmethod
    @contextmanager
    def open(cls, out: Path, accelerator: Any, last_step: int | None) -> Iterator[Log]:
        """An empty log, or the one that is there up to the step where a training goes on: what a killed one wrote after it
        is taken away."""
        log = cls(out / "metrics.jsonl", accelerator)
        if accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            kept = ""
            if last_step is not None and log.path.is_file():
                lines = log.path.read_text(encoding="utf-8").splitlines(keepends=True)
                kept = "".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last_step)
            write_atomically(log.path, kept)
        purged = {} if last_step is None else {"tensorboard": {"purge_step": last_step + 1}}
        accelerator.init_trackers("sampeft", init_kwargs=purged)
        try:
            yield log
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()

    def record(self, step: int, minutes: float, **values: Any) -> None:
        if self.accelerator.is_main_process:
            append_metrics(self.path, step, minutes, **values)
            shown = {key: value for key, value in values.items() if not isinstance(value, dict)}
            inner = {
                f"{key}/{k}": v for key, value in values.items() if isinstance(value, dict) for k, v in value.items()
            }
            self.accelerator.log({k: v for k, v in {**shown, **inner}.items() if v is not None}, step=step)


def append_metrics(path: Path, step: int, minutes: float, **values: Any) -> None:
    """One line of metrics.jsonl."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "minutes": round(minutes, 3), **values}) + "\n")
