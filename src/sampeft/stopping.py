"""SIGINT and SIGTERM to a command: both are raised in the main thread, and are answered at once whatever it computes.

Python hears a signal between two of its own instructions only, and what has begun, such as a file, is finished before a
command ends: seconds may pass. A thread of its own, which the system's signal handler wakes, says at once that it was heard.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Protocol, TypeVar

from sampeft.errors import Terminated

STOPPING = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 0.4
"""A command that ends as soon needs no answer."""
_AGAIN = 0x80  # added to a signal's number where Python dropped what its handler raised


@contextmanager
def signals_raised() -> Iterator[None]:
    """Within the block SIGINT raises KeyboardInterrupt and SIGTERM Terminated, unless a program around it has its own way with
    signals. What a library made of them, such as a TypeError, leaves the block as what was raised."""
    raised: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raised.append(number)
        raise stopped_by(number)

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {
        number: handler for number, handler in usual.items() if _is_main() and signal.getsignal(number) == handler
    }
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except Exception as error:
        if raised and not _came_while_stopping(error):
            raise stopped_by(raised[-1]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _came_while_stopping(error: BaseException | None) -> bool:
    """Whether it was raised where a signal was handled, as by a full disk."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


class Outcome(Protocol):
    """Of a training that a signal may have stopped."""

    @property
    def stopped(self) -> bool: ...
    @property
    def signal(self) -> int: ...


Ended = TypeVar("Ended", bound=Outcome)


def unless_stopped(outcome: Ended) -> Ended:
    """The outcome of a training that came to its end. Raises what `stopped_by` gives of one that did not."""
    if outcome.stopped:
        raise stopped_by(outcome.signal)
    return outcome


def stopped_by(number: int) -> KeyboardInterrupt:
    """What a signal raises."""
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


def signal_of(error: KeyboardInterrupt) -> int:
    """Number of the signal that raised it."""
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT


@contextmanager
def not_for_children() -> Iterator[None]:
    """Processes that are started within the block never hear Ctrl-C, which a terminal sends to all of them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stop_noted() -> Iterator[list[int]]:
    """Within the block the first Ctrl-C or SIGTERM only adds its number to the list, and says so; a second one acts as
    usual."""
    received: list[int] = []
    old: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for restored, handler in old.items():
            signal.signal(restored, handler)

    try:
        for number in STOPPING:
            old[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread: the caller keeps its own handlers
        old.clear()
    try:
        with answered("stopping after this step, what was learned is kept; once more to stop at once", 0):
            yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def answered(text: str, after_s: float = PATIENCE_S) -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM is answered with a line on stderr, so many seconds after it came, unless the
    block has ended by then. Blocks may be nested: the inner one answers.

    A signal that meets a destructor, out of which nothing can be raised, is raised again after it.
    """
    if not _is_main():
        yield
        return
    heard, wakes = socket.socketpair()
    wakes.setblocking(False)
    ended = threading.Event()
    thread = threading.Thread(target=_answer, args=(heard, ended, text, after_s), name="signals", daemon=True)
    thread.start()
    dropped, before = sys.unraisablehook, signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)

    def not_dropped(what: Any) -> None:
        if isinstance(what.exc_value, KeyboardInterrupt):
            wakes.send(bytes([signal_of(what.exc_value) | _AGAIN]))
        else:
            dropped(what)

    sys.unraisablehook = not_dropped
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sys.unraisablehook = dropped
        ended.set()
        wakes.close()
        thread.join(1)
        heard.close()


def _answer(heard: socket.socket, ended: threading.Event, text: str, after_s: float) -> None:
    is_told = False
    while byte := heard.recv(1):
        number = byte[0] & ~_AGAIN
        if number not in STOPPING:
            continue
        if byte[0] & _AGAIN:
            time.sleep(0.01)  # until the destructor is left
            if hasattr(signal, "pthread_kill"):  # which ends what the main thread waits for, too
                signal.pthread_kill(threading.main_thread().ident or 0, number)
            else:
                _thread.interrupt_main(signal.Signals(number))
        elif not is_told and not ended.wait(after_s):
            is_told = True
            os.write(2, f"\n{text}\n".encode())  # print may be in use by who was interrupted


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
