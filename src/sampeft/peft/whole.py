"""Trained model, merged -> a folder that needs no base weights: model.safetensors + adapter.json; and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sampeft.backbones import RANDOM, load_backbone
from sampeft.backbones.checkpoints import load_state
from sampeft.errors import WeightsError
from sampeft.io import write_atomically
from sampeft.io.plain import json_text
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.state import FORMAT, merge

WHOLE = "model.safetensors"


def save_whole(folder: Path, model: SemanticSam, description: dict[str, Any]) -> None:
    """Merge a model, in place, and write all of it. Adapters, which cannot be merged, are written as they are.

    description: the content of the run's adapter.json.
    """
    from safetensors.torch import save

    merge(model)
    # Copies, since one table of positions has two names, which the format does not know.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    kept = any(model.is_added(name) for name, _ in model.named_parameters())
    content = {**description, "format": FORMAT, "merged": True, "method_kept": kept}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WHOLE, save(state, metadata={"format": str(FORMAT)}))
    write_atomically(folder / "adapter.json", json_text(content))


def load_whole(folder: Path, description: dict[str, Any], labels: LabelSet) -> SemanticSam:
    """The model that `save_whole` wrote, in prediction mode. Raises WeightsError when the file does not fit."""
    loaded = load_backbone(description["backbone"], RANDOM)
    loaded = replace(loaded, digest=description["weights_sha256"], source=str(folder / WHOLE))
    model = SemanticSam.described(loaded, labels, description)
    if description["method_kept"]:
        attach(model, description["method"], description["options"])
    path = folder / WHOLE
    try:
        model.load_state_dict(load_state(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: does not fit the model that its adapter.json describes ({reason})") from None
    encoder: Any = getattr(model.sam, "vision_encoder", None)
    if hasattr(encoder, "native_positions"):  # those of the side that the file is for; there are no others
        encoder.native_positions = encoder.pos_embed.detach().clone()
    return model.eval()


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a merged model instead of an adapter."""
    return (folder / WHOLE).is_file()
