"""SAM 2 and 2.1: a checkpoint of the authors or of `transformers` -> a promptable `Sam2Model` with a Hiera encoder.

Only what a single image needs is kept; the memory of the video model is left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sampeft.backbones.checkpoints import SAM_KEYS, State, from_transformers, rename
from sampeft.backbones.sam import block_sites, decoder_sites, resize_prompts, tie_position
from sampeft.sites import EncoderMap, Parts, Site

STRIDE = 16
LEAD_TOKENS: tuple[str, ...] = ("obj_score_token", "iou_token")
PARTS = Parts(
    # The finer maps are projected by the decoder's convolutions, once per image.
    encoder=("vision_encoder", "no_memory_embedding", "mask_decoder.conv_s0", "mask_decoder.conv_s1"),
    prompts=("prompt_encoder", "shared_image_embedding"),
    decoder=("mask_decoder.transformer", *(f"mask_decoder.{token}" for token in LEAD_TOKENS)),
    mask_head=("mask_decoder",),
)
FINER_MAPS = 2
TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 1,
    "blocks_per_stage": [1, 2, 2, 1],
    "embed_dim_per_stage": [16, 32, 64, 128],
    "num_attention_heads_per_stage": [1, 2, 4, 8],
    "global_attention_blocks": [4],
}
TINY_SIDE = 64
SIZES: dict[str, dict[str, Any]] = {
    "t": {
        "hidden_size": 96,
        "blocks_per_stage": [1, 2, 7, 2],
        "embed_dim_per_stage": [96, 192, 384, 768],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "global_attention_blocks": [5, 7, 9],
    },
    "s": {
        "hidden_size": 96,
        "blocks_per_stage": [1, 2, 11, 2],
        "embed_dim_per_stage": [96, 192, 384, 768],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "global_attention_blocks": [7, 10, 13],
    },
    "b+": {
        "hidden_size": 112,
        "blocks_per_stage": [2, 3, 16, 3],
        "embed_dim_per_stage": [112, 224, 448, 896],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "global_attention_blocks": [12, 16, 20],
        "window_positional_embedding_background_size": [14, 14],
    },
    "l": {
        "hidden_size": 144,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "global_attention_blocks": [23, 33, 43],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}
"""Shapes of the authors' sizes, in `Sam2HieraDetConfig`'s words."""

_KEYS = (
    (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    *SAM_KEYS,
    (r"\.out_proj\.", ".o_proj."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.layers\.0\.", r"\1.proj_in."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.layers\.1\.", r"\1.proj_out."),
    (r"^(mask_decoder\.pred_obj_score_head)\.layers\.0\.", r"\1.proj_in."),
    (r"^(mask_decoder\.pred_obj_score_head)\.layers\.2\.", r"\1.proj_out."),
    (r"^(mask_decoder\.pred_obj_score_head)\.layers\.1\.", r"\1.layers.0."),
    (r"^image_encoder\.trunk\.patch_embed\.proj\.", "vision_encoder.backbone.patch_embed.projection."),
    (r"^image_encoder\.trunk\.blocks\.(\d+)\.norm(\d)\.", r"vision_encoder.backbone.blocks.\1.layer_norm\2."),
    (r"^image_encoder\.trunk\.blocks\.(\d+)\.mlp\.layers\.0\.", r"vision_encoder.backbone.blocks.\1.mlp.proj_in."),
    (r"^image_encoder\.trunk\.blocks\.(\d+)\.mlp\.layers\.1\.", r"vision_encoder.backbone.blocks.\1.mlp.proj_out."),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^no_mem_embed$", "no_memory_embedding"),
)
# The video model's own: memory of other frames and pointers to objects in them.
_VIDEO = re.compile(
    r"^(memory_|maskmem_|mask_downsample|no_mem_pos_enc|no_obj_|obj_ptr_|object_pointer_proj|no_object_pointer"
    r"|temporal_positional_encoding|no_memory_positional|occlusion_spatial)"
)


def build(**backbone: Any) -> nn.Module:
    """A promptable `Sam2Model` with random weights. backbone: the encoder's shape, in `Sam2HieraDetConfig`'s words."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig

    hiera = Sam2HieraDetConfig(**backbone)
    vision = Sam2VisionConfig(backbone_config=hiera, backbone_channel_list=hiera.embed_dim_per_stage[::-1])
    sam = Sam2Model(Sam2Config(vision_config=vision))
    with torch.no_grad():
        for table in (sam.vision_encoder.backbone.pos_embed, sam.vision_encoder.backbone.pos_embed_window):
            table.normal_(std=0.02)
    return cast(nn.Module, sam)


def convert(state: State) -> dict[str, torch.Tensor]:
    """Names of the authors, or of `transformers` -> the names of `build()`'s model, without the video's memory."""
    state = {name: value for name, value in state.items() if not _VIDEO.match(name.removeprefix("module."))}
    renamed = rename(state, () if from_transformers(state) else _KEYS)
    points = [renamed.pop(f"prompt_encoder.point_embed.{i}.weight", None) for i in range(4)]
    if all(point is not None for point in points):
        renamed["prompt_encoder.point_embed.weight"] = torch.cat(cast(list[torch.Tensor], points))
    tie_position(renamed)
    return renamed


def read_folder(folder: Path) -> State:
    """Weights of a `transformers` folder (of the image or the video model), whatever version of the library wrote it."""
    from transformers import Sam2Model

    return cast(State, Sam2Model.from_pretrained(folder, local_files_only=True).state_dict())


def sites(sam: nn.Module) -> list[Site]:
    """Attention (q | k | v in thirds; wider than their input where a stage begins) and MLP of every block of the encoder,
    then those of the mask decoder."""
    mlp = ("proj_in", "proj_out")
    return [*block_sites(sam, "vision_encoder.backbone.blocks", mlp), *decoder_sites(sam, "o_proj", mlp)]


def resize(sam: Any, side: int) -> None:
    """Make prompts work on a square of this side; Hiera resamples its own position table as it runs."""
    resize_prompts(sam, side, side // STRIDE)
    sam.prompt_encoder.mask_input_size = (4 * side // STRIDE, 4 * side // STRIDE)
    sam.backbone_feature_sizes = [[side // s, side // s] for s in (4, 8, 16)]


def encoder_maps(sam: Any) -> tuple[EncoderMap, ...]:
    """The outputs of Hiera's four stages."""
    widths = sam.config.vision_config.backbone_config.embed_dim_per_stage
    return tuple(EncoderMap(width, 4 * 2**stage) for stage, width in enumerate(widths))


def before(sam: Any, pixels_B3HW: torch.Tensor, block: int, maps: bool = False) -> tuple[torch.Tensor, ...]:
    """Tokens (B, h, w, C) that enter a block, then the outputs of the stages before it, which the neck needs as well."""
    backbone = sam.vision_encoder.backbone
    tokens = backbone.patch_embed(pixels_B3HW)
    return _through(backbone, (tokens + backbone._get_pos_embed(tokens.shape[1:3]),), range(block))


def after(sam: Any, features: tuple[torch.Tensor, ...], block: int, maps: bool = False) -> tuple[torch.Tensor, ...]:
    """What `before` gave -> (embedding_B,256,g,g), then finer maps for the mask head: (B, 64, 2g, 2g) and (B, 32, 4g, 4g),
    then with `maps` the outputs of the stages, the finest first.

    As the authors do, the finer maps are projected to the head's width here, once per image.
    """
    encoder, decoder = sam.vision_encoder, sam.mask_decoder
    _, *stages = _through(encoder.backbone, features, range(block, len(encoder.backbone.blocks)))
    levels, _ = encoder.neck(tuple(stages))
    finest, finer, embedding = levels[-encoder.num_feature_levels :][::-1]
    embedding = embedding + sam.no_memory_embedding.reshape(1, -1, 1, 1)
    shown = (stage.permute(0, 3, 1, 2) for stage in stages) if maps else ()
    return embedding, decoder.conv_s1(finer), decoder.conv_s0(finest), *shown


def _through(backbone: Any, features: tuple[torch.Tensor, ...], blocks: range) -> tuple[torch.Tensor, ...]:
    tokens, *stages = features
    for i in blocks:
        tokens = backbone.blocks[i](tokens)
        if i in backbone.stage_ends:
            stages.append(tokens)
    return tokens, *stages


def promptable_input(features: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """What `Sam2Model` takes as `image_embeddings`: finest first."""
    return list(features[: 1 + FINER_MAPS][::-1])
