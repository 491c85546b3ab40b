"""What made a result: versions of the packages, commit of the source, settings and log of a training, resources used."""

from __future__ import annotations

import csv
import json
import math
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from types import MappingProxyType
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


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with the same line ends on every system."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    defaults: Mapping[str, Any] = MappingProxyType({}),
    lost: bool = False,
    within: str = "",
) -> list[str]:
    """`training.lr was 0.001, is 0.002` for every setting of `now` that `before` holds otherwise.

    defaults: of settings that `before` lacks. lost: also what a group held before and holds no longer.
    """
    changed: list[str] = []
    for key, value in now.items():
        default = defaults.get(key)
        old = before.get(key, default)
        if isinstance(value, dict) and isinstance(old, dict):
            inner = default if isinstance(default, dict) else {}
            both = {**dict.fromkeys(old), **value} if lost else value
            changed += differences(old, both, inner, lost, f"{within}{key}.")
        elif old != value:
            changed.append(f"{within}{key} was {_short(old)}, is {_short(value)}")
    return changed


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return value[:12] + "..." if isinstance(value, str) and len(value) == 64 else str(value)  # of a sha256 its start
