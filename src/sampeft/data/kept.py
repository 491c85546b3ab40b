"""Folders of computed files in a cache: held while a process uses them, those unused for longest removed above a limit."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import IO

from sampeft.errors import UsageError

DEFAULT_GIB = 20.0  # of all sets of a kind together
LOCK = "lock"
"""File of a set that is held while the set is made or used; the system lets go of it when a process ends."""
MAKING = ".making-"
"""Start of the name of a set that is not whole."""


def cache_limit() -> int:
    """Bytes that the sets of one kind may take: SAMPEFT_CACHE_GIB, or 20 GiB. Raises UsageError when that is no number."""
    text = os.environ.get("SAMPEFT_CACHE_GIB") or str(DEFAULT_GIB)
    try:
        limit = float(text)
        if not limit >= 0:
            raise ValueError
    except ValueError:
        raise UsageError(f"SAMPEFT_CACHE_GIB is '{text}'; give the size of the cache in GiB, such as 20") from None
    return int(min(limit, 2.0**30) * 2**30)


def hold(file: IO[bytes]) -> None:
    """Tell other processes that a set is in use. Without such locks (Windows) open files cannot be removed anyway."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH)
    except (ImportError, OSError):
        return


def held(folder: Path) -> IO[bytes] | None:
    """The lock of a set that is there, held for as long as it is open; None when there is none."""
    try:
        lock = (folder / LOCK).open("rb+")
    except OSError:
        return None
    hold(lock)
    try:
        if os.fstat(lock.fileno()).st_ino != (folder / LOCK).stat().st_ino:
            raise OSError(f"{folder}: removed while it was opened")
        os.utime(folder)
    except OSError:
        lock.close()
        return None
    return lock


def _try_lock(file: IO[bytes]) -> bool:
    """Take a lock for oneself; False when others hold it or the file system knows no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError:
        return False
    return True


def make_room(folder: Path, limit: int) -> None:
    """Remove what interrupted processes left and, above the limit, the sets that were not used for longest."""
    found = [(_last_used(path), path, _size(path)) for path in folder.iterdir()]
    total = sum(size for _, path, size in found if not path.name.startswith(MAKING))
    for used, path, size in sorted(found):
        leftover = path.name.startswith(MAKING)
        if (leftover or total > limit) and _remove(path, used):
            total -= 0 if leftover else size


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process removes it
        return 0.0


def _size(path: Path) -> int:
    try:
        found = [part.stat() for part in path.iterdir()]
    except OSError:
        return 0
    # What is on the disk, since files may have holes.
    return sum(min(stat.st_size, getattr(stat, "st_blocks", stat.st_size) * 512) for stat in found)


def _remove(path: Path, used: float) -> bool:
    """Remove a set, unless a process holds it; one without a lock, of an older version, when it is an hour old."""
    removed = path.with_name(f"{MAKING}{path.name.removeprefix(MAKING)}-{os.getpid()}")
    try:
        if (path / LOCK).is_file():
            with (path / LOCK).open("rb+") as lock:
                if not _try_lock(lock):
                    return False
                if os.name == "nt":
                    lock.close()  # a folder with an open file cannot be moved there
                os.replace(path, removed)
        elif time.time() - used > 3600:
            os.replace(path, removed)
        else:
            return False
    except OSError:
        return False
    shutil.rmtree(removed, ignore_errors=True)
    return True
