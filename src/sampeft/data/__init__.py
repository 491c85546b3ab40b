"""Open a labelled data set: its layout is recognised, or named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from sampeft.data.case import Dataset
from sampeft.data.layouts import flare22, folder, gid, nnunet, sirst
from sampeft.errors import NoDataError, UsageError, unknown_name


class Layout(Protocol):
    """A module that knows one shape of data set folders. LOOKS_FOR says in words what it wants to see."""

    @property
    def LOOKS_FOR(self) -> str: ...

    def matches(self, root: Path) -> bool: ...

    def read(self, root: Path) -> Dataset: ...


DATASETS: dict[str, Layout] = {"nnunet": nnunet, "folder": folder, "flare22": flare22, "gid": gid, "sirst": sirst}
"""Layouts by name; the first that matches a folder reads it."""


def open_dataset(path: Path, layout: str | None = None, label_map: dict[int, int] | None = None) -> Dataset:
    """Read the description of a data set; no image is opened yet.

    layout: a name of DATASETS; None looks. label_map: ids in files -> ids of the label map, beside the set's own.
    Raises NoDataError when there is no data set, UsageError for an unknown layout or a map to an id that no class has.
    """
    if layout is not None and layout not in DATASETS:
        raise unknown_name("layout", layout, DATASETS)
    if not path.is_dir():
        raise NoDataError(f"{path}: is {'a file' if path.exists() else 'not there'}; give the folder of a data set")
    name = layout or next((name for name, known in DATASETS.items() if known.matches(path)), None)
    if name is None:
        wanted = "; or ".join(f"{known.LOOKS_FOR} ({name})" for name, known in DATASETS.items())
        inside = sorted(p.name + "/" * p.is_dir() for p in path.iterdir() if not p.name.startswith("."))
        more = f" and {len(inside) - 8} more" if len(inside) > 8 else ""
        raise NoDataError(
            f"{path}: no data set; looked for {wanted}; here are: {', '.join(inside[:8]) or 'no files'}{more}"
        )
    dataset = DATASETS[name].read(path)
    values = {**dataset.label_values, **(label_map or {})}
    known = {*dataset.labels.ids, dataset.labels.ignore}
    if wrong := {value: id for value, id in values.items() if id not in known}:
        pairs = ", ".join(f"{value}:{id}" for value, id in wrong.items())
        raise UsageError(f"{path}: label values are mapped to ids of no class ({pairs}); ids are {dataset.labels.ids}")
    return replace(dataset, label_values=values)
