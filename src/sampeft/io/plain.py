"""Any content in, JSON text out; JSON has neither NaN nor infinity, which become null and "inf"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def json_text(content: Any) -> str:
    """Indented JSON with a line end; what JSON does not know, such as paths, becomes text."""
    return json.dumps(without_nan(content), indent=1, allow_nan=False, default=str, ensure_ascii=False) + "\n"


def plain_json(path: Path) -> str:
    """The JSON of a file in ASCII, which every console can show."""
    return json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=1)


def without_nan(value: Any) -> Any:
    """The same content with null for NaN and text for infinity, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(float(value))
    return value
