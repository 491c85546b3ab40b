"""A part of a prediction on the image's own grid: what is known of each of its pixels, for whoever looks at it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.data.slices import largest
from sampeft.prediction.sliding_window import Planes

Channels = npt.NDArray[np.uint8]


class Band(ABC):
    """Rows and columns of a plane. All bands of an image together are what the network sees of it.

    plane: its number, counted from 0. missing_nw: where nothing was measured; None where that is known of the whole image.
    """

    def __init__(self, plane: int, rows: slice, columns: slice, missing_nw: npt.NDArray[np.bool_] | None) -> None:
        self.plane, self.rows, self.columns, self.missing_nw = plane, rows, columns, missing_nw

    @property
    def place(self) -> tuple[int, slice, slice]:
        """Where it lies in an array (S, H, W)."""
        return self.plane, self.rows, self.columns

    @property
    @abstractmethod
    def channels_nw(self) -> Channels:
        """The most probable class."""

    @property
    @abstractmethod
    def probabilities_Knw(self) -> torch.Tensor:
        """Of each class; all 0 in windows without any measurement."""

    @property
    @abstractmethod
    def disagreement_nw(self) -> torch.Tensor:
        """Share of the views that see another class than their mean, where that was asked for."""

    def highest(self, chosen_nw: npt.NDArray[np.bool_]) -> torch.Tensor:
        """(N,) probability of the most probable class in the chosen pixels."""
        highest_nw: torch.Tensor = self.probabilities_Knw.amax(dim=0)
        return highest_nw[torch.from_numpy(chosen_nw)]

    @property
    def entropy_nw(self) -> torch.Tensor:
        """Of the probabilities, in nats over ln K: 0..1."""
        entropy_nw: torch.Tensor = torch.special.entr(self.probabilities_Knw).sum(dim=0)
        return entropy_nw / math.log(len(self.probabilities_Knw))


class LogitsBand(Band):
    """Of a plane that one window covers. Its class is that of the largest logit: where probabilities round to the same
    number, logits still tell."""

    def __init__(
        self,
        plane: int,
        rows: slice,
        columns: slice,
        logits_Knw: torch.Tensor,
        temperature: float,
        disagreement_nw: torch.Tensor | None = None,
    ) -> None:
        super().__init__(plane, rows, columns, None)
        self._scaled_Knw = logits_Knw if temperature == 1 else logits_Knw / temperature
        self._logits_Knw, self._disagreement_nw = logits_Knw, disagreement_nw

    @cached_property
    def channels_nw(self) -> Channels:
        return largest(self._logits_Knw)

    @cached_property
    def probabilities_Knw(self) -> torch.Tensor:
        return self._scaled_Knw.softmax(dim=0)

    @property
    def disagreement_nw(self) -> torch.Tensor:
        assert self._disagreement_nw is not None, "it was not asked for"
        return self._disagreement_nw

    def highest(self, chosen_nw: npt.NDArray[np.bool_]) -> torch.Tensor:
        if "probabilities_Knw" in self.__dict__:
            return super().highest(chosen_nw)
        # Worked out there alone: what is asked for is the foreground, which is the smaller part.
        at_N = torch.from_numpy(chosen_nw).flatten().nonzero()[:, 0]
        return self._scaled_Knw.flatten(1).index_select(1, at_N).softmax(dim=0).amax(dim=0)


class BlendedBand(Band):
    """Of a plane that several windows cover: the blend of their probabilities.

    blended_Pnw: of K classes, and of the views' disagreement where that was asked for.
    """

    def __init__(
        self,
        plane: int,
        rows: slice,
        columns: slice,
        missing_nw: npt.NDArray[np.bool_],
        blended_Pnw: Planes,
        classes: int,
    ) -> None:
        super().__init__(plane, rows, columns, missing_nw)
        self._blended_Pnw, self._classes = blended_Pnw, classes

    @cached_property
    def channels_nw(self) -> Channels:
        found: npt.NDArray[Any] = self._blended_Pnw[: self._classes].argmax(axis=0)
        return found.astype(np.uint8)

    @cached_property
    def _total_nw(self) -> npt.NDArray[np.float32]:
        """Of the classes; 1 where no window was looked at."""
        total_nw: npt.NDArray[np.float32] = self._blended_Pnw[: self._classes].sum(axis=0)
        return np.where(total_nw > 0, total_nw, np.float32(1))

    @cached_property
    def _shares_Pnw(self) -> torch.Tensor:
        """Scaled so that the classes sum to 1."""
        return torch.from_numpy(self._blended_Pnw / self._total_nw)

    @property
    def probabilities_Knw(self) -> torch.Tensor:
        return self._shares_Pnw[: self._classes]

    @property
    def disagreement_nw(self) -> torch.Tensor:
        assert len(self._blended_Pnw) > self._classes, "it was not asked for"
        return self._shares_Pnw[-1]

    def highest(self, chosen_nw: npt.NDArray[np.bool_]) -> torch.Tensor:
        highest_nw = self._blended_Pnw[: self._classes].max(axis=0) / self._total_nw
        return torch.from_numpy(highest_nw[chosen_nw])
