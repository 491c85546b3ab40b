"""Ctrl-C and SIGTERM are heard whatever the main thread does, and end what they meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from sampeft.errors import Terminated
from sampeft.stopping import answered, signal_of, signals_raised, stopped_by

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

DEAF = """
import hashlib, os, signal, sys, threading
from sampeft.stopping import answered
try:
    with answered("heard", 0.05):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)  # one instruction to Python, which hears nothing meanwhile
        print("too late", file=sys.stderr)
except KeyboardInterrupt:
    print("raised", file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def main_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals are taken in the main thread alone, which these tests do not run in")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a test before made of it


def test_one_is_answered_while_python_itself_hears_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", DEAF], stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr.split() == ["heard", "raised"]


def test_what_ends_soon_or_meets_no_signal_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), answered("heard", 60):
        signal.raise_signal(signal.SIGINT)
    with answered("heard", 0):
        time.sleep(0.1)
    assert capfd.readouterr().err == ""


def test_the_inner_of_two_answers(capfd: pytest.CaptureFixture[str]) -> None:
    def meets_one_and_tidies_up() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            time.sleep(0.2)

    with pytest.raises(KeyboardInterrupt), answered("outer", 0), answered("inner", 0):
        meets_one_and_tidies_up()
    assert capfd.readouterr().err.split() == ["inner"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_meets_a_destructor_is_not_lost(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    class Destroyed:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    def goes_on() -> None:
        Destroyed()
        time.sleep(20)

    with pytest.raises(KeyboardInterrupt) as raised, signals_raised(), answered("heard", 0):
        goes_on()
    assert signal_of(raised.value) == number
    assert "Exception ignored" not in capfd.readouterr().err


def test_what_a_library_makes_of_one_is_told_as_the_signal() -> None:
    def drops_it() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise TypeError("could not determine the shape")

    def fails_meanwhile() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise OSError("the disk is full")

    def meets_none() -> None:
        raise TypeError

    for meets, told in ((drops_it, KeyboardInterrupt), (fails_meanwhile, OSError), (meets_none, TypeError)):
        with pytest.raises(told), signals_raised():
            meets()


def test_a_signal_and_what_it_raises_belong_together() -> None:
    assert signal_of(stopped_by(signal.SIGTERM)) == signal.SIGTERM
    assert signal_of(stopped_by(signal.SIGINT)) == signal.SIGINT
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), signals_raised():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
