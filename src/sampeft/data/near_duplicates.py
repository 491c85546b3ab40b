"""Find nearly the same image on different sides of a data set's splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Dataset, ImageFile
from sampeft.errors import DataError
from sampeft.io import read_volume
from sampeft.volume import Volume

Print = npt.NDArray[np.float32]

SAME = 0.9
"""Likeness from which two images are the same. Measured, the largest of images that are not: CT slices of different
patients 0.86 (12,497 pairs), infrared images 0.79 (90,950), satellite crops 0.48 (19,900), phantoms 0.88 (378). Of
copies are found: half the size 100 %, other brightness 100 %, gamma 0.6 99 %, noise of 2 % 93 %, JPEG at quality 40
88 % (all of CT and satellite, the rest are infrared frames of bare sky), a crop by 2 % a side 15 to 88 %."""

_SIDES = ("train", "val", "test")
_THUMBNAIL, _COEFFICIENTS, _COARSEST = 64, 16, 3
_BLOCK = 1024


def near_duplicates(
    dataset: Dataset,
    progress: Callable[[int, int], None] | None = None,
    prints: Mapping[str, Print] | None = None,
) -> list[tuple[ImageFile, ImageFile, float]]:
    """Pairs of files of two of train, val and test whose images are (nearly) the same, the most alike first.

    The number is their likeness, SAME..1. Of a volume the middle slice is compared. A mirrored, turned or cropped copy
    is not found, nor are images without contrast. Files that cannot be read are left out; `check` reports them.
    progress: called with (files done, files). prints: `image_print` by id, of files that were read already.
    """
    sides = {side: [f for case in dataset.split(side) for f in case.files] for side in _SIDES if side in dataset.splits}
    if len(sides) < 2:
        return []
    jobs = [file for files in sides.values() for file in files]
    known: dict[str, Print] = {}
    for done, file in enumerate(jobs):
        found = prints.get(file.id) if prints else None
        known[file.id] = _print_of(file) if found is None else found
        if progress:
            progress(done + 1, len(jobs))
    pairs = []
    for one, other in combinations(sides.values(), 2):
        others = np.stack([known[file.id] for file in other]) if other else np.empty((0, 0), np.float32)
        for start in range(0, len(one) if other else 0, _BLOCK):
            block = one[start : start + _BLOCK]
            likeness = np.stack([known[file.id] for file in block]) @ others.T
            pairs += [(block[i], other[j], float(likeness[i, j])) for i, j in np.argwhere(likeness >= SAME)]
    return sorted(pairs, key=lambda pair: -pair[2])


def image_print(volume: Volume) -> Print:
    """The perceptual hash of an image: a unit vector whose dot product with another's is their likeness, -1..1.

    The middle slice, upright and grey, becomes 64 x 64 pixels; of their cosine transform the 16 x 16 lowest
    coefficients are kept, but for brightness and shading over the whole image, by the root of their size, so that
    neither contrast nor one bright spot decides. Zeros for an image without contrast.
    """
    from scipy.fft import dctn

    from sampeft.data.slices import SliceView

    slices = SliceView.of(volume).slices(volume.array)
    middle = slices[len(slices) // 2].astype(np.float32)
    grey = np.nan_to_num(middle if middle.ndim == 2 else middle.mean(axis=2))
    spectrum = dctn(_shrunk(grey), norm="ortho")[:_COEFFICIENTS, :_COEFFICIENTS]
    coarse = np.add.outer(np.arange(_COEFFICIENTS), np.arange(_COEFFICIENTS)) < _COARSEST
    kept = spectrum[~coarse]
    rooted = np.sign(kept) * np.sqrt(np.abs(kept))
    norm = np.linalg.norm(rooted)
    flat = np.abs(kept).max() <= 1e-5 * max(1.0, float(np.abs(spectrum).max()))
    return np.asarray(np.zeros_like(rooted) if flat else rooted / norm, dtype=np.float32)


def _print_of(file: ImageFile) -> Print:
    try:
        return image_print(read_volume(file.image))
    except DataError:
        return np.zeros(_COEFFICIENTS**2 - _COARSEST * (_COARSEST + 1) // 2, dtype=np.float32)


def _shrunk(image_HW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(64, 64), each pixel the mean of its box."""
    from PIL import Image

    return np.asarray(Image.fromarray(image_HW).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))
