"""What goes wrong through no fault of the code: one sentence with the file, the values and the next step."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches


class SampeftError(Exception):
    """A mistake that the user can mend; shown as one line without a traceback, exit code 1."""


class UsageError(SampeftError):
    """The command line or the recipe is wrong; exit code 2."""


class DataError(SampeftError):
    """A file or a data set is not as it must be."""


class WeightsError(SampeftError):
    """Weights are missing, damaged or belong to another model."""


class NoDataError(DataError, UsageError):
    """A path that leads to no data set, or to nothing; exit code 2."""


class NoWeightsError(WeightsError, UsageError):
    """A path that leads to no weights or no trained run, or to nothing; exit code 2."""


class FormError(DataError, WeightsError, UsageError):
    """A file that describes a data set or a run is not in its form; exit code 2."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what was begun is tidied up, what is whole stays. Exit code 143."""


def counted(count: int, thing: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def is_full(error: OSError) -> bool:
    """Whether the disk, or what its user may take of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def unforeseen(error: Exception) -> str:
    """What is said of an error that no reader or model should raise."""
    text = (str(error).splitlines() or [""])[0]
    return f"failed in a way that was not foreseen ({type(error).__name__}: {text}); please report it"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a failed look-up: `unknown backbone 'sam_vitb'; did you mean 'sam-vit-b'? known: ...`."""
    names = sorted(known)
    close = get_close_matches(name.lower().replace("_", "-"), names, n=1, cutoff=0.5)
    hint = f" did you mean '{close[0]}'?" if close else ""
    return UsageError(f"unknown {kind} '{name}';{hint} known: {', '.join(names)}")
