"""Tiny copies of public data sets in their true folder shape, with the truth that a reader must find in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fabricate import CT_AFFINE, Array, discs, folder_dataset, looks_like, write_nifti, write_png

GID_COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 255, 255], [255, 255, 0], [0, 0, 255], [0, 0, 0]], np.uint8)
UNDEFINED = 5
SCENES = ("GF2_PMS1__L1A0001064454-MSS1", "GF2_PMS1__L1A0001348919-MSS1", "GF2_PMS2__L1A0001787089-MSS2")


@dataclass(frozen=True)
class Copy:
    """truth: id of a file -> class ids (255 is none); splits: as a reader must give them, by case id."""

    truth: dict[str, Array]
    splits: dict[str, tuple[str, ...]]
    cases: int


def _lists(folder: Path, lists: Mapping[str, Sequence[str]], ending: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, stems in lists.items():
        (folder / name).write_text("\n".join(stem + ending for stem in stems))


def _volume(root: Path, images: str, labels: str | None, id: str, seed: int, classes: int, start: int = 0) -> Array:
    """One volume of three slices as int16 HU with its label."""
    label = np.stack([discs((12, 20), classes, seed + k).T for k in range(3)], axis=2)
    hu = np.where(label > 0, 40 + 10 * label.astype(np.int16), -1000).astype(np.int16)
    write_nifti(root / images / f"{id}_0000.nii.gz", hu, CT_AFFINE)
    if labels is not None:
        write_nifti(root / labels / f"{id}.nii.gz", label, CT_AFFINE)
    return label


def flare22(root: Path) -> Copy:
    """As the challenge gave it out: Training/FLARE22_LabeledCase50/images/FLARE22_Tr_0001_0000.nii.gz."""
    folder = root / "Training" / "FLARE22_LabeledCase50"
    truth = {f"FLARE22_Tr_{n:04d}": _volume(folder, "images", "labels", f"FLARE22_Tr_{n:04d}", n, 14) for n in (1, 2)}
    return Copy(truth, {}, 2)


def flare22_nnunet_names(root: Path) -> Copy:
    """imagesTr/FLARE22_Tr_0001_0000.nii.gz and labelsTr/, without a dataset.json; test images without labels."""
    truth = {f"FLARE22_Tr_{n:04d}": _volume(root, "imagesTr", "labelsTr", f"FLARE22_Tr_{n:04d}", n, 14) for n in (1, 2)}
    _volume(root, "imagesTs", None, "FLARE22_Ts_0001", 3, 14)
    return Copy(truth, {"train": tuple(truth), "unlabelled": ("FLARE22_Ts_0001",)}, 3)


def nnunet(root: Path, described: Mapping[str, Any] | None = None) -> Copy:
    """Dataset003_Liver with an ignore label; described: other keys of dataset.json."""
    truth = {f"liver_{n}": _volume(root, "imagesTr", "labelsTr", f"liver_{n}", n, 4) for n in (2, 10)}
    truth["liver_131"] = _volume(root, "imagesTs", "labelsTs", "liver_131", 131, 4)
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumor": 2, "ignore": 3},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **(described or {}),
    }
    (root / "dataset.json").write_text(json.dumps(content))
    truth = {id: np.where(label == 3, 255, label) for id, label in truth.items()}
    return Copy(truth, {"train": ("liver_2", "liver_10"), "test": ("liver_131",)}, 3)


def decathlon(root: Path) -> Copy:
    """Task09_Spleen: no channel in the names, labels from id to name, test images without labels."""
    truth = {}
    for n in (2, 12, 7):
        part = ("imagesTr", "labelsTr") if n != 7 else ("imagesTs", None)
        label = _volume(root, *part, f"spleen_{n}", n, 2)
        (root / part[0] / f"spleen_{n}_0000.nii.gz").rename(root / part[0] / f"spleen_{n}.nii.gz")
        (root / part[0] / f"._spleen_{n}.nii.gz").write_bytes(b"\0\5\x16\7")  # as its archives hold them
        if part[1]:
            truth[f"spleen_{n}"] = label
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "spleen"}, "numTraining": 2}
    (root / "dataset.json").write_text(json.dumps(content))
    return Copy(truth, {"train": ("spleen_2", "spleen_12"), "unlabelled": ("spleen_7",)}, 3)


def _land(seed: int, size: tuple[int, int] = (30, 40)) -> Array:
    """(H, W) 0..4 and UNDEFINED."""
    return discs(size, 6, seed)


def gid_scenes(root: Path) -> Copy:
    """Large-scale Classification_5classes/image_RGB/<scene>.tif, label_5classes/<scene>_label.tif in colours."""
    truth = {}
    for n, scene in enumerate(SCENES):
        folder, label = root / "Large-scale Classification_5classes", _land(n)
        write_png(folder / "image_RGB" / f"{scene}.tif", np.stack([looks_like(label, 6, n)] * 3, axis=2))
        write_png(folder / "label_5classes" / f"{scene}_label.tif", GID_COLORS[label])
        truth[scene] = np.where(label == UNDEFINED, 255, label)
    return Copy(truth, {}, 3)


def gid_crops_of_scenes(root: Path) -> Copy:
    """Crops named after their scene: those of one scene are one case."""
    truth = {}
    for n, scene in enumerate(SCENES):
        for row in (0, 1):
            label, id = _land(10 * n + row), f"{scene}_{row}_0_224"
            write_png(root / "images" / f"{id}.tif", np.stack([looks_like(label, 6, n)] * 3, axis=2))
            write_png(root / "labels" / f"{id}_label.tif", GID_COLORS[label])
            truth[id] = np.where(label == UNDEFINED, 255, label)
    _lists(root, {"train.txt": SCENES[:2], "test.txt": [f"{SCENES[2]}_{row}_0_224" for row in (0, 1)]})
    return Copy(truth, {"train": SCENES[:2], "test": SCENES[2:]}, 3)


def gid_mtl5(root: Path) -> Copy:
    """Crops of GID-MTL5 with its ids, 5 undefined."""
    truth = {}
    for n, id in enumerate(("builtup_001", "forest_012", "water_443")):
        label = _land(n, (28, 28))
        write_png(root / "images" / f"{id}.png", np.stack([looks_like(label, 6, n)] * 3, axis=2))
        write_png(root / "labels" / f"{id}.png", label)
        truth[id] = np.where(label == UNDEFINED, 255, label)
    _lists(root, {"train.txt": ["builtup_001", "forest_012"], "test.txt": ["water_443"]})
    return Copy(truth, {"train": ("builtup_001", "forest_012"), "test": ("water_443",)}, 3)


def _small_targets(root: Path, images: str, masks: str, ids: Sequence[str], suffix: str = "") -> dict[str, Array]:
    truth = {}
    for n, id in enumerate(ids):
        target = np.zeros((24, 32), np.uint8)
        target[4 + n : 7 + n, 10:12] = 1
        write_png(root / images / f"{id}.png", 60 + 150 * target)
        write_png(root / masks / f"{id}{suffix}.png", 255 * target)
        truth[id] = target
    return truth


def sirst_v1(root: Path) -> Copy:
    """images/Misc_1.png, masks/Misc_1_pixels0.png with boxes beside them, idx_427/ and idx_320/, no last newline."""
    truth = _small_targets(root, "images", "masks", ("Misc_1", "Misc_2", "Misc_10", "Misc_111"), "_pixels0")
    for id in truth:
        (root / "masks" / f"{id}.xml").write_text("<annotation/>")
    lists = {"train": ["Misc_10", "Misc_2"], "val": ["Misc_1"], "test": ["Misc_111"]}
    for folder in ("idx_427", "idx_320"):
        _lists(root / folder, {f"{split}.txt": stems for split, stems in lists.items()})
        _lists(root / folder, {"trainval.txt": ["Misc_10", "Misc_2", "Misc_1"]})
    return Copy(truth, {split: tuple(ids) for split, ids in lists.items()}, 4)


def sirst_v2(root: Path) -> Copy:
    """mixed/, annotations/masks/ and several lists in splits/, of which the full ones count."""
    ids = ("20210725-S1-10", "Misc_24", "S20210527_S7_3", "iraytek-96")
    truth = _small_targets(root, "mixed", "annotations/masks", ids, "_pixels0")
    (root / "annotations" / "bboxes").mkdir()
    names = {"train": ids[:2], "val": ids[2:3], "test": ids[3:]}
    _lists(root / "splits", {f"{split}_full.txt": stems for split, stems in names.items()})
    _lists(
        root / "splits", {"test_v1fullv2target.txt": ids[:1], "mini_test.txt": ids[:1], "trainval_full.txt": ids[:3]}
    )
    return Copy(truth, {split: tuple(stems) for split, stems in names.items()}, 4)


def nudt_sirst(root: Path) -> Copy:
    """BasicIRSTD's shape: img_idx/train_NUDT-SIRST.txt."""
    truth = _small_targets(root, "images", "masks", ("000001", "000002", "000010"))
    _lists(root / "img_idx", {"train_NUDT-SIRST.txt": ["000001", "000010"], "test_NUDT-SIRST.txt": ["000002"]})
    return Copy(truth, {"train": ("000001", "000010"), "test": ("000002",)}, 3)


def sirst_5k(root: Path) -> Copy:
    """DNANet's shape: a folder SIRST-5k with 50_50/train.txt."""
    truth = _small_targets(root / "SIRST-5k", "images", "masks", ("000001", "000002"))
    _lists(root / "SIRST-5k" / "50_50", {"train.txt": ["000001"], "test.txt": ["000002"]})
    return Copy(truth, {"train": ("000001",), "test": ("000002",)}, 2)


def irstd_1k(root: Path) -> Copy:
    """IRSTD1k_Img/XDU0.png, IRSTD1k_Label/XDU0.png, trainval.txt and test.txt with file names."""
    truth = _small_targets(root, "IRSTD1k_Img", "IRSTD1k_Label", ("XDU0", "XDU1", "XDU10"))
    _lists(root, {"trainval.txt": ["XDU0", "XDU10"], "test.txt": ["XDU1"]}, ".png")
    return Copy(truth, {"train": ("XDU0", "XDU10"), "test": ("XDU1",)}, 3)


def folder(root: Path) -> Copy:
    """images/, labels/, dataset.json, lists of stems; two files a case."""
    folder_dataset(root)
    truth = {f"P{c:02d}_{p}": discs((24, 32), 3, 100 * c + p) for c in range(1, 5) for p in (1, 2)}
    return Copy(truth, {"train": ("P01", "P02", "P03"), "test": ("P04",)}, 4)


def pairs(root: Path) -> Copy:
    """pairs.csv with cases and splits; two images of the same stem; colours as in the described table."""
    colors = {"background": [0, 0, 0], "field": [0, 255, 0], "lake": [0, 0, 255]}
    (root / "labels.json").write_text(
        json.dumps({"labels": {"background": 0, "field": 1, "lake": 2}, "colors": colors})
    )
    truth, lines = {}, ["image,label,case,split"]
    for n, (scene, split) in enumerate((("north", "train"), ("south", "train"), ("east", "test"))):
        for part in ("a", "b"):
            label = discs((20, 30), 3, 10 * n + ord(part))
            write_png(root / scene / f"{part}.png", looks_like(label, 3, n))
            write_png(root / "truth" / f"{scene}_{part}.png", np.array(list(colors.values()), np.uint8)[label])
            lines.append(f"{scene}/{part}.png,truth/{scene}_{part}.png,{scene},{split}")
            truth[f"{scene}_{part}"] = label
    (root / "pairs.csv").write_text("\n".join(lines) + "\n")
    return Copy(truth, {"train": ("north", "south"), "test": ("east",)}, 3)


COPIES: dict[str, tuple[Callable[[Path], Copy], ...]] = {
    "folder": (folder, pairs),
    "flare22": (flare22, flare22_nnunet_names),
    "nnunet": (nnunet, decathlon),
    "gid": (gid_scenes, gid_crops_of_scenes, gid_mtl5),
    "sirst": (sirst_v1, sirst_v2, nudt_sirst, sirst_5k, irstd_1k),
}
"""The copies of each layout, by its name in DATASETS."""


def small_targets(root: Path, train: int = 6, test: int = 5) -> Path:
    """SIRST's shape with as many images as asked for; the targets move a little, and are large enough to be learnt."""
    sirst_v1(root)
    ids = [f"Misc_{n}" for n in range(200, 200 + train + test)]
    for n, id in enumerate(ids):
        target = np.zeros((24, 32), np.uint8)
        target[8 + n % 3 : 16 + n % 3, 12 + n % 2 : 22] = 1
        write_png(root / "images" / f"{id}.png", 60 + 150 * target)
        write_png(root / "masks" / f"{id}_pixels0.png", 255 * target)
    for folder in ("idx_427", "idx_320"):
        (root / folder / "val.txt").unlink()
        (root / folder / "train.txt").write_text("\n".join(ids[:train]))
        (root / folder / "test.txt").write_text("\n".join([*ids[train:], "Misc_111"]))
    return root
