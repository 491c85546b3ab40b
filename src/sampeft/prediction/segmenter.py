"""A trained run, ready to predict: images of any kind -> class maps on their own grids, or files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import RANDOM
from sampeft.console import Timing
from sampeft.data.raster_scale import Scale
from sampeft.data.slice_cache import Preparation, PreparedVolume
from sampeft.errors import UsageError
from sampeft.io import read_volume
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft.state import name_of
from sampeft.prediction.array_volume import volume_of
from sampeft.prediction.bands import Channels
from sampeft.prediction.batch_size import Batch
from sampeft.prediction.network import InferenceOptions
from sampeft.prediction.outputs import Job, Output, output_of
from sampeft.prediction.pipeline import Progress, Watched, predict_scenes
from sampeft.prediction.prompting import Prompter
from sampeft.prediction.scene import Scene, open_scene
from sampeft.prediction.sinks import ClassMap
from sampeft.prediction.tiling import RasterOptions
from sampeft.prediction.tta import View, views
from sampeft.refine import Refiner
from sampeft.volume import Volume

if TYPE_CHECKING:
    from sampeft.engines import Engine

Image = Path | str | Volume | npt.NDArray[Any]
"""What can be segmented: a file or a DICOM series, a Volume, or an array as `volume_of` takes it."""


@dataclass(frozen=True, repr=False)
class Segmenter:
    """A trained model with all that belongs to it. Several threads may use one, and several over one base.

    source: the model, or what makes it when it is first needed; an engine's kept graph needs none. description: the content
    of its adapter.json. refiner: what mends its class maps, if anything. engine: what runs the network; None: the model
    itself. views: how many views of each slice are averaged.
    """

    source: SemanticSam | Callable[[], SemanticSam]
    labels: LabelSet
    preparation: Preparation
    description: dict[str, Any]
    refiner: Refiner | None = None
    engine: Engine | None = None
    views: int = 1

    @cached_property
    def model(self) -> SemanticSam:
        return cast(SemanticSam, self.source) if isinstance(self.source, torch.nn.Module) else self.source()

    @property
    def name(self) -> str:
        """What tables call it, such as `lite-medsam lora r=4, pixel head x 2 + components`."""
        words = [name_of(self.description)]
        words += [f"x {len(runs)}"] if (runs := self.description.get("ensemble")) else []
        return " ".join(words + ([f"+ {self.refiner.name}"] if self.refiner else []))

    @property
    def shown(self) -> tuple[View, ...]:
        """The views of each slice that are averaged: mirrored and turned ones first, where the run was trained on such."""
        return views(self.views, self.description.get("symmetries", 1))

    @property
    def least_share(self) -> float:
        """Of a picture, that a class must fill to be drawn in it."""
        return float(self.description.get("least_share", 0.0))

    @property
    def has_random_weights(self) -> bool:
        return bool(self.description["weights_sha256"] == RANDOM)

    @property
    def cautions(self) -> list[str]:
        """What whoever uses its predictions must know of its training."""
        found = ["this run was trained from RANDOM WEIGHTS"] if self.has_random_weights else []
        if self.description.get("data", {}).get("synthetic"):
            found.append(
                "this run was trained on SYNTHETIC DATA alone, images that a program drew; on real ones it is a guess"
            )
        return found

    def __repr__(self) -> str:
        described = self.description
        shares = [described.get(name) for name in ("trainable", "total")]
        trained = f", {shares[0]:,} of {shares[1]:,} parameters trained" if all(shares) else ""
        names = [self.labels.names[k] for k in self.labels.foreground]
        classes = f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
        return (
            f"Segmenter({self.name}, side {self.preparation.side}{trained}\n"
            f"          {len(names)} classes: {classes}\n"
            f"          engine {self.engine.name if self.engine else 'torch'}, {self.views} view{'s' * (self.views != 1)})"
        )

    @property
    def scale(self) -> Scale:
        """At what scale pictures were seen in training."""
        return Scale.from_json(self.description)

    def scene(self, image: Path | Volume | PreparedVolume, rasters: RasterOptions | None = None) -> Scene:
        """An image as this run looks at it; see `open_scene`."""
        return open_scene(image, self.preparation, self.scale, rasters)

    def class_map(self) -> ClassMap:
        """What makes the class map that this segmenter predicts."""
        slices = self.refiner is not None and self.refiner.looks_at_slices()
        return ClassMap(self.labels, self.refiner, self.model if slices else None)

    def predict_scenes(
        self,
        scenes: Iterable[Watched],
        batch: Batch = "auto",
        progress: Progress | None = None,
        stages: Timing | None = None,
        temperature: float = 1.0,
        disagreement: bool = False,
    ) -> Iterator[Watched]:
        """As `predict_scenes`, by this model, which is made only where no engine takes its place.

        disagreement: of the views, where there are several.
        """
        options = InferenceOptions(
            batch, self.engine, self.shown, self.least_share, temperature, disagreement and self.views > 1
        )
        model = self.model if self.engine is None else None
        return predict_scenes(model, scenes, len(self.labels), options, progress, stages)

    def predict(
        self,
        image: Image,
        batch: Batch = "auto",
        progress: Progress | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
        rasters: RasterOptions | None = None,
    ) -> Channels:
        """Class channels on the grid of an image; `labels.to_ids` turns them into file ids.

        image: a file, a volume, or an array: (H, W) or (H, W, 3), or with `spacing_mm` of slices, rows and columns
        (S, H, W), whose slices are taken along the first axis and shown as they are. An array gives (H, W) or (S, H, W).
        rasters: how a picture larger than those of training is cut into windows; as `sampeft predict` does where not given.
        """
        return next(self._predicted([image], batch, progress, spacing_mm, rasters))

    def predict_many(
        self,
        images: Iterable[Image],
        batch: Batch = "auto",
        progress: Progress | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
        rasters: RasterOptions | None = None,
    ) -> list[Channels]:
        """What `predict` gives for each; small pictures share batches, which is faster on a graphics card."""
        return list(self._predicted(images, batch, progress, spacing_mm, rasters))

    def _predicted(
        self,
        images: Iterable[Image],
        batch: Batch,
        progress: Progress | None,
        spacing_mm: tuple[float, float, float] | None,
        rasters: RasterOptions | None,
    ) -> Iterator[Channels]:
        flat: deque[bool] = deque()

        def scenes() -> Iterator[Watched]:
            for image in images:
                flat.append(isinstance(image, np.ndarray) and spacing_mm is None)
                if isinstance(image, np.ndarray):
                    shown = self.preparation.as_shown(stack=spacing_mm is not None)
                    scene = open_scene(volume_of(image, spacing_mm), shown, self.scale, rasters)
                else:
                    scene = self.scene(image if isinstance(image, Volume) else Path(image), rasters)
                yield scene, [self.class_map()]

        for _, (made,) in self.predict_scenes(scenes(), batch, progress):
            channels = cast(ClassMap, made).on_own_grid()
            yield channels[:, :, 0] if flat.popleft() else channels

    def segment(
        self,
        image: Image,
        *,
        boxes: Sequence[Sequence[float]] = (),
        points: Sequence[Sequence[Sequence[float]]] = (),
        slice: int | None = None,
        adapted: bool = False,
        spacing_mm: tuple[float, float, float] | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Masks (N, H, W) of one slice by prompts in its pixels: one mask per box and per list of points.

        boxes: (x0, y0, x1, y1) each. points: lists of (x, y, inside), inside 1 or 0. With as many boxes as lists of points,
        each pair makes one mask. slice: number of the slice, counted from 0; a picture has one, and needs none. adapted: with
        the trained adapter in place; else by the pretrained model, which knows any object. spacing_mm: as in `predict`.
        Raises UsageError for prompts that fit neither, and for a volume without a slice.
        """
        volume = volume_of(image, spacing_mm) if isinstance(image, np.ndarray) else image
        volume = volume if isinstance(volume, Volume) else read_volume(Path(volume))
        prepared = PreparedVolume.of(volume, self.preparation.as_shown(stack=spacing_mm is not None))
        if slice is None and len(prepared) > 1:
            raise UsageError(
                f"{volume.path}: is a volume of {len(prepared)} slices; say in which one, such as slice={len(prepared) // 2}"
            )
        slice = slice or 0
        if not 0 <= slice < len(prepared):
            raise UsageError(f"{volume.path}: has slices 0..{len(prepared) - 1}, not {slice}")
        return Prompter(self.model, prepared, slice, adapted)(boxes, points) > 0

    def predict_file(
        self,
        image: Path | str,
        out: Path | str,
        batch: Batch = "auto",
        progress: Progress | None = None,
        nifti: bool = False,
        rasters: RasterOptions | None = None,
    ) -> Path:
        """Segment an image file or series; the label map goes to the folder `out` under its name. Returns its path.

        nifti: write NIfTI for DICOM, too. It is written as well when nothing was found, of which no DICOM SEG can tell.
        rasters: how pictures and rasters are looked at, and outlines and areas of them.
        """
        job = Job(Path(out), batch, nifti=nifti, rasters=rasters or RasterOptions())
        return self.write_prediction(Path(image), job, progress)[0]

    def write_prediction(self, image: Path, job: Job, progress: Progress | None = None) -> tuple[Path, dict[str, Any]]:
        """Segment an image file or series and write what is asked for: (file of the class map, what is known of the case).

        Memory holds a volume or picture, or rows of windows: of a GeoTIFF W x (classes x overlapping rows x 4 bytes + window
        rows x bands), whatever its height. Raises UsageError when no window can be chosen or a refiner does not go with
        windows, DataError as `read_volume`, OSError when it cannot be written.
        """
        with output_of(self.scene(image, job.rasters), image, job, self) as output:
            self.predict_output(output, progress)
            return output.write()

    def predict_output(self, output: Output, progress: Progress | None = None, stages: Timing | None = None) -> None:
        """Show an output the prediction that it writes."""
        job, watched = output.job, [(output.scene, output.sinks)]
        for _ in self.predict_scenes(watched, job.batch, progress, stages, job.temperature, job.uncertainty):
            pass
