"""Blended probabilities of a raster's rows in, its confidence and, on demand, maps of probabilities and uncertainty out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.io.windows import MapWriter, Shares, Source
from sampeft.labels import LabelSet
from sampeft.prediction.reading import (
    DISAGREEMENT,
    ENTROPY,
    FULL,
    PROBABILITIES,
    UNCERTAINTY,
    Sureness,
    check_temperature,
    map_path,
)
from sampeft.prediction.tiles import Probabilities


@dataclass
class RowReader:
    """As `Reader`, for rasters that are looked at by windows: of each pixel the blend of all windows that see it, scaled to
    a sum of 1. Where nothing was measured all maps hold 0. Memory: a byte for each map and pixel, of a GeoTIFF of the rows
    of its tiles, of a picture of the whole.

    temperature: what the logits are divided by, before they are blended; so it can move borders between classes a little.
    warnings: what is odd about the raster.
    """

    labels: LabelSet
    temperature: float = 1.0
    probabilities: bool = False
    uncertainty: bool = False
    sureness: Sureness = field(default_factory=Sureness, init=False)
    warnings: tuple[str, ...] = field(default=(), init=False)
    _writers: dict[str, MapWriter] = field(default_factory=dict, init=False)
    _rows: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict, init=False)
    _highest: npt.NDArray[np.float32] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    @property
    def confidence(self) -> float | None:
        """Mean probability of the class shown, over the pixels shown as foreground before any refiner; None without any."""
        return self.sureness.mean

    @contextmanager
    def writing(self, out: Path, stem: str, source: Source, views: int = 1) -> Iterator[None]:
        """Maps are made while rows come; at the end each is there, whole or not at all. views: how many of each window are
        averaged; of more than one the uncertainty has a map of their disagreement, too."""
        suffix = ".png" if source.header is None else ".tif"
        kinds = {name: PROBABILITIES for name in self.labels.names if self.probabilities}
        kinds |= {ENTROPY: UNCERTAINTY} if self.uncertainty else {}
        kinds |= {DISAGREEMENT: UNCERTAINTY} if self.uncertainty and views > 1 else {}
        with ExitStack() as stack:
            for name, kind in kinds.items():
                path = map_path(out / kind, stem, name)
                writer = MapWriter(path.with_name(path.name + suffix), source, Shares())
                self._writers[name] = stack.enter_context(writer)
            yield
            for writer in self._writers.values():
                writer.finish()
        self._writers.clear()

    def see(self, width: int, left: int, blended_Pnw: Probabilities) -> None:
        """Some columns, from `left` on, of rows that are `width` wide: P planes, one of each class, and perhaps the views'
        disagreement."""
        total_nw = blended_Pnw[: len(self.labels)].sum(axis=0)
        shares_Pnw = blended_Pnw / np.where(total_nw > 0, total_nw, 1)
        shares_Knw = shares_Pnw[: len(self.labels)]
        rows, columns = shares_Knw.shape[1], slice(left, left + shares_Knw.shape[2])
        if self._highest is None:
            self._highest = np.zeros((rows, width), dtype=np.float32)
            self._rows = {name: np.zeros((rows, width), dtype=np.uint8) for name in self._writers}
        self._highest[:, columns] = shares_Knw.max(axis=0)
        if self.probabilities and self._rows:
            for name, share_nw in zip(self.labels.names, shares_Knw, strict=True):
                self._rows[name][:, columns] = _as_bytes(share_nw)
        if ENTROPY in self._rows:
            logs = np.log(np.where(shares_Knw > 0, shares_Knw, 1))
            self._rows[ENTROPY][:, columns] = _as_bytes(-(shares_Knw * logs).sum(axis=0) / math.log(len(shares_Knw)))

        if DISAGREEMENT in self._rows:
            self._rows[DISAGREEMENT][:, columns] = _as_bytes(shares_Pnw[-1])

    def end_rows(self, channels_nW: npt.NDArray[Any], missing_nW: npt.NDArray[np.bool_]) -> None:
        """The rows that were seen last are done; of rows without any measurement nothing was seen."""
        if self._highest is not None:
            shown_nW = np.isin(channels_nW, self.labels.foreground) & ~missing_nW
            self.sureness.add(float(self._highest[shown_nW].sum(dtype=np.float64)), int(shown_nW.sum()))
        for name, writer in self._writers.items():
            rows = self._rows.get(name)
            writer.append(np.zeros(channels_nW.shape, np.uint8) if rows is None else np.where(missing_nW, 0, rows))
        self._highest, self._rows = None, {}


def _as_bytes(share: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return (share.clip(0, 1) * FULL).round().astype(np.uint8)
