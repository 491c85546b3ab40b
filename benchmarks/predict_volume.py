"""A run and a CT in; time, memory and equality of predicting a volume of 512 x 512 x 100 voxels out, as Markdown on stdout.

    SAMPEFT_DATA=... python benchmarks/predict_volume.py RUN [--engine openvino] [--slices 100] [--repeats 3]

The volume is the case `ct` of totalsegmentator_ct, scaled up to 512 x 512 and repeated along its slices. `engine` is the
network alone on its prepared slices, in turns with the whole prediction (read, prepare, network, scale, argmax, write).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import torch
from scipy.ndimage import zoom

import sampeft
from sampeft.data.slice_cache import PreparedVolume
from sampeft.data.slices import largest
from sampeft.io import read_volume
from sampeft.prediction.cases import Job, key_of, predict_cases
from sampeft.prediction.manifest import RunRecord


class Peak:
    """Most resident memory, in MiB above the start, while it runs."""

    def __enter__(self) -> Peak:
        self.process = psutil.Process()
        self.start = self.most = self.process.memory_info().rss
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.over.wait(0.01):
            self.most = max(self.most, self.process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    @property
    def mib(self) -> float:
        return (self.most - self.start) / 2**20


def tiled(source: Path, slices: int, folder: Path) -> Path:
    """The CT at 512 x 512, its slices one after another again and again."""
    image = nib.load(source)
    array = np.asarray(image.dataobj).astype(np.int16)
    scale = 512 / array.shape[0], 512 / array.shape[1]
    planes = [zoom(array[:, :, k], scale, order=1)[:512, :512] for k in range(min(array.shape[2], slices))]
    whole = np.stack([planes[k % len(planes)] for k in range(slices)], axis=2)
    affine = image.affine @ np.diag([1 / scale[0], 1 / scale[1], 5.0, 1.0])
    nib.save(nib.Nifti1Image(whole, affine), folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


def spent() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--engine", default="torch")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    source = tiled(Path(os.environ["SAMPEFT_DATA"]) / "totalsegmentator_ct/case_a/ct.nii.gz", given.slices, work)
    segmenter = sampeft.load(given.run, engine=given.engine)
    segmenter = replace(segmenter, preparation=replace(segmenter.preparation, plane="axial"))
    run = segmenter.engine or (lambda images: segmenter.model(images).float())
    prepared = PreparedVolume.of(read_volume(source), segmenter.preparation)
    with torch.inference_mode():
        run(torch.stack([prepared.image(0)] * max(given.batches)))  # what is made once
    print(
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, engine {given.engine}, {given.slices} slices"
    )
    print("\n| batch | engine, s | whole, s | ratio | engine, CPU s | whole, CPU s | ratio | peak, MiB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    maps = {}
    for repeat in range(given.repeats):
        for batch in given.batches:
            images = [prepared.image(s) for s in range(len(prepared))]
            start = spent()
            with torch.inference_mode():
                for first in range(0, len(images), batch):
                    run(torch.stack(images[first : first + batch]))
            alone = np.subtract(spent(), start)
            del images
            out = work / f"out-{repeat}-{batch}"
            job = Job(out, batch)
            key = key_of(job.settings(segmenter, given.run))
            with Peak() as peak:
                start = spent()
                with RunRecord(out, {}) as record:
                    (done,) = predict_cases(segmenter, [source], job, record, key)
                whole = np.subtract(spent(), start)
            assert done[1] is not None, done[2]
            maps[batch] = np.asarray(nib.load(done[1]).dataobj)
            wall, cpu = whole / alone
            print(
                f"| {batch} | {alone[0]:.1f} | {whole[0]:.1f} | {wall:.2f} | {alone[1]:.1f} | {whole[1]:.1f} | {cpu:.2f} | "
                f"{peak.mib:.0f} |",
                flush=True,
            )
            print(f"\nseconds of stages: {record.cases['ct']['seconds']}", file=sys.stderr)
    first, *others = maps.values()
    print(f"\nvoxels that differ between batches: {[int((first != other).sum()) for other in others]} of {first.size}")
    after_network(prepared, len(segmenter.labels))
    grown(segmenter, source, work)


def after_network(prepared: PreparedVolume, classes: int, repeats: int = 10) -> None:
    """Logits of the square -> class map of a slice, in CPU ms of one thread: torch's two scalings and argmax, and ours."""
    import torch.nn.functional as F

    frame = replace(prepared.frame, box=(0, 0, *prepared.frame.size))
    logits = torch.randn(classes, frame.side, frame.side)

    def before() -> None:
        square = F.interpolate(logits[None], (frame.side, frame.side), mode="bilinear", align_corners=False)
        rows, columns = frame.inner_size
        inner = square[:, :, :rows, :columns]
        scaled = F.interpolate(inner, frame.box_size, mode="bilinear", align_corners=False, antialias=True)[0]
        scaled.argmax(dim=0).to(torch.uint8)

    def ms(step: object) -> float:
        step()  # type: ignore[operator]
        taken = []
        for _ in range(repeats):
            start = time.thread_time()
            step()  # type: ignore[operator]
            taken.append(time.thread_time() - start)
        return 1000 * min(taken)

    scaled = frame.logits(logits)
    old, new = ms(before), ms(lambda: frame.class_map(logits))
    print(f"\nafter the network, one slice of {classes} classes: {old:.0f} ms before, {new:.0f} ms now")
    old, new = ms(lambda: scaled.argmax(dim=0)), ms(lambda: largest(scaled))
    print(f"of it argmax: torch {old:.0f} ms, ours {new:.0f} ms")


def grown(segmenter: sampeft.Segmenter, source: Path, work: Path, times: int = 20) -> None:
    """Resident memory after each of so many predictions of 8 slices."""
    image = nib.load(source)
    small = work / "small.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, :8].astype(np.int16), image.affine), small)
    resident = []
    for number in range(times):
        segmenter.predict_file(small, work / f"again-{number}", batch=4)
        resident.append(psutil.Process().memory_info().rss / 2**20)
    print(f"\nresident after 2, 5, 10, {times} predictions: {[round(resident[n - 1]) for n in (2, 5, 10, times)]} MiB")


if __name__ == "__main__":
    main()
