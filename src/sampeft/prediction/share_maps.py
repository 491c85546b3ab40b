"""Maps of what a prediction says of each pixel beside its class: probabilities, entropy, disagreement, as shares of 0..255."""

from __future__ import annotations

import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sampeft.io.probability_maps import write_shares
from sampeft.labels import LabelSet
from sampeft.prediction.bands import Band
from sampeft.prediction.scene import Scene
from sampeft.prediction.sinks import Sink
from sampeft.volume import Volume

FULL = 255  # a share of 1 in the maps
ENTROPY, DISAGREEMENT = "entropy", "disagreement"
PROBABILITIES, UNCERTAINTY = "probabilities", "uncertainty"
"""Folders of the maps in the output folder."""


def map_path(folder: Path, stem: str, name: str) -> Path:
    """Where the map of a class or of the uncertainty of an image lies, without its ending."""
    kind = UNCERTAINTY if name in (ENTROPY, DISAGREEMENT) else PROBABILITIES
    return folder / kind / f"{stem}_{name.replace('/', '-')}"


class ShareMaps(Sink):
    """names: of the maps: with `probabilities` the classes; with `uncertainty` the entropy (nats over ln K) and, of several
    views, the share of them that see another class."""

    def __init__(self, labels: LabelSet, probabilities: bool, uncertainty: bool, views: int) -> None:
        self.classes = list(labels.names) if probabilities else []
        self.names = self.classes + [ENTROPY] * uncertainty + [DISAGREEMENT] * (uncertainty and views > 1)

    def see(self, band: Band) -> None:
        for name, share_nw in zip(self.classes, band.probabilities_Knw if self.classes else (), strict=True):
            self.put(name, band, _as_bytes(share_nw))
        if ENTROPY in self.names:
            self.put(ENTROPY, band, _as_bytes(band.entropy_nw))
        if DISAGREEMENT in self.names:
            self.put(DISAGREEMENT, band, _as_bytes(band.disagreement_nw))

    @abstractmethod
    def put(self, name: str, band: Band, shares_nw: npt.NDArray[np.uint8]) -> None:
        """Keep a part of a map."""


class KeptShareMaps(ShareMaps):
    """Of a scene that is written when all of it is known; until then they lie on the disk, in `folder`, never in memory."""

    def __init__(self, labels: LabelSet, probabilities: bool, uncertainty: bool, views: int, folder: Path) -> None:
        super().__init__(labels, probabilities, uncertainty, views)
        self._folder = folder
        self._kept: tempfile.TemporaryDirectory[str] | None = None
        self._maps: dict[str, npt.NDArray[np.uint8]] = {}

    def begin(self, scene: Scene) -> None:
        self._scene = scene
        if not self.names:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._kept = tempfile.TemporaryDirectory(prefix=".sampeft-", dir=self._folder, ignore_cleanup_errors=True)
        for number, name in enumerate(self.names):
            path = Path(self._kept.name) / f"{number}.npy"
            self._maps[name] = np.lib.format.open_memmap(path, "w+", np.uint8, (scene.planes, *scene.size))
            self._reserve(path)
        if self.classes:  # outside the box the first class is certain
            first_SHW = self._maps[self.classes[0]]
            top, left, bottom, right = scene.frame.box
            for map_HW in first_SHW:
                map_HW[:top], map_HW[bottom:], map_HW[:, :left], map_HW[:, right:] = FULL, FULL, FULL, FULL

    def put(self, name: str, band: Band, shares_nw: npt.NDArray[np.uint8]) -> None:
        self._maps[name][band.place] = shares_nw

    def maps(self) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        """(name, shares (I, J, K) on the image's grid), one map in memory at a time."""
        for name, map_SHW in self._maps.items():
            yield name, self._scene.restore(np.asarray(map_SHW))

    def write(self, folder: Path, stem: str, like: Volume) -> None:
        for name, shares_IJK in self.maps():
            write_shares(map_path(folder, stem, name), shares_IJK, like)

    def close(self) -> None:
        """Drop what was kept."""
        self._maps.clear()
        if self._kept:
            self._kept.cleanup()
            self._kept = None

    def _reserve(self, path: Path) -> None:
        """Take the room of a file that is mapped into memory now: a disk that is full later would end the process unheard.
        Raises OSError where there is none."""
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            with path.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            error.filename = str(self._folder)
            raise


def _as_bytes(share_nw: torch.Tensor) -> npt.NDArray[np.uint8]:
    found: npt.NDArray[np.uint8] = (share_nw.clamp(0, 1) * FULL).round().to(torch.uint8).cpu().numpy()
    return found
