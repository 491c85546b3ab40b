"""The cache of computed files: where it is, how much it holds, and its entries.

An entry is a folder that is written whole or not at all, checked when it is opened, held while a process uses it, and
removed when room is short and it was not used for longest.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO
from uuid import uuid4

from sampeft.errors import UsageError

DEFAULT_GIB = 20.0  # of all entries of a kind together
LOCK = "lock"
"""File of an entry that is held while the entry is made or used; the system lets go of it when a process ends."""
MAKING = ".making-"
"""Start of the name of an entry that is not whole."""
CONTENT = "content.json"
"""Length and checksum of each file of an entry."""

Check = Callable[[Path], object]
"""Raises ValueError or OSError for the folder of an entry that is damaged."""


def cache_folder() -> Path:
    """SAMPEFT_CACHE, or the user's own cache folder."""
    if chosen := os.environ.get("SAMPEFT_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sampeft"
    except RuntimeError:  # a user without a home, as containers have
        return _temporary()


def writable_cache(kind: str) -> Path:
    """The cache's folder for a kind of entries, made. Where it cannot be written, one among the system's temporary folders
    takes its place, and a warning says so once. Raises UsageError where that cannot be written either."""
    return _writable(cache_folder(), kind)


@cache
def _writable(root: Path, kind: str) -> Path:
    if (reason := _refusal(root / kind)) is None:
        return root / kind
    other = _temporary()
    if _refusal(other / kind) is not None:
        raise UsageError(f"{root}: the cache cannot be written ({reason}); set SAMPEFT_CACHE to a folder that can")
    warnings.warn(
        f"{root}: the cache cannot be written ({reason}); {other} is used instead, which may not last: set SAMPEFT_CACHE to a "
        "folder with room that can be written",
        stacklevel=3,
    )
    return other / kind


def _refusal(folder: Path) -> str | None:
    """Why a folder cannot be written; None where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


@cache
def _temporary() -> Path:
    """This user's own folder among the temporary ones, the same for all processes unless someone else has taken its name."""
    folder = Path(tempfile.gettempdir()) / f"sampeft-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and (not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()):
            return folder
    return Path(tempfile.mkdtemp(prefix="sampeft-"))


def cache_limit() -> int:
    """Bytes that the entries of one kind may take: SAMPEFT_CACHE_GIB, or 20 GiB. Raises UsageError when that is no number."""
    text = os.environ.get("SAMPEFT_CACHE_GIB") or str(DEFAULT_GIB)
    try:
        limit = float(text)
        if not limit >= 0:
            raise ValueError
    except ValueError:
        raise UsageError(f"SAMPEFT_CACHE_GIB is '{text}'; give the size of the cache in GiB, such as 20") from None
    return int(min(limit, 2.0**30) * 2**30)


def open_entry(folder: Path, check: Check, tell: bool = True) -> IO[bytes] | None:
    """The lock of a whole entry, which is held for as long as it is open; None where there is no entry, or a damaged one.

    tell: warn of a damaged one.
    """
    if (lock := _held(folder)) is None:
        return None
    try:
        check(folder)
    except (OSError, ValueError) as error:
        lock.close()
        if tell:
            warnings.warn(f"{folder}: is damaged ({error}) and is made anew", stacklevel=2)
        return None
    return lock


def make_entry(folder: Path, write: Callable[[Path], None], check: Check) -> IO[bytes]:
    """Make an entry, in place of a damaged one, then room for it; the lock of it, or of one that another process made meanwhile.

    write: puts its files into an empty folder.
    """
    limit = cache_limit()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=MAKING, dir=folder.parent))
    try:
        lock = (temporary / LOCK).open("wb+")
        try:
            _hold(lock)
            write(temporary)
            held = _put(temporary, folder, lock, check)
        except BaseException as error:
            lock.close()
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(folder.parent)  # a full disk does not say on which file
            raise
        make_room(folder.parent, limit)
        return held
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, folder: Path, lock: IO[bytes], check: Check) -> IO[bytes]:
    """Give a whole entry its name, unless another process was first; the lock of what has it then."""
    if os.name == "nt":
        lock.close()  # a folder with an open file cannot be moved there
    while not _renamed(temporary, folder):
        if other := open_entry(folder, check, tell=False):
            lock.close()
            return other
        _set_aside(folder)
    return (folder / LOCK).open("rb+") if lock.closed else lock


def _renamed(temporary: Path, folder: Path) -> bool:
    """Whether the name was free."""
    try:
        os.replace(temporary, folder)
    except OSError:
        if not folder.exists():
            raise
        return False
    return True


def _set_aside(folder: Path) -> None:
    """Remove an entry that is damaged; another process may do the same."""
    aside = folder.with_name(f"{MAKING}{uuid4().hex}")
    with suppress(FileNotFoundError):
        os.replace(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def seal(folder: Path, files: Iterable[str], record: str = CONTENT) -> None:
    """Write length and checksum of the files into the record, for `check_files`."""
    content = {name: _described(folder / name) for name in sorted(files)}
    part = folder / f".{record}.{uuid4().hex}.tmp"
    part.write_text(json.dumps({"files": content}, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / record)


def check_files(folder: Path, record: str = CONTENT) -> frozenset[str]:
    """The files that were sealed. Raises ValueError or OSError where one is not as it was then."""
    try:
        content = dict(json.loads((folder / record).read_text(encoding="utf-8"))["files"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{record} cannot be read") from None
    for name, described in content.items():
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        if _described(folder / name) != described:
            raise ValueError(f"{name} is not as it was written")
    return frozenset(content)


def _described(path: Path) -> dict[str, int]:
    """A checksum finds what disks and people do by accident, at a third of a second for a GiB."""
    buffer, checksum = memoryview(bytearray(1 << 18)), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            checksum = zlib.crc32(buffer[:count], checksum)
    return {"bytes": path.stat().st_size, "crc32": checksum}


def _hold(file: IO[bytes]) -> None:
    """Tell other processes that an entry is in use. Without such locks (Windows) open files cannot be removed anyway."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH)
    except (ImportError, OSError):
        return


def _held(folder: Path) -> IO[bytes] | None:
    """The lock of an entry that is there, held for as long as it is open; None when there is none."""
    try:
        lock = (folder / LOCK).open("rb+")
    except OSError:
        return None
    _hold(lock)
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
    """Remove what interrupted processes left and, above the limit, the entries that were not used for longest."""
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
    """Remove an entry, unless a process holds it; one without a lock, of an older version, when it is an hour old."""
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
