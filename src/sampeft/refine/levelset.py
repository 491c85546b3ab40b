"""Morphological level sets: move each class's contour to nearby edges.

Márquez-Neila et al., A Morphological Approach to Curvature-Based Evolution of Curves and Surfaces, IEEE TPAMI 2014
(10.1109/TPAMI.2013.106). scikit-image has the same steps, but over the whole array, and it turns its two curvature
operators over in a global that lives on between calls, so that a result depends on what was refined before (0.26). Here
the band is kept, the regions are local (Lankton and Tannenbaum, IEEE TIP 2008) and each call starts alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sampeft.refine import Channels, Evidence, Refiner

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float64]
Force = Callable[[Mask], Array]
"""Mask -> (H, W) push on each pixel: positive into the mask, negative out of it, 0 to stay."""

_EIGHT = np.ones((3, 3), dtype=bool)
_DIAGONAL = np.eye(3, dtype=bool)
_ROW = np.ones((1, 3), dtype=bool)
_LINES = (_DIAGONAL, _DIAGONAL[::-1], _ROW, _ROW.T)


@dataclass(frozen=True)
class LevelSet(Refiner):
    """Moves the contour of each component (8 neighbours) of each foreground class within a band around it.

    force: `edges` goes to the steepest place nearby (geodesic contours); `regions` parts the band into what looks like
    its inside and what looks like its outside within band_mm (Chan-Vese), for edges that are blurred or broken.
    band_mm: pixels further from the rough contour stay as they are; millimetres are pixels where the spacing is unknown.
    iterations: steps of a pixel. smoothing: rounds of curvature in each. edge_mm: blur before edges are looked for.
    least_pixels: smaller components are left alone. least_overlap: a component whose result has a smaller intersection
    over union with it is left alone too, so a class is never emptied.

    A pixel whose own class keeps it stays; one that its class gives up, and background, goes to the class that grew over
    it: of several the most probable, without probabilities the one with the fewest pixels. Given up and not taken it is
    background, or stays where the label map has none (there every class moves).
    """

    name: ClassVar[str] = "level-set"
    about: ClassVar[str] = "morphological level sets: moves contours to nearby edges of the image"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "iterations": (0, 3, 6, 12),
        "force": ("edges", "regions"),
        "band_mm": (2.0, 4.0),
        "smoothing": (1, 2),
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "band_mm": (0.1, 50.0),
        "iterations": (0, 200),
        "smoothing": (0, 4),
        "edge_mm": (0.1, 20.0),
        "least_pixels": (1, 10**6),
        "least_overlap": (0.01, 1.0),
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"force": ("regions", "edges")}

    force: str = "edges"
    band_mm: float = 3.0
    iterations: int = 3
    smoothing: int = 1
    edge_mm: float = 1.0
    least_pixels: int = 30
    least_overlap: float = 0.6

    def refine_slice(self, evidence: Evidence) -> Channels:
        """(H, W) class channels."""
        if not self.iterations:
            return evidence.channels_HW
        claims_KHW = np.zeros((len(evidence.labels), *evidence.channels_HW.shape), dtype=bool)
        for channel in evidence.labels.foreground:
            if (mask_HW := evidence.channels_HW == channel).any():
                claims_KHW[channel] = self._claim(evidence, mask_HW)
        return settled(evidence, claims_KHW)

    def _claim(self, evidence: Evidence, mask_HW: Mask) -> Mask:
        """(H, W) what one class would have, its components moved one by one."""
        from scipy.ndimage import find_objects, label

        claim = mask_HW.copy()
        numbers, _ = label(mask_HW, structure=_EIGHT)
        margin = [ceil(self.band_mm / size) + 2 for size in evidence.spacing_mm]
        for number, tight in enumerate(find_objects(numbers), start=1):
            box = tuple(
                slice(max(side.start - more, 0), min(side.stop + more, n))
                for side, more, n in zip(tight, margin, mask_HW.shape, strict=True)
            )
            rough = numbers[box] == number
            if rough.sum() >= self.least_pixels:
                others = mask_HW[box] & ~rough
                moved = self._moved(evidence.image_HWC[box], rough, others, evidence.spacing_mm)
                claim[box] = (claim[box] & ~rough) | moved
        return claim

    def _moved(
        self, image_HWC: npt.NDArray[np.float32], rough: Mask, others: Mask, spacing_mm: tuple[float, float]
    ) -> Mask:
        """The component after the evolution, or as it was where nothing can be followed or the result is too far off."""
        from scipy.ndimage import distance_transform_edt

        if rough.all():
            return rough
        to_other_side = np.where(
            rough,
            distance_transform_edt(rough, sampling=spacing_mm),
            distance_transform_edt(~rough, sampling=spacing_mm),
        )
        band = (to_other_side <= self.band_mm) & ~others
        if not (band & rough).any() or not (band & ~rough).any() or not np.ptp(image_HWC[band], axis=0).any():
            return rough
        image = image_HWC.astype(np.float64)
        push: Force
        if self.force == "regions":
            push = region_force(image, band, [self.band_mm / size for size in spacing_mm])
        else:
            push = edge_force(image, [self.edge_mm / size for size in spacing_mm])
        moved = evolved(rough, band, push, self.iterations, self.smoothing)
        overlap = (moved & rough).sum() / (moved | rough).sum()
        return moved if overlap >= self.least_overlap else rough


def region_force(image_HWC: Array, band: Mask, radius_px: Sequence[float]) -> Force:
    """Pulls a pixel in whose colour is closer to the mean inside than to the mean outside, both of the band's pixels in
    the rectangle of that radius (rows, columns) around it (Chan-Vese)."""
    from scipy.ndimage import uniform_filter

    window = [2 * ceil(radius) + 1 for radius in radius_px]

    def push(inside: Mask) -> Array:
        difference = np.zeros(inside.shape)
        for side, sign in ((inside & band, -1), (~inside & band, 1)):
            share = uniform_filter(side.astype(np.float64), window, mode="constant")
            known = share > 1e-9  # rounding of an empty window stays below
            for level in np.moveaxis(image_HWC, -1, 0):
                mean = uniform_filter(level * side, window, mode="constant") / np.where(known, share, 1)
                difference += sign * np.where(known, (level - mean) ** 2, 0)
        near_contour: Array = np.abs(np.gradient(inside.astype(np.float64))).sum(axis=0)
        return difference * near_contour

    return push


def edge_force(image_HWC: Array, blur_px: Sequence[float]) -> Force:
    """Pulls the contour up the slope of the gradient's magnitude over all colours, after a blur (rows, columns): geodesic
    active contours without a balloon, where only the sign counts and so the edge function does not."""
    from scipy.ndimage import gaussian_gradient_magnitude

    squares = [
        gaussian_gradient_magnitude(level, blur_px, mode="nearest") ** 2 for level in np.moveaxis(image_HWC, -1, 0)
    ]
    slopes = np.gradient(np.sqrt(sum(squares)))

    def push(inside: Mask) -> Array:
        steps = np.gradient(inside.astype(np.float64))
        pull: Array = -sum(slope * step for slope, step in zip(slopes, steps, strict=True))
        return pull

    return push


def evolved(rough: Mask, band: Mask, push: Force, iterations: int, smoothing: int) -> Mask:
    """(H, W) the mask after so many steps: pixels pushed in (> 0) join, pixels pushed out leave, then the curvature works
    in rounds; outside of the band nothing changes."""
    inside, turn = rough.copy(), 0
    for _ in range(iterations):
        force = push(inside)
        inside = np.where(band & (force != 0), force > 0, inside)
        for _ in range(smoothing):
            # The two orders undo each other's drift inwards and outwards, so they alternate.
            inside = _opened(_closed(inside)) if turn % 2 == 0 else _closed(_opened(inside))
            turn += 1
        inside = np.where(band, inside, rough)
    return inside


def _opened(mask: Mask) -> Mask:
    """Pixels that lie within some line of three pixels of the mask; the image goes on beyond its edge."""
    from scipy.ndimage import binary_erosion

    padded = np.pad(mask, 1, mode="edge")
    result: Mask = np.any([binary_erosion(padded, line) for line in _LINES], axis=0)[1:-1, 1:-1]
    return result


def _closed(mask: Mask) -> Mask:
    """Pixels whose lines of three pixels all touch the mask: the same for the outside."""
    return ~_opened(~mask)


def settled(evidence: Evidence, claims_KHW: npt.NDArray[np.bool_]) -> Channels:
    """One class per pixel of what the classes claim, by the rule that LevelSet states."""
    rough, labels = evidence.channels_HW, evidence.labels
    if evidence.probabilities_KHW is not None:
        strength = evidence.probabilities_KHW
    else:
        sizes = np.bincount(rough.ravel(), minlength=len(labels)).astype(np.float32)
        strength = np.broadcast_to(-sizes[:, None, None], claims_KHW.shape)
    strongest = np.where(claims_KHW, strength, -np.inf).argmax(axis=0)
    taken = claims_KHW.any(axis=0)
    kept = np.take_along_axis(claims_KHW, rough[None].astype(np.intp), axis=0)[0]
    unclaimed = np.zeros_like(rough) if labels.has_background else rough
    result: Channels = np.where(kept, rough, np.where(taken, strongest, unclaimed)).astype(np.uint8)
    return result
