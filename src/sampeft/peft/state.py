"""Trained model -> adapter.safetensors + adapter.json (only what was trained), and back; merging into plain weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sampeft.backbones import NONE
from sampeft.errors import WeightsError
from sampeft.model import SemanticSam
from sampeft.peft.projections import SplitProjection
from sampeft.peft.run_files import FORMAT, WEIGHTS, write_run


def trained_state(model: SemanticSam) -> dict[str, torch.Tensor]:
    """The tensors that make a trained model of its base: added ones, default prompt, class head, any freed base weight."""
    return {name: p.detach().cpu().contiguous() for name, p in _own(model).items()}


def _own(model: SemanticSam) -> dict[str, torch.Tensor]:
    """Prompt and head whether trained or not, what is trained, and what a method added frozen (PiSSA's start)."""
    parameters = {
        name: p
        for name, p in model.named_parameters()
        if p.requires_grad or not name.startswith("sam.") or model.is_added(name)
    }
    return {**parameters, **{name: b for name, b in model.named_buffers() if name.startswith("head.")}}


def load_trained(model: SemanticSam, state: dict[str, torch.Tensor], source: Path | str, partial: bool = False) -> None:
    """Copy trained tensors into a model to which the same method is attached.

    A `module.` prefix of a parallel wrapper is stripped. A missing, unexpected or misshapen tensor is a WeightsError.
    partial: what the state does not hold stays as it is, instead of being missing.
    """
    given = {name.removeprefix("module."): value for name, value in state.items()}
    own = _own(model)
    missing, unexpected = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    # Scales of features are buffers that start as what runs without them were trained with.
    buffers = {name for name, _ in model.named_buffers()}
    missing = [] if partial else [name for name in missing if name not in buffers]
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
    model.train(model.training)  # drops what a module derived from its old weights, such as TinyViT's attention biases


def save_trained(folder: Path, model: SemanticSam, description: dict[str, Any]) -> None:
    """Write adapter.safetensors and adapter.json; both appear whole or not at all, the older pair stays until then."""
    from safetensors.torch import save

    write_run(folder, WEIGHTS, save(trained_state(model), metadata={"format": str(FORMAT)}), description)


def saved_bytes(model: SemanticSam) -> int:
    """Exact size of the adapter.safetensors that `save_trained` would write, from shapes alone."""
    header: dict[str, Any] = {"__metadata__": {"format": str(FORMAT)}}
    end = 0
    for name, p in sorted(_own(model).items()):
        assert p.dtype == torch.float32, name
        start, end = end, end + p.numel() * p.element_size()
        header[name] = {"dtype": "F32", "shape": list(p.shape), "data_offsets": [start, end]}
    text = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + (text + 7) // 8 * 8 + end  # the header's length, the header padded to 8 bytes, the values


def merge(model: SemanticSam) -> SemanticSam:
    """Fold every added path that can be into its weight, with the original modules in its place: prediction costs no more
    than the base. In place; a second call changes nothing. Adapters (which have a nonlinearity) stay as they are.
    """
    model.activate()
    for path, (_, after) in model.patch.modules.items():
        if path not in model.patch.merged and (plain := _merged(after)) is not None:
            model.patch.merged[path] = plain
            model.sam.set_submodule(path, plain)
    return model


def unmerge(model: SemanticSam) -> SemanticSam:
    """Undo `merge`, bit for bit, in place."""
    model.activate()
    device = model.mean.device
    for path in model.patch.merged:
        model.sam.set_submodule(path, model.patch.modules[path][1].to(device))
    model.patch.merged.clear()
    return model


def _merged(module: torch.nn.Module) -> torch.nn.Module | None:
    """A plain copy of a module with paths of `peft` in it; None if there are none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not any(isinstance(inner, BaseTunerLayer) for inner in module.modules()):
        return None
    holder = torch.nn.ModuleDict({"x": copy.deepcopy(module)})
    for path, layer in [(p, m) for p, m in holder.named_modules() if isinstance(m, BaseTunerLayer)]:
        layer.merge(safe_merge=True)
        holder.set_submodule(path, layer.get_base_layer())
    plain = holder["x"]
    return plain.fuse() if isinstance(plain, SplitProjection) else plain


def name_of(description: Mapping[str, Any]) -> str:
    """What tables call a run, such as `lite-medsam lora r=4, pixel head` or `without SAM, pixel head`. description: the content
    of its adapter.json."""
    rank = description["options"].get("rank")
    adapted = [description["backbone"], description["method"], *([f"r={rank}"] if rank else [])]
    base = "without SAM" if description["backbone"] == NONE else " ".join(adapted)
    return f"{base}, {description.get('head', 'mask')} head"
