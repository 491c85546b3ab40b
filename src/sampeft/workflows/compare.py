"""Evaluations of the same cases side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sampeft.configs.compare import Config
from sampeft.errors import UsageError, unknown_name
from sampeft.metrics import METRICS
from sampeft.metrics.comparable import comparable
from sampeft.metrics.comparison import Comparison, compare
from sampeft.metrics.scores import SUMMARY, Evaluation
from sampeft.options import check_apart


def check_names(config: Config) -> None:
    for metric in listed(config.metrics):
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)


def compared(config: Config, written: bool = True) -> Comparison:
    """The evaluations side by side. written: whether figures will go to `out`, which must then be none of them."""
    folders = config.evaluations
    if len(folders) < 2:
        raise UsageError(f"a comparison needs at least two evaluation folders, got {len(folders)}: {folders[0]}")
    resolved = [folder.resolve() for folder in folders]
    for folder, times in Counter(resolved).items():
        if times > 1:
            raise UsageError(f"{folder} is given {times} times; an evaluation does not compare with itself")
    if written and config.out.resolve() in resolved:
        raise UsageError(f"--out {config.out} is one of the evaluations, whose figures it would replace; give another")
    if written:
        check_apart(config.out)
        if (config.out / SUMMARY).is_file():
            raise UsageError(f"{config.out}: holds an evaluation, whose figures would be replaced; give another --out")
    loaded = [Evaluation.read(folder) for folder in folders]
    metrics = listed(config.metrics)
    # By folder first, so that a refusal says where to look; names may be alike in all but a seed.
    comparable(dict(zip(map(str, folders), loaded, strict=True)), metrics)
    names = distinct_names(folders, loaded, listed(config.names))
    return compare(dict(zip(names, loaded, strict=True)), metrics)


def listed(values: Sequence[str] | str | None) -> list[str]:
    """`a, b` or a list as a list."""
    parts = values.split(",") if isinstance(values, str) else values or ()
    return [part.strip() for part in parts if part.strip()]


def distinct_names(folders: Sequence[Path], evaluations: Sequence[Evaluation], given: Sequence[str] = ()) -> list[str]:
    """The given names, else each model's name, with as much of the folder's path as tells equal ones apart.

    Raises UsageError for another number of names, or equal ones.
    """
    if given:
        if len(given) != len(folders):
            raise UsageError(f"--names has {len(given)} names ({', '.join(given)}) for {len(folders)} evaluations")
        if twice := [name for name, times in Counter(given).items() if times > 1]:
            raise UsageError(f"--names gives '{twice[0]}' to more than one evaluation; names must differ")
        return list(given)
    models = [str(e.meta.get("model") or folder.name) for folder, e in zip(folders, evaluations, strict=True)]
    paths = [folder.resolve() for folder in folders]
    names = models
    for depth in range(1, 1 + max(len(path.parts) for path in paths)):
        again = Counter(names)
        if max(again.values()) == 1:
            break
        longer = [f"{model} ({'/'.join(path.parts[-depth:])})" for model, path in zip(models, paths, strict=True)]
        alike = Counter(models)
        names = [more if alike[model] > 1 else model for model, more in zip(models, longer, strict=True)]
    return names
