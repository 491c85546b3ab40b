"""NumPy arrays of pictures and stacks of slices as volumes; no file is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import UsageError
from sampeft.volume import Volume

NOWHERE = Path("array")
"""What messages call the file of an array."""


def volume_of(array: npt.NDArray[Any], spacing_mm: tuple[float, float, float] | None = None) -> Volume:
    """(H, W) grey or (H, W, 3) colour: a picture. (S, H, W) with the spacing of slices, rows and columns in mm: a stack
    of slices as they are shown, which `plane="axial"` cuts along its first axis.

    Raises UsageError for other shapes and for values that are no numbers of one kind.
    """
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf" or not array.size:
        raise UsageError(f"an image is a filled array of whole or floating numbers, got {array.dtype} {array.shape}")
    if array.dtype.itemsize == 8 or array.dtype == np.float16:
        array = array.astype(np.float32)
    if spacing_mm is not None:
        if array.ndim != 3 or len(spacing_mm) != 3 or not all(mm > 0 for mm in spacing_mm):
            raise UsageError(
                "spacing_mm is (slices, rows, columns), each above 0, and goes with a stack (S, H, W); got "
                f"{spacing_mm} and {array.shape}"
            )
        slices, rows, columns = spacing_mm
        affine = np.zeros((4, 4))
        # Upright slices from the feet up: rows run to posterior, columns to the patient's left.
        affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = slices, -rows, -columns, 1.0
        return Volume(array, affine, NOWHERE)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3):
        return Volume(array[:, :, None], None, NOWHERE)
    raise UsageError(
        f"an array {array.shape} is neither a picture (H, W) or (H, W, 3) nor, without its spacing_mm, a stack (S, H, W)"
    )
