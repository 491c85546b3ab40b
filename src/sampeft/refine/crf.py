"""Fully connected CRF by mean field: a class map that follows edges.

Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011
(arXiv:1210.5644). Every pixel is tied to every other by two Gaussian kernels: a smooth one of the distance, and one of
distance and intensity (appearance). Labels are compared by Potts' model. Each step is

    Q_i(l) ~ p_i(l) exp(sum over kernels: weight * sum over j != i: k_ij / sqrt(n_i n_j) Q_j(l)),   n_i = sum over j: k_ij

so a weight is about the most that a log probability moves by, whatever the widths (the paper has no n, and weights that
depend on the widths). The smooth kernel is exact: two matrix products. The appearance kernel goes through a grid over
position and intensity (bilateral grid), or in colour, whose five axes make a grid too large, through the permutohedral
lattice (Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010). With
`exact` all pairs of pixels are compared instead. `docs/adr/0009-refiners.md` has the errors and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sampeft.errors import UsageError
from sampeft.refine import Channels, Evidence, Refiner

Array = npt.NDArray[np.float32]
Box = tuple[slice, ...]
Filter = Callable[[Array], Array]
"""(N, C) values of the pixels -> for each pixel the sum over all pixels, itself included, of kernel times value."""

_FLOOR = 1e-8  # a probability below counts as this one, so that its logarithm exists
_WIDTHS = 3.0  # pixels further away than so many widths of the kernel send no message
_CHUNK = 2**24  # values at a time, of a kernel or of a grid: 64 MiB
_MOST_CELLS = 2**23  # of a grid; a finer one costs more than the lattice
_CELL = 0.75  # side of a cell in widths of the kernel
_TAPS = 3  # cells along each axis that a pixel is shared out to
_TILE_PX = 512
_MOST_CODES = 2**62  # places on the lattice that can be told apart by an integer


@dataclass(frozen=True)
class Crf(Refiner):
    """Moves the class map to edges of the image and takes out specks, by what the probabilities leave open.

    smooth, smooth_mm: weight and width (standard deviation) of the kernel of distance.
    appearance, reach_mm, contrast: weight and widths of the kernel of distance and intensity; contrast in levels 0..1,
    colours by their Euclidean distance. Millimetres are pixels where the spacing is unknown.
    iterations: mean-field steps. exact: compare all pairs of pixels; for checks, as time grows with pixels squared.

    Weights 0 or no iterations leave the rough map as it is. Pictures are worked on in tiles that overlap by three
    widths; one where all pixels have the same class is left as it is. Raises UsageError without probabilities.
    """

    name: ClassVar[str] = "crf"
    about: ClassVar[str] = "fully connected CRF: moves boundaries to edges of the image where probabilities are unsure"
    needs_probabilities: ClassVar[bool] = True
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "appearance": (0.0, 0.5, 2.0, 5.0),
        "smooth": (0.0, 0.5, 2.0),
        "reach_mm": (4.0, 8.0, 16.0),
        "contrast": (0.03, 0.06, 0.12),
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "smooth": (0.0, 100.0),
        "smooth_mm": (0.1, 50.0),
        "appearance": (0.0, 100.0),
        "reach_mm": (0.5, 100.0),
        "contrast": (0.005, 2.0),
        "iterations": (0, 100),
    }

    smooth: float = 0.5
    smooth_mm: float = 1.0
    appearance: float = 0.5
    reach_mm: float = 4.0
    contrast: float = 0.03
    iterations: int = 5
    exact: bool = False

    def refine_slice(self, evidence: Evidence) -> Channels:
        """(H, W) class channels, the argmax after the last step."""
        if evidence.probabilities_KHW is None:
            raise UsageError(
                "refiner crf needs probabilities, but only a class map is known; predict with a run instead of reading "
                "label files, or choose the refiner level-set"
            )
        rough = evidence.channels_HW
        if not self.iterations or not (self.smooth or self.appearance):
            return rough
        result = rough.copy()
        image_HWC = principal_colors(evidence.image_HWC, self.contrast)
        widths = [self.smooth_mm if self.smooth else 0.0, self.reach_mm if self.appearance else 0.0]
        margin = [ceil(_WIDTHS * max(widths) / size) for size in evidence.spacing_mm]
        box = boundary_box(rough, margin)
        for core, window, inner in tiles(box, rough.shape, _TILE_PX, margin):
            if (rough[window] == rough[window].flat[0]).all():
                continue
            probabilities = evidence.probabilities_KHW[(slice(None), *window)]
            refined = mean_field(probabilities, self.filters(image_HWC[window], evidence.spacing_mm), self.iterations)
            result[core] = refined.argmax(axis=0).astype(np.uint8)[inner]
        return result

    def filters(self, image_HWC: Array, spacing_mm: Sequence[float]) -> list[tuple[float, Filter]]:
        """Weight and filter of each kernel whose weight is not zero."""
        filters: list[tuple[float, Filter]] = []
        if self.smooth:
            filters.append((self.smooth, smooth_filter(image_HWC.shape[:2], [self.smooth_mm / s for s in spacing_mm])))
        if self.appearance:
            places = np.indices(image_HWC.shape[:2], dtype=np.float32).reshape(2, -1).T
            places *= np.asarray(spacing_mm, dtype=np.float32) / self.reach_mm
            levels = image_HWC.reshape(-1, image_HWC.shape[2]) / self.contrast
            features = np.concatenate([places, levels], axis=1).astype(np.float32)
            filters.append((self.appearance, all_pairs_filter(features) if self.exact else fast_filter(features)))
        return filters


def mean_field(probabilities_KHW: Array, filters: Sequence[tuple[float, Filter]], iterations: int) -> Array:
    """(K, H, W) probabilities after so many steps, of sum one over the classes after each."""
    classes, height, width = probabilities_KHW.shape
    unary = np.log(np.maximum(probabilities_KHW, _FLOOR)).reshape(classes, -1).T.astype(np.float32)
    belief = _softmax(unary)
    ones = np.ones((len(unary), 1), dtype=np.float32)
    # A pixel's own share of n is one, so n is at least that; the grid may come out a little lower.
    scales: list[Array] = [np.maximum(apply(ones), 1).astype(np.float32) ** np.float32(-0.5) for _, apply in filters]
    for _ in range(iterations):
        energy = unary.copy()
        for (weight, apply), scale in zip(filters, scales, strict=True):
            shared = belief * scale
            energy += np.float32(weight) * scale * (apply(shared) - shared)
        belief = _softmax(energy)
    return np.ascontiguousarray(belief.T).reshape(classes, height, width)


def smooth_filter(size: tuple[int, int], widths_px: Sequence[float]) -> Filter:
    """Gaussian of the distance in an image of that size (rows, columns), exact: it is a product over the two axes."""
    rows, columns = (gaussian(np.arange(n), width) for n, width in zip(size, widths_px, strict=True))

    def apply(values: Array) -> Array:
        spread = np.tensordot(rows, values.reshape(*size, -1), axes=1)
        result: Array = np.matmul(columns, spread).reshape(values.shape)
        return result

    return apply


def all_pairs_filter(features_NF: Array) -> Filter:
    """Gaussian exp(-d^2 / 2) of the distance between features, by all pairs of pixels."""
    squares = (features_NF**2).sum(axis=1)
    rows = max(1, _CHUNK // len(features_NF))

    def apply(values: Array) -> Array:
        result = np.empty_like(values)
        for first in range(0, len(values), rows):
            here = slice(first, first + rows)
            distance = squares[here, None] + squares - 2 * features_NF[here] @ features_NF.T
            result[here] = np.exp(-np.maximum(distance, 0) / 2) @ values
        return result

    return apply


def fast_filter(features_NF: Array) -> Filter:
    """Gaussian exp(-d^2 / 2) of the distance between features: by the grid where it is small, else by the lattice."""
    small = features_NF.shape[1] <= 3 and np.prod(grid_sizes(features_NF).astype(float)) <= _MOST_CELLS
    return grid_filter(features_NF) if small else lattice_filter(features_NF)


def grid_sizes(features_NF: Array) -> npt.NDArray[np.int64]:
    """Cells along each axis of the features."""
    sizes: npt.NDArray[np.int64] = np.ceil(np.ptp(features_NF, axis=0) / _CELL).astype(np.int64) + _TAPS
    return sizes


def grid_filter(features_NF: Array) -> Filter:
    """Gaussian exp(-d^2 / 2) of the distance between features, approximately: pixels share their values out to the
    cells of a grid over the features, the grid is blurred along each axis, and pixels collect from the same cells.

    Sharing by quadratic splines blurs too, by 1/4 cell^2 each way, so the grid's own blur is so much narrower. Shares are
    scaled to make the kernel of a pixel with itself one.
    """
    from scipy import sparse

    count = len(features_NF)
    sizes = grid_sizes(features_NF)
    lowest = features_NF.min(axis=0)
    index = np.zeros((count, 1), dtype=np.int32)
    share = np.ones((count, 1), dtype=np.float32)
    own = np.ones(count)
    blurs: list[Array] = []
    for axis, size in enumerate(sizes):
        place = (features_NF[:, axis] - lowest[axis]) / _CELL
        middle = np.floor(place + 0.5)
        offset = (place - middle).astype(np.float64)
        shares = np.stack([(0.5 - offset) ** 2 / 2, 0.75 - offset**2, (0.5 + offset) ** 2 / 2], axis=1)
        blur = gaussian(np.arange(size), np.sqrt(1 / _CELL**2 - 1 / 2))
        own *= np.einsum("na,ab,nb->n", shares, blur[:_TAPS, :_TAPS], shares)
        cells = middle.astype(np.int32)[:, None] + np.arange(_TAPS, dtype=np.int32)
        index = (index[:, :, None] * np.int32(size) + cells[:, None, :]).reshape(count, -1)
        share = (share[:, :, None] * shares[:, None, :].astype(np.float32)).reshape(count, -1)
        blurs.append(blur)
    share /= np.sqrt(own).astype(np.float32)[:, None]
    ends = np.arange(count + 1) * share.shape[1]
    sharing = sparse.csr_matrix((share.ravel(), index.ravel(), ends), shape=(count, int(np.prod(sizes))))

    def apply(values: Array) -> Array:
        result = np.empty_like(values)
        together = max(1, _CHUNK // sharing.shape[1])
        for first in range(0, values.shape[1], together):
            some = slice(first, first + together)
            cells = sharing.T @ np.ascontiguousarray(values[:, some])
            for axis, blur in enumerate(blurs):
                cells = np.matmul(blur, cells.reshape(int(np.prod(sizes[:axis])), sizes[axis], -1))
            result[:, some] = sharing @ cells.reshape(sharing.shape[1], -1)
        return result

    return apply


def lattice_filter(features_NF: Array) -> Filter:
    """Gaussian exp(-d^2 / 2) of the distance between features, approximately: pixels share their values out to the
    corners of the simplex that they lie in, which are blurred by (1/2, 1, 1/2) along each direction of the lattice.

    Points next to a corner are kept too, or most of the blur would be lost where pixels are few. Shares are scaled to make
    the kernel of a pixel with itself one: corners k directions apart exchange 2^-k + 2^(k - F - 1). Raises UsageError for
    features of too wide a range.
    """
    from scipy import sparse

    count, axes = features_NF.shape
    corners = axes + 1
    step = np.arange(corners)
    # The plane of coordinates of sum zero, scaled so that the blur and the sharing have the width one together.
    lift = np.triu(np.ones((corners, axes)))
    lift[step[1:], step[:-1]] = -step[1:]
    lift *= np.sqrt(2 / 3) * corners / np.sqrt(step[1:] * (step[1:] + 1))
    lifted = features_NF.astype(np.float64) @ lift.T
    # The nearest point whose coordinates are multiples of the corners' number, brought back to sum zero by rank.
    base = np.round(lifted / corners).astype(np.int64) * corners
    rank = np.argsort(np.argsort(base - lifted, axis=1, kind="stable"), axis=1) + base.sum(axis=1)[:, None] // corners
    turn = np.where(rank < 0, corners, np.where(rank > axes, -corners, 0))
    rank, base = rank + turn, base + turn
    falling = np.take_along_axis(lifted - base, np.argsort(rank, axis=1), axis=1) / corners
    share = np.concatenate([1 - falling[:, :1] + falling[:, -1:], -np.diff(falling, axis=1)[:, ::-1]], axis=1)
    places = (base[:, None] + step[:, None] - corners * (rank[:, None] > axes - step[:, None]))[..., :axes]

    lowest = places.min(axis=(0, 1)) - 2 * corners
    extents = places.max(axis=(0, 1)) + 2 * corners + 1 - lowest
    if np.prod(extents.astype(float)) > _MOST_CODES:
        raise UsageError("refiner crf: kernels as narrow as these cannot be held; take a larger contrast or reach_mm")
    radix = np.cumprod(np.concatenate([[1], extents[:-1]]))
    codes = (places - lowest) @ radix
    moves = radix.sum() - corners * np.concatenate([radix, [0]])
    known = np.unique(codes)
    known = np.unique((known + np.concatenate([[0], moves, -moves])[:, None]).ravel())

    apart = np.abs(step[:, None] - step)
    exchange = 0.5**apart + 0.5 ** (corners - apart) + (apart == 0) * 0.5**corners
    share /= np.sqrt(np.einsum("na,ab,nb->n", share, exchange, share))[:, None]
    index, ends = np.searchsorted(known, codes).ravel(), step.size * np.arange(count + 1)
    sharing = sparse.csr_matrix((share.astype(np.float32).ravel(), index, ends), shape=(count, len(known)))
    blurs = []
    for move in moves:
        at = np.searchsorted(known, known + move).clip(max=len(known) - 1)
        there = known[at] == known + move
        halves = np.full(int(there.sum()), 0.5, dtype=np.float32)
        towards = sparse.csr_matrix((halves, (np.flatnonzero(there), at[there])), shape=(len(known), len(known)))
        blurs.append((sparse.eye(len(known), dtype=np.float32, format="csr") + towards + towards.T).tocsr())

    def apply(values: Array) -> Array:
        spread = sharing.T @ values
        for blur in blurs:
            spread = blur @ spread
        result: Array = sharing @ spread
        return result

    return apply


def gaussian(places: npt.NDArray[Any], width: float) -> Array:
    """(n, n) exp(-d^2 / 2 width^2) of the distances between places on an axis."""
    kernel: Array = np.exp(-((places[:, None] - places) ** 2) / (2 * float(width) ** 2)).astype(np.float32)
    return kernel


def principal_colors(image_HWC: Array, contrast: float) -> Array:
    """The image in axes of its own colours, (H, W, 0..C): those along which it varies by less than 1 % of the contrast
    are left out. Distances between colours stay the same, and a grey picture in three channels becomes one channel."""
    colors = image_HWC.reshape(-1, image_HWC.shape[2]).astype(np.float32)
    colors = colors - colors.mean(axis=0)
    _, directions = np.linalg.eigh(colors.T.astype(np.float64) @ colors)
    turned = colors @ directions[:, ::-1].astype(np.float32)
    varies = np.ptp(turned, axis=0) > 0.01 * contrast
    return np.ascontiguousarray(turned[:, varies]).reshape(*image_HWC.shape[:2], -1)


def boundary_box(channels_HW: Channels, margin: Sequence[int]) -> Box:
    """The box around all boundaries between classes and a margin, as far as the image goes; empty without a boundary."""
    box = []
    for axis, more in enumerate(margin):
        steps = np.diff(channels_HW, axis=axis) != 0
        others = np.diff(channels_HW, axis=1 - axis) != 0
        along = np.zeros(channels_HW.shape[axis], dtype=bool)
        along[:-1] |= steps.any(axis=1 - axis)
        along[1:] |= steps.any(axis=1 - axis)
        along |= others.any(axis=1 - axis)
        found = np.flatnonzero(along)
        box.append(
            slice(max(int(found[0]) - more, 0), min(int(found[-1]) + 1 + more, len(along)))
            if found.size
            else slice(0, 0)
        )
    return tuple(box)


def tiles(box: Box, size: Sequence[int], side: int, margin: Sequence[int]) -> Iterator[tuple[Box, Box, Box]]:
    """Tiles that cover a box of an image once, none longer than `side`; none for an empty box.

    Each: core, window (core and margin, as far as the image goes), core within the window.
    """
    counts = [ceil((b.stop - b.start) / side) for b in box]
    cuts = [np.linspace(b.start, b.stop, count + 1).astype(int).tolist() for b, count in zip(box, counts, strict=True)]
    for core in product(*([slice(*ends) for ends in pairwise(cut)] for cut in cuts)):
        window = tuple(
            slice(max(c.start - m, 0), min(c.stop + m, n)) for c, m, n in zip(core, margin, size, strict=True)
        )
        yield core, window, tuple(slice(c.start - w.start, c.stop - w.start) for c, w in zip(core, window, strict=True))


def _softmax(energy_NK: Array) -> Array:
    shifted = np.exp(energy_NK - energy_NK.max(axis=1, keepdims=True))
    belief: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return belief
