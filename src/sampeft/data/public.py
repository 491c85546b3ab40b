"""Public data sets with address, size, licence and digest, as far as they are known. The backbones state their own weights.

Addresses, sizes and digests were taken from what publishers and public code state; what no source states is None or
empty. Nothing is downloaded here; `sampeft fetch` does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_NO_LICENCE = "none stated; given out for research, so ask the authors before any other use"
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


PUBLIC: dict[str, Public] = {
    public.name: public
    for public in (
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
}
"""Public data sets by name."""
