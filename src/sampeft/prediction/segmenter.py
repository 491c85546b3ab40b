"""A trained model and a volume, picture or array in, the class map on its own grid out; slices are streamed."""

from __future__ import annotations

import logging
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
from sampeft.data.cache import Preparation, PreparedVolume
from sampeft.data.scale import Scale
from sampeft.errors import UsageError
from sampeft.io import file_stem, portable_name, read_volume, write_map
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft.state import name_of
from sampeft.prediction.array_volume import volume_of
from sampeft.prediction.batch_size import Batch
from sampeft.prediction.overlap import behind
from sampeft.prediction.prompting import Prompter
from sampeft.prediction.reading import Reader
from sampeft.prediction.slice_maps import Channels, Place, Said, evidence, said_of
from sampeft.prediction.test_time import View, views
from sampeft.refine import Refiner
from sampeft.volume import Volume

if TYPE_CHECKING:
    from sampeft.engines import Engine

Progress = Callable[[int, int], None]
Image = Path | str | Volume | npt.NDArray[Any]
"""What can be segmented: a file or a DICOM series, a Volume, or an array as `volume_of` takes it."""


@dataclass(frozen=True)
class Way:
    """How slices go through the network and what follows it.

    batch: slices at a time, or `auto` by the free memory. engine: what runs the network instead of the model. shown:
    the views of each slice that are averaged. refiner: what mends the class maps.
    reader: what looks at the logits on the way. stages: what adds up the seconds. least_share: see `said_of`.
    """

    batch: Batch = "auto"
    engine: Engine | None = None
    shown: Sequence[View] = (View(),)
    refiner: Refiner | None = None
    reader: Reader | None = None
    stages: Timing | None = None
    least_share: float | None = None


def predict_volume(
    model: torch.nn.Module,
    volume: Volume,
    preparation: Preparation,
    batch: Batch = "auto",
    progress: Progress | None = None,
    refiner: Refiner | None = None,
) -> Channels:
    """Class channels (I, J, K) on the grid of the volume. No labels needed; memory holds one class map and a batch."""
    return next(predict_volumes(model, [(volume, preparation)], Way(batch, refiner=refiner), progress))


def predict_volumes(
    model: torch.nn.Module | None,
    volumes: Iterable[tuple[Volume, Preparation]],
    way: Way,
    progress: Progress | None = None,
) -> Iterator[Channels]:
    """Class channels of one volume after another, each on its own grid. A batch may hold slices of several, as of many
    small pictures.

    model: None where an engine takes its place and no refiner asks for it. progress: (slices done, slices) of the volume
    that is worked on.
    """
    stages = way.stages or Timing()

    def places() -> Iterator[Place]:
        for volume, preparation in volumes:
            with stages.of("prepare"):
                prepared = PreparedVolume.of(volume, preparation)
            yield from ((prepared, s) for s in range(len(prepared)))

    def mapped(said: Said) -> tuple[Said, Channels]:
        with stages.of("finish"):
            frame = said.prepared.frame
            channels = way.reader(said) if way.reader else None
            if way.refiner is None:
                return said, frame.class_map(said.logits_Khw) if channels is None else channels
            scaled = frame.logits(said.logits_Khw)
            rough = frame.placed(scaled) if channels is None else channels
            assert model is not None, "a refiner goes with a model"
            return said, way.refiner.refine_slice(evidence(model, said.prepared, said.slice, scaled, rough))

    ready = model.eval() if model is not None else None
    found = said_of(ready, places(), way.batch, way.engine, way.shown, stages, way.least_share)
    for said, channels_HW in behind(mapped, found):
        prepared, s = said.prepared, said.slice
        if s == 0:
            result = np.zeros(prepared.slices.shape[:3], dtype=np.uint8)
        result[s] = channels_HW
        if progress:
            progress(s + 1, len(prepared))
        if s + 1 == len(prepared):
            with stages.of("finish"):
                if way.refiner:
                    labels = cast(SemanticSam, model).labels
                    spacing_mm = prepared.view.spacing_mm
                    result = way.refiner.refine_measured(result, prepared.missing, spacing_mm, labels)
                whole = prepared.view.restore(result)
            yield whole


def output_stem(image: Path) -> str:
    """Name of the label map of an image; the channel number of nnU-Net's and FLARE's names is left out, as they do, and a
    name that Windows would not take is changed."""
    return portable_name(file_stem(image).removesuffix("_0000"))


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

    def way(self, batch: Batch = "auto", reader: Reader | None = None, stages: Timing | None = None) -> Way:
        """How this segmenter's own predictions go."""
        return Way(batch, self.engine, self.shown, self.refiner, reader, stages, self.least_share)

    def predict(
        self,
        image: Image,
        batch: Batch = "auto",
        progress: Progress | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
    ) -> Channels:
        """Class channels on the grid of an image; `labels.to_ids` turns them into file ids.

        image: a file, a volume, or an array: (H, W) or (H, W, 3), or with `spacing_mm` of slices, rows and columns
        (S, H, W), whose slices are taken along the first axis and shown as they are. An array gives (H, W) or (S, H, W).
        A picture is scaled to the network's square, however large it is, with a warning for a file that is larger than
        those of training; `predict_raster` cuts it into windows.
        """
        return next(self._predicted([image], batch, progress, spacing_mm))

    def predict_many(
        self,
        images: Iterable[Image],
        batch: Batch = "auto",
        progress: Progress | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
    ) -> list[Channels]:
        """What `predict` gives for each; small pictures share batches, which is faster on a graphics card."""
        return list(self._predicted(images, batch, progress, spacing_mm))

    def _predicted(
        self,
        images: Iterable[Image],
        batch: Batch,
        progress: Progress | None,
        spacing_mm: tuple[float, float, float] | None,
    ) -> Iterator[Channels]:
        flat: list[bool] = []

        def volumes() -> Iterator[tuple[Volume, Preparation]]:
            for image in images:
                if isinstance(image, np.ndarray):
                    flat.append(spacing_mm is None)
                    yield volume_of(image, spacing_mm), self.preparation.as_shown(stack=spacing_mm is not None)
                else:
                    flat.append(False)
                    volume = image if isinstance(image, Volume) else read_volume(Path(image))
                    self._tell_if_shrunk(volume)
                    yield volume, self.preparation

        for number, channels in enumerate(self.predict_volumes(volumes(), self.way(batch), progress)):
            yield channels[:, :, 0] if flat[number] else channels

    def _tell_if_shrunk(self, volume: Volume) -> None:
        scale = Scale.from_json(self.description)
        size = volume.grid[:2]
        if volume.is_raster and scale.pixels and not scale.shows_whole(size, (scale.pixels, scale.pixels)):
            logging.getLogger("sampeft").warning(
                "warning: %s: has %d x %d pixels, training's pictures about %d; it is shrunk to the network's square, and what "
                "is small is lost; sampeft.prediction.large_raster.predict_raster looks at it by windows, as `sampeft "
                "predict` does",
                *(volume.path, size[1], size[0], scale.pixels),
            )

    def predict_volumes(
        self, volumes: Iterable[tuple[Volume, Preparation]], way: Way, progress: Progress | None = None
    ) -> Iterator[Channels]:
        """As `predict_volumes`, by this model, which is made only when the way needs it."""
        model = self.model if way.engine is None or way.refiner else None
        return predict_volumes(model, volumes, way, progress)

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
    ) -> Path:
        """Segment an image file or series; the label map goes to the folder `out` under its name. Returns its path.

        nifti: write NIfTI for DICOM, too. It is written as well when nothing was found, of which no DICOM SEG can tell.
        """
        volume = read_volume(Path(image))
        channels = self.predict(volume, batch, progress)
        return write_map(Path(out) / output_stem(Path(image)), channels, self.labels, volume, nifti)
