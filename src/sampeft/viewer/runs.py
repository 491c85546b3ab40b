"""Trained runs as the page knows them; each is loaded when it is first asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampeft.backbones import RANDOM
from sampeft.labels import LabelSet
from sampeft.peft.run_files import read_description
from sampeft.peft.state import name_of
from sampeft.prediction.loading import load
from sampeft.prediction.segmenter import Segmenter
from sampeft.viewer.errors import not_found

_MOST_LOADED = 4


def distinct(folders: Sequence[Path]) -> dict[str, Path]:
    """A name for each folder: its own, or with as many of those above as tell it from the others, joined by dots."""
    parts = [folder.resolve().parts for folder in folders]
    found: dict[str, Path] = {}
    for folder, own in zip(folders, parts, strict=True):
        for depth in range(1, len(own)):
            if sum(other[-depth:] == own[-depth:] for other in parts) == 1:
                break
        found[".".join(own[-depth:]).replace("/", "")] = folder
    return found


@dataclass(frozen=True)
class Run:
    """A trained run as its adapter.json describes it; nothing of it is loaded yet."""

    id: str
    folder: Path
    description: dict[str, Any]
    labels: LabelSet

    @classmethod
    def read(cls, id: str, folder: Path) -> Run:
        """Raises WeightsError or DataError for a folder that is no trained run."""
        description = read_description(folder)
        return cls(id, folder, description, LabelSet.from_json(description["label_map"], folder / "adapter.json"))

    @property
    def model(self) -> str:
        """What tables call it, such as `lite-medsam lora r=4, pixel head`."""
        return name_of(self.description)

    @property
    def has_random_weights(self) -> bool:
        return bool(self.description["weights_sha256"] == RANDOM)

    def shares_base_with(self, other: Run) -> bool:
        """Whether one copy of the pretrained weights serves both."""
        keys = ("backbone", "weights_sha256", *(["seed"] if self.has_random_weights else []))
        return all(self.description[key] == other.description[key] for key in keys)


class Runs:
    """Runs by id. Segmenters are loaded when first asked for; those not used for longest go when there are many."""

    def __init__(self, folders: Sequence[Path], weights: str | None, engine: str = "torch") -> None:
        self.by_id = {id: Run.read(id, folder) for id, folder in distinct(folders).items()}
        self._weights, self._engine = weights, engine
        self._loaded: OrderedDict[str, Segmenter] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, id: str) -> Run:
        """Raises RequestError (404) for an unknown id."""
        if id not in self.by_id:
            raise not_found("run", id)
        return self.by_id[id]

    def segmenter(self, id: str) -> Segmenter:
        """Raises WeightsError when the weights are missing or belong to another base."""
        run = self[id]
        with self._lock:
            if id not in self._loaded:
                beside = next((s for i, s in self._loaded.items() if run.shares_base_with(self.by_id[i])), None)
                self._loaded[id] = load(run.folder, weights=self._weights, beside=beside, engine=self._engine)
            self._loaded.move_to_end(id)
            while len(self._loaded) > _MOST_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[id]
