"""The graph of a model in a cache folder: made whole or not at all, checked when it is used, removed when room is short."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sampeft.data.kept import LOCK, MAKING, cache_limit, held, hold, make_room
from sampeft.engines.graph import Identity, versions
from sampeft.engines.parity import Parity
from sampeft.folders import cache_folder
from sampeft.io import sha256, write_atomically
from sampeft.io.plain import json_text

_RECORD = "graph.json"
_PARITY = "parity.json"


@dataclass
class Kept:
    """The place of one graph. It is held from when it is found whole, so that no other process removes it."""

    folder: Path
    about: dict[str, Any]
    _lock: IO[bytes] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, engine: str, identity: Identity, precision: str) -> Kept:
        about = {"engine": engine, "precision": precision, "side": identity.side, "versions": versions()}
        return cls(cache_folder() / "engines" / identity.key(engine, precision), about)

    def is_whole(self) -> bool:
        """Whether the graph is there with the content that it was written with."""
        self._lock = self._lock or held(self.folder)
        if self._lock is None:
            return False
        try:
            record = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
            whole = all(sha256(self.folder / name) == digest for name, digest in record["files"].items())
        except (OSError, ValueError, KeyError, AttributeError):
            whole = False
        if not whole:
            self._release()
        return whole

    def make(self, write: Callable[[Path], None]) -> None:
        """Make the graph, in place of a damaged one. write: puts its files into an empty folder."""
        limit = cache_limit()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=MAKING, dir=self.folder.parent))
        try:
            with (temporary / LOCK).open("wb") as making:
                hold(making)
                write(temporary)
                files = {p.name: sha256(p) for p in sorted(temporary.iterdir()) if p.name != LOCK}
                write_atomically(temporary / _RECORD, json_text({**self.about, "files": files}).encode())
                try:
                    os.replace(temporary, self.folder)
                except OSError:  # another process was first, or a damaged one is in the way
                    if not self.is_whole():
                        shutil.rmtree(self.folder, ignore_errors=True)
                        os.replace(temporary, self.folder)
                self._lock = self._lock or held(self.folder)
            make_room(self.folder.parent, limit)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def parity(self) -> Parity | None:
        """How the graph compared with its model; None when that was not measured yet or cannot be read."""
        try:
            return Parity.from_json(json.loads((self.folder / _PARITY).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep_parity(self, parity: Parity) -> None:
        write_atomically(self.folder / _PARITY, json_text(parity.to_json()).encode())

    def _release(self) -> None:
        if self._lock:
            self._lock.close()
        self._lock = None
