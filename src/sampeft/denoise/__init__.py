"""Denoisers by name: levels (C, H, W) in 0..1 -> the same with less noise, before the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sampeft.denoise.dncnn import FILE, DnCnnFilter
from sampeft.denoise.gaussian import GaussianFilter
from sampeft.denoise.nlm import NonLocalMeans
from sampeft.errors import WeightsError, unknown_name
from sampeft.io import sha256
from sampeft.options import read_options, typed_options

if TYPE_CHECKING:
    import torch


class Denoiser(Protocol):
    """Levels (C, H, W) in 0..1, float32 on the CPU -> the same; each channel by itself, the input is left as it is."""

    def __call__(self, levels_CHW: torch.Tensor) -> torch.Tensor: ...


DENOISERS: dict[str, Any] = {"gaussian": GaussianFilter, "nlm": NonLocalMeans, "dncnn": DnCnnFilter}
"""Name -> frozen dataclass whose fields are the options and whose instances are denoisers."""


def denoiser(name: str, options: Mapping[str, Any] | None = None) -> Denoiser:
    """The denoiser of that name. Raises UsageError for an unknown name, an unknown option or a wrong value."""
    if name not in DENOISERS:
        raise unknown_name("denoiser", name, DENOISERS)
    made: Denoiser = read_options(DENOISERS[name], options, name)
    return made


@dataclass(frozen=True)
class Denoise:
    """A denoiser as it is stored with a model: its name and all of its options, plain values of JSON."""

    name: str
    options: dict[str, Any]

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any] | None = None) -> Denoise:
        """With every option written out, and the weights' place and sha256. Raises what `denoiser` does."""
        made: Any = denoiser(name, options)
        return cls(name, asdict(made))

    def __post_init__(self) -> None:
        """Raises UsageError for an unknown name or option, or an option of another type."""
        if self.name not in DENOISERS:
            raise unknown_name("denoiser", self.name, DENOISERS)
        typed_options(DENOISERS[self.name], self.options, self.name)

    def found(self, folder: Path | None) -> Denoise:
        """With its weights where they are now. folder: of the run, where they are looked for first, beside or above its model;
        None: they stay where they were. Raises WeightsError when they are nowhere."""
        if folder is None or "weights" not in self.options:
            return self
        digest = str(self.options.get("sha256"))
        places = [folder / FILE, folder.parent / FILE, Path(str(self.options["weights"]))]
        found = next((p for p in places if p.is_file() and sha256(p) == digest), None)
        if found is None:
            raise WeightsError(
                f"{folder}: the model was trained behind a denoiser with sha256 {digest[:12]}..., which is in none of "
                f"{', '.join(map(str, places))}; put it there"
            )
        return replace(self, options={**self.options, "weights": str(found)})

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its output from another's: all but the place of the weights."""
        return {"name": self.name, **{name: v for name, v in self.options.items() if name != "weights"}}

    def build(self) -> Denoiser:
        """The denoiser; made once. Raises what `denoiser` does."""
        return _built(self.name, json.dumps(self.options, sort_keys=True))


@lru_cache(maxsize=8)
def _built(name: str, options: str) -> Denoiser:
    return denoiser(name, json.loads(options))
