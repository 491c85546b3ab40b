"""sampeft: a Segment Anything model becomes an automatic, class-aware segmenter for your own labels.

`sampeft.load(RUN)` gives a `Segmenter` with `predict`, `predict_file` and `segment`; `sampeft.train(TrainConfig(...))` makes a
run; `sampeft.evaluate`, `sampeft.compare` and `sampeft.check` do what the commands of these names do.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampeft.api import check, compare, evaluate
    from sampeft.configs.train import Config as TrainConfig
    from sampeft.prediction.loading import load
    from sampeft.prediction.segmenter import Segmenter
    from sampeft.workflows.train import train

__all__ = ["Segmenter", "TrainConfig", "__version__", "check", "compare", "evaluate", "load", "train"]
__version__ = version("sampeft")

_HOMES = {
    "check": ("sampeft.api", "check"),
    "compare": ("sampeft.api", "compare"),
    "evaluate": ("sampeft.api", "evaluate"),
    "load": ("sampeft.prediction.loading", "load"),
    "Segmenter": ("sampeft.prediction.loading", "Segmenter"),
    "train": ("sampeft.workflows.train", "train"),
    "TrainConfig": ("sampeft.configs.train", "Config"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: `import sampeft` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sampeft' has no attribute '{name}'")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
