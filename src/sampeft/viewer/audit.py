"""Audit log: who did what with which image, one line of JSON each (`--audit`); never what an image holds."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sampeft.errors import UsageError

_ID_LETTERS = 8  # of the id of a prediction: enough to tell them apart, and no access


class Audit:
    """path: gets a line for each act, after those that are there; None: nothing is kept. Nothing is ever removed from it.

    Raises UsageError for a file that cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: int | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(f"--audit {path}: {error.strerror}; give a file that can be written") from None

    def note(self, address: str, did: str, **what: Any) -> None:
        """Write a line; it is with the system when this returns. what: of whom or what, None left out.

        Raises OSError for a full disk.
        """
        if self._file is None:
            return
        if "prediction" in what:
            what["prediction"] = what["prediction"][:_ID_LETTERS]
        kept = {name: value for name, value in what.items() if value is not None}
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "address": address, "did": did, **kept}, ensure_ascii=False) + "\n"
        os.write(self._file, line.encode())  # one call, so that lines of several threads do not mix

    def close(self) -> None:
        """A second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
