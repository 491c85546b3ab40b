"""The FLARE22 metrics of one pair of 13 organs by sampeft and by the PyPI package flare22-dsc-nsd-test, side by side.

    pip install flare22-dsc-nsd-test pandas
    python benchmarks/metrics_speed.py [--size 512 512 100] [--ours-only]
    python benchmarks/metrics_speed.py --cases 50 --processes 1 2 --size 256 256 60    # NIfTI files, wall seconds

Organs are ellipsoids with rough surfaces at the sizes of an adult's, in 0.8 x 0.8 x 2.5 mm; the prediction has another
roughness (DSC about 0.9). The package's numpy and scipy names of old are put back. Times are CPU seconds of one thread,
so that other work on the machine takes nothing away from a side. Reading the files is part of neither side: the package
gets the arrays in memory. Our side gives all of the default protocol too, of which FLARE22's numbers are a part.
With --cases so many pairs are written as NIfTI and scored by several processes, reading included; the results must be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"

import nibabel
import numpy as np
from scipy import ndimage

from sampeft.labels import LabelSet
from sampeft.metrics.protocols import PROTOCOLS

SPACING_MM = (0.8, 0.8, 2.5)
REPEATS = 3  # of each side, in one process; the median is shown
# Centre and half axes in shares of the volume, in FLARE22's order of ids.
ORGANS = {
    "liver": (0.33, 0.45, 0.60, 0.17, 0.15, 0.30),
    "right kidney": (0.33, 0.66, 0.40, 0.055, 0.06, 0.22),
    "spleen": (0.74, 0.50, 0.66, 0.07, 0.09, 0.20),
    "pancreas": (0.52, 0.46, 0.48, 0.10, 0.035, 0.07),
    "aorta": (0.52, 0.62, 0.50, 0.024, 0.024, 0.47),
    "inferior vena cava": (0.44, 0.60, 0.50, 0.026, 0.024, 0.45),
    "right adrenal gland": (0.41, 0.58, 0.66, 0.014, 0.022, 0.06),
    "left adrenal gland": (0.60, 0.58, 0.66, 0.014, 0.022, 0.06),
    "gallbladder": (0.36, 0.37, 0.40, 0.03, 0.035, 0.08),
    "esophagus": (0.55, 0.56, 0.88, 0.02, 0.018, 0.11),
    "stomach": (0.64, 0.36, 0.66, 0.10, 0.09, 0.20),
    "duodenum": (0.44, 0.46, 0.36, 0.05, 0.04, 0.10),
    "left kidney": (0.66, 0.66, 0.42, 0.055, 0.06, 0.22),
}


def label_map(size: tuple[int, int, int], seed: int) -> np.ndarray:
    """uint8 class channels; the seed moves the surfaces only."""
    generator = np.random.default_rng(seed)
    result = np.zeros(size, dtype=np.uint8)
    for k, (x, y, z, a, b, c) in enumerate(ORGANS.values(), 1):
        middle, half = np.multiply(size, (x, y, z)), np.multiply(size, (a, b, c))
        low = np.maximum(np.floor(middle - 1.4 * half), 0).astype(int)
        high = np.minimum(np.ceil(middle + 1.4 * half) + 1, size).astype(int)
        shape = high - low
        noise = generator.standard_normal(np.ceil(shape / (8, 8, 3)).astype(int) + 2).astype(np.float32)
        noise = ndimage.zoom(ndimage.gaussian_filter(noise, 0.8), (8, 8, 3), order=1)[tuple(map(slice, shape))]
        axes = np.ogrid[tuple(map(slice, low, high))]
        radius = sum(((axis - m) / h) ** 2 for axis, m, h in zip(axes, middle, half, strict=True))
        box = tuple(map(slice, low, high))
        result[box][radius < 1 + 0.25 * noise] = k
    return result


def package_seconds(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, dict[str, list[float]]]:
    """CPU seconds of the package on the pair, and its scores."""
    for name, value in {"Inf": np.inf, "NaN": np.nan}.items():
        if not hasattr(np, name):
            setattr(np, name, value)
    for name in ("filters", "morphology"):
        if not hasattr(ndimage, name):
            setattr(ndimage, name, ndimage)
    package = importlib.import_module("FLARE22_DSC_NSD_TEST.DSC_NSD_TEST")

    class Image:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array
            self.header = self

        def get_zooms(self) -> tuple[float, ...]:
            return SPACING_MM

        def get_fdata(self) -> np.ndarray:
            return self.array

    with tempfile.TemporaryDirectory() as folder:
        for side in ("pred", "truth"):
            (Path(folder) / side).mkdir()
            (Path(folder) / side / "pair.nii.gz").touch()
        pick: Any = lambda path: Image(truth if "truth" in Path(path).parts else prediction)  # noqa: E731
        with mock.patch.object(package.nb, "load", pick):
            started = time.process_time()
            scores = package.DSC_NSD(f"{folder}/pred", f"{folder}/truth", folder, "scores.csv")
            return time.process_time() - started, scores


def scaling(size: tuple[int, int, int], cases: int, processes: list[int], folder: Path) -> None:
    """Wall seconds of scoring files with each number of processes; stops when one gives another result."""
    from sampeft.workflows.evaluate import evaluate_maps  # here, so that the processes need not import torch

    labels = LabelSet(("background", *ORGANS), tuple(range(14)))
    pairs = [(label_map(size, seed), label_map(size, seed + 1)) for seed in range(0, 8, 2)]
    for i in range(cases):
        for side, array in zip(("truth", "pred"), pairs[i % len(pairs)], strict=True):
            (folder / side).mkdir(exist_ok=True)
            affine = np.diag([*SPACING_MM, 1.0])
            nibabel.save(nibabel.Nifti1Image(array, affine), folder / side / f"case{i:03}.nii.gz")
    print(f"\n{cases} pairs of {' x '.join(map(str, size))} voxels, 13 organs, protocol default\n")
    print("| processes | wall seconds | times faster than the first row |\n| ---: | ---: | ---: |")
    first: tuple[float, Any] | None = None
    for count in processes:
        started = time.monotonic()
        found = evaluate_maps(folder / "pred", folder / "truth", labels, processes=count).summary()
        seconds = time.monotonic() - started
        first = first or (seconds, found)
        assert repr(found) == repr(first[1]), f"{count} processes give another result"
        print(f"| {count} | {seconds:.1f} | {first[0] / seconds:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 100))
    parser.add_argument("--ours-only", action="store_true", help="show our time and peak memory alone")
    parser.add_argument("--cases", type=int, help="score so many pairs of files instead")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    size = tuple(options.size)
    if options.cases:
        with tempfile.TemporaryDirectory() as folder:
            scaling(size, options.cases, options.processes, Path(folder))
        return
    truth, prediction = label_map(size, 0), label_map(size, 1)
    labels = LabelSet(("background", *ORGANS), tuple(range(14)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = []
    for name in ("flare22-package", "default"):
        PROTOCOLS[name].score(prediction[:64, :64, :8], truth[:64, :64, :8], SPACING_MM, labels)  # imports
        seconds = []
        for _ in range(REPEATS):
            started = time.process_time()
            found = PROTOCOLS[name].score(prediction, truth, SPACING_MM, labels)
            seconds.append(time.process_time() - started)
        rows.append([f"sampeft, protocol {name}", statistics.median(seconds)])
        if name == "flare22-package":
            ours = found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    largest = 0.0
    if not options.ours_only:
        with contextlib.redirect_stdout(io.StringIO()):
            runs = [package_seconds(prediction, truth) for _ in range(REPEATS)]
        theirs = runs[0][1]
        rows.append(["flare22-dsc-nsd-test 0.0.2", statistics.median(seconds for seconds, _ in runs)])
        dsc = [theirs[key][0] for key in theirs if key.endswith("_DSC")]
        nsd = [theirs[key][0] for key in theirs if key.endswith("_NSD")]
        largest = max(np.abs(ours.measures["dsc"][1:] - dsc).max(), np.abs(ours.measures["nsd"][1:] - nsd).max())
    print(f"\n{' x '.join(map(str, size))} voxels, 13 organs, {int((truth > 0).sum())} voxels of organs\n")
    print("| side | CPU seconds | times faster than the package |\n| --- | ---: | ---: |")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.2f} | {'' if options.ours_only else f'{rows[-1][1] / seconds:.1f}'} |")
    print(
        f"\nLargest difference of a DSC or NSD: {largest:.1g}. Mean DSC {np.mean(ours.measures['dsc'][1:]):.3f}, ",
        end="",
    )
    print(f"NSD {np.nanmean(ours.measures['nsd'][1:]):.3f}.")
    print(f"Peak memory with the pair alone {before:.0f} MiB, after our side {peak:.0f} MiB.")


if __name__ == "__main__":
    main()
