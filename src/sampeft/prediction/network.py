"""Windows of any scenes through the network, in batches; preparing them goes on beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from sampeft.console import Timing
from sampeft.heads.given import without_small
from sampeft.prediction.background import prefetch
from sampeft.prediction.batch_size import Batch, BatchSize, memory_in_words
from sampeft.prediction.model_lock import lock_of
from sampeft.prediction.scene import Window, WindowLogits
from sampeft.prediction.tta import View, mean_of_views

if TYPE_CHECKING:
    from sampeft.engines import Engine

_MOST_EMPTY = 256  # windows without any measurement that wait for one that has some


@dataclass(frozen=True)
class InferenceOptions:
    """batch: windows that go through the network together, or `auto`: what the free memory allows. engine: what runs the network
    instead of the model. views: of each window, whose mean counts. least_share: of a window, that a class must fill to be
    drawn in it; None: what the model says. temperature: what logits are divided by before they are probabilities.
    disagreement: bands tell that of the views, too.
    """

    batch: Batch = "auto"
    engine: Engine | None = None
    views: Sequence[View] = (View(),)
    least_share: float | None = None
    temperature: float = 1.0
    disagreement: bool = False


def predict_logits(
    model: torch.nn.Module | None, windows: Iterable[Window], options: InferenceOptions, stages: Timing | None = None
) -> Iterator[WindowLogits]:
    """What the network says of windows, in their order; at most two batches wait. A batch may hold windows of several scenes,
    as of many small pictures.

    model: may be None where an engine takes its place. Raises SampeftError when the memory does not suffice.
    """
    stages = stages or Timing()
    engine, views = options.engine, options.views
    size = BatchSize(options.batch if engine is None or options.batch != "auto" else 4)
    network = cast(torch.nn.Module, model if model is not None else engine)
    share = getattr(model, "least_share", 0.0) if options.least_share is None else options.least_share

    def prepare(group: list[Window]) -> tuple[list[Window], list[torch.Tensor]]:
        with stages.of("prepare"), torch.inference_mode():
            images = [[window.image(view) for window in group if window.image] for view in views]
            return group, [
                view.moved(torch.stack(of_view)) for view, of_view in zip(views, images, strict=True) if of_view
            ]

    def grouped() -> Iterator[list[Window]]:
        group: list[Window] = []
        for window in windows:
            group.append(window)
            filled = sum(window.image is not None for window in group)
            if filled >= size.now or len(group) - filled >= _MOST_EMPTY:
                yield group
                group = []
        if group:
            yield group

    for group, images in prefetch(prepare, grouped()):
        known = [window for window in group if window.image]
        said: Iterator[WindowLogits] = iter(())
        if known:
            with stages.of("network"), memory_in_words(len(known)), lock_of(network), torch.inference_mode():
                found = []
                for images_B3HW in images:
                    if engine is not None:
                        found.append(engine(images_B3HW))
                        continue
                    with size.measured(network, len(known)):
                        found.append(network(images_B3HW.to(next(network.parameters()).device)).float().cpu())
                mean_BKhw, disagreement_Bhw = mean_of_views(found, views)
                logits_BKhw = without_small(mean_BKhw, share, [window.scene.frame.filled for window in known])
            disagreements = [None] * len(known) if disagreement_Bhw is None else list(disagreement_Bhw)
            said = map(WindowLogits, known, logits_BKhw, disagreements)
        for window in group:
            yield next(said) if window.image else WindowLogits(window, None)
