"""Checkpoint files -> state dicts with the names of `transformers`; weights are found, hashed and loaded safely."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from sampeft.errors import NoWeightsError, WeightsError

State = Mapping[str, torch.Tensor]

# Names of the original SAM decoder and prompt encoder (also MedSAM's, LiteMedSAM's and MobileSAM's) in `SamModel`.
SAM_KEYS: Sequence[tuple[str, str]] = (
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", "shared_image_embedding.positional_embedding"),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^(mask_decoder\.transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^mask_decoder\.transformer\.norm_final_attn\.", "mask_decoder.transformer.layer_norm_final_attn."),
    (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.0\.", r"\1.proj_in."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.2\.", r"\1.proj_out."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.1\.", r"\1.layers.0."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
)


def rename(state: State, rules: Sequence[tuple[str, str]]) -> dict[str, torch.Tensor]:
    """Apply every (pattern, replacement) in turn to every key; `module.` of a parallel wrapper is stripped."""
    renamed: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def find_in_package(package: str, relative: str) -> Path | None:
    """A file shipped by an installed package, found without importing the package; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / relative
        if path.is_file():
            return path
    return None


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a `.pth`/`.pt` (loaded with weights_only=True) or `.safetensors` file, on the CPU.

    A wrapper dict with the tensors under `model` or `state_dict` is opened. Raises WeightsError naming the file.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path, device="cpu"))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path}: not a weights file that loads safely ({type(error).__name__}); it may be truncated, or a pickle "
            "of objects, which is refused because it could run code"
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path}: holds no plain table of tensors")
    return dict(content)


def load_exactly(model: torch.nn.Module, state: State, source: Path, name: str = "this model") -> None:
    """Load a state dict into a model; a missing, unexpected or misshapen entry is a WeightsError that counts them."""
    own = model.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    misshapen = sorted(k for k in set(own) & set(state) if own[k].shape != state[k].shape)
    if missing or unexpected or misshapen:
        first = (misshapen or missing or unexpected)[0]
        shapes = f": {tuple(state[first].shape)} in the file, {tuple(own[first].shape)} wanted" if misshapen else ""
        raise WeightsError(
            f"{source}: is not {name}: {len(missing)} tensors missing, {len(unexpected)} unexpected, {len(misshapen)} of "
            f"another shape (first: {first}{shapes})"
        )
    model.load_state_dict(dict(state), strict=True)


def from_transformers(state: State) -> bool:
    """Whether the names are those of `transformers` already, which no renaming may touch again."""
    return any(name.removeprefix("module.").startswith("vision_encoder.") for name in state)


def content_digest(state: State) -> str:
    """sha256 over names, shapes and values: the same for one set of weights in any file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().float().contiguous()
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()


def weights_path() -> Path | None:
    """The file or folder in the environment variable SAMPEFT_WEIGHTS, if it is set."""
    value = os.environ.get("SAMPEFT_WEIGHTS")
    return Path(value) if value else None


def in_hub_cache(hub: str) -> Path | None:
    """Folder of a repository that the Hugging Face hub's client has downloaded before; None if it has not."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"):
        found = try_to_load_from_cache(hub, name)
        if isinstance(found, str):
            return Path(found).parent
    return None


def from_hub(hub: str) -> Path:
    """Folder of a hub repository, downloaded if need be. Raises WeightsError when that fails."""
    from huggingface_hub import snapshot_download

    if cached := in_hub_cache(hub):
        return cached
    try:
        folder = Path(snapshot_download(hub, allow_patterns=["*.json", "*.safetensors"]))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(hub, allow_patterns=["*.json", "*.bin"]))
        return folder
    except Exception as error:  # the client raises its own, requests', httpx's and OSError's children
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NoWeightsError(
            f"{hub}: is no file or folder here, and the Hugging Face hub did not give it ({reason}); download it on a "
            "machine that is online and name its folder with --weights"
        ) from None
