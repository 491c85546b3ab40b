"""Prefetching and background work: a function over items, in order, by one thread beside the caller.

What the function raises is raised where its result is asked for. When the caller stops asking, for an error or Ctrl-C too,
what has not begun is dropped and what has is waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def prefetch(function: Callable[[Given], Made], items: Iterable[Given], depth: int = 2) -> Iterator[Made]:
    """Results that are worked out before they are asked for, at most `depth` of them; the caller works on the last one
    meanwhile."""
    waiting = iter(items)
    with _thread("prefetch") as thread:
        ready: deque[Future[Made]] = deque()
        while True:
            ready.extend(thread.submit(function, item) for item in islice(waiting, depth - len(ready)))
            if not ready:
                return
            made = ready.popleft().result()
            ready.extend(thread.submit(function, item) for item in islice(waiting, 1))
            yield made


def map_in_background(
    function: Callable[[Given], Made], items: Iterable[Given], depth: int = 2
) -> Generator[Made, None, None]:
    """Results of items that the caller's own thread makes; at most `depth` of them wait for the function meanwhile."""
    with _thread("background") as thread:
        begun: deque[Future[Made]] = deque()
        for item in items:
            begun.append(thread.submit(function, item))
            while begun and (len(begun) > depth or begun[0].done()):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


@contextmanager
def _thread(name: str) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(1, name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
