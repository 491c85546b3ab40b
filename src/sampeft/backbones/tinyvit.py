"""MobileSAM and LiteMedSAM: the authors' checkpoint -> a promptable `SamModel` whose image encoder is timm's TinyViT.

Against timm's `tiny_vit_5m_224`, both have no stride in the last downsampling and SAM's neck on top. LiteMedSAM also has a
stem of two 1x1 convolutions with stride 1, so that an image of side 256 gives an embedding of 256 x 64 x 64.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sampeft.backbones.checkpoints import SAM_KEYS, State, from_transformers, rename
from sampeft.backbones.sam import LEAD_TOKENS, PARTS, decoder_sites, promptable_input, resize_prompts, tie_position
from sampeft.errors import WeightsError
from sampeft.sites import AttentionSite, EncoderMap, MlpSite, Site

__all__ = [
    "FINER_MAPS",
    "LEAD_TOKENS",
    "PARTS",
    "TINY",
    "TINY_SIDE",
    "after",
    "before",
    "build",
    "convert",
    "encoder_maps",
    "promptable_input",
    "read_folder",
    "resize",
    "sites",
]

WINDOW = 14  # largest attention window on the embedding grid; a grid of its multiples pads nothing
FINER_MAPS = 0
TINY: dict[str, Any] = {"widths": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "heads": (1, 2, 3, 4)}
TINY_SIDE = 64

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
# The classifier that MobileSAM's encoder was distilled under.
_CLASSIFIER = re.compile(r"^(module\.)?image_encoder\.(norm_head|head)\.")


class TinyVitEncoder(nn.Module):
    """image_B3HW -> an object whose `last_hidden_state` is embedding_B,256,H/stride,W/stride. stride: 16, or 4 for the
    stem without strides."""

    def __init__(self, stride: int, widths: tuple[int, ...], depths: tuple[int, ...], heads: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        from timm.models.tiny_vit import ConvNorm, TinyVit
        from transformers import SamVisionConfig
        from transformers.models.sam.modeling_sam import SamVisionNeck

        trunk = TinyVit(
            embed_dims=widths,
            depths=depths,
            num_heads=heads,
            window_sizes=(7, 7, WINDOW, 7),
            drop_path_rate=0.0,
            num_classes=0,
        )
        if stride == 4:
            trunk.patch_embed.conv1 = ConvNorm(3, widths[0] // 2)
            trunk.patch_embed.conv2 = ConvNorm(widths[0] // 2, widths[0])
        trunk.stages[3].downsample.conv2.conv.stride = (1, 1)
        trunk.head = nn.Identity()
        self.trunk = trunk
        self.neck = SamVisionNeck(SamVisionConfig(hidden_size=widths[-1], output_channels=256))

    def get_input_embeddings(self) -> nn.Module:
        """What `transformers` and `peft` expect of an encoder: the module that the pixels enter."""
        return cast(nn.Module, self.trunk.patch_embed)

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> Any:
        from transformers.models.sam.modeling_sam import SamVisionEncoderOutput

        features_BCHW = self.trunk.forward_features(pixel_values)
        return SamVisionEncoderOutput(last_hidden_state=self.neck(features_BCHW.permute(0, 2, 3, 1)))


def build(
    stride: int = 16,
    native_side: int = 1024,
    widths: tuple[int, ...] = (64, 128, 160, 320),
    depths: tuple[int, ...] = (2, 2, 6, 2),
    heads: tuple[int, ...] = (2, 4, 5, 10),
) -> nn.Module:
    """A promptable `SamModel` with random weights and a TinyViT encoder."""
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config={"num_hidden_layers": 0, "hidden_size": 32, "image_size": native_side, "num_pos_feats": 128},
        prompt_encoder_config={"image_size": native_side, "patch_size": stride},
        # The authors' decoder uses torch's default here; transformers' default of 1e-6 is off by 1e-4 in the masks.
        mask_decoder_config={"layer_norm_eps": 1e-5},
    )
    sam = SamModel(config)
    sam.vision_encoder = TinyVitEncoder(stride, widths, depths, heads)
    return cast(nn.Module, sam)


def convert(state: State) -> dict[str, torch.Tensor]:
    """The authors' names, or those of `build()`'s model -> the names of `build()`'s model."""
    kept = {name: value for name, value in state.items() if not _CLASSIFIER.match(name)}
    renamed = rename(kept, () if from_transformers(state) else (*_KEYS, *SAM_KEYS))
    tie_position(renamed)
    return renamed


def read_folder(folder: Path) -> State:
    """There is no such folder: `transformers` has no TinyViT."""
    raise WeightsError(f"{folder}: is a folder; this backbone has the authors' checkpoint only, give that file")


def sites(sam: nn.Module) -> list[Site]:
    """Attention (every head has its own q, k, v next to each other) and MLP of every block of the encoder, then those of the
    mask decoder."""
    from timm.models.tiny_vit import TinyVitBlock

    found: list[Site] = []
    blocks = [(path, module) for path, module in sam.named_modules() if isinstance(module, TinyVitBlock)]
    for block, (path, module) in enumerate(blocks):
        heads = module.attn.num_heads
        found += [
            AttentionSite(f"{path}.attn", "proj", "encoder", block, fused="qkv", groups=heads),
            MlpSite(f"{path}.mlp", ("fc1", "fc2"), "encoder", block, norm="norm"),
        ]
    return [*found, *decoder_sites(sam)]


def resize(sam: Any, side: int) -> None:
    """Make prompts work on a square of this side; the encoder is convolutions and windows and takes any."""
    resize_prompts(sam, side, side // sam.vision_encoder.stride)


def encoder_maps(sam: Any) -> tuple[EncoderMap, ...]:
    """The outputs of stages 1 to 3, the last of them what enters the neck. Stage 0 has the same grid as a convolution of
    the picture itself and four times the values of all others together."""
    stride = sam.vision_encoder.stride
    stages = sam.vision_encoder.trunk.stages[1:]
    widths = [stage.blocks[-1].dim for stage in stages]
    return tuple(EncoderMap(w, s) for w, s in zip(widths, (stride // 2, stride, stride), strict=True))


def before(sam: Any, pixels_B3HW: torch.Tensor, block: int, maps: bool = False) -> tuple[torch.Tensor, ...]:
    """(B, h, w, C) that enters a block: the convolutions before it, those that make a stage coarser among them; then with
    `maps` the outputs of the stages that are passed by then."""
    trunk = sam.vision_encoder.trunk
    features_BCHW = trunk.stages[0](trunk.patch_embed(pixels_B3HW))
    return _through(trunk, (_enter(trunk.stages[1], features_BCHW),), 0, block, maps)


def after(sam: Any, features: tuple[torch.Tensor, ...], block: int, maps: bool = False) -> tuple[torch.Tensor, ...]:
    """What `before` gave -> (embedding_B,256,g,g), then with `maps` the encoder's maps."""
    encoder = sam.vision_encoder
    tokens, *shown = _through(encoder.trunk, features, block, None, maps)
    return encoder.neck(tokens), *shown


def _enter(stage: Any, features_BCHW: torch.Tensor) -> torch.Tensor:
    return cast(torch.Tensor, stage.downsample(features_BCHW).permute(0, 2, 3, 1))


def _through(
    trunk: Any, features: tuple[torch.Tensor, ...], first: int, last: int | None, maps: bool
) -> tuple[torch.Tensor, ...]:
    """From the input of block `first` to that of block `last`, or to the end; blocks are counted over the stages."""
    tokens_BHWC, *shown = features
    number = 0
    for stage, following in zip(trunk.stages[1:], [*trunk.stages[2:], None], strict=True):
        for block in stage.blocks:
            if first <= number and (last is None or number < last):
                tokens_BHWC = block(tokens_BHWC)
                if block is stage.blocks[-1]:
                    if maps:
                        shown.append(tokens_BHWC.permute(0, 3, 1, 2))
                    if following is not None:
                        tokens_BHWC = _enter(following, tokens_BHWC.permute(0, 3, 1, 2))
            number += 1
    return tokens_BHWC, *shown
