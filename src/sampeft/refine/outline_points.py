"""Prompt the model with points of the rough outlines.

Points just inside and just outside of a component's outline, and its box, tell a promptable model what is meant also
where a shape is irregular and a box alone would hold mostly something else (the paper's section 5.1, future work).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sampeft.refine import Channels, Evidence, Refiner

Mask = npt.NDArray[np.bool_]
Point = tuple[float, float, int]
Box = tuple[float, float, float, float]

_EIGHT = np.ones((3, 3), dtype=bool)
_PROMPTS_AT_ONCE = 32
_LEAST_POINTS = 3  # on the longest outline of a component


@dataclass(frozen=True)
class OutlinePoints(Refiner):
    """Draws each component (8 neighbours) of each foreground class anew by the promptable model.

    ask: by `points` on both sides of the outline, by the `box`, or by `both`. Models that were trained on boxes only, as
    LiteMedSAM and MedSAM, do better by the `box` (docs/adr/0010).
    step_mm: outline between two points; most_points: at most so many on either side, further apart on long outlines.
    inset_mm: how far the points are from the outline. margin_mm: how far the box is outside of the component.
    band_mm: pixels further from the component's outline stay as they are. Millimetres are pixels where unknown.
    least_overlap: a drawn mask with a smaller intersection over union with the rough component is not used.
    least_pixels: smaller components are left alone.

    A pixel whose own component keeps it stays; one that its component gives up, and background, goes to the component
    that grew over it, of several to that with the highest logit. Given up and not taken it is background, or stays
    where the label map has none.
    """

    name: ClassVar[str] = "outline-points"
    about: ClassVar[str] = "points along the outline and the box of each component prompt the pretrained model"
    needs_prompt: ClassVar[bool] = True
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "ask": ("box", "both", "points"),
        "least_overlap": (0.8, 0.65, 0.5),
        "margin_mm": (0.0, 2.0, 4.0),
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "step_mm": (1.0, 1000.0),
        "most_points": (3, 100),
        "inset_mm": (0.5, 50.0),
        "margin_mm": (0.0, 50.0),
        "band_mm": (0.5, 100.0),
        "least_overlap": (0.01, 1.0),
        "least_pixels": (2, 10**6),
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"ask": ("both", "box", "points")}

    ask: str = "both"
    step_mm: float = 12.0
    most_points: int = 12
    inset_mm: float = 3.0
    margin_mm: float = 2.0
    band_mm: float = 8.0
    least_overlap: float = 0.65
    least_pixels: int = 30

    def refine_slice(self, evidence: Evidence) -> Channels:
        """(H, W) class channels; raises ValueError when there is no promptable model to ask."""
        if evidence.prompt is None:
            raise ValueError(f"refiner {self.name} needs a promptable model, but the evidence has none")
        rough_HW = evidence.channels_HW
        components = [
            (k, component, self.box_round(component, evidence.spacing_mm), points)
            for k in evidence.labels.foreground
            for component, points in self.outlined(rough_HW == k, evidence.spacing_mm)
        ]
        free_HW = rough_HW == 0 if evidence.labels.has_background else np.zeros(rough_HW.shape, dtype=bool)
        given_up_HW = np.zeros(rough_HW.shape, dtype=bool)
        taken_by_HW, strength_HW = rough_HW.copy(), np.full(rough_HW.shape, -np.inf)
        for start in range(0, len(components), _PROMPTS_AT_ONCE):
            some = components[start : start + _PROMPTS_AT_ONCE]
            asked: dict[str, Any] = {}
            if self.ask != "points":
                asked["boxes"] = [box for _, _, box, _ in some]
            if self.ask != "box":
                asked["points"] = [points for _, _, _, points in some]
            for (k, component, _, _), logits_HW in zip(some, evidence.prompt(**asked), strict=True):
                drawn = logits_HW > 0
                if (drawn & component).sum() < self.least_overlap * (drawn | component).sum():
                    continue
                drawn = self._within_band(drawn, component, evidence.spacing_mm)
                given_up_HW |= component & ~drawn
                grown = drawn & ~component & (logits_HW > strength_HW)
                taken_by_HW[grown], strength_HW[grown] = k, logits_HW[grown]
        result_HW = rough_HW.copy()
        if evidence.labels.has_background:
            result_HW[given_up_HW] = 0
        taken = np.isfinite(strength_HW) & (free_HW | given_up_HW)
        result_HW[taken] = taken_by_HW[taken]
        return result_HW

    def outlined(self, class_HW: Mask, spacing_mm: tuple[float, float]) -> Iterator[tuple[Mask, list[Point]]]:
        """Each large enough component with its points (x, y, inside): 1 in it, 0 in no part of its class."""
        from scipy import ndimage
        from scipy.spatial import KDTree

        parts, _ = ndimage.label(class_HW, _EIGHT)
        sizes = np.bincount(parts.ravel())
        if not (sizes[1:] >= self.least_pixels).any():
            return
        depth_HW = ndimage.distance_transform_edt(np.pad(class_HW, 1), sampling=spacing_mm)[1:-1, 1:-1]
        away_HW = ndimage.distance_transform_edt(~class_HW, sampling=spacing_mm)
        outside_N2 = np.argwhere(away_HW >= self.inset_mm)
        outside = KDTree(outside_N2 * spacing_mm) if len(outside_N2) else None
        for part in range(1, len(sizes)):
            if sizes[part] < self.least_pixels:
                continue
            component = parts == part
            # Thin parts have no pixel as deep as that: their deepest then.
            deepest = min(self.inset_mm, float(depth_HW[component].max()))
            inside_N2 = np.argwhere(component & (depth_HW >= deepest))
            outline_mm = self._spaced_outline(component, spacing_mm)
            _, nearest = KDTree(inside_N2 * spacing_mm).query(outline_mm)
            points = [(float(x), float(y), 1) for y, x in np.unique(inside_N2[nearest], axis=0)]
            if outside is not None:
                # In a narrow gap or at the picture's edge there may be no such place near the outline.
                distance, nearest = outside.query(outline_mm, distance_upper_bound=3 * self.inset_mm)
                near_N2 = np.unique(outside_N2[nearest[np.isfinite(distance)]], axis=0)
                points += [(float(x), float(y), 0) for y, x in near_N2]
            yield component, points

    def box_round(self, component: Mask, spacing_mm: tuple[float, float]) -> Box:
        """(x0, y0, x1, y1) from the outer edge of the first pixel to that of the last, with the margin, in the picture."""
        (height, width), (row_mm, column_mm) = component.shape, spacing_mm
        rows, columns = (np.flatnonzero(component.any(axis=axis)) for axis in (1, 0))
        x, y = self.margin_mm / column_mm + 0.5, self.margin_mm / row_mm + 0.5
        return (
            max(float(columns[0]) - x, -0.5),
            max(float(rows[0]) - y, -0.5),
            min(float(columns[-1]) + x, width - 0.5),
            min(float(rows[-1]) + y, height - 0.5),
        )

    def _spaced_outline(self, component: Mask, spacing_mm: tuple[float, float]) -> npt.NDArray[np.float64]:
        """(N, 2) positions (row, column) in mm, evenly spaced along each closed outline, those round holes among them."""
        from skimage.measure import find_contours

        outlines = [(line - 1) * spacing_mm for line in find_contours(np.pad(component, 1).astype(float), 0.5)]
        along = [np.r_[0, np.cumsum(np.hypot(*np.diff(line, axis=0).T))] for line in outlines]
        longest = max(range(len(along)), key=lambda i: along[i][-1])
        step = max(self.step_mm, sum(length[-1] for length in along) / self.most_points)
        positions = []
        for i, (line, length) in enumerate(zip(outlines, along, strict=True)):
            count = max(round(length[-1] / step), _LEAST_POINTS if i == longest else 0)
            at = np.arange(count) * length[-1] / max(count, 1)
            positions.append(np.stack([np.interp(at, length, line[:, axis]) for axis in (0, 1)], axis=1))
        return np.concatenate(positions)

    def _within_band(self, drawn: Mask, component: Mask, spacing_mm: tuple[float, float]) -> Mask:
        """What was drawn near the component's outline, and the component as it is elsewhere."""
        from scipy import ndimage

        reach = [ceil(self.band_mm / mm) + 1 for mm in spacing_mm]
        spans = (np.flatnonzero(component.any(axis=axis)) for axis in (1, 0))
        window = tuple(slice(max(s[0] - r, 0), s[-1] + r + 1) for s, r in zip(spans, reach, strict=True))
        inner = component[window]
        away = ndimage.distance_transform_edt(~inner, sampling=spacing_mm)
        depth = ndimage.distance_transform_edt(np.pad(inner, 1), sampling=spacing_mm)[1:-1, 1:-1]
        result = np.zeros_like(component)
        result[window] = (drawn[window] & (away <= self.band_mm)) | (depth > self.band_mm)
        return result
