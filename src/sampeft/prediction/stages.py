"""Pieces of work of named stages in, the seconds of each stage out; threads may add to it at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("read", "prepare", "network", "finish", "write")
"""Of a prediction: file -> array; slice -> square; the network; logits -> class map on the own grid; class map -> file."""


class Stages:
    """seconds: of each stage, on the clock. Stages run beside each other, so their sum may exceed the whole."""

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
