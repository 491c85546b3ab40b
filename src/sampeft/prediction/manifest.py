"""The record of a prediction: what became of each case, in one JSON file, also after a kill and from several processes.

While a process works it appends a line for every case that it begins and ends to a file of its own; at its end, however it
ends, the lines go into `predictions.json`. A kill leaves the lines, and the next run reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from sampeft.errors import DataError
from sampeft.io import file_stem, write_atomically
from sampeft.provenance import json_text, without_nan

FILE = "predictions.json"
_FORMAT = 1
_PARTS = ".predictions.*.jsonl"
BEGUN, DONE, FAILED = "begun", "done", "failed"


class RunRecord:
    """cases: name -> what is known of it, of this run and of those before it in the same folder.

    rank, world: number of this process and of all that share the cases.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], rank: int = 0, world: int = 1) -> None:
        self.folder, self.header, self.rank, self.world = folder, dict(header), rank, world
        self.cases = _read(folder / FILE)
        for part in sorted(folder.glob(_PARTS)):
            self.cases.update(_lines(part))
        self._part = folder / f".predictions.{rank}.jsonl"

    def add(self, name: str, status: str, **known: Any) -> None:
        """Note what became of a case; what was known of it before is replaced."""
        self.cases[name] = {"status": status, **known}
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._part.open("a", encoding="utf-8") as file:
                file.write(json.dumps(without_nan({name: self.cases[name]}), default=str) + "\n")
        except OSError as error:
            error.filename = str(self._part)  # a full disk does not say on which file
            raise

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.publish()
        except OSError:
            if kind is None:
                raise  # else what stopped the run is worth more than that a full disk took no record of it

    def publish(self) -> None:
        """Put this process's lines into `predictions.json`, and those that a dead process with a higher number left."""
        parts = [p for p in self.folder.glob(_PARTS) if _rank(p) == self.rank or _rank(p) >= self.world]
        news = {name: case for part in [*parts, self._part] for name, case in _lines(part).items()}
        if any(case["status"] != BEGUN for case in news.values()):
            from filelock import FileLock

            with FileLock(self.folder / ".predictions.lock"):
                self.cases = {**self.cases, **_read(self.folder / FILE), **news}
                content = {"format": _FORMAT, **self.header, "cases": dict(sorted(self.cases.items()))}
                write_atomically(self.folder / FILE, json_text(content))
            if self.world == 1:
                (self.folder / ".predictions.lock").unlink(missing_ok=True)
        elif any(file_stem(path) in news for path in self.folder.glob("*.*")):
            return  # a map stands there whose end was not noted; the lines tell the next run that it is ours
        for part in parts:
            part.unlink(missing_ok=True)


def _rank(part: Path) -> int:
    return int(part.name.split(".")[2])


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["cases"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no record of a prediction ({error}); choose another --out or move it away") from None


def _lines(part: Path) -> dict[str, dict[str, Any]]:
    """The last word on each case; a line that a kill cut off is none."""
    found: dict[str, dict[str, Any]] = {}
    with suppress(FileNotFoundError):
        for line in part.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                found.update(json.loads(line))
    return found
