"""Work beside work: the same results in the same order, bounded, and errors where the results are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sampeft.prediction.background import map_in_background, prefetch

BOTH = pytest.mark.parametrize("beside", [prefetch, map_in_background])
Beside = Callable[..., Iterator[Any]]


@BOTH
def test_results_come_in_the_order_of_the_items(beside: Beside) -> None:
    def slow_at_first(n: int) -> int:
        time.sleep(0.02 if n == 0 else 0.0)
        return n * n

    assert list(beside(slow_at_first, range(20))) == [n * n for n in range(20)]
    assert list(beside(slow_at_first, [])) == []


@BOTH
def test_an_error_comes_after_the_results_before_it_and_ends_the_thread(beside: Beside) -> None:
    before = threading.active_count()
    results = beside(lambda n: 6 // (3 - n), range(9))
    assert [next(results), next(results), next(results)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threading.active_count() == before


def test_only_so_many_are_worked_out_ahead() -> None:
    begun: list[int] = []
    results = prefetch(lambda n: begun.append(n) or n, range(100), depth=2)
    next(results)
    time.sleep(0.1)
    assert len(begun) <= 3
    results.close()
    time.sleep(0.05)
    assert len(begun) <= 3


def test_only_so_many_wait_behind() -> None:
    release, taken = threading.Event(), []

    def items() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    def work(n: int) -> int:
        release.wait(5)
        return n

    results = map_in_background(work, items(), depth=2)
    timer = threading.Timer(0.2, release.set)
    waited: list[int] = []
    threading.Timer(0.1, lambda: waited.append(len(taken))).start()
    timer.start()
    assert next(results) == 0
    assert waited == [3]  # one is worked on, two wait, and the caller makes no more
    results.close()


@BOTH
def test_a_stop_in_the_callers_thread_leaves_no_thread(beside: Beside) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        list(beside(lambda n: n, items()))
    assert threading.active_count() == before
