"""The lock of an output folder: one command at a time writes there, and a second one is told which does."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sampeft.errors import UsageError

if TYPE_CHECKING:
    from filelock import MarkerSoftFileLock

LOCK = ".sampeft.lock"
_UNFINISHED = re.compile(r"\.(sampeft-\w{8}|.+\.[0-9a-f]{32}\..+)")  # the drawn names of what is not whole yet


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, made if need be, for as long as the block runs. Of the processes of a distributed run the first holds it
    for all of them.

    The lock is a file that names its process, which needs no file system that knows locks. That of a process of this machine
    that is no longer there is taken over, and what it had not finished writing is removed. Raises UsageError where another
    process holds the folder.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    from filelock import MarkerSoftFileLock, Timeout

    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = MarkerSoftFileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(_refusal(folder, lock)) from None
    try:
        if os.environ.get("WORLD_SIZE", "1") == "1":  # others may have begun to write
            remove_leftovers(folder)
        yield
    finally:
        lock.release()
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # where nothing was written


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
