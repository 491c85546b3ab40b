"""The two files of a trained run, its tensors and adapter.json, written as one and read back with all of it checked."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sampeft.backbones import RANDOM, backbone
from sampeft.data.preprocessing import Preparation
from sampeft.errors import FormError, NoWeightsError, SampeftError, WeightsError
from sampeft.heads import HEADS
from sampeft.io import write_atomically
from sampeft.labels import LabelSet
from sampeft.options import check_ranges, number, options_by_name, read_options
from sampeft.peft import METHODS
from sampeft.provenance import json_text
from sampeft.strict_json import parse_object, read_object

FORMAT = 2
DESCRIPTION = "adapter.json"
WEIGHTS = "adapter.safetensors"
WHOLE = "model.safetensors"
"""The tensors of a run, and of one that was merged into its base."""
_NEXT = "adapter.json.next"
"""The description of tensors that are being written, until it is adapter.json."""
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Description:
    """The schema of adapter.json: every key with its type and range; those without a default have been there from the start.

    tensors_sha256: of the file of tensors beside it; description_sha256: of all other keys, so that a changed file is known.
    Runs of older versions have neither. presence_gate, gate, detail: of older versions, no longer written.
    """

    format: int
    backbone: str
    weights_sha256: str
    method: str
    options: dict[str, Any]
    label_map: dict[str, Any]
    preparation: dict[str, Any]
    seed: int | None = number(None, 0)
    head: str = "mask"
    head_options: dict[str, Any] | None = None
    encoder_side: int | None = number(None, 1)
    least_share: float = number(0.0, 0, 1)
    symmetries: int = number(1, 1, 8)
    trainable: int = number(0, 0)
    total: int = number(0, 0)
    metric_policy: str = "default"
    pixels: int | None = number(None, 1)
    most_pixels: int | None = number(None, 1)
    gsd: float | None = number(None, 0, above=True)
    data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    trained: dict[str, Any] = field(default_factory=dict)
    merged: bool = False
    method_kept: bool = False
    tensors_sha256: str | None = None
    description_sha256: str | None = None
    presence_gate: float | None = None
    gate: dict[str, float] = field(default_factory=dict)
    detail: Any = None

    def __post_init__(self) -> None:
        """Raises SampeftError for a number out of its range and for what this version does not know."""
        check_ranges(self)
        options_by_name(METHODS, "method", self.method, self.options)
        options_by_name(HEADS, "head", self.head, self.head_options)
        if "labels" not in self.label_map:
            raise FormError("label_map lacks labels")
        LabelSet.from_json(self.label_map, "label_map")
        if self.weights_sha256 == RANDOM and self.seed is None:
            raise FormError("seed is missing, by which its random weights were drawn")
        side, spec = Preparation.from_json(self.preparation).side, backbone(self.backbone)
        spec.check_side(self.encoder_side if self.encoder_side and spec.is_sam else side)


def tensors_file(folder: Path) -> Path:
    """The file of a run's tensors: of all of them where it was merged, else of those that were trained."""
    return folder / (WHOLE if (folder / WHOLE).is_file() else WEIGHTS)


def write_run(folder: Path, name: str, data: bytes, description: Mapping[str, Any]) -> None:
    """Write a file of tensors and adapter.json. Whenever it is killed, `read_description` finds the older pair or the new one.

    name: of the file of tensors. description: what adapter.json holds beside the format and the digests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, **description, "tensors_sha256": hashlib.sha256(data).hexdigest()}
    content = json.loads(json_text(content))
    content["description_sha256"] = _digest(content)
    try:
        write_atomically(folder / _NEXT, json_text(content).encode())
        write_atomically(folder / name, data)
    except BaseException:
        (folder / _NEXT).unlink(missing_ok=True)
        raise
    os.replace(folder / _NEXT, folder / DESCRIPTION)


def read_description(folder: Path) -> dict[str, Any]:
    """The content of adapter.json, once it and the tensors beside it are what they should be.

    Raises WeightsError when one is missing, of another format, torn, not finite or not of the other; FormError for what is
    not in its form or not known to this version. Warns when adapter.json was changed after it was written.
    """
    path = folder / DESCRIPTION
    if not path.exists():
        raise NoWeightsError(
            f"{folder}: no trained model here ({DESCRIPTION} is missing); give the --out of a training"
        )
    tensors = tensors_file(folder)
    content = _of_pair(path, tensors)
    if content.get("format") != FORMAT:
        raise NoWeightsError(
            f"{path}: format {content.get('format')}, this version reads format {FORMAT}; pip install --upgrade sampeft"
        )
    try:
        read_options(Description, content, "the run")
    except SampeftError as error:
        raise FormError(f"{path}: {error}; {_mend(content)}") from None
    if any(content.get("gate", {}).values()) or content.get("presence_gate"):
        warnings.warn(
            f"{path}: was trained with a gate on presence, which this version has no more; its class maps may show more "
            "classes than were measured: train it anew, or use the sampeft that wrote it",
            stacklevel=2,
        )
    if content.get("description_sha256", _digest(content)) != _digest(content):
        warnings.warn(
            f"{path}: was changed after it was written; results may differ from those that were measured", stacklevel=2
        )
    read_tensors(folder, content)
    return content


def read_tensors(folder: Path, description: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a run. description: the content of its adapter.json.

    Raises WeightsError for a file that is missing, torn, not the one described, or holds what is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = tensors_file(folder)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: no such weights file ({error.strerror}); copy the whole run again") from None
    if description.get("tensors_sha256", found := hashlib.sha256(data).hexdigest()) != found:
        raise WeightsError(
            f"{path}: is not the file that {DESCRIPTION} describes (its sha256 is {found[:12]}...); it is damaged or of "
            "another run: copy the whole run again"
        )
    try:
        state: dict[str, torch.Tensor] = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: is torn or no weights file ({error}); copy the whole run again") from None
    for name, value in state.items():
        if path.name == WEIGHTS and value.dtype not in _FLOATS:
            raise WeightsError(f"{path}: {name} holds {value.dtype}, and trained weights are fractions; train it anew")
        if value.dtype in _FLOATS and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{path}: {name} holds values that are not finite; that training went wrong")
    return state


def _of_pair(path: Path, tensors: Path) -> dict[str, Any]:
    """The description of the tensors: a writer may have been killed between the two files."""
    following = path.with_name(_NEXT)
    if following.is_file() and tensors.is_file():
        try:
            content = parse_object(following.read_text(encoding="utf-8"), str(following))
        except (OSError, ValueError, FormError):
            return read_object(path, 1)
        if content.get("tensors_sha256") == hashlib.sha256(tensors.read_bytes()).hexdigest():
            return content
    return read_object(path, 1)


def _digest(content: Mapping[str, Any]) -> str:
    """sha256 of a description but for this digest itself."""
    told = {key: value for key, value in content.items() if key != "description_sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _mend(content: Mapping[str, Any]) -> str:
    versions = content.get("versions")
    theirs, ours = versions.get("sampeft") if isinstance(versions, dict) else None, version("sampeft")
    if theirs not in (None, ours):
        return f"the run was written by sampeft {theirs}, and this is {ours}: use that version"
    return "the file was changed or is of a newer version: copy the run again, or update sampeft"
