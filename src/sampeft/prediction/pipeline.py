"""Scenes through the network, and what it says of them past all who look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from sampeft.console import Timing
from sampeft.prediction.background import map_in_background
from sampeft.prediction.network import InferenceOptions, predict_logits
from sampeft.prediction.scene import Scene, Window, WindowLogits
from sampeft.prediction.sinks import Sink

Progress = Callable[[int, int], None]
Watched = tuple[Scene, Sequence[Sink]]
"""A scene, and who looks at its prediction."""


def predict_scenes(
    model: torch.nn.Module | None,
    scenes: Iterable[Watched],
    classes: int,
    options: InferenceOptions | None = None,
    progress: Progress | None = None,
    stages: Timing | None = None,
) -> Iterator[Watched]:
    """Each scene when all is seen of it. Preparing, the network and the sinks run beside each other; a few windows are held.

    model: None where an engine takes its place. progress: (windows done, windows) of the scene that is worked on. stages: what
    adds up the seconds.
    """
    options, stages = options or InferenceOptions(), stages or Timing()
    under_way: dict[Scene, _UnderWay] = {}

    def windows() -> Iterator[Window]:
        for scene, sinks in scenes:
            under_way[scene] = _UnderWay(scene, sinks, classes, options)
            yield from scene.windows()

    ready = model.eval() if model is not None else None
    yield from _watched(predict_logits(ready, windows(), options, stages), under_way, progress, stages)


def watch(
    said: Iterable[WindowLogits],
    scene: Scene,
    sinks: Sequence[Sink],
    classes: int,
    options: InferenceOptions | None = None,
) -> None:
    """Show sinks what a network said of a scene before."""
    under_way = {scene: _UnderWay(scene, sinks, classes, options or InferenceOptions())}
    for _ in _watched(said, under_way, None, Timing()):
        pass


class _UnderWay:
    """A scene of which not all is seen."""

    def __init__(self, scene: Scene, sinks: Sequence[Sink], classes: int, options: InferenceOptions) -> None:
        self.scene, self.sinks = scene, sinks
        self._bands = scene.assembler(classes, options.temperature, options.disagreement)
        for sink in sinks:
            sink.begin(scene)

    def see(self, said: WindowLogits) -> None:
        for band in self._bands(said):
            for sink in self.sinks:
                sink.see(band)
        for sink in self.sinks:
            sink.see_window(said)


def _watched(
    said: Iterable[WindowLogits], under_way: dict[Scene, _UnderWay], progress: Progress | None, stages: Timing
) -> Iterator[Watched]:
    def see(one: WindowLogits) -> Window:
        with stages.of("finish"), torch.inference_mode():
            under_way[one.window.scene].see(one)
        return one.window

    for window in map_in_background(see, said):
        scene, done = window.scene, window.index + 1
        if progress:
            progress(done, len(scene))
        if done == len(scene):
            seen = under_way.pop(scene)
            with stages.of("finish"):
                for sink in seen.sinks:
                    sink.end()
            yield scene, seen.sinks
