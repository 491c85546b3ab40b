"""Named protocols: which numbers a case gets from prediction, truth and pixel size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError, NoDataError, UsageError, unknown_name
from sampeft.labels import LabelSet
from sampeft.metrics.counts import Counts, class_boxes, count_in_boxes, used_box
from sampeft.metrics.measures import VOLUME, CaseScore, Measures
from sampeft.metrics.overlap import POLICY, dsc
from sampeft.metrics.places import PLACES, Affine, Unit, position_sums, positions_of
from sampeft.metrics.surface import Elements, Surfaces, assd, hausdorff, nsd, surfaces, widened
from sampeft.metrics.targets import TargetCounts, count_targets
from sampeft.volume import IGNORE

Array = npt.NDArray[Any]

FLARE22_TOLERANCE_MM = {
    "liver": 5.0, "right kidney": 3.0, "spleen": 3.0, "pancreas": 5.0, "aorta": 2.0, "inferior vena cava": 2.0,
    "right adrenal gland": 2.0, "left adrenal gland": 2.0, "gallbladder": 2.0, "esophagus": 3.0, "stomach": 5.0,
    "duodenum": 7.0, "left kidney": 3.0,
}  # fmt: skip
"""By FLARE22's ids 1..13, in this order."""
_FLARE22_TUBES = (5, 6, 10)  # aorta, inferior vena cava and esophagus: scored between the truth's ends only

TOLERANCE_MM, TOLERANCE_PX = 2.0, 1.0
"""Tolerances of NSD where nothing else is said."""
_HEADER = 1e-6  # relative: spacings in headers are float32, so 5 x 0.6 mm may read 3.0000001 mm

TARGET_COUNTS = {
    "targets": "targets", "targets_found": "found", "targets_false": "false_targets",
    "targets_false_pixels": "false_pixels", "pixels": "pixels",
}  # fmt: skip
"""Name in scores.csv of each field of TargetCounts."""


@dataclass(frozen=True)
class Tally:
    """What is known of a case before it is scored. Tallies of the files of one case add up.

    counts: of all pixels. kept: of the pixels that the protocol scores. volumes_ml: (2, K) of truth and prediction; None
    for pictures. surfaces, targets: by channel. positions_K3: sums of the positions of the truth's pixels, in mm or pixels; None
    where they are not known.
    """

    counts: Counts
    kept: Counts
    unit: Unit
    volumes_ml: npt.NDArray[np.float64] | None = None
    surfaces: dict[int, Surfaces] = field(default_factory=dict)
    targets: dict[int, TargetCounts] = field(default_factory=dict)
    positions_K3: npt.NDArray[np.float64] | None = None

    def __add__(self, other: Tally) -> Tally:
        if self.unit != other.unit:
            raise DataError("a case has both files with a pixel size in mm and files without; score them as two cases")
        both = self.volumes_ml is not None and other.volumes_ml is not None
        placed = self.positions_K3 is not None and other.positions_K3 is not None
        return Tally(
            self.counts + other.counts,
            self.kept + other.kept,
            self.unit,
            self.volumes_ml + other.volumes_ml if both else None,  # type: ignore[operator]  # neither is None
            {k: found + other.surfaces[k] for k, found in self.surfaces.items()},
            {k: found + other.targets[k] for k, found in self.targets.items()},
            self.positions_K3 + other.positions_K3 if placed else None,  # type: ignore[operator]  # neither is None
        )


@dataclass(frozen=True)
class Protocol:
    """Rules by which label maps become numbers. The name is stamped on every evaluation.

    about: the rules in a sentence or two. elements: what a surface is made of; None: no surfaces. tolerances: NSD's,
    class name -> mm (pixels for pictures without a pixel size), over the defaults. with_background: *the* number is
    the mean over all classes. flare22: whose copy of the challenge's rules. targets: also count single targets in pictures.
    grid: prediction and truth are first drawn on a square of so many pixels (the nearest pixel), as papers do that scale their
    images to one size; None: on the files' own grids.
    """

    name: str
    about: str
    elements: Elements | None = "area"
    tolerances: dict[str, float] = field(default_factory=dict)
    with_background: bool = False
    flare22: Literal["repository", "package"] | None = None
    targets: bool = False
    grid: int | None = None

    def tolerance(self, name: str, unit: Unit) -> float:
        """NSD's tolerance of a class: as given, else FLARE22's of an organ of that name, else 2 mm (1 pixel)."""
        if self.flare22:
            return FLARE22_TOLERANCE_MM[name]
        default = FLARE22_TOLERANCE_MM.get(name, TOLERANCE_MM) if unit == "mm" else TOLERANCE_PX
        return self.tolerances.get(name, default)

    def with_tolerances(self, tolerances: dict[str, float]) -> Protocol:
        """The protocol with other tolerances. Raises UsageError where the protocol fixes them."""
        if tolerances and self.flare22:
            raise UsageError(f"protocol '{self.name}' fixes the tolerances; leave --tolerances out, or use 'default'")
        return replace(self, tolerances=tolerances) if tolerances else self

    def check(self, labels: LabelSet) -> None:
        """Raises UsageError when the protocol does not fit the classes."""
        if unknown := sorted(self.tolerances.keys() - set(labels.names)):
            raise UsageError(
                f"tolerances are given for {', '.join(unknown)}, not among the classes {', '.join(labels.names)}"
            )
        if self.flare22 and labels.ids != tuple(range(14)):
            raise UsageError(
                f"protocol '{self.name}' is for FLARE22's ids 0..13, but the label map has {labels.ids}; use 'default'"
            )

    def score(
        self,
        prediction: Array,
        truth: Array,
        spacing: Sequence[float],
        labels: LabelSet,
        unit: Unit = "mm",
        affine: Affine | None = None,
    ) -> CaseScore:
        """Score a case of one file; see `tally`."""
        return self.finish(self.tally(prediction, truth, spacing, labels, unit, affine), labels)

    def tally(
        self,
        prediction: Array,
        truth: Array,
        spacing: Sequence[float],
        labels: LabelSet,
        unit: Unit = "mm",
        affine: Affine | None = None,
    ) -> Tally:
        """Count and measure one file of a case.

        prediction, truth: class channels of equal shape on the original grid; truth may hold IGNORE.
        spacing: pixel size along each axis in mm, or ones when the unit is px.
        affine: (4, 4) index to mm; without it a truth in mm has no place.
        Raises UsageError when the protocol does not fit the classes or the image.
        """
        self.check(labels)
        if self.flare22:
            return self._tally_flare22(prediction, truth, spacing, unit, affine)
        # A volume of one slice is a picture: an axis of one pixel has no surface of its own.
        axes = [a for a in range(truth.ndim) if truth.shape[a] > 1]
        axes = axes if len(axes) == 2 else list(range(truth.ndim))
        shape, size = [truth.shape[a] for a in axes], [float(spacing[a]) for a in axes]
        prediction, truth = prediction.reshape(shape), truth.reshape(shape)
        if self.grid and len(axes) == 2:
            rows, columns = (_nearest(length, self.grid) for length in shape)
            prediction, truth = prediction[rows][:, columns], truth[rows][:, columns]
        if self.targets and len(axes) != 2:
            raise UsageError(f"protocol '{self.name}' counts targets in pictures, not in volumes; use 'default'")
        found = (
            {k: count_targets(prediction == k, truth == k, truth == IGNORE) for k in labels.foreground}
            if self.targets
            else {}
        )
        prediction, truth, boxes, counts, sums = _boxes(prediction, truth, len(labels), labels.has_background)
        volumes = np.stack([counts.truth, counts.prediction]) * (np.prod(spacing) / 1000) if unit == "mm" else None
        positions = positions_of(sums, counts.truth, axes, unit, affine)
        tally = Tally(counts, counts, unit, volumes, targets=found, positions_K3=positions)
        for k in labels.foreground if self.elements else ():
            known = truth[boxes[k]]
            tally.surfaces[k] = surfaces(
                prediction[boxes[k]] == k, known == k, size, known == IGNORE, self.elements or "area"
            )
        return tally

    def finish(self, tally: Tally, labels: LabelSet) -> CaseScore:
        """The numbers of a case, NaN, 0 and inf by the protocol's rules for what is missing."""
        if self.flare22:
            return self._finish_flare22(tally, labels)
        counts = tally.counts
        nothing = np.full(len(labels), np.nan)
        values: dict[str, npt.NDArray[np.float64]] = {}
        if tally.surfaces:
            near, far, mean = nothing.copy(), nothing.copy(), nothing.copy()
            values = {
                "nsd" if tally.unit == "mm" else "nsd_px": near,
                f"hd95_{tally.unit}": far,
                f"assd_{tally.unit}": mean,
            }
            for k, found in tally.surfaces.items():
                near[k] = nsd(found, self.tolerance(labels.names[k], tally.unit) * (1 + _HEADER))
                far[k], mean[k] = hausdorff(found), assd(found)
        if tally.volumes_ml is not None:
            truth_K, prediction_K = tally.volumes_ml
            absent = counts.tp + counts.fp + counts.fn == 0
            absent[: labels.foreground[0]] = True  # the volume of the background is that of the scan
            percent = 100 * (prediction_K - truth_K) / np.where(truth_K > 0, truth_K, 1.0)
            values[VOLUME] = np.where(absent | (truth_K == 0), np.nan, truth_K)
            values["volume_error_ml"] = np.where(absent, np.nan, prediction_K - truth_K)
            values["volume_error_percent"] = np.where(absent, np.nan, np.where(truth_K > 0, percent, np.inf))
        if tally.targets:
            for name, attribute in {"pd": "pd", "fa": "fa", **TARGET_COUNTS}.items():
                values[name] = np.full(len(labels), np.nan)
                for k, targets in tally.targets.items():
                    values[name][k] = getattr(targets, attribute)
        return CaseScore(counts, Measures(values | _places(tally, labels)))

    def _tally_flare22(
        self, prediction: Array, truth: Array, spacing: Sequence[float], unit: Unit, affine: Affine | None
    ) -> Tally:
        if truth.ndim != 3 or unit != "mm":
            raise UsageError(f"protocol '{self.name}' is for volumes with a pixel size in mm; use 'default'")
        prediction, truth, boxes, counts, sums = _boxes(prediction, truth, len(FLARE22_TOLERANCE_MM) + 1)
        kept = Counts(counts.tp.copy(), counts.fp.copy(), counts.fn.copy())
        tally = Tally(counts, kept, unit, positions_K3=positions_of(sums, counts.truth, range(3), unit, affine))
        for k, tolerance in enumerate(FLARE22_TOLERANCE_MM.values(), 1):
            masks = [prediction[boxes[k]] == k, truth[boxes[k]] == k]
            ignored = truth[boxes[k]] == IGNORE
            masks[0] &= ~ignored
            if k in _FLARE22_TUBES and counts.truth[k]:
                slices = np.flatnonzero(masks[1].any(axis=(0, 1)))
                masks = [mask[..., slices[0] : slices[-1]] for mask in masks]  # the last slice is lost, as officially
                tp, found, true = (np.count_nonzero(m) for m in (masks[0] & masks[1], *masks))
                kept.tp[k], kept.fp[k], kept.fn[k] = tp, found - tp, true - tp
            tally.surfaces[k] = surfaces(masks[0], masks[1], spacing, limit=tolerance)
        return tally

    def _finish_flare22(self, tally: Tally, labels: LabelSet) -> CaseScore:
        overlap_K, near_K = dsc(tally.kept), np.full(len(labels), np.nan)
        for k, tolerance in enumerate(FLARE22_TOLERANCE_MM.values(), 1):
            near_K[k] = nsd(tally.surfaces[k], tolerance)
            if tally.counts.truth[k] + tally.counts.prediction[k] == 0:
                overlap_K[k] = near_K[k] = 1.0
            elif self.flare22 == "repository" and overlap_K[k] < 0.2:
                near_K[k] = 0.0
        values = {"dsc": overlap_K.round(4), "nsd": near_K.round(4)}
        return CaseScore(tally.counts, Measures(values | _places(tally, labels)))


def _places(tally: Tally, labels: LabelSet) -> dict[str, npt.NDArray[np.float64]]:
    """Mean positions of the truth's foreground classes by their names, NaN for a class that it does not have; nothing where
    positions are not known."""
    if tally.positions_K3 is None:
        return {}
    pixels_K1 = tally.counts.truth[:, None]
    means_K3 = np.where(pixels_K1 > 0, tally.positions_K3 / np.maximum(pixels_K1, 1), np.nan)
    means_K3[[k for k in range(len(labels)) if k not in labels.foreground]] = np.nan
    return dict(zip(PLACES[tally.unit], means_K3.T, strict=True))


def _nearest(length: int, wanted: int) -> npt.NDArray[np.int64]:
    """Index of the pixel that each of the wanted ones shows."""
    return np.minimum((np.arange(wanted) + 0.5) * length / wanted, length - 1).astype(np.int64)


def _boxes(
    prediction: Array, truth: Array, classes: int, background: bool = True
) -> tuple[Array, Array, list[tuple[slice, ...]], Counts, npt.NDArray[np.int64]]:
    """Both arrays without the border that is background in both, each class's box in them, and of the whole the counts and the
    truth's `position_sums`, without those of the background.

    Raises ValueError for unequal shapes and for values that are no channel.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    pixels = truth.size
    used = used_box(prediction, truth) if background else tuple(slice(0, length) for length in truth.shape)
    prediction, truth = prediction[used], truth[used]
    boxes = class_boxes((prediction, truth), classes)
    counts = count_in_boxes(prediction, truth, boxes)
    counts.tp[0] += pixels - truth.size
    sums = position_sums(truth, boxes, [side.start for side in used], range(int(background), classes))
    if truth.size and truth.min() == IGNORE:
        boxes = [widened(box, truth.shape) for box in boxes]
    return prediction, truth, boxes, counts, sums


_COMMON = "surfaces by area; surface distances are inf and NSD 0 for a class in only one of truth and prediction"
_FLARE22 = (
    "official rules of FLARE22: a class in neither scores 1, in only one 0; aorta, inferior vena cava and esophagus are "
    "scored between the truth's first and last slice, the last left out; 4 decimals"
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("default", f"{POLICY}; {_COMMON}"),
        Protocol("flare22", f"{_FLARE22}; NSD is 0 where DSC is below 0.2", flare22="repository"),
        Protocol("flare22-package", f"{_FLARE22}; as the package flare22-dsc-nsd-test", flare22="package"),
        Protocol("paper", f"averages are over all classes, background among them; {POLICY}", with_background=True),
        Protocol("pixels", f"{POLICY}; surfaces by border pixels of equal weight (MONAI, medpy)", elements="pixels"),
        Protocol("targets", f"{POLICY}; single targets in pictures, matched within 3 pixels", targets=True),
        Protocol(
            "targets-256",
            f"{POLICY}; single targets, matched within 3 pixels, in maps scaled to 256 x 256 as DNANet scores",
            targets=True,
            grid=256,
        ),
        Protocol("land-cover", f"{POLICY}; figures of all pixels together, no surfaces", elements=None),
    )
}


def check_protocol(name: str) -> None:
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)


def protocol_of(name: str, tolerances: Path | None = None) -> Protocol:
    """A protocol by name, with the tolerances of a JSON file {"class": mm}. Raises UsageError or DataError."""
    check_protocol(name)
    return PROTOCOLS[name].with_tolerances(read_tolerances(tolerances) if tolerances else {})


def read_tolerances(path: Path) -> dict[str, float]:
    """Class name -> tolerance from a JSON object of numbers above 0. Raises DataError naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoDataError(
            f"{path}: cannot be read ({error.strerror}); tolerances are a JSON of class names and mm"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < np.inf
        for value in content.values()
    ):
        raise DataError(
            f'{path}: expected a JSON object of tolerances above 0 in mm, such as {{"liver": 5, "aorta": 2}}'
        )
    return {str(name): float(value) for name, value in content.items()}
