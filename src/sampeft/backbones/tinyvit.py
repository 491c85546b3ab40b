"""LiteMedSAM: its original checkpoint -> a promptable `SamModel` whose image encoder is timm's TinyViT.

Against timm's `tiny_vit_5m_224`, LiteMedSAM has a stem of two 1x1 convolutions with stride 1, no stride in the last
downsampling and SAM's neck on top, so that an image of side 256 gives an embedding of 256 x 64 x 64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sampeft.backbones.checkpoints import SAM_KEYS, State, rename
from sampeft.sites import AttentionSite

STRIDE = 4
NATIVE_SIDE = 256
WINDOW = 14  # largest attention window on the embedding grid; a grid of its multiples pads nothing

_KEYS = (
    (r"^image_encoder\.patch_embed\.seq\.0\.", "vision_encoder.trunk.patch_embed.conv1."),
    (r"^image_encoder\.patch_embed\.seq\.2\.", "vision_encoder.trunk.patch_embed.conv2."),
    # The authors end a stage with its downsampling, timm begins the next stage with it.
    *(
        (rf"^image_encoder\.layers\.{i}\.downsample\.", f"vision_encoder.trunk.stages.{i + 1}.downsample.")
        for i in range(3)
    ),
    (r"^image_encoder\.layers\.", "vision_encoder.trunk.stages."),
    (r"^(vision_encoder\.trunk\..*)\.c\.", r"\1.conv."),
)


class TinyVitEncoder(nn.Module):
    """image_B3HW -> an object whose `last_hidden_state` (and first item) is embedding_B,256,H/4,W/4."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models.tiny_vit import ConvNorm, TinyVit
        from transformers import SamVisionConfig
        from transformers.models.sam.modeling_sam import SamVisionNeck

        trunk = TinyVit(
            embed_dims=(64, 128, 160, 320),
            depths=(2, 2, 6, 2),
            num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, WINDOW, 7),
            drop_path_rate=0.0,
            num_classes=0,
        )
        trunk.patch_embed.conv1 = ConvNorm(3, 32)
        trunk.patch_embed.conv2 = ConvNorm(32, 64)
        trunk.stages[3].downsample.conv2.conv.stride = (1, 1)
        trunk.head = nn.Identity()
        self.trunk = trunk
        self.neck = SamVisionNeck(SamVisionConfig(hidden_size=320, output_channels=256))

    def get_input_embeddings(self) -> nn.Module:
        """What `transformers` and `peft` expect of an encoder: the module that the pixels enter."""
        return cast(nn.Module, self.trunk.patch_embed)

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> Any:
        from transformers.models.sam.modeling_sam import SamVisionEncoderOutput

        features_BCHW = self.trunk.forward_features(pixel_values)
        return SamVisionEncoderOutput(last_hidden_state=self.neck(features_BCHW.permute(0, 2, 3, 1)))


def build() -> nn.Module:
    """A promptable `SamModel` with random weights and a TinyViT encoder for images of side 256."""
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config={"num_hidden_layers": 0, "hidden_size": 32, "image_size": NATIVE_SIDE, "num_pos_feats": 128},
        prompt_encoder_config={"image_size": NATIVE_SIDE, "patch_size": STRIDE},
        # The authors' decoder uses torch's default here; transformers' default of 1e-6 is off by 1e-4 in the masks.
        mask_decoder_config={"layer_norm_eps": 1e-5},
    )
    sam = SamModel(config)
    sam.vision_encoder = TinyVitEncoder()
    return cast(nn.Module, sam)


def convert(state: State, source: Path) -> dict[str, torch.Tensor]:
    """Original LiteMedSAM names -> the names of `build()`'s model."""
    renamed = rename(state, (*_KEYS, *SAM_KEYS))
    if (position := renamed.get("shared_image_embedding.positional_embedding")) is not None:
        renamed["prompt_encoder.shared_embedding.positional_embedding"] = position
    return renamed


def sites(sam: nn.Module) -> list[AttentionSite]:
    """Attention layers of the encoder, input to output: every head has its q, k, v next to each other."""
    from timm.models.tiny_vit import Attention

    found = [(path, module) for path, module in sam.named_modules() if isinstance(module, Attention)]
    return [
        AttentionSite(f"{path}.qkv", "encoder", block, groups=module.num_heads)
        for block, (path, module) in enumerate(found)
    ]
