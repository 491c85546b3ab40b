"""Near-duplicates: copies across a split are found, other images of the same kind are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fabricate import CT_AFFINE, folder_dataset, write_nifti, write_png
from sampeft.data import open_dataset
from sampeft.data.near_duplicates import SAME, image_print, near_duplicates
from sampeft.io import read_volume
from sampeft.volume import Volume

Array = npt.NDArray[np.uint8]


def cloud(seed: int, size: tuple[int, int] = (90, 120)) -> Array:
    """Texture on all scales, as photographs have it."""
    rng = np.random.default_rng(seed)
    field = sum(s * gaussian_filter(rng.standard_normal(size), s) for s in (2, 5, 12, 30))
    field = (field - field.min()) / (field.max() - field.min())
    return np.asarray(20 + 200 * field, dtype=np.uint8)


def likeness(one: Array, other: Array) -> float:
    prints = [image_print(Volume(array[:, :, None], None, Path("x.png"))) for array in (one, other)]
    return float(prints[0] @ prints[1])


def jpeg(image: Array) -> Array:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def resized(image: Array) -> Array:
    return np.asarray(Image.fromarray(image).resize((70, 50), Image.Resampling.BILINEAR))


def noisy(image: Array) -> Array:
    noise = np.random.default_rng(9).normal(0, 5, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), dtype=np.uint8)


COPIES: dict[str, Callable[[Array], Array]] = {
    "itself": lambda image: image,
    "jpeg": jpeg,
    "resized": resized,
    "noisy": noisy,
    "darker": lambda image: np.asarray(0.6 * image + 10, dtype=np.uint8),
    "gamma": lambda image: np.asarray(255 * (image / 255.0) ** 0.6, dtype=np.uint8),
    "colour": lambda image: np.stack([image] * 3, axis=2),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_the_same(name: str) -> None:
    for seed in range(5):
        assert likeness(cloud(seed), COPIES[name](cloud(seed))) >= SAME


def test_other_images_and_images_without_contrast_are_not() -> None:
    assert max(likeness(cloud(a), cloud(b)) for a in range(8) for b in range(a)) < 0.6
    flat = np.full((40, 50), 77, np.uint8)
    assert likeness(flat, flat) == 0
    shaded = np.asarray(np.add.outer(np.arange(64), np.arange(64)), dtype=np.uint8)
    assert likeness(shaded, shaded[::-1, ::-1]) < SAME


def test_only_pairs_across_splits_are_told_the_most_alike_first(tmp_path: Path) -> None:
    folder_dataset(tmp_path, cases=5, files_per_case=1, described={"splits": None, "group_regex": None})
    for n in range(1, 6):
        write_png(tmp_path / "images" / f"P0{n}_1.png", cloud(n))
    write_png(tmp_path / "images" / "P02_1.png", cloud(1))  # the same side as P01
    write_png(tmp_path / "images" / "P04_1.png", noisy(cloud(3)))
    write_png(tmp_path / "images" / "P05_1.png", cloud(1))
    for name, lines in (("train", "P01_1 P02_1 P03_1"), ("test", "P04_1 P05_1")):
        (tmp_path / f"{name}.txt").write_text(lines.replace(" ", "\n"))
    dataset = open_dataset(tmp_path)
    steps: list[tuple[int, int]] = []
    pairs = near_duplicates(dataset, lambda done, total: steps.append((done, total)))
    assert [(one.id, other.id) for one, other, _ in pairs] == [
        ("P01_1", "P05_1"),
        ("P02_1", "P05_1"),
        ("P03_1", "P04_1"),
    ]
    assert [like for *_, like in pairs[:2]] == pytest.approx([1, 1], abs=1e-5)
    assert SAME <= pairs[2][2] < 1
    assert steps == [(n, 5) for n in range(1, 6)]
    assert near_duplicates(replace(dataset, splits={"train": dataset.splits["train"]})) == []
    read = {file.id: image_print(read_volume(file.image)) for case in dataset.cases for file in case.files}
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    assert near_duplicates(dataset, prints=read) == pairs
    assert near_duplicates(dataset) == []  # what cannot be read is for `check` to tell


def test_a_volume_is_told_by_its_middle_slice_whatever_its_axes(tmp_path: Path) -> None:
    """The same patient stored with another axis order is the same image."""
    rng = np.random.default_rng(0)
    hu = np.asarray(1000 * gaussian_filter(rng.standard_normal((60, 50, 5)), (4, 4, 0.5)), dtype=np.int16)
    write_nifti(tmp_path / "a.nii.gz", hu, CT_AFFINE)
    flipped = CT_AFFINE.copy()
    flipped[:, 0] *= -1
    flipped[:3, 3] += CT_AFFINE[:3, 0] * 59
    write_nifti(tmp_path / "b.nii.gz", hu[::-1].transpose(2, 0, 1), flipped[:, [2, 0, 1, 3]])
    write_nifti(tmp_path / "c.nii.gz", np.roll(hu, 2, axis=2), CT_AFFINE)
    a, b, c = (image_print(read_volume(tmp_path / f"{name}.nii.gz")) for name in "abc")
    assert a @ b == pytest.approx(1, abs=1e-5)
    assert a @ c < 0.6


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "pairs"), [("btcv_slices", []), ("gid_mtl5", []), ("sirst", [("Misc_31", "Misc_27")])]
)
def test_real_sets(folder: str, pairs: list[tuple[str, str]], real_data: Path) -> None:
    """CT slices of other patients and crops of one land are no copies; two frames of one video in sirst's own lists are."""
    found = near_duplicates(open_dataset(real_data / folder))
    assert [(one.id, other.id) for one, other, _ in found] == pairs
