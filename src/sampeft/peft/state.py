"""Trained model -> adapter.safetensors + adapter.json (only what was trained), and back; merging into plain weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sampeft.errors import WeightsError
from sampeft.io import write_atomically
from sampeft.model import SemanticSam
from sampeft.peft.projections import fuse_split

FORMAT = 1


def trained_state(model: SemanticSam) -> dict[str, torch.Tensor]:
    """The tensors that training changes: added paths, default prompt, class head and any freed base weight."""
    return {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}


def load_trained(model: SemanticSam, state: dict[str, torch.Tensor], source: Path | str, partial: bool = False) -> None:
    """Copy trained tensors into a model to which the same method is attached.

    A `module.` prefix of a parallel wrapper is stripped. A missing, unexpected or misshapen tensor is a WeightsError.
    partial: what the state does not hold stays as it is, instead of being missing.
    """
    given = {name.removeprefix("module."): value for name, value in state.items()}
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing, unexpected = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    missing = [] if partial else missing
    misshapen = [name for name in own if name in given and own[name].shape != given[name].shape]
    if missing or unexpected or misshapen:
        first = (misshapen or missing or unexpected)[0]
        shapes = f": {tuple(given[first].shape)} in the file, {tuple(own[first].shape)} wanted" if misshapen else ""
        raise WeightsError(
            f"{source}: does not fit the model that its adapter.json describes: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected, {len(misshapen)} of another shape (first: {first}{shapes})"
        )
    with torch.no_grad():
        for name, value in given.items():
            own[name].copy_(value)


def save_trained(folder: Path, model: SemanticSam, description: dict[str, Any]) -> None:
    """Write adapter.safetensors and adapter.json; both appear whole or not at all, the older pair stays until then."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, **description}
    data = save(trained_state(model), metadata={"format": str(FORMAT)})
    write_atomically(folder / "adapter.safetensors", data)
    write_atomically(folder / "adapter.json", (json.dumps(content, indent=1) + "\n").encode())


def read_description(folder: Path) -> dict[str, Any]:
    """The content of adapter.json. Raises WeightsError when it is missing, damaged or of a newer format."""
    path = folder / "adapter.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"{folder}: no trained model here (adapter.json is missing); give the --out of a training"
        raise WeightsError(message) from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from None
    if content.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: format {content.get('format')}, this version reads format {FORMAT}; update sampeft"
        )
    return dict(content)


def merge(model: SemanticSam) -> SemanticSam:
    """Fold every added path into its weight and restore the original modules, in place; a second call changes nothing."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(path, m) for path, m in model.sam.named_modules() if isinstance(m, BaseTunerLayer)]
    for path, layer in layers:
        layer.merge(safe_merge=True)
        model.sam.set_submodule(path, layer.get_base_layer())
    fuse_split(model.sam)
    return model
