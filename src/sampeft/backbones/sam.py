"""SAM and MedSAM: a checkpoint of the authors or of `transformers` -> a promptable `SamModel` with a ViT encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sampeft.backbones.checkpoints import SAM_KEYS, State, from_transformers, rename
from sampeft.sites import AttentionSite, EncoderMap, MlpSite, Parts, Site

STRIDE = 16
LEAD_TOKENS: tuple[str, ...] = ("iou_token",)
PARTS = Parts(
    encoder=("vision_encoder",),
    prompts=("prompt_encoder", "shared_image_embedding"),
    decoder=("mask_decoder.transformer", *(f"mask_decoder.{token}" for token in LEAD_TOKENS)),
    mask_head=("mask_decoder",),
)
FINER_MAPS = 0
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "global_attn_indexes": (1, 3),
    "num_pos_feats": 128,
}
TINY_SIDE = 64
SIZES: dict[str, dict[str, Any]] = {
    "b": {},
    "l": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "global_attn_indexes": (5, 11, 17, 23),
    },
    "h": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": (7, 15, 23, 31),
    },
}
"""Shapes of the authors' sizes, beside the defaults of `SamVisionConfig`."""

_KEYS = (
    *SAM_KEYS,
    (r"^image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^image_encoder\.blocks\.(\d+)\.norm(\d)\.", r"vision_encoder.layers.\1.layer_norm\2."),
    (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^image_encoder\.pos_embed$", "vision_encoder.pos_embed"),
)


def build(**vision: Any) -> nn.Module:
    """A promptable `SamModel` with random weights. vision: the encoder's shape, in `SamVisionConfig`'s words."""
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": vision.get("image_size", 1024), "patch_size": STRIDE},
        # The authors' decoder uses torch's default here; transformers' default of 1e-6 is off by 1e-4 in the masks.
        mask_decoder_config={"layer_norm_eps": 1e-5},
    )
    sam = SamModel(config)
    with torch.no_grad():
        # transformers draws random encoders with a spread of 1e-10 and position tables of zeros: of no use as a network.
        for name, parameter in sam.vision_encoder.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02 if "pos" in name else parameter[0].numel() ** -0.5)
    return cast(nn.Module, sam)


def convert(state: State) -> dict[str, torch.Tensor]:
    """Names of the authors, or of `transformers` -> the names of `build()`'s model."""
    renamed = rename(state, () if from_transformers(state) else _KEYS)
    tie_position(renamed)
    return renamed


def tie_position(state: dict[str, torch.Tensor]) -> None:
    """The table of point positions has two names in `transformers` and is stored once."""
    if (position := state.get("shared_image_embedding.positional_embedding")) is not None:
        state.setdefault("prompt_encoder.shared_embedding.positional_embedding", position)


def read_folder(folder: Path) -> State:
    """Weights of a `transformers` folder, whatever version of the library wrote it."""
    from transformers import SamModel

    return cast(State, SamModel.from_pretrained(folder, local_files_only=True).state_dict())


def sites(sam: nn.Module) -> list[Site]:
    """Attention (q | k | v in thirds) and MLP of every block of the encoder, then those of the mask decoder."""
    return [*block_sites(sam, "vision_encoder.layers", ("lin1", "lin2")), *decoder_sites(sam)]


def block_sites(sam: nn.Module, blocks: str, mlp: tuple[str, ...]) -> list[Site]:
    """The sites of blocks whose attention holds q | k | v in thirds. blocks: path of their list. mlp: its layers' names."""
    found: list[Site] = []
    for block in range(len(list(sam.get_submodule(blocks).children()))):
        path = f"{blocks}.{block}"
        found += [
            AttentionSite(f"{path}.attn", "proj", "encoder", block, fused="qkv"),
            MlpSite(f"{path}.mlp", mlp, "encoder", block),
        ]
    return found


def decoder_sites(sam: nn.Module, output: str = "out_proj", mlp: tuple[str, ...] = ("lin1", "lin2")) -> list[Site]:
    """Attention layers and MLPs of the two-way mask decoder transformer, in order of use. output, mlp: the names of their
    layers, which are not the same in `SamModel` and `Sam2Model`."""
    transformer = "mask_decoder.transformer"
    found: list[Site] = []
    for i in range(len(list(sam.get_submodule(f"{transformer}.layers").children()))):
        path = f"{transformer}.layers.{i}"
        found += [
            AttentionSite(f"{path}.self_attn", output, "decoder", i),
            AttentionSite(f"{path}.cross_attn_token_to_image", output, "decoder", i),
            MlpSite(f"{path}.mlp", mlp, "decoder", i),
            AttentionSite(f"{path}.cross_attn_image_to_token", output, "decoder", i, norm=f"{path}.layer_norm4"),
        ]
    return [*found, AttentionSite(f"{transformer}.final_attn_token_to_image", output, "decoder", i + 1)]


def resize(sam: Any, side: int) -> None:
    """Make encoder and prompts work on a square of this side; at the native side no weight is touched.

    The absolute position table is resampled from the pretrained one (bicubic, antialiased). The relative tables of global
    attention are resampled by `transformers` itself as it runs; windows keep theirs.
    """
    from timm.layers import resample_abs_pos_embed_nhwc

    encoder, grid = sam.vision_encoder, side // STRIDE
    if not hasattr(encoder, "native_positions"):
        encoder.native_positions = encoder.pos_embed.detach()
    native = encoder.native_positions.to(encoder.pos_embed.device)
    with torch.no_grad():
        encoder.pos_embed = nn.Parameter(
            resample_abs_pos_embed_nhwc(native, [grid, grid]).clone(), requires_grad=encoder.pos_embed.requires_grad
        )
    encoder.patch_embed.image_size = (side, side)
    resize_prompts(sam, side, grid)


def resize_prompts(sam: Any, side: int, grid: int) -> None:
    """Positions of prompts are relative to a square of `side` pixels whose embedding has `grid` positions a side."""
    sam.prompt_encoder.image_embedding_size = (grid, grid)
    sam.prompt_encoder.input_image_size = side
    sam.config.prompt_encoder_config.image_embedding_size = grid
    sam.config.prompt_encoder_config.image_size = side


def encoder_maps(sam: Any) -> tuple[EncoderMap, ...]:
    """Tokens of three of the blocks with global attention: the earlier, the finer they are spread, as UNETR does."""
    width = sam.config.vision_config.hidden_size
    return tuple(EncoderMap(width, STRIDE, spread) for spread in (4, 2, 1)[-len(_shown_blocks(sam)) :])


def _shown_blocks(sam: Any) -> list[int]:
    """The first, a middle and the last of the blocks with global attention."""
    found = [i for i, layer in enumerate(sam.vision_encoder.layers) if layer.window_size == 0]
    return sorted({found[0], found[(len(found) - 1) // 2], found[-1]})


def before(sam: Any, pixels_B3HW: torch.Tensor, block: int, maps: bool = False) -> tuple[torch.Tensor, ...]:
    """Tokens (B, g, g, C) that enter a block, then with `maps` those of the encoder's maps that are passed by then."""
    encoder = sam.vision_encoder
    tokens = encoder.patch_embed(pixels_B3HW)
    if encoder.pos_embed is not None:
        tokens = tokens + encoder.pos_embed
    return _through(sam, (tokens,), range(block), maps)


def after(sam: Any, features: tuple[torch.Tensor, ...], block: int, maps: bool = False) -> tuple[torch.Tensor, ...]:
    """What `before` gave -> (embedding_B,256,g,g), then with `maps` the encoder's maps (B, C, g, g)."""
    encoder = sam.vision_encoder
    tokens, *shown = _through(sam, features, range(block, len(encoder.layers)), maps)
    return encoder.neck(tokens), *shown


def _through(sam: Any, features: tuple[torch.Tensor, ...], blocks: range, maps: bool) -> tuple[torch.Tensor, ...]:
    shown_blocks = _shown_blocks(sam) if maps else []
    tokens, *shown = features
    for i in blocks:
        tokens = sam.vision_encoder.layers[i](tokens)
        if i in shown_blocks:
            shown.append(tokens.permute(0, 3, 1, 2))
    return tokens, *shown


def promptable_input(features: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What `SamModel` takes as `image_embeddings`."""
    return features[0]
