"""Choose one of several DICOM series, echoes or stacks.

The choice holds for this process and those that it starts, as an environment variable does, since images are read in many.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.util import find_spec

from sampeft.errors import UsageError

VARIABLE = "SAMPEFT_SERIES"
NUMBER = "SeriesNumber"
_PART = re.compile(r"(?:([A-Za-z]\w*)=)?(.*)", re.DOTALL)


@dataclass(frozen=True)
class SeriesChoice:
    """text: as given. wanted: DICOM attribute and its value, or a pattern of it, all of which an image must have."""

    text: str
    wanted: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, text: str) -> SeriesChoice:
        """Of `3`, the series number, or `SeriesDescription=T2*,EchoTime=30`. Raises UsageError for anything else."""
        wanted = []
        for part in re.split(r",(?=[A-Za-z]\w*=)", text):
            keyword, value = _PART.fullmatch(part.strip()).groups()  # type: ignore[union-attr]  # it fits any text
            if keyword is None and not value.isdecimal():
                raise UsageError(
                    f"--series is '{text}'; give the number of a series, such as 3, or DICOM attributes and their values, such "
                    "as SeriesDescription=T2*,EchoTime=30"
                )
            _check_keyword(keyword or NUMBER)
            wanted.append((keyword or NUMBER, value))
        return cls(text, tuple(wanted))

    def takes(self, value_of: Callable[[str], str]) -> bool:
        """Whether an image is of the series. value_of: text of a DICOM attribute of it, empty where it has none."""
        return all(_fits(value_of(keyword), wanted) for keyword, wanted in self.wanted)


def _check_keyword(keyword: str) -> None:
    """Raises UsageError for a name that is no attribute of DICOM, as far as pydicom is there to tell."""
    if find_spec("pydicom") is None:
        return
    from pydicom.datadict import keyword_dict

    if keyword not in keyword_dict:
        close = get_close_matches(keyword, keyword_dict, n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise UsageError(f"--series names '{keyword}', which is no attribute of DICOM{hint}")


def chosen_series() -> SeriesChoice | None:
    """None: nothing is chosen, so that a folder or file may hold one series only. Raises UsageError as `SeriesChoice.of`."""
    text = os.environ.get(VARIABLE, "")
    return SeriesChoice.of(text) if text else None


@contextmanager
def series_chosen(text: str | None) -> Iterator[None]:
    """Within the block images are of that series; None: as it was before. Raises UsageError as `SeriesChoice.of`."""
    if text is None:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = SeriesChoice.of(text).text
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _fits(value: str, wanted: str) -> bool:
    value, wanted = value.strip().casefold(), wanted.strip().casefold()
    if value == wanted or fnmatchcase(value, wanted):
        return True
    try:
        return float(value) == float(wanted)
    except ValueError:
        return False
