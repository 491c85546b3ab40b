"""Commands as processes that a signal meets at random moments: how they end, and that the same command then comes to the same."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Iterator, Mapping

import pytest

from fabricate.interrupted import Arguments, Nursery, commands, serve_trials, trials

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

GENTLE = (signal.SIGTERM, signal.SIGINT)
HARD = (signal.SIGKILL,)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    pytest.importorskip("openvino", reason="needs openvino: pip install 'sampeft[export]'")
    with Nursery(tmp_path_factory.mktemp("signals")) as made:
        yield made


@pytest.fixture(scope="module")
def known(nursery: Nursery) -> Mapping[str, Arguments]:
    return commands(nursery)


@pytest.mark.parametrize(
    ("name", "numbers", "points"),
    [
        ("train", GENTLE, 3),
        ("predict", (*GENTLE, *HARD), 3),
        ("evaluate", (*GENTLE, *HARD), 3),
        ("check", HARD, 2),
        ("sweep", HARD, 1),
    ],
)
def test_what_a_signal_leaves_is_whole_and_the_same_command_again_comes_to_the_same(
    nursery: Nursery, known: Mapping[str, Arguments], name: str, numbers: tuple[int, ...], points: int
) -> None:
    assert not trials(nursery, name, known, random.Random(name), numbers, points).faults


def test_a_server_ends_in_order(nursery: Nursery, known: Mapping[str, Arguments]) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    assert not serve_trials(nursery, random.Random("serve"), GENTLE, 2).faults
