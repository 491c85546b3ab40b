"""Read JSON strictly: doubled names and NaN are refused."""

from __future__ import annotations

import codecs
import json
import math
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sampeft.errors import FormError


def text_of(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark, as PowerShell and Notepad write it; without the mark.

    Raises OSError, and ValueError, which says what to do, for another encoding.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start + 1} is no {encoding.removesuffix('-sig').upper()}; save it as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_object(path: Path, most_mib: int = 64) -> dict[str, Any]:
    """The JSON object of a regular file of at most `most_mib` MiB, with or without a byte order mark.

    Raises FormError that names the file for anything else.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FormError(f"{path}: is no regular file; give a JSON file")
        if status.st_size > most_mib << 20:
            raise FormError(
                f"{path}: is {status.st_size >> 20} MiB large, and {most_mib} MiB are the most; is it the right file?"
            )
        text = text_of(path)
    except OSError as error:
        raise FormError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    except ValueError as error:
        raise FormError(f"{path}: not valid JSON ({error}); correct the file") from None
    return parse_object(text, str(path))


def parse_object(text: str, source: str) -> dict[str, Any]:
    """The JSON object of a text. source: what it is from, for the FormError that is raised for anything else."""
    try:
        content = json.loads(
            text, object_pairs_hook=_distinct, parse_constant=_refused, parse_float=_finite, parse_int=_whole
        )
    except (ValueError, RecursionError) as error:
        raise FormError(f"{source}: not valid JSON ({error}); correct the file") from None
    if not isinstance(content, dict):
        raise FormError(f"{source}: expected a JSON object, found a {type(content).__name__}; correct the file")
    return content


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is there twice")
    return found


def _refused(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def _whole(text: str) -> int:
    value = int(text) if len(text) <= 20 else 1 << 64
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"{text[:20]}{'...' if len(text) > 20 else ''} is too large")
    return value
