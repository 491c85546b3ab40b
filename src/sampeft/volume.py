"""An image with its geometry: array + affine, and what a writer needs to give the same geometry back.

A photograph, a satellite tile or an infrared frame is a Volume of one slice: array (rows, columns, 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Volume:
    """An image.

    array: (I, J, K) or (I, J, K, C) in the file's own axis order; C are channels (3 for colour).
    affine: (4, 4) maps index (i, j, k, 1) to millimetres in NIfTI's RAS+ world (x grows towards the patient's right,
        y towards anterior, z towards superior), or None for a raster image.
    path: the file, for messages.
    header: format-specific object that lets the writer give the same geometry back.
    """

    array: npt.NDArray[Any]
    affine: npt.NDArray[np.float64] | None
    path: Path
    header: Any = field(default=None, compare=False, repr=False)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Size of the pixel grid (I, J, K), channels left out."""
        i, j, k = self.array.shape[:3]
        return i, j, k

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each array axis; (1, 1, 1) when the file states none."""
        if self.affine is None:
            return 1.0, 1.0, 1.0
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(i), float(j), float(k)

    @property
    def is_raster(self) -> bool:
        return self.affine is None


@dataclass(frozen=True)
class LabelVolume:
    """Class channels (0..K-1, or IGNORE) on the grid of an image.

    array: (I, J, K) int16; the pixels without a truth hold IGNORE.
    """

    array: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64] | None
    path: Path


IGNORE = -100
"""Channel of pixels without a truth; the value that torch's cross entropy leaves out by default."""
