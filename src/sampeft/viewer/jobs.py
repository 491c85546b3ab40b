"""Queue of work with state, progress and remaining time; one thread does one piece after another."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from sampeft.errors import SampeftError
from sampeft.viewer.errors import RequestError

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"


class Cancelled(Exception):  # noqa: N818 - no error
    """Raised inside a job that was cancelled."""


@dataclass(eq=False)
class Job:
    """work: is called with the job and calls `report` as it goes on. progress: 0..1. message: one sentence, or nothing."""

    work: Callable[[Job], None]
    state: str = QUEUED
    progress: float = 0.0
    message: str = ""
    _began: float | None = field(default=None, init=False)
    _wanted: bool = field(default=True, init=False)

    def report(self, progress: float, message: str | None = None) -> None:
        """Note how far the work is; raises Cancelled when nobody wants it any more."""
        if not self._wanted:
            raise Cancelled
        self.progress = min(max(progress, self.progress), 1.0)
        if message is not None:
            self.message = message

    @property
    def eta_s(self) -> float | None:
        """Seconds that remain if the rest goes on as fast as so far; None where that is not known."""
        if self.state != RUNNING or self._began is None or self.progress < 0.02:
            return None
        return (time.monotonic() - self._began) * (1 - self.progress) / self.progress

    def stop_wanting(self) -> None:
        self._wanted = False

    def run(self) -> None:
        self.state, self._began = RUNNING, time.monotonic()
        try:
            self.report(0.0, "")
            self.work(self)
            self.report(1.0, "")
            self.state = DONE
        except Cancelled:
            self.message, self.state = "cancelled", CANCELLED
        except SampeftError as error:
            self.message, self.state = str(error), FAILED
        except MemoryError:
            self.message, self.state = "does not fit into the free memory; stop other programs or cut it", FAILED
        except OSError as error:
            self.message, self.state = f"{error.strerror or type(error).__name__}; see the terminal", FAILED
            logging.getLogger(__name__).exception("a job failed")
        except Exception:  # the thread must go on with the next job; the terminal tells what happened
            self.message, self.state = "a fault inside sampeft; the terminal of `sampeft serve` tells more", FAILED
            logging.getLogger(__name__).exception("a job failed")


class Worker:
    """most_waiting: jobs beside the one that runs."""

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="predicting", daemon=True)
        self._thread.start()

    def check_room(self) -> None:
        """Raises RequestError (429) when the queue is full."""
        with self._changed:
            if len(self._waiting) >= self.most_waiting:
                raise RequestError(
                    HTTPStatus.TOO_MANY_REQUESTS, f"{len(self._waiting)} predictions are waiting; try again later"
                )

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue. Raises RequestError (429) when it is full."""
        with self._changed:
            self.check_room()
            self._waiting.append(job)
            self._changed.notify()

    def ahead_of(self, job: Job) -> int:
        """How many jobs come before a waiting one."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    def cancel(self, job: Job) -> None:
        """A waiting job is gone at once; the running one at its next report."""
        with self._changed:
            job.stop_wanting()
            if job in self._waiting:
                self._waiting.remove(job)
                job.message, job.state = "cancelled", CANCELLED

    def close(self, patience_s: float = 2.0) -> None:
        """Cancel everything and wait for the thread, which may need longer for its next report than the patience lasts."""
        with self._changed:
            self._closed = True
            for job in [*self._waiting, *([self._running] if self._running else [])]:
                self.cancel(job)
            self._changed.notify()
        self._thread.join(patience_s)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._running = None
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._running = job = self._waiting.popleft()
            job.run()
