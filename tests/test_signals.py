"""Commands as processes that a signal meets at random moments: how they end, and that the same command then comes to the same."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Iterator, Mapping

import pytest

from fabricate.interrupted import Command, Nursery, commands, serve_trial, trials

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    pytest.importorskip("openvino", reason="needs openvino: pip install 'sampeft[export]'")
    with Nursery(tmp_path_factory.mktemp("signals")) as made:
        yield made


@pytest.fixture(scope="module")
def known(nursery: Nursery) -> Mapping[str, Command]:
    return commands(nursery)


@pytest.mark.parametrize("name", ["train", "predict", "evaluate"])
def test_after_ctrl_c_and_sigterm_only_whole_files_lie_there_and_the_same_command_goes_on(
    nursery: Nursery, known: Mapping[str, Command], name: str
) -> None:
    found = trials(nursery, known[name], random.Random(f"gentle {name}"), (signal.SIGTERM, signal.SIGINT), 4)
    assert not found.faults


@pytest.mark.parametrize("name", ["predict", "evaluate", "check"])
def test_after_a_kill_the_same_command_comes_to_the_same(
    nursery: Nursery, known: Mapping[str, Command], name: str
) -> None:
    found = trials(nursery, known[name], random.Random(f"hard {name}"), (signal.SIGKILL,), 3)
    assert not found.faults


def test_a_server_ends_in_order(nursery: Nursery, known: Mapping[str, Command]) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    found = serve_trial(nursery, random.Random("serve"), (signal.SIGTERM, signal.SIGINT), 4)
    assert not found.faults
