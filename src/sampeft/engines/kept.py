"""Cache entry of the graph of a model: what the graph was made of, the graph, and what was computed from it since."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sampeft.engines.graph import Identity, versions
from sampeft.engines.parity import Parity
from sampeft.io import write_atomically
from sampeft.provenance import json_text
from sampeft.store import LOCK, check_files, make_entry, open_entry, seal, writable_cache

_ABOUT = "graph.json"
_PARITY = "parity.json"
_DERIVED = "derived.json"
"""Record of what is computed from a graph: the comparison with its model, and the forms that OpenVINO compiled."""


@dataclass
class Kept:
    """The place of one graph. It is held from when it is seen to be whole, so that no other process removes it."""

    folder: Path
    about: dict[str, Any]
    _lock: IO[bytes] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, engine: str, identity: Identity, precision: str) -> Kept:
        about = {"engine": engine, "precision": precision, "side": identity.side, "versions": versions()}
        return cls(writable_cache("engines") / identity.key(engine, precision), about)

    def is_whole(self) -> bool:
        """Whether the graph is there with the content that it was written with."""
        if self._lock is None:
            self._lock = open_entry(self.folder, _check)
        return self._lock is not None

    def make(self, write: Callable[[Path], None]) -> None:
        """Make the graph, in place of a damaged one. write: puts its files into an empty folder."""

        def written(folder: Path) -> None:
            write(folder)
            write_atomically(folder / _ABOUT, json_text(self.about))
            seal(folder, (path.name for path in folder.iterdir() if path.name != LOCK))

        self._lock = make_entry(self.folder, written, _check)

    def parity(self) -> Parity | None:
        """How the graph compared with its model; None when that was not measured yet or cannot be read."""
        try:
            return Parity.from_json(json.loads((self.folder / _PARITY).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep_parity(self, parity: Parity) -> None:
        write_atomically(self.folder / _PARITY, json_text(parity.to_json()))
        self.seal_derived()

    def seal_derived(self) -> None:
        """Record what was computed from the graph by now, so that it is checked with it next time."""
        seal(self.folder, (path.name for path in _derived(self.folder)), _DERIVED)


def _derived(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.name == _PARITY or path.suffix == ".blob")


def _check(folder: Path) -> None:
    """Raises ValueError or OSError for a damaged graph; what was computed from a whole one goes where it is not as recorded."""
    check_files(folder)
    try:
        known = check_files(folder, _DERIVED)
    except (OSError, ValueError):
        known = frozenset()
    for path in _derived(folder):
        if path.name not in known:
            path.unlink(missing_ok=True)
