"""Store and load the refiner that was fitted for a run (refiner.json)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sampeft.errors import DataError, UsageError, unknown_name
from sampeft.io import sha256, write_atomically
from sampeft.refine import REFINERS, Refiner, refiner

FILE = "refiner.json"
FITTED = "fitted"


def write_fitted(run: Path, tensors: Path, fitted: Refiner, record: dict[str, Any]) -> Path:
    """tensors: the file of the run's weights, for which alone it was fitted. record: on which cases, and what came of it."""
    content = {"refiner": fitted.name, "options": asdict(fitted), "tensors_sha256": sha256(tensors), **record}
    write_atomically(run / FILE, json.dumps(content, indent=1) + "\n")
    return run / FILE


def read_fitted(run: Path, tensors: Path) -> Refiner:
    """Raises UsageError where the run has none, DataError where the file is damaged, or was fitted for another run or before
    this one was trained on."""
    path = run / FILE
    if not path.is_file():
        raise UsageError(f"{path}: there is none; fit one first with `sampeft refine {run} --data DATASET`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fitted = refiner(content["refiner"], **content["options"])
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise DataError(f"{path}: not a whole refiner ({error}); run `sampeft refine` again") from None
    if content.get("tensors_sha256", found := sha256(tensors)) != found:
        raise DataError(f"{path}: was fitted for other weights than those of this run; run `sampeft refine` again")
    return fitted


def check_refiner_name(name: str | None) -> None:
    """Raises UsageError for a refiner that is not known."""
    if name not in (None, FITTED, *REFINERS):
        raise unknown_name("refiner", str(name), [*REFINERS, FITTED])


def chosen(
    run: Path, tensors: Path, name: str | None, options: dict[str, Any], last: Path | None = None
) -> Refiner | None:
    """The refiner that a user asks for: by name with options, the run's `fitted` one, or none.

    tensors: see `write_fitted`. last: the file of the last weights, where those are used. Raises UsageError for a fitted one
    that is to follow weights for which it was not fitted.
    """
    if name is None or name == FITTED:
        if options:
            raise UsageError("options of a refiner go with its name; give --refine NAME")
        if name and last and last.is_file() and sha256(last) != sha256(tensors):
            raise UsageError(
                f"{run / FILE}: was fitted for the best weights of {run}, not for its last ones; leave --last out, or give a "
                "refiner by name, such as --refine components"
            )
        return read_fitted(run, tensors) if name else None
    check_refiner_name(name)
    return refiner(name, **options)
