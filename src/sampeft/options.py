"""Options as a user names them -> the frozen dataclass of what they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sampeft.errors import unknown_name


def read_options(kind: type[Any], options: Mapping[str, Any] | None, owner: str) -> Any:
    """The dataclass `kind` with these values; lists, as YAML has them, become tuples. Raises UsageError for an unknown name.

    owner: what has the options, for the error.
    """
    known = {field.name for field in fields(kind)}
    for key in options or {}:
        if key not in known:
            raise unknown_name(f"option of {owner}", key, known)
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()})
