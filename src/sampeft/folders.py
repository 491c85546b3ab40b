"""Where this program keeps what it can make or get again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """SAMPEFT_CACHE, or the user's own cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sampeft"
    return Path(os.environ.get("SAMPEFT_CACHE") or default)
