"""Cases -> slices at the network's size, prepared once and kept on disk as memory maps."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.ground_truth import read_labels
from sampeft.data.pairing import holds_dicom
from sampeft.data.preprocessing import Preparation as Preparation
from sampeft.data.preprocessing import PreparedVolume as PreparedVolume
from sampeft.errors import DataError
from sampeft.io import geotiff, itk, read_volume, sha256, write_array
from sampeft.io.beside import side_files
from sampeft.io.dicom_series import chosen_series
from sampeft.io.fetched import check_fetched
from sampeft.io.raster_windows import looks_like_picture
from sampeft.store import check_files, make_entry, open_entry, seal, writable_cache
from sampeft.volume import IGNORE

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]
_VERSION = 3  # part of every cache key; raise it when preparation changes
_PARTS = ("images", "channels", "case")


@dataclass(frozen=True)
class Slices:
    """Prepared training slices: images uint8 (N, C, side, side), C 1 for grey and 3 for colour or neighbours; channels
    int16 (N, side, side); case index (N,).

    folder: where they are kept; a copy in another process maps the same files instead of carrying the pixels.
    """

    images: npt.NDArray[np.uint8]
    channels: npt.NDArray[np.int16]
    case: npt.NDArray[np.int32]
    folder: Path | None = None
    lock: IO[bytes] | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def slice_bytes(self) -> int:
        return (self.images.nbytes + self.channels.nbytes) // len(self)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is None:
            return Slices, (self.images, self.channels, self.case)
        return _reopen, (self.folder,)

    def batch(self, index: Sequence[int] | npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """images_B3HW in 0..1 and channels_BHW of the slices named; grey ones show one channel three times (stride 0)."""
        import torch

        images = torch.from_numpy(self.images[index]).float() / 255
        return images.expand(-1, 3, -1, -1), torch.from_numpy(self.channels[index].astype(np.int64))

    def presence(self, classes: int) -> npt.NDArray[np.bool_]:
        """(N, K) whether a slice holds a class."""
        return np.stack([np.bincount(c[c >= 0].ravel(), minlength=classes) > 0 for c in self.channels])


def fingerprint(cases: Sequence[Case]) -> str:
    """sha256 over names and contents of the images and labels of these cases; a file is hashed once while it stays."""
    files = [f for case in cases for f in case.files]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda f: digest_of(f.image), files))
        labels = list(pool.map(lambda f: digest_of(f.label) if f.label else "", files))
    content = [[f.id, image, label] for f, image, label in zip(files, images, labels, strict=True)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def digest_of(path: Path) -> str:
    """Of a file; of all files of a series' folder; of a header and the file of pixels beside it; of a raster and the files
    beside it that describe it. Of DICOM with the series that is chosen. Raises DataError for a link to nothing."""
    check_fetched(path)
    if path.is_dir():
        parts = sorted(p for p in path.iterdir() if p.is_file())
    elif path.suffix.lower() == ".hdr":
        parts = sorted(p for p in path.parent.iterdir() if p.is_file() and p.name.startswith(f"{path.stem}."))
    elif path.suffix.lower() in itk.ENDINGS:
        parts = sorted([path, *itk.pixel_files(path)])
    elif looks_like_picture(path) and geotiff.is_described_beside(path):
        parts = [path, *side_files(path)]
    else:
        parts = [path]
    digests = []
    for part in parts:
        stat = part.stat()
        digests.append(_digest_once(part, stat.st_size, stat.st_mtime_ns))
    if (choice := chosen_series()) and holds_dicom(path):
        digests.append(choice.text)
    return (
        digests[0]
        if parts == [path] and len(digests) == 1
        else hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    )


@cache
def _digest_once(path: Path, size: int, mtime_ns: int) -> str:
    return sha256(path)


def prepare(
    dataset: Dataset,
    cases: Sequence[Case],
    preparation: Preparation,
    digest: str,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Slices:
    """Slices of the cases at the network's size: from the cache when they are there, else made and put there.

    digest: `fingerprint` of the cases. Slices of files without any valid pixel are left out. When the cache has grown
    over its limit, the sets that were not used for longest are removed, never one that a process is using. A set that is not
    as it was written is made anew, and a warning says so.
    Raises DataError when no slice is left.
    """
    described = [
        _VERSION,
        digest,
        [[case.id, len(case.files)] for case in cases],
        _described(preparation),
        dataset.labels.to_json(),
        sorted(dataset.label_values.items()),
        sorted((dataset.label_colors or {}).items()),
    ]
    name = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]
    target = (folder / "slices" if folder else writable_cache("slices")) / name
    check = partial(_check, cases=len(cases), classes=len(dataset.labels))
    lock = open_entry(target, check)
    if lock is None:

        def write(temporary: Path) -> None:
            _write(temporary, dataset, cases, preparation, progress)
            seal(temporary, map(_file, _PARTS))

        lock = make_entry(target, write, check)
    return Slices(*_arrays(target), target, lock)


def _described(preparation: Preparation) -> dict[str, Any]:
    """Of a preparation all that the slices depend on: not where a denoiser's weights are kept, only their content."""
    content = replace(preparation, seen=None).to_json()
    return content if preparation.denoise is None else {**content, "denoise": preparation.denoise.identity}


def _reopen(folder: Path) -> Slices:
    """In another process than the one that checked the set and holds it."""
    if (lock := open_entry(folder, _arrays)) is None:
        raise DataError(f"{folder}: the prepared slices are gone; start again, they are made anew")
    return Slices(*_arrays(folder), folder, lock)


def _file(part: str) -> str:
    return f"{part}.npy"


def _arrays(folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16], npt.NDArray[np.int32]]:
    """Images, channels and case of a set, mapped. Raises ValueError where they do not fit each other."""
    images, channels, case = (np.load(folder / _file(part), mmap_mode="r") for part in _PARTS)
    count, *plane = channels.shape
    fits = images.shape in ((count, 1, *plane), (count, 3, *plane)) and case.shape == (count,) and len(plane) == 2
    if not fits or (images.dtype, channels.dtype, case.dtype) != (np.uint8, np.int16, np.int32):
        raise ValueError(f"images {images.shape}, channels {channels.shape} and cases {case.shape} do not fit")
    return images, channels, case


def _check(folder: Path, cases: int, classes: int) -> None:
    """Raises ValueError or OSError where a set is not as it was written, or its numbers are no cases or classes."""
    check_files(folder)
    _, channels, case = _arrays(folder)
    for name, numbers, lowest, count in (("channels", channels, IGNORE, classes), ("case", case, 0, cases)):
        low, high = int(numbers.min()), int(numbers.max())
        if low < lowest or high >= count:
            raise ValueError(f"{_file(name)} holds {low} to {high}, not {lowest} to {count - 1}")


class _Rows:
    """A .npy file that rows are appended to, so that no more than one is in memory."""

    def __init__(self, path: Path, dtype: npt.DTypeLike, row: tuple[int, ...]) -> None:
        self.path, self.row, self.dtype, self.count = path, row, np.dtype(dtype), 0
        self._file = path.open("wb+")
        self._start = self._header()

    def append(self, row: npt.NDArray[Any]) -> None:
        try:
            self._file.write(np.ascontiguousarray(row, dtype=self.dtype).data)
        except OSError as error:
            error.filename = str(self.path)  # a full disk does not say on which file
            raise
        self.count += 1

    def close(self) -> None:
        try:
            self._file.seek(0)
            end = self._header()
            assert end == self._start, "numpy leaves room in the header for a growing first axis"
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def _header(self) -> int:
        shape = (self.count, *self.row)
        described = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, described)
        return self._file.tell()


def _write(
    folder: Path, dataset: Dataset, cases: Sequence[Case], preparation: Preparation, progress: Progress | None
) -> None:
    """Images, channels and case of all slices, file by file; grey images keep one channel."""
    files = [(number, file) for number, case in enumerate(cases) for file in case.files]
    side = preparation.side
    images = _Rows(folder / "images.npy", np.uint8, (1, side, side))
    channels = _Rows(folder / "channels.npy", np.int16, (side, side))
    index: list[int] = []
    try:
        for done, (number, file) in enumerate(files):
            for image, truth in _prepared(dataset, file, preparation):
                if images.row[0] == 1 and (image != image[:1]).any():
                    images = _in_colour(images)
                images.append(image[:1] if images.row[0] == 1 else np.broadcast_to(image, images.row))
                channels.append(truth)
                index.append(number)
            if progress:
                progress(done + 1, len(files))
    finally:
        images.close()
        channels.close()
    if not index:
        raise DataError(f"{dataset.root}: none of the {len(files)} training files has a labelled slice")
    write_array(folder / "case.npy", np.array(index, dtype=np.int32))


def _in_colour(grey: _Rows) -> _Rows:
    """The same rows with three equal channels, in a new file of the same name: the first coloured image has come."""
    grey.close()
    old = grey.path.rename(grey.path.with_name("grey.npy"))
    rows = _Rows(grey.path, grey.dtype, (3, *grey.row[1:]))
    if grey.count:
        for row in np.load(old, mmap_mode="r"):
            rows.append(row.repeat(3, axis=0))
    old.unlink()
    return rows


def _prepared(
    dataset: Dataset, file: ImageFile, preparation: Preparation
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]]:
    """Image (1 or 3, side, side) and class channels (side, side) of each slice that has any truth."""
    import torch

    prepared = PreparedVolume.of(read_volume(file.image), preparation, quiet=True)  # `check` has told what is odd
    truth = prepared.view.slices(read_labels(file, dataset, prepared.volume).array)
    for s in range(len(prepared)):
        channels = prepared.frame.channels(torch.from_numpy(np.ascontiguousarray(truth[s]))).numpy()
        if channels.max() >= 0:
            yield (prepared.compact(s) * 255).round().to(torch.uint8).numpy(), channels
