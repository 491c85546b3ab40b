"""Cases -> slices at the network's size, prepared once and kept on disk as memory maps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.check import read_labels
from sampeft.data.intensity import Intensity, Levels, measure
from sampeft.data.slices import Frame, SliceView
from sampeft.errors import DataError
from sampeft.io import read_volume, sha256
from sampeft.volume import Volume

Progress = Callable[[int, int], None]
_VERSION = 1  # part of every cache key; raise it when preparation changes


@dataclass(frozen=True)
class Preparation:
    """What turns a file into network input; stored with the model and used again at prediction."""

    intensity: Intensity
    side: int
    plane: str = "auto"


@dataclass(frozen=True)
class PreparedVolume:
    """A file as upright slices with its levels and frame worked out."""

    volume: Volume
    view: SliceView
    slices: npt.NDArray[Any]
    levels: Levels
    frame: Frame

    @classmethod
    def of(cls, volume: Volume, preparation: Preparation) -> PreparedVolume:
        view = SliceView.of(volume, preparation.plane)
        slices = view.slices(volume.array)
        levels = measure(preparation.intensity, slices)
        height, width = slices.shape[1:3]
        return cls(volume, view, slices, levels, Frame((height, width), levels.box, preparation.side))

    def __len__(self) -> int:
        return len(self.slices)

    def image(self, index: int) -> torch.Tensor:
        """(3, side, side) in 0..1."""
        return self.frame.image(torch.from_numpy(self.levels.apply(self.slices[index])))


@dataclass(frozen=True)
class Slices:
    """Prepared training slices: images uint8 (N, C, side, side), C 1 for grey and 3 for colour; channels int16
    (N, side, side); case index (N,)."""

    images: npt.NDArray[np.uint8]
    channels: npt.NDArray[np.int16]
    case: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Sequence[int] | npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """images_B3HW in 0..1 and channels_BHW of the slices named."""
        images = torch.from_numpy(self.images[index]).float() / 255
        return images.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(self.channels[index].astype(np.int64))

    def presence(self, classes: int) -> npt.NDArray[np.bool_]:
        """(N, K) whether a slice holds a class."""
        return np.stack([np.bincount(c[c >= 0].ravel(), minlength=classes) > 0 for c in self.channels])


def cache_folder() -> Path:
    """SAMPEFT_CACHE, or the user's own cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sampeft"
    return Path(os.environ.get("SAMPEFT_CACHE") or default)


def fingerprint(cases: Sequence[Case]) -> str:
    """sha256 over names and contents of the images and labels of these cases."""
    files = [f for case in cases for f in case.files]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda f: sha256(f.image), files))
        labels = list(pool.map(lambda f: sha256(f.label) if f.label else "", files))
    content = [[f.id, image, label] for f, image, label in zip(files, images, labels, strict=True)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def prepare(
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    digest: str,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Slices:
    """Slices of the cases at the network's size: from the cache when they are there, else made and put there.

    digest: `fingerprint` of the cases. Slices of files without any valid pixel are left out.
    """
    key = json.dumps([_VERSION, digest, asdict(preparation), dataset.labels.to_json(), dataset.label_values])
    target = (folder or cache_folder()) / "slices" / hashlib.sha256(key.encode()).hexdigest()[:24]
    if not (target / "case.npy").is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
        try:
            _write(temporary, dataset, cases, preparation, progress)
            try:
                os.replace(temporary, target)
            except OSError:
                if not (target / "case.npy").is_file():  # else another process was first
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Slices(*(np.load(target / f"{name}.npy", mmap_mode="r") for name in ("images", "channels", "case")))


def _write(
    folder: Path, dataset: Dataset, cases: Sequence[Case], preparation: Preparation, progress: Progress | None
) -> None:
    files = [(number, file) for number, case in enumerate(cases) for file in case.files]
    images: list[npt.NDArray[np.uint8]] = []
    channels: list[npt.NDArray[np.int16]] = []
    index: list[int] = []
    for done, (number, file) in enumerate(files):
        for image, truth in _prepared(dataset, file, preparation):
            images.append(image)
            channels.append(truth)
            index.append(number)
        if progress:
            progress(done + 1, len(files))
    if not images:
        raise DataError(f"{dataset.root}: none of the {len(files)} training files has a labelled slice")
    grey = all((image[0] == image[1]).all() and (image[0] == image[2]).all() for image in images)
    np.save(folder / "images.npy", np.stack([image[:1] if grey else image for image in images]))
    np.save(folder / "channels.npy", np.stack(channels))
    np.save(folder / "case.npy", np.array(index, dtype=np.int32))


def _prepared(
    dataset: Dataset, file: ImageFile, preparation: Preparation
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]]:
    prepared = PreparedVolume.of(read_volume(file.image), preparation)
    truth = prepared.view.slices(read_labels(file, dataset, prepared.volume).array)
    for s in range(len(prepared)):
        channels = prepared.frame.channels(torch.from_numpy(np.ascontiguousarray(truth[s])))
        if bool((channels >= 0).any()):
            yield (prepared.image(s) * 255).round().to(torch.uint8).numpy(), channels.numpy()
