"""The temporary folder of a server: made at its start, removed at its end; those of dead servers are removed as well."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "sampeft-serve-"
_LOCK = "lock"


class Workspace:
    """folder: for this server and this user alone. The lock in it is let go of by the system when the process ends,
    however it ends, which is how the next server knows that nobody needs the folder."""

    def __init__(self, above: Path | None = None) -> None:
        self.above = above or Path(tempfile.gettempdir())
        remove_stale(self.above)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.above))
        self._lock = FileLock(self.folder / _LOCK)
        self._lock.acquire(timeout=0)

    def close(self) -> None:
        """Remove the folder; a second call does nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release(force=True)
        shutil.rmtree(self.folder, ignore_errors=True)  # a lock makes its file anew where its release needs one


def remove_stale(above: Path) -> None:
    """Remove the folders of servers that are no longer alive; only this user's own, and never through a link."""
    for folder in above.glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or not (folder / _LOCK).is_file() or _foreign(folder):
                continue
            lock = FileLock(folder / _LOCK)
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release(force=True)
        shutil.rmtree(folder, ignore_errors=True)


def _foreign(folder: Path) -> bool:
    return hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid()
