"""Checkpoint of a training: all that it has changed so far, in one file written whole or not at all, and back bit for bit."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from sampeft.errors import FormError, UsageError, WeightsError
from sampeft.io import write_atomically
from sampeft.model import SemanticSam
from sampeft.one_writer import remove_leftovers
from sampeft.options import check_ranges, number, read_options
from sampeft.peft.state import load_trained, trained_state
from sampeft.provenance import differences
from sampeft.strict_json import parse_object
from sampeft.training.averaging import Average

FILE = "checkpoint.safetensors"
FORMAT = 2
FREE = ("checkpoint_minutes", "trackers", "max_bad_steps", "cache_mib")
"""Fields of a training that change nothing in its result: a run may go on with others."""


@dataclass
class Progress:
    """Where a training stands, beside its tensors. What is drawn follows from seed, step and process, so that no state of
    a random generator is in it.

    step: steps taken. seconds: of training so far.
    validations: shares of the run that are over. bad_steps, bad_in_row: steps that were not finite. learned: whether any
    step changed the model. running: losses (total, ce, dice) since the last line of the log. start_dsc, best_dsc: of the
    held-out cases, before training and at best, after best_step; waited: validations since then. least_share,
    best_share: the model's `least_share`, by the last and by the best validation. finished: by its own end.
    """

    step: int = number(0, 0)
    seconds: float = number(0.0, 0)
    validations: int = number(0, 0)
    bad_steps: int = number(0, 0)
    bad_in_row: int = number(0, 0)
    learned: bool = False
    running: list[list[float]] = field(default_factory=list)
    start_dsc: float | None = number(None, 0, 1)
    best_dsc: float | None = number(None, 0, 1)
    best_step: int | None = number(None, 0)
    waited: int = number(0, 0)
    least_share: float = number(0.0, 0, 1)
    best_share: float = number(0.0, 0, 1)
    finished: bool = False

    def __post_init__(self) -> None:
        check_ranges(self)
        if any(len(losses) != 3 for losses in self.running):
            raise UsageError("running holds other than three losses a step")

    def count(self, loss: list[float], is_finite: bool) -> None:
        """Of a step that was taken."""
        self.step += 1
        if is_finite:
            self.bad_in_row, self.learned = 0, True
            self.running.append(loss)
        else:
            self.bad_steps, self.bad_in_row = self.bad_steps + 1, self.bad_in_row + 1


@dataclass(frozen=True)
class _Content:
    """The schema of what a checkpoint holds beside its tensors; for the fields see `Checkpoint`."""

    format: int
    position: Progress
    settings: dict[str, Any]
    circumstances: dict[str, Any]
    others: dict[str, Any]


@dataclass(frozen=True)
class _Others:
    """The schema of state that is no tensor: updates of the average, fp16's loss scale, what a method keeps."""

    updates: int = number(0, 0)
    scaler: dict[str, Any] = field(default_factory=dict)
    regulator: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(self)

    @classmethod
    def check(cls, others: dict[str, Any]) -> None:
        """Raises UsageError for what is not so. Files of earlier versions have a method's values beside the others: these
        are put where they belong."""
        if "regulator" not in others:
            others["regulator"] = {name: others.pop(name) for name in others.keys() - {f.name for f in fields(cls)}}
        read_options(cls, others, "others")


@dataclass(frozen=True)
class Checkpoint:
    """What a file of `TrainState.write` holds. settings: what a run must have in common with the one that goes on with it.
    circumstances: what need not be equal, but without which the result is not bit-equal. others: state that is no tensor.
    """

    path: Path
    progress: Progress
    settings: dict[str, Any]
    circumstances: dict[str, Any]
    others: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def part(self, name: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(f"{name}/"): t for key, t in self.tensors.items() if key.startswith(f"{name}/")}

    def refuse_others(self, settings: Mapping[str, Any]) -> None:
        """Raises UsageError naming every setting that was another, with the old and the new value."""
        if changed := differences(self.settings, json.loads(json.dumps(settings)), lost=True):
            raise UsageError(
                f"{self.path.parent}: cannot go on with other settings: {'; '.join(changed)}; give --resume with the old "
                "ones, or choose another --out, or start anew with --force and without --resume"
            )


@dataclass(frozen=True)
class TrainState:
    """What a training changes: trained weights, AdamW's moments, the average, fp16's loss scale, a method's own state."""

    model: SemanticSam
    optimizer: Any
    average: Average
    scaler: Any = None

    def write(
        self, folder: Path, progress: Progress, settings: Mapping[str, Any], circumstances: Mapping[str, Any]
    ) -> None:
        """Write FILE; until it is whole the older one stays. A finished training keeps its progress alone."""
        from safetensors.torch import save

        others: dict[str, Any] = {}
        tensors: dict[str, torch.Tensor] = {}
        if not progress.finished:
            parts = {"model": trained_state(self.model), "average": self.average.tensors(), **self._moments()}
            others["updates"] = self.average.updates
            if self.scaler is not None:
                others["scaler"] = self.scaler.state_dict()
            if self.model.regulator:
                parts["regulator"], others["regulator"] = self.model.regulator.state()
            tensors = {
                f"{part}/{name}": tensor.detach().cpu().contiguous()
                for part, named in parts.items()
                for name, tensor in named.items()
            }
        content = {
            "format": FORMAT,
            "position": asdict(progress),
            "settings": settings,
            "circumstances": circumstances,
            "others": others,
        }
        text = json.dumps(content)
        folder.mkdir(parents=True, exist_ok=True)
        data = save(tensors, metadata={"content": text, "sha256": _digest(text, tensors)})
        write_atomically(folder / FILE, data)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put everything back. Raises WeightsError when something is missing or of another shape."""
        try:
            self._restore(checkpoint)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            message = f"{checkpoint.path}: does not fit this training ({reason}); start anew with --force"
            raise WeightsError(message) from None

    def _restore(self, checkpoint: Checkpoint) -> None:
        load_trained(self.model, checkpoint.part("model"), checkpoint.path)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for index, name in enumerate(self._names()):
            kept = {key: checkpoint.tensors.get(f"optimizer/{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if found := {key: tensor for key, tensor in kept.items() if tensor is not None}:
                moments[index] = found
        if checkpoint.progress.learned and not moments:
            raise WeightsError(f"{checkpoint.path}: the optimizer's state is missing; start anew with --force")
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.average.restore(checkpoint.part("average"), checkpoint.others["updates"])
        if self.scaler is not None and "scaler" in checkpoint.others:
            self.scaler.load_state_dict(checkpoint.others["scaler"])
        if self.model.regulator:
            self.model.regulator.load(checkpoint.part("regulator"), checkpoint.others["regulator"])

    def _names(self) -> list[str]:
        """Of the trained weights, in the optimizer's order."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return [names[id(p)] for group in self.optimizer.param_groups for p in group["params"]]

    def _moments(self) -> dict[str, dict[str, torch.Tensor]]:
        names = self._names()
        found: dict[str, dict[str, torch.Tensor]] = {}
        for index, values in self.optimizer.state_dict()["state"].items():
            for key, tensor in values.items():
                found.setdefault(f"optimizer/{key}", {})[names[index]] = tensor
        return found


@dataclass
class CheckpointWriter:
    """Writes the state for `--resume`, of the main process, which is that of all. step: of the last one, `written` then."""

    out: Path
    state: TrainState
    settings: Mapping[str, Any]
    circumstances: dict[str, Any]
    main: bool
    written: float = field(default_factory=time.monotonic)
    step: int = 0

    def prepare(self, resumed: Checkpoint | None) -> None:
        """Clear what a killed process left; say what is no longer as it was."""
        if not self.main:
            return
        remove_leftovers(self.out)
        if resumed:
            self.step = resumed.progress.step
            for name, then in resumed.circumstances.items():
                if (now := self.circumstances.get(name)) != then:
                    warnings.warn(
                        f"{name} was {then} and is {now}: the training goes on, but not bit-equal", stacklevel=2
                    )

    def is_due(self, minutes: float) -> bool:
        return time.monotonic() - self.written >= 60 * minutes

    def write(self, at: Progress) -> None:
        if self.main:
            self.state.write(self.out, at, self.settings, self.circumstances)
        self.written, self.step = time.monotonic(), at.step


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The state in a run folder, None when there is none. Raises FormError when it cannot be read or is not in its form."""
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            text = metadata.get("content", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        plain = parse_object(text, "its content")
        if plain.get("format") != FORMAT:
            raise UsageError(f"format {plain.get('format')}, this version reads {FORMAT}")
        if metadata.get("sha256", digest := _digest(text, tensors)) != digest:
            raise UsageError("it is not as it was written")
        content = read_options(_Content, plain, "its content")
        _Others.check(content.others)
        if bad := [n for n, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]:
            raise UsageError(f"{bad[0]} holds values that are not finite")
    except (SafetensorError, OSError, ValueError, UsageError) as error:
        message = f"{path}: cannot be read ({error}); the models saved before are not touched; start anew with --force"
        raise FormError(message) from None
    return Checkpoint(path, content.position, content.settings, content.circumstances, content.others, tensors)


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of the text and of names and values of the tensors, in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
