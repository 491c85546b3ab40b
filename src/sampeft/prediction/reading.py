"""What the network says of slices in; class maps, a case's confidence and, on demand, probabilities and uncertainty out.

Probabilities are softmax values of the logits divided by a temperature. Only with a temperature that was fitted on
held-out cases (`sampeft evaluate` gives it) do they tend to be what they say.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.data.slices import Frame, SliceView, largest
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.prediction.slice_maps import Channels, Said

FULL = 255  # a share of 1 in the maps
ENTROPY, DISAGREEMENT = "entropy", "disagreement"
PROBABILITIES, UNCERTAINTY = "probabilities", "uncertainty"
"""Folders of the maps in the output folder."""


def map_path(folder: Path, stem: str, name: str) -> Path:
    """Where the map of a class or of the uncertainty of an image lies, without its ending."""
    return folder / f"{stem}_{name.replace('/', '-')}"


def check_temperature(temperature: float) -> None:
    """Raises UsageError for one out of range."""
    if not 0.01 <= temperature <= 100:
        raise UsageError(f"--temperature is {temperature:g}; give a number of 0.01..100, 1 for the logits as trained")


@dataclass
class Sureness:
    """Probabilities of the classes shown as foreground, summed up, and of how many pixels."""

    total: float = 0.0
    pixels: int = 0

    def add(self, total: float, pixels: int) -> None:
        self.total += total
        self.pixels += pixels

    @property
    def mean(self) -> float | None:
        """None without any pixel."""
        return self.total / self.pixels if self.pixels else None


@dataclass
class Reader:
    """Reads a case slice by slice, row block by row block; what it keeps is on the disk, never in memory.

    temperature: what the logits are divided by. probabilities: keep one map per class. uncertainty: keep the entropy
    (nats over ln K, 0..1) and, with several views, the share of them that see another class. folder: where the maps lie
    until they are written. warnings: what is odd about the image.
    """

    labels: LabelSet
    temperature: float = 1.0
    probabilities: bool = False
    uncertainty: bool = False
    folder: Path | None = None
    sureness: Sureness = field(default_factory=Sureness, init=False)
    warnings: tuple[str, ...] = field(default=(), init=False)
    _view: SliceView | None = field(default=None, init=False)
    _maps: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict, init=False)
    _kept: tempfile.TemporaryDirectory[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    @property
    def confidence(self) -> float | None:
        """Mean probability of the class shown, over the pixels shown as foreground before any refiner; None without any."""
        return self.sureness.mean

    def __call__(self, said: Said) -> Channels:
        """(H, W) class channels of a slice; slices of one volume come in any order."""
        frame, s, self.warnings = said.prepared.frame, said.slice, said.prepared.warnings
        box_HW = np.empty(frame.box_size, dtype=np.uint8)
        if self.probabilities or self.uncertainty:
            self._open(said)
        top, left, _, right = frame.box
        is_foreground = np.isin(np.arange(len(self.labels)), self.labels.foreground)
        with torch.inference_mode():
            for rows, logits_KnW in frame.blocks(said.logits_Khw):
                box_HW[rows] = channels_nW = largest(logits_KnW)
                shown_nW = torch.from_numpy(is_foreground[channels_nW])
                scaled = logits_KnW if self.temperature == 1 else logits_KnW / self.temperature
                if self._maps:
                    inside = s, slice(top + rows.start, top + rows.stop), slice(left, right)
                    probabilities_KnW = scaled.softmax(dim=0)
                    self._keep(probabilities_KnW, inside)
                    sure_N = probabilities_KnW.amax(dim=0)[shown_nW]
                elif not bool(shown_nW.any()):
                    continue
                else:  # the foreground is the smaller part
                    at_N = shown_nW.flatten().nonzero()[:, 0]
                    sure_N = scaled.flatten(1).index_select(1, at_N).softmax(dim=0).amax(dim=0)
                self.sureness.add(float(sure_N.double().sum()), len(sure_N))
            if DISAGREEMENT in self._maps and said.disagreement_hw is not None:
                for rows, share_1nW in frame.blocks(said.disagreement_hw[None]):
                    inside = s, slice(top + rows.start, top + rows.stop), slice(left, right)
                    self._maps[DISAGREEMENT][inside] = _as_bytes(share_1nW[0])
        return frame.in_slice(box_HW)

    def maps(self) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        """(name, shares (I, J, K) of 0..255 on the volume's grid) of what was kept, one map in memory at a time."""
        for name, map_SHW in self._maps.items():
            assert self._view is not None
            yield name, self._view.restore(np.asarray(map_SHW))

    def close(self) -> None:
        """Drop what was kept."""
        self._maps.clear()
        if self._kept:
            self._kept.cleanup()
            self._kept = None

    def _open(self, said: Said) -> None:
        if self._maps:
            return
        self._kept = tempfile.TemporaryDirectory(prefix=".sampeft-", dir=self.folder, ignore_cleanup_errors=True)
        self._view = said.prepared.view
        names = list(self.labels.names) if self.probabilities else []
        if self.uncertainty:
            names += [ENTROPY] if said.disagreement_hw is None else [ENTROPY, DISAGREEMENT]
        shape = (len(said.prepared), *said.prepared.frame.size)
        for number, name in enumerate(names):
            path = Path(self._kept.name) / f"{number}.npy"
            self._maps[name] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            self._reserve(path)
        if self.probabilities:  # outside the box the first class is certain
            _fill(self._maps[self.labels.names[0]], said.prepared.frame)

    def _reserve(self, path: Path) -> None:
        """Take the room of a file that is mapped into memory now: a disk that is full later would end the process unheard.
        Raises OSError where there is none."""
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            with path.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            error.filename = str(self.folder)
            raise

    def _keep(self, probabilities_KnW: torch.Tensor, inside: tuple[int, slice, slice]) -> None:
        if self.probabilities:
            for name, share_nW in zip(self.labels.names, probabilities_KnW, strict=True):
                self._maps[name][inside] = _as_bytes(share_nW)
        if self.uncertainty:
            entropy_nW = torch.special.entr(probabilities_KnW).sum(dim=0) / math.log(len(probabilities_KnW))
            self._maps[ENTROPY][inside] = _as_bytes(entropy_nW)


def _as_bytes(share: torch.Tensor) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = (share.clamp(0, 1) * FULL).round().to(torch.uint8).cpu().numpy()
    return found


def _fill(map_SHW: npt.NDArray[np.uint8], frame: Frame) -> None:
    top, left, bottom, right = frame.box
    for map_HW in map_SHW:
        map_HW[:top], map_HW[bottom:], map_HW[:, :left], map_HW[:, right:] = FULL, FULL, FULL, FULL
