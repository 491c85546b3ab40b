"""Name and options in, denoiser out: levels (C, H, W) in 0..1 become the same with less noise, before the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sampeft.denoise.dncnn import FILE, DnCnnFilter
from sampeft.denoise.gaussian import GaussianFilter
from sampeft.denoise.nlm import NonLocalMeans
from sampeft.errors import DataError, UsageError, WeightsError, unknown_name
from sampeft.io import sha256

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
    known = {option.name for option in fields(DENOISERS[name])}
    for option in options or {}:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    try:
        made: Denoiser = DENOISERS[name](**(options or {}))
    except TypeError:
        raise UsageError(f"denoiser {name}: an option is of the wrong kind, got {dict(options or {})}") from None
    return made


@dataclass(frozen=True)
class Denoise:
    """A denoiser as it is stored with a model: its name and all of its options, plain values of JSON."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any] | None = None) -> Denoise:
        """With every option written out, and the weights' place and sha256. Raises what `denoiser` does."""
        made: Any = denoiser(name, options)
        return cls(name, asdict(made))

    @classmethod
    def from_json(cls, content: Mapping[str, Any], folder: Path | None = None) -> Denoise:
        """What `asdict` gave. folder: of the run, where its weights are looked for first, beside or above its model.

        Raises DataError for anything else, WeightsError when the weights are nowhere.
        """
        if set(content) != {"name", "options"}:
            raise DataError(f"the stored denoiser has the keys {', '.join(content)}; update sampeft to read it")
        stored = cls(str(content["name"]), dict(content["options"]))
        if folder is None or "weights" not in stored.options:
            return stored
        places = [folder / FILE, folder.parent / FILE, Path(stored.options["weights"])]
        found = next((p for p in places if p.is_file() and sha256(p) == stored.options["sha256"]), None)
        if found is None:
            raise WeightsError(
                f"{folder}: the model was trained behind a denoiser with sha256 {stored.options['sha256'][:12]}..., which is "
                f"in none of {', '.join(map(str, places))}; put it there"
            )
        return replace(stored, options={**stored.options, "weights": str(found)})

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
