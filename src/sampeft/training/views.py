"""Features of augmented slices from the frozen encoder: computed when first asked for, then kept on disk, where other
trainings and other processes find them."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import NONE, RANDOM, Features
from sampeft.data.augment import Augmentation, augment, pasted
from sampeft.data.slice_cache import Slices
from sampeft.engines.openvino import encoder_of
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.store import make_entry, open_entry

FOLDER = "views"
_VERSION = 3  # part of every key; raise it when a view of the same key would be another
_WORTH_A_GRAPH = 64  # views for which a graph of the encoder, which takes seconds to make, pays
_SEED = 0x5A3  # of all views: they do not depend on a training's seed, so that trainings share them


@dataclass
class Rows:
    """Rows of tensors of one shape, in bfloat16 but for pictures, which have 8 bits, with their class channels; in a folder or,
    without one, in memory. The last tensor is the picture where `pictured`.

    Each row has a checksum, written last: 0 for one that is not there. Several processes may write the same rows, since
    what they write is equal. A row that cannot be written, for want of disk, is not kept.
    """

    count: int
    shapes: list[list[int]]
    side: int
    folder: Path | None
    pictured: bool = False
    lock: IO[bytes] | None = None
    values: npt.NDArray[np.uint8] = field(init=False)
    checks: npt.NDArray[np.uint32] = field(init=False)

    def __post_init__(self) -> None:
        self.sizes = [2 * int(np.prod(shape)) for shape in self.shapes] + [2 * self.side**2]
        if self.pictured:
            self.sizes[-2] //= 2
        if self.folder is None:
            self.values = np.zeros((self.count, sum(self.sizes)), np.uint8)  # memory is taken row by row
            self.checks = np.zeros(self.count, np.uint32)
        else:
            self.values = np.memmap(self.folder / "rows", np.uint8, "r", shape=(self.count, sum(self.sizes)))
            self.checks = np.memmap(self.folder / "checks", np.uint32, "r", shape=(self.count,))

    @staticmethod
    def make(folder: Path, count: int, row_bytes: int) -> None:
        """Files full of holes, which take no room until rows are written."""
        for name, size in _sizes(count, row_bytes):
            with (folder / name).open("wb") as file:
                file.truncate(size)

    @staticmethod
    def check(folder: Path, count: int, row_bytes: int) -> None:
        """Raises ValueError or OSError where the files have other lengths; each row is checked when it is read."""
        for name, size in _sizes(count, row_bytes):
            if (found := (folder / name).stat().st_size) != size:
                raise ValueError(f"{name} has {found} bytes, not {size}")

    def read(self, row: int) -> tuple[Features, torch.Tensor] | None:
        if not self.checks[row]:
            return None
        content = np.array(self.values[row])
        if _check(content, row) != self.checks[row]:  # as where the machine went down between the row and the disk
            return None
        parts = np.split(content, np.cumsum(self.sizes)[:-1])
        maps = [torch.from_numpy(part) for part in parts[:-1]]
        picture = [maps.pop()] if self.pictured else []
        shaped = [*(m.view(torch.bfloat16).float() for m in maps), *picture]
        features = tuple(m.reshape(shape) for m, shape in zip(shaped, self.shapes, strict=True))
        return features, torch.from_numpy(parts[-1]).view(torch.int16).reshape(self.side, self.side)

    def write(self, row: int, features: Features, truth_HW: torch.Tensor) -> None:
        stored = [m if m.dtype == torch.uint8 else m.to(torch.bfloat16) for m in features]
        bits = [m.contiguous().view(torch.uint8).numpy().ravel() for m in stored]
        content = np.concatenate([*bits, truth_HW.contiguous().view(torch.uint8).numpy().ravel()])
        check = np.uint32(_check(content, row))
        if self.folder is None:
            self.values[row], self.checks[row] = content, check
            return
        try:
            _write_at(self.folder / "rows", row * len(content), content.tobytes())
            _write_at(self.folder / "checks", 4 * row, check.tobytes())
        except OSError:
            return


def _sizes(count: int, row_bytes: int) -> tuple[tuple[str, int], ...]:
    return ("rows", count * row_bytes), ("checks", 4 * count)


def _check(content: npt.NDArray[np.uint8], row: int) -> int:
    """Of a row in its place: one that stands where another belongs has a wrong one."""
    return zlib.crc32(content.data, row) or 1


def _write_at(path: Path, offset: int, content: bytes) -> None:
    with path.open("rb+") as file:
        file.seek(offset)
        file.write(content)


def augmented(
    slices: Slices, index: int, labels: LabelSet, augmentation: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A slice, changed: images_B3HW and channels_BHW of one."""
    pictures = slices.batch(np.array([index]))
    if augmentation.copy_paste and float(torch.rand((), generator=generator)) < augmentation.copy_paste:
        other = int(torch.randint(len(slices), (), generator=generator))
        pictures = pasted(*pictures, *slices.batch(np.array([other])), labels, generator)
    return augment(*pictures, labels, augmentation, generator)


@dataclass
class Views:
    """Augmented slices behind the encoder's first blocks, by number.

    index: slice of each view. block: where the encoder stops, None: at its end. start: what else the encoder depends on,
    beside its pretrained weights. most_bytes: what is above is computed each time. With and without room, values are
    rounded to bfloat16, so that both give the same.
    """

    model: SemanticSam
    slices: Slices
    index: npt.NDArray[np.int64]
    augmentation: Augmentation
    accelerator: Any
    block: int | None
    start: str
    most_bytes: int
    rows: Rows | None = None
    _encode: Callable[[torch.Tensor], Features] | None = field(default=None, init=False, repr=False)

    def get(self, numbers: Sequence[int]) -> tuple[Features, torch.Tensor]:
        """Features of these views, one behind the other, and channels_BHW."""
        entries = [self._one(number) for number in numbers]
        maps = zip(*(features for features, _ in entries), strict=True)
        features = tuple(torch.stack(m).to(self.accelerator.device) for m in maps)
        return features, torch.stack([truth for _, truth in entries])

    def _one(self, number: int) -> tuple[Features, torch.Tensor]:
        computed = None
        if self.rows is None:  # the first one tells how large a row is
            computed = self._computed(number)
            self.rows = self._opened(computed[0])
        has_room = number < self.rows.count
        if has_room and (known := self.rows.read(number)):
            return known
        features, truth = computed or self._computed(number)
        if has_room:
            self.rows.write(number, features, truth)
        return tuple(m if m.dtype == torch.uint8 else m.to(torch.bfloat16).float() for m in features), truth

    def already(self, features: Features) -> int:
        """How many of the views lie on disk from earlier trainings, if one looks like these features of one slice."""
        count, shapes, row_bytes = self._layout(features)
        folder = self._folder(count, shapes)
        check = partial(Rows.check, count=count, row_bytes=row_bytes)
        lock = open_entry(folder, check) if folder else None
        if lock is None:
            return 0
        with lock:
            side = self.slices.channels.shape[-1]
            return int(np.count_nonzero(Rows(count, shapes, side, folder, self._pictured).checks))

    def _computed(self, number: int) -> tuple[Features, torch.Tensor]:
        """By itself, so that it is the same to the bit whatever it is drawn with."""
        seed = int(np.random.SeedSequence([_SEED, number]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        images, truth = augmented(self.slices, int(self.index[number]), self.model.labels, self.augmentation, generator)
        images = images.to(self.accelerator.device)
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            maps = self._encoder()(images) if self.block is None else self.model.encode_start(images, self.block)
        return self.as_stored(tuple(m[0] for m in maps)), truth[0].short()

    def _encoder(self) -> Callable[[torch.Tensor], Features]:
        """The untouched encoder: by OpenVINO where that is installed, the processor does the work and there is enough of it."""
        if self._encode is None:
            found = encoder_of(self.model, torch.get_num_threads()) if self._by_openvino else None
            self._encode = found or self.model.encode
        return self._encode

    @property
    def _by_openvino(self) -> bool:
        is_plain = self.model.spec.is_sam and self.accelerator.mixed_precision in (None, "no")
        on_processor = self.accelerator.device.type == "cpu" and find_spec("openvino") is not None
        return is_plain and on_processor and len(self.index) >= _WORTH_A_GRAPH

    def as_stored(self, features: Features) -> Features:
        """Features of one slice with its picture, where they have one, in the 8 bits that are kept of it."""
        if not features:
            return ()
        *maps, last = (m.float().cpu() for m in features)
        return *maps, (last * 255).round().to(torch.uint8) if self._pictured else last

    @property
    def _pictured(self) -> bool:
        return bool(self.model.head.reads_encoder_maps)

    def _opened(self, features: Features) -> Rows:
        """Room for as many views as may be kept: in the cache, or in memory where others have no use for them."""
        count, shapes, row_bytes = self._layout(features)
        side = self.slices.channels.shape[-1]
        if (folder := self._folder(count, shapes)) is None:
            return Rows(count, shapes, side, None, self._pictured)
        check = partial(Rows.check, count=count, row_bytes=row_bytes)
        lock = open_entry(folder, check)
        if lock is None:
            lock = make_entry(folder, partial(Rows.make, count=count, row_bytes=row_bytes), check)
        return Rows(count, shapes, side, folder, self._pictured, lock)

    def row_bytes(self, features: Features) -> int:
        """Bytes that are kept of one view, by its features `as_stored`, with its class channels."""
        stored = sum((1 if m.dtype == torch.uint8 else 2) * m.numel() for m in features)
        return stored + 2 * int(self.slices.channels.shape[-1]) ** 2

    def _layout(self, features: Features) -> tuple[int, list[list[int]], int]:
        """How many views are kept, the shapes of one, and its bytes."""
        shapes, row_bytes = [list(m.shape) for m in features], self.row_bytes(features)
        return min(len(self.index), self.most_bytes // row_bytes), shapes, row_bytes

    def _folder(self, count: int, shapes: list[list[int]]) -> Path | None:
        """In the cache; None where none are kept, or others have no use for them."""
        if not count or self.slices.folder is None or self.model.digest in (RANDOM, NONE):
            return None
        return self.slices.folder.parent.parent / FOLDER / self._key(count, shapes)

    def _key(self, count: int, shapes: list[list[int]]) -> str:
        assert self.slices.folder is not None
        described = [
            _VERSION,
            self.slices.folder.name,
            [self.model.spec.name, self.model.digest, self.model.side, self.model.encoder_side, self._pictured],
            [self.block, self.start, self.accelerator.mixed_precision, self.accelerator.device.type],
            self.block is None and self._by_openvino,
            asdict(self.augmentation),
            [hashlib.sha256(self.index.tobytes()).hexdigest(), count, shapes],
        ]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]
