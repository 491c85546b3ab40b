"""A model and slices in, their logits and class maps one after another out; preparing, the network and what follows it
run beside each other, and no more than a few slices are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from sampeft.console import Timing
from sampeft.data.cache import PreparedVolume
from sampeft.heads.given import without_small
from sampeft.model import SemanticSam
from sampeft.prediction.batch_size import Batch, BatchSize, memory_in_words
from sampeft.prediction.model_lock import lock_of
from sampeft.prediction.overlap import ahead, behind
from sampeft.prediction.prompting import Prompter
from sampeft.prediction.test_time import View, mean_of_views
from sampeft.refine import Evidence, Refiner

if TYPE_CHECKING:
    from sampeft.engines import Engine

Channels = npt.NDArray[np.uint8]
Place = tuple[PreparedVolume, int]
"""A slice of a volume."""


@dataclass(frozen=True)
class Said:
    """What the network says of a slice: logits (K, h, w) of the square and, with several views of it, the share (h, w) of
    them that see another class."""

    prepared: PreparedVolume
    slice: int
    logits_Khw: torch.Tensor
    disagreement_hw: torch.Tensor | None = None


def said_of(
    model: torch.nn.Module | None,
    places: Iterable[Place],
    batch: Batch = "auto",
    engine: Engine | None = None,
    shown: Sequence[View] = (View(),),
    stages: Timing | None = None,
    least_share: float | None = None,
) -> Iterator[Said]:
    """What the network says of slices, which may be of several volumes, in their order; at most two batches wait.

    batch: slices that go through the network together; `auto`: what the free memory allows. engine: what runs the network
    instead of the model, which may then be None. shown: views of each slice, whose mean counts. least_share: of the slice, that
    a class must fill to be drawn in it; None: what the model says.
    Raises SampeftError when the memory does not suffice.
    """
    stages = stages or Timing()
    size = BatchSize(batch if engine is None or batch != "auto" else 4)
    network = cast(torch.nn.Module, model if model is not None else engine)
    share = getattr(model, "least_share", 0.0) if least_share is None else least_share

    def prepare(places: list[Place]) -> tuple[list[Place], list[torch.Tensor]]:
        with stages.of("prepare"), torch.inference_mode():
            windows = {id(p): [view.windowed(p) for view in shown] for p, _ in places}
            images = [torch.stack([windows[id(p)][v].image(s) for p, s in places]) for v in range(len(shown))]
            return places, [view.moved(images_B3HW) for view, images_B3HW in zip(shown, images, strict=True)]

    def grouped() -> Iterator[list[Place]]:
        group: list[Place] = []
        for place in places:
            group.append(place)
            if len(group) >= size.now:
                yield group
                group = []
        if group:
            yield group

    for group, images in ahead(prepare, grouped()):
        with stages.of("network"), memory_in_words(len(group)), lock_of(network), torch.inference_mode():
            found = []
            for images_B3HW in images:
                if engine is not None:
                    found.append(engine(images_B3HW))
                    continue
                with size.measured(network, len(group)):
                    found.append(network(images_B3HW.to(next(network.parameters()).device)).float().cpu())
            mean_BKhw, disagreement_Bhw = mean_of_views(found, shown)
            logits_BKhw = without_small(mean_BKhw, share, [prepared.frame.filled for prepared, _ in group])
        for i, (prepared, s) in enumerate(group):
            yield Said(prepared, s, logits_BKhw[i], None if disagreement_Bhw is None else disagreement_Bhw[i])


def slice_logits(
    model: torch.nn.Module,
    prepared: PreparedVolume,
    batch: Batch = 4,
    shown: Sequence[View] = (View(),),
    least_share: float | None = None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """(slice index, logits (K, h, w) of the square) of one slice after another; see `said_of`."""
    places = ((prepared, s) for s in range(len(prepared)))
    for said in said_of(model, places, batch, shown=shown, least_share=least_share):
        yield said.slice, said.logits_Khw


def predict_slices(
    model: torch.nn.Module,
    prepared: PreparedVolume,
    batch: Batch = 4,
    refiner: Refiner | None = None,
    read: Callable[[int, torch.Tensor], None] | None = None,
    shown: Sequence[View] = (View(),),
) -> Iterator[tuple[int, Channels]]:
    """(slice index, class channels (H, W)) of one slice after another, as `class_maps` makes them."""
    return class_maps(model, prepared, slice_logits(model, prepared, batch, shown), refiner, read)


def class_maps(
    model: torch.nn.Module,
    prepared: PreparedVolume,
    logits: Iterable[tuple[int, torch.Tensor]],
    refiner: Refiner | None = None,
    read: Callable[[int, torch.Tensor], None] | None = None,
) -> Iterator[tuple[int, Channels]]:
    """Logits of the square, slice by slice -> (slice index, class channels (H, W)), by a thread beside the one that makes
    the logits.

    refiner: what mends the maps; one that looks at whole volumes gets all slices before the first is given on.
    read: sees the logits (K, box height, box width) of every slice on the way, in that thread.
    """

    def mapped(given: tuple[int, torch.Tensor]) -> tuple[int, Channels]:
        s, logits_Khw = given
        if refiner is None and read is None:
            return s, prepared.frame.class_map(logits_Khw)
        scaled = prepared.frame.logits(logits_Khw)
        if read:
            read(s, scaled)
        channels = prepared.frame.placed(scaled)
        return s, refiner.refine_slice(evidence(model, prepared, s, scaled, channels)) if refiner else channels

    maps = behind(mapped, logits)
    if refiner is None:
        yield from maps
    else:
        whole = np.stack([channels for _, channels in maps])
        labels = cast(SemanticSam, model).labels
        yield from enumerate(refiner.refine_measured(whole, prepared.missing, prepared.view.spacing_mm, labels))


def evidence(
    model: torch.nn.Module, prepared: PreparedVolume, s: int, logits: torch.Tensor, channels: npt.NDArray[Any]
) -> Evidence:
    """What a refiner gets to see of a slice; outside the box that the network saw, channel 0 is certain."""
    top, left, bottom, right = prepared.frame.box
    probabilities = np.zeros((len(logits), *prepared.frame.size), dtype=np.float32)
    probabilities[0] = 1.0
    probabilities[:, top:bottom, left:right] = logits.softmax(dim=0).numpy()
    semantic = cast(SemanticSam, model)
    return Evidence(
        np.moveaxis(prepared.levels.compact(prepared.slices[s]), 0, -1),
        probabilities,
        channels,
        semantic.labels,
        prepared.view.spacing_mm[1:],
        Prompter(semantic, prepared, s),
    )
