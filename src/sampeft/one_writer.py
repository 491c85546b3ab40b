"""The lock of an output folder: one command at a time writes there, and a second one is told which does."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampeft.errors import UsageError
from sampeft.launcher import launched

if TYPE_CHECKING:
    from filelock import MarkerSoftFileLock

LOCK = ".sampeft.lock"
_HELD, _SAID = "held", "sampeft/held"
_UNFINISHED = re.compile(r"\.(sampeft-\w{8}|.+\.[0-9a-f]{32}\..+)")  # the drawn names of what is not whole yet


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, made if need be, for as long as the block runs. Of the processes of a distributed run the first holds it
    for all of them: the others begin when it does, and it goes on holding until they have ended.

    The lock is a file that names its process, which needs no file system that knows locks. That of a process of this machine
    that is no longer there is taken over, and what it had not finished writing is removed. Raises UsageError where another
    process holds the folder, in all processes of the run.
    """
    run = _Distributed.of_this_process()
    with _first(folder, run) if run.rank == 0 else run.led(folder):
        yield


@contextmanager
def _first(folder: Path, run: _Distributed) -> Iterator[None]:
    from filelock import MarkerSoftFileLock, Timeout

    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = MarkerSoftFileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        run.say(refusal := _refusal(folder, lock))
        raise UsageError(refusal) from None
    except OSError as error:
        error.filename = str(folder)  # a full disk does not say on which file
        raise
    try:
        if run.world == 1:  # others may have begun to write before torchrun started them anew
            remove_leftovers(folder)
        run.say("")
        yield
        run.wait_for_others()
    finally:
        lock.release()
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # where nothing was written


@dataclass(frozen=True)
class _Distributed:
    """The processes that share a command, and the store by which torchrun lets them find each other. store: None for one
    process alone, and where somebody shares the cases out by RANK and WORLD_SIZE without one."""

    rank: int
    world: int
    store: Any = None

    @classmethod
    def of_this_process(cls) -> _Distributed:
        rank, world, _ = launched()
        if world == 1 or "MASTER_ADDR" not in os.environ:
            return cls(rank, world)
        from torch.distributed.rendezvous import rendezvous

        try:
            store, _, _ = next(rendezvous("env://"))
        except ValueError as error:  # of MASTER_PORT
            raise UsageError(
                f"the processes of this command cannot find each other ({error}); start them with torchrun"
            ) from None
        return cls(rank, world, store)

    def say(self, refusal: str) -> None:
        """To the others: why the folder cannot be had, or nothing where it is held."""
        if self.store is not None:
            self.store.set(_SAID, refusal or _HELD)

    def wait_for_others(self) -> None:
        if self.store is not None:
            self._wait_for([_left(rank) for rank in range(1, self.world)])

    @contextmanager
    def led(self, folder: Path) -> Iterator[None]:
        """What the first process holds. Raises UsageError where it does not."""
        if self.store is None:
            yield
            return
        try:
            self._wait_for([_SAID])
            told = self.store.get(_SAID).decode()
        except RuntimeError:  # the store ends with the process that has it
            told = f"{folder}: process 0, which holds it for all, has ended; see what it said"
        if told != _HELD:
            raise UsageError(told)
        try:
            yield
        finally:
            with suppress(RuntimeError):
                self.store.set(_left(self.rank), "")

    def _wait_for(self, keys: list[str]) -> None:
        while not self.store.check(keys):  # its own way to wait hears no Ctrl-C
            time.sleep(0.1)


def _left(rank: int) -> str:
    return f"sampeft/left/{rank}"


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process had not finished writing, in the folder and in those in it that have no lock."""
    inside = [path for path in folder.glob("*/") if not path.is_symlink() and not (path / LOCK).exists()]
    for path in [path for place in (folder, *inside) for path in place.glob(".*") if _UNFINISHED.fullmatch(path.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _refusal(folder: Path, lock: MarkerSoftFileLock) -> str:
    who = "another process"
    if owner := lock.owner:
        who = f"process {owner.pid} of {owner.hostname.partition('?')[0]}"
    with suppress(OSError):
        started = time.localtime((folder / LOCK).stat().st_mtime)
        who += f", since {time.strftime('%Y-%m-%d %H:%M:%S', started)}"
    return (
        f"{folder}: is being written by {who}; wait until it is done or choose another folder. If that process is no longer "
        f"there, delete {folder / LOCK}"
    )
