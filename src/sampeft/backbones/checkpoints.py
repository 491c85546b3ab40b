"""Original checkpoint files -> state dicts with the names of `transformers`; weights are found, hashed, loaded safely."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from sampeft.errors import WeightsError

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


def load_exactly(model: torch.nn.Module, state: State, source: Path) -> None:
    """Load a state dict into a model; a missing, unexpected or misshapen entry is a WeightsError that counts them."""
    own = model.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    misshapen = sorted(k for k in set(own) & set(state) if own[k].shape != state[k].shape)
    if missing or unexpected or misshapen:
        example = (misshapen or missing or unexpected)[0]
        raise WeightsError(
            f"{source}: does not fit this model: {len(missing)} tensors missing, {len(unexpected)} unexpected, "
            f"{len(misshapen)} of another shape (first: {example})"
        )
    model.load_state_dict(dict(state), strict=True)


def weights_folder_hint(variable: str) -> Path | None:
    """The path in an environment variable, if it is set."""
    value = os.environ.get(variable)
    return Path(value) if value else None
