"""What a command says on stderr: lines, a progress bar with ETA (periodic lines without a terminal), stage timing."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_SECONDS = 20.0  # between two lines of a log file


class Bar:
    """`update(done, note)` after every step; done counts up to the total, in any unit. before: done when the bar begins."""

    def __init__(self, title: str, total: float, before: float = 0.0) -> None:
        self.title, self.total, self._before = title, max(total, 1e-9), before
        self._start = self._shown = time.monotonic()

    def update(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        if now - self._shown >= QUIET_SECONDS:
            self._shown = now
            new = done - self._before
            left = (now - self._start) * (self.total - done) / new if new > 0 else float("nan")
            print(f"{self.title} {done / self.total:4.0%}  {clock(left)} left  {note}", file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int) -> None:
        self.total = max(total, 1e-9)
        self.update(done)


@contextmanager
def bar(title: str, total: float = 1.0, before: float = 0.0) -> Iterator[Bar]:
    """A running bar; with a terminal it is drawn by rich. before: of the total, done when it begins."""
    if not sys.stderr.isatty():
        yield Bar(title, total, before)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, note="")
        progress.update(task, completed=before)

        class Drawn(Bar):
            def update(self, done: float, note: str = "") -> None:
                progress.update(task, completed=done, total=self.total, note=note)

        yield Drawn(title, total, before)


def clock(seconds: float) -> str:
    """Seconds -> `1:02:03` or `2:03`; unknown -> `?`."""
    if seconds != seconds or seconds < 0:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(text: str) -> None:
    """A line on stderr; of several processes only the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


STAGES = ("read", "prepare", "network", "finish", "write")
"""Of a prediction: file -> array; slice -> square; the network; logits -> class map on the own grid; class map -> file."""


class Timing:
    """Seconds of each stage, on the clock; threads may add to it at once, so that their sum may exceed the whole."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - start
