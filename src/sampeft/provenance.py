"""What made a result: versions of the packages, commit of the source, settings and log of a training, resources used."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sampeft.strict_json import parse_object, read_object


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


def run_config(run: Path) -> dict[str, Any]:
    """The run's config.json; empty where it has none. Raises FormError where it is damaged."""
    path = run / "config.json"
    return read_object(path) if path.is_file() else {}


def history_of(run: Path | None) -> list[dict[str, Any]]:
    """The lines of the run's metrics.jsonl; empty where it has none. A training that was killed may have left half of one."""
    path = run / "metrics.jsonl" if run else None
    if path is None or not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [parse_object(line, str(path)) for line in lines if line.endswith("\n")]


def peak_memory_mib() -> int | None:
    """Most resident memory of this process so far; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most >> 20 if sys.platform == "darwin" else most >> 10


def resources_used() -> dict[str, Any]:
    """Device, threads and peak memory of this process so far."""
    import torch

    used: dict[str, Any] = {"device": "CPU", "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        used = {
            "device": torch.cuda.get_device_name(),
            "peak GPU memory (MiB)": torch.cuda.max_memory_allocated() >> 20,
        }
    if peak := peak_memory_mib():
        used["peak memory (MiB)"] = peak
    return used
