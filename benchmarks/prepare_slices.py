"""How fast 100 CT slices of 512 x 512 become network input, against only reading them; prints a Markdown table.

Usage: OMP_NUM_THREADS=1 python benchmarks/prepare_slices.py [--side 256] [--repeats 3]
A made-up body of gzipped 16-bit HU with noise and 13 organs, so that unpacking costs what it costs for a patient. Reading:
image and labels to arrays. Preparing: the same from the files to the cache on disk (window, body box, resize, labels, write).
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.intensity import PRESETS
from sampeft.data.layouts.flare22 import FLARE22_LABELS
from sampeft.data.slice_cache import Preparation, fingerprint, prepare
from sampeft.io import read_label_ids, read_volume

SLICES, PIXELS = 100, 512
TARGET = 0.6


def write_patient(folder: Path) -> ImageFile:
    """An elliptic body of fat with 13 organs in it, air around, and the noise of a scanner."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(-1, 1, PIXELS), np.linspace(-1, 1, PIXELS), indexing="ij")
    body = (x / 0.85) ** 2 + (y / 0.6) ** 2 < 1
    organs = np.zeros((PIXELS, PIXELS), dtype=np.uint8)
    for organ in range(1, 14):
        at, size = rng.uniform(-0.4, 0.4, 2), rng.uniform(0.03, 0.16)
        organs[((x - at[0]) ** 2 + (y - at[1]) ** 2 < size**2) & body] = organ
    hu = np.where(body, -90 + 15.0 * organs, -1000).astype(np.float32)[:, :, None]
    noise = rng.normal(0, 12, (PIXELS, PIXELS, SLICES)).astype(np.float32)
    affine = np.diag((-0.8, -0.8, 2.5, 1.0))
    nib.save(nib.Nifti1Image((hu + noise).astype(np.int16), affine), folder / "image.nii.gz")
    nib.save(nib.Nifti1Image(np.repeat(organs[:, :, None], SLICES, axis=2), affine), folder / "label.nii.gz")
    return ImageFile("patient", folder / "image.nii.gz", folder / "label.nii.gz")


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Time of each run."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = write_patient(folder)
        dataset = Dataset("bench", folder, FLARE22_LABELS, (Case("patient", (file,)),))
        preparation = Preparation(PRESETS["ct-abdomen"], options.side)
        digest = fingerprint(dataset.cases)

        def read() -> None:
            read_volume(file.image)
            assert file.label
            read_label_ids(file.label)

        def make() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as fresh:
                assert len(prepare(dataset, dataset.cases, preparation, digest, folder=Path(fresh))) == SLICES

        def again() -> None:
            prepare(dataset, dataset.cases, preparation, digest, folder=folder / "kept")

        read()
        prepare(dataset, dataset.cases, preparation, digest, folder=folder / "kept")
        both = [(seconds(read, 1)[0], seconds(make, 1)[0]) for _ in range(options.repeats)]  # in turns: same weather
        reading, preparing = (min(times) for times in zip(*both, strict=True))
        cached = min(seconds(again, options.repeats))
    print(f"{SLICES} slices of {PIXELS} x {PIXELS}, side {options.side}, one thread, best of {options.repeats};")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}\n"
    )
    print("| work | seconds | slices/s |\n| --- | ---: | ---: |")
    for what, time_s in (
        ("read image and labels", reading),
        ("read, prepare, store", preparing),
        ("open from the cache", cached),
    ):
        print(f"| {what} | {time_s:.3f} | {SLICES / time_s:.0f} |")
    share = reading / preparing
    print(f"\nPreparing runs at {share:.0%} of the speed of reading alone; wanted: at least {TARGET:.0%}.")


if __name__ == "__main__":
    main()
