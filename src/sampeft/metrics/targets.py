"""Small targets found, falsely found and missed: IoU, nIoU, Pd, Fa and F1 of SIRST.

Definitions as in the field's papers (Dai et al., Asymmetric Contextual Modulation, WACV 2021, arXiv:2009.14530; Li et
al., Dense Nested Attention Network, IEEE TIP 2023, arXiv:2106.00487). A target is a component of touching pixels,
corners included (8-connectivity). A predicted target finds a true one when their centroids are less than 3 pixels apart;
each is used once, with as many pairs as possible and then the shortest distances. Then over all images together:
IoU: intersection over union of all pixels. nIoU: mean over the images of their IoU. Pd: targets found / true targets.
Fa: pixels of the predicted targets that found nothing / all pixels. F1: 2 tp / (2 tp + fp + fn) of all pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

REACH_PX = 3.0


@dataclass(frozen=True)
class TargetCounts:
    """Counts of one image, or of several when added.

    targets: true ones. found: those of them that were found. false_targets: predicted ones that found nothing, with
    false_pixels pixels. pixels: all that have a truth.
    """

    targets: int = 0
    found: int = 0
    false_targets: int = 0
    false_pixels: int = 0
    pixels: int = 0

    def __add__(self, other: TargetCounts) -> TargetCounts:
        return TargetCounts(
            self.targets + other.targets,
            self.found + other.found,
            self.false_targets + other.false_targets,
            self.false_pixels + other.false_pixels,
            self.pixels + other.pixels,
        )

    @property
    def pd(self) -> float:
        """Probability of detection, 0..1; NaN without a true target."""
        return self.found / self.targets if self.targets else float("nan")

    @property
    def fa(self) -> float:
        """False-alarm rate per pixel, 0..1; NaN without a pixel."""
        return self.false_pixels / self.pixels if self.pixels else float("nan")


def count_targets(prediction: Mask, truth: Mask, ignored: Mask | None = None) -> TargetCounts:
    """Match the targets of one picture, (H, W) each; ignored pixels belong to neither. ValueError for other shapes."""
    from scipy.optimize import linear_sum_assignment

    if prediction.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f"targets are counted in pictures of equal size, got {prediction.shape} and {truth.shape}")
    pixels = truth.size
    if ignored is not None:
        prediction, truth = prediction & ~ignored, truth & ~ignored
        pixels -= int(ignored.sum())
    centers_P2, areas_P = _components(prediction)
    centers_T2, areas_T = _components(truth)
    distance_TP = np.linalg.norm(centers_T2[:, None] - centers_P2[None], axis=2)
    far = distance_TP >= REACH_PX
    # A pair out of reach costs more than all pairs within it, so the most pairs come first.
    rows, columns = linear_sum_assignment(np.where(far, REACH_PX * (distance_TP.size + 1), distance_TP))
    used = columns[~far[rows, columns]]
    false = np.delete(areas_P, used)
    return TargetCounts(len(areas_T), len(used), len(false), int(false.sum()), pixels)


def _components(mask: Mask) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(N, 2) centroids and (N,) pixels of the components."""
    from scipy.ndimage import center_of_mass, label

    labels, n = label(mask, structure=np.ones((3, 3)))
    index = range(1, n + 1)
    centers = np.array(center_of_mass(mask, labels, index), dtype=np.float64).reshape(-1, 2)
    return centers, np.bincount(labels.ravel(), minlength=n + 1)[1:]
