"""Tiny data sets in their true folder shape, written with Pillow and nibabel alone, so that readers can be tested."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

CT_AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.0, 0, -40], [0, 0, 5.0, 100], [0, 0, 0, 1]])
"""LAS, 2 x 2 x 5 mm: how FLARE22's volumes are often stored."""


def write_png(path: Path, array: Array, mode: str | None = None, palette: Sequence[int] | None = None) -> Path:
    """A raster file; mode `P` takes the array as palette indices, `1` as truth values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "P":
        picture = Image.frombytes("P", array.shape[::-1], array.astype(np.uint8).tobytes())
        picture.putpalette(list(palette or [c for i in range(256) for c in (i, 255 - i, 0)]))
    else:
        picture = Image.fromarray(array)
        picture = picture.convert(mode) if mode else picture
    picture.save(path)
    return path


def write_nifti(path: Path, array: Array, affine: Array = CT_AFFINE, dtype: Any = None) -> Path:
    """A NIfTI file; dtype: the type that the header declares, to which nibabel scales."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    if dtype is not None:
        image.set_data_dtype(dtype)
    nib.save(image, path)
    return path


def discs(size: tuple[int, int], classes: int, seed: int) -> Array:
    """(H, W) uint8 of classes 0..classes-1: one disc per foreground class, side by side, moved a little by the seed."""
    height, width = size
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    label = np.zeros(size, dtype=np.uint8)
    step = width / (classes - 1)
    for c in range(1, classes):
        row, column = height / 2 + rng.uniform(-1, 1), step * (c - 0.5) + rng.uniform(-0.5, 0.5)
        label[(rows - row) ** 2 + (columns - column) ** 2 <= (0.4 * min(step, height / 2)) ** 2 + 1] = c
    return label


def looks_like(label: Array, classes: int, seed: int) -> Array:
    """A uint8 image whose grey level tells the class, with noise."""
    noise = np.random.default_rng(seed + 1000).normal(0, 6, label.shape)
    return np.clip(20 + 200 * label / (classes - 1) + noise, 0, 255).astype(np.uint8)


def folder_dataset(
    root: Path,
    *,
    cases: int = 4,
    files_per_case: int = 2,
    size: tuple[int, int] = (24, 32),
    classes: int = 3,
    test_cases: int = 1,
    described: Mapping[str, Any] | None = None,
) -> Path:
    """The `folder` layout: images/P01_1.png, labels/P01_1.png, dataset.json, train.txt, test.txt (the last cases).

    described: keys of dataset.json to add or, with None, to leave out. Class c is named `c<c>`. Returns the root.
    """
    stems: dict[str, list[str]] = {}
    for case in range(1, cases + 1):
        for part in range(1, files_per_case + 1):
            stem, seed = f"P{case:02d}_{part}", 100 * case + part
            label = discs(size, classes, seed)
            write_png(root / "images" / f"{stem}.png", looks_like(label, classes, seed))
            write_png(root / "labels" / f"{stem}.png", label)
            stems.setdefault(f"P{case:02d}", []).append(stem)
    content = {
        "name": "fabricated",
        "modality": "grey",
        "labels": {"background": 0, **{f"c{c}": c for c in range(1, classes)}},
        "group_regex": "^(P[0-9]+)_",
        "splits": {"train": "train.txt", "test": "test.txt"},
        **(described or {}),
    }
    (root / "dataset.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    order = [stems[case] for case in sorted(stems)]
    for name, part in (("train", order[: cases - test_cases]), ("test", order[cases - test_cases :])):
        (root / f"{name}.txt").write_text("\n".join(stem for group in part for stem in group))
    return root


def flare22_dataset(
    root: Path,
    *,
    cases: int = 3,
    grid: tuple[int, int, int] = (40, 28, 4),
    test_cases: int = 1,
    affine: Array = CT_AFFINE,
) -> Path:
    """FLARE22's layout: images/case_01_0000.nii.gz (int16 HU), labels/case_01.nii.gz (uint8, ids 0..13), the lists.

    Every organ is a disc in every slice; air at -1000 HU, organs at 40 HU and more. Returns the root.
    """
    ids = [f"case_{case:02d}" for case in range(1, cases + 1)]
    for seed, case in enumerate(ids):
        label = np.stack([discs(grid[:2][::-1], 14, 50 * seed + k).T for k in range(grid[2])], axis=2)
        hu = np.where(label > 0, 40 + 10 * label.astype(np.int16), -1000).astype(np.int16)
        write_nifti(root / "images" / f"{case}_0000.nii.gz", hu, affine)
        write_nifti(root / "labels" / f"{case}.nii.gz", label, affine)
    (root / "train.txt").write_text("\n".join(ids[: cases - test_cases]) + "\n")
    (root / "test.txt").write_text("\n".join(ids[cases - test_cases :]) + "\n")
    return root
