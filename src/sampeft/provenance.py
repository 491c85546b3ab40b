"""What made a result: versions of the packages and the commit of the source."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what is computed."""
    names = ("sampeft", "torch", "transformers", "timm", "peft", "accelerate", "numpy", "nibabel")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def git_commit() -> str | None:
    """Commit of the source tree that runs, when it runs from one."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
