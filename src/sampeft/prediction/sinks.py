"""Whoever wants anything of a prediction looks at its bands: class maps, how sure it is, logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.prediction.bands import Band, Channels
from sampeft.prediction.batch_size import free_bytes
from sampeft.prediction.prompting import Prompter
from sampeft.prediction.scene import Scene, SliceScene, TiledScene, WindowLogits
from sampeft.refine import Evidence, Refiner

_REFINED_BYTES = 40  # at most, of a pixel of a map that `components` refines


class Sink:
    """Looks at the prediction of one scene while it is made; all calls come from one thread at a time, in this order."""

    def begin(self, scene: Scene) -> None:
        """Before the first window goes through the network."""

    def see(self, band: Band) -> None:
        """Each part of the image that is done."""

    def see_window(self, said: WindowLogits) -> None:
        """Each window, after the bands that it completed; of a slice that is all of it."""

    def end(self) -> None:
        """After the last one."""


class ClassMap(Sink):
    """channels_SHW: the class of every pixel; channel 0 where the network does not look. missing_SHW: with a refiner, where
    nothing was measured, if that is so anywhere.

    refiner: what mends it, of these classes; model: for refiners that look at slices. Raises what `check_refiner` raises.
    """

    channels_SHW: Channels
    missing_SHW: npt.NDArray[np.bool_] | None

    def __init__(
        self, labels: LabelSet | None = None, refiner: Refiner | None = None, model: SemanticSam | None = None
    ) -> None:
        self.labels, self.refiner, self.model = labels, refiner, model

    def begin(self, scene: Scene) -> None:
        self._scene = scene
        if isinstance(scene, TiledScene):
            check_refiner(self.refiner, scene.path, scene.size)
        self.channels_SHW = np.zeros((scene.planes, *scene.size), dtype=np.uint8)
        self.missing_SHW = scene.missing if self.refiner else None

    def see(self, band: Band) -> None:
        self.channels_SHW[band.place] = band.channels_nw
        if self.refiner and band.missing_nw is not None:
            if self.missing_SHW is None:
                self.missing_SHW = np.zeros(self.channels_SHW.shape, dtype=np.bool_)
            self.missing_SHW[band.place] = band.missing_nw

    def see_window(self, said: WindowLogits) -> None:
        if self.refiner and self.refiner.looks_at_slices():
            evidence = evidence_of(self.model, said, self.channels_SHW[said.window.index])
            self.channels_SHW[said.window.index] = self.refiner.refine_slice(evidence)

    def end(self) -> None:
        if self.refiner:
            assert self.labels is not None
            self.channels_SHW = self.refiner.refine_measured(
                self.channels_SHW, self.missing_SHW, self._scene.spacing_mm, self.labels
            )

    def on_own_grid(self) -> Channels:
        """(I, J, K) on the grid of the image."""
        return self._scene.restore(self.channels_SHW)


@dataclass
class MeanConfidence:
    """Sum of probabilities, and of how many pixels."""

    total: float = 0.0
    pixels: int = 0

    def add(self, values_N: torch.Tensor) -> None:
        self.total += float(values_N.double().sum())
        self.pixels += len(values_N)

    @property
    def mean(self) -> float | None:
        """None without any pixel."""
        return self.total / self.pixels if self.pixels else None


class Confidence(Sink):
    """Mean probability of the class shown, over the pixels shown as foreground before any refiner."""

    def __init__(self, labels: LabelSet) -> None:
        self._is_foreground = np.isin(np.arange(len(labels)), labels.foreground)
        self._all = MeanConfidence()
        self._planes: dict[int, MeanConfidence] = {}

    @property
    def mean(self) -> float | None:
        """None without any foreground."""
        return self._all.mean

    def lowest_first(self) -> list[tuple[int, float]]:
        """(plane, its own mean) of the planes with foreground: a reviewer looks at the least confident ones first."""
        found = [(mean, plane) for plane, own in self._planes.items() if (mean := own.mean) is not None]
        return [(plane, mean) for mean, plane in sorted(found)]

    def see(self, band: Band) -> None:
        shown_nw = self._is_foreground[band.channels_nw]
        if band.missing_nw is not None:
            shown_nw &= ~band.missing_nw
        if shown_nw.any():
            highest_N = band.highest(shown_nw)
            self._all.add(highest_N)
            self._planes.setdefault(band.plane, MeanConfidence()).add(highest_N)


class KeptLogits(Sink):
    """windows: what the network said of each, at its own resolution."""

    def begin(self, scene: Scene) -> None:
        self.windows: list[torch.Tensor | None] = []

    def see_window(self, said: WindowLogits) -> None:
        self.windows.append(said.logits_Khw)


def check_refiner(refiner: Refiner | None, path: Path, size: Sequence[int]) -> None:
    """Of an image of that size that is cut into windows: raises UsageError for a refiner that looks at slices, or where there is
    no memory for the map, of which what looks at the class map alone gets the whole."""
    if refiner is None:
        return
    if refiner.looks_at_slices():
        raise UsageError(
            f"{path}: the refiner {refiner.name} looks at whole images, this one is larger than training's and is cut into "
            "windows; take components; only `sampeft predict --tile off` looks at it whole"
        )
    needed, free = _REFINED_BYTES * size[0] * size[1], free_bytes(torch.device("cpu"))
    if needed > free:
        raise UsageError(
            f"{path}: the refiner {refiner.name} needs the whole map of {size[1]} x {size[0]} pixels at once, up to "
            f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free; leave it out or cut the image into parts"
        )


def evidence_of(model: SemanticSam | None, said: WindowLogits, channels_HW: Channels) -> Evidence:
    """What a refiner gets to see of a slice; outside the box that the network saw, channel 0 is certain."""
    assert model is not None, "such a refiner goes with a model"
    scene, s = said.window.scene, said.window.index
    assert isinstance(scene, SliceScene)
    assert said.logits_Khw is not None
    prepared = scene.prepared
    logits_Khw = prepared.frame.logits(said.logits_Khw)
    top, left, bottom, right = prepared.frame.box
    probabilities = np.zeros((len(logits_Khw), *prepared.frame.size), dtype=np.float32)
    probabilities[0] = 1.0
    probabilities[:, top:bottom, left:right] = logits_Khw.softmax(dim=0).numpy()
    return Evidence(
        np.moveaxis(prepared.levels.compact(prepared.slices[s]), 0, -1),
        probabilities,
        channels_HW,
        model.labels,
        prepared.view.spacing_mm[1:],
        Prompter(model, prepared, s),
    )
