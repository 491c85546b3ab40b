"""Kept views of slices: computed once for all trainings and processes, exact when there is no room, made again when lost."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from fabricate.backbones import make_tiny, tiny
from fabricate.layouts import folder_dataset
from sampeft.backbones import BACKBONES, RANDOM
from sampeft.data import open_dataset
from sampeft.data.augment import Augmentation
from sampeft.data.intensity import PRESETS
from sampeft.data.slice_cache import Preparation, Slices, fingerprint, prepare
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.training import views
from sampeft.training.views import Views

SPEC = tiny(BACKBONES["lite-medsam"])
MUCH = 1 << 30


@pytest.fixture
def slices(tmp_path: Path) -> Slices:
    dataset = open_dataset(folder_dataset(tmp_path / "data", cases=3, files_per_case=1))
    preparation = Preparation(PRESETS["percentile"], SPEC.family.TINY_SIDE)
    return prepare(dataset, dataset.cases, preparation, fingerprint(dataset.cases), folder=tmp_path / "cache")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, labels: LabelSet) -> SemanticSam:
    monkeypatch.setitem(BACKBONES, SPEC.name, SPEC)
    made = make_tiny(SPEC.name, labels)
    made.digest = "of real weights"
    attach(made, "lora", {"last": 1})
    return made


@pytest.mark.parametrize("block", [1, None])
def test_with_their_picture_in_8_bits_where_the_head_reads_it(
    slices: Slices, monkeypatch: pytest.MonkeyPatch, labels: LabelSet, tmp_path: Path, block: int | None
) -> None:
    """On disk as computed; apart from those of a head that does not; half as many bytes for the picture as for a map."""
    monkeypatch.setitem(BACKBONES, SPEC.name, SPEC)
    found = {}
    for head in ("mask", "pixel"):
        made = make_tiny(SPEC.name, labels, head)
        made.digest = "of real weights"
        found[head] = [of(made, slices, block=block).get([0, 1, 2]) for _ in range(2)]
        assert_equal(*found[head])
    plain, pictured = (features for (features, _), _ in found.values())
    *maps, picture = pictured
    assert (picture.dtype, picture.shape) == (torch.uint8, (3, 1, made.side, made.side))
    assert torch.equal(plain[0], maps[0])
    rows = {folder: (folder / "rows").stat().st_size for folder in (tmp_path / "cache/views").iterdir()}
    assert len(rows) == 2
    extra = 2 * sum(m[0].numel() for m in maps[len(plain) :]) + picture[0].numel()
    assert max(rows.values()) - min(rows.values()) == 2 * len(slices) * extra


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every slice that goes through the encoder's start."""
    found: list[int] = []
    whole = SemanticSam.encode_start
    monkeypatch.setattr(
        SemanticSam, "encode_start", lambda self, x, block: (found.extend([block] * len(x)), whole(self, x, block))[1]
    )
    return found


def of(model: SemanticSam, slices: Slices, most: int = MUCH, **changes: Any) -> Views:
    index = np.tile(np.arange(len(slices)), 2)
    return replace(Views(model, slices, index, Augmentation(), Accelerator(cpu=True), 1, "", most), **changes)


def assert_equal(a: tuple[Any, torch.Tensor], b: tuple[Any, torch.Tensor]) -> None:
    assert len(a[0]) == len(b[0])
    assert all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))
    assert torch.equal(a[1], b[1])


def test_another_training_finds_them(model: SemanticSam, slices: Slices, encoded: list[int], tmp_path: Path) -> None:
    numbers = [0, 2, 1, 2]
    first = of(model, slices).get(numbers)
    assert len(encoded) == 3
    second = of(model, slices).get(numbers)
    assert len(encoded) == 4, "one tells how large a row is"
    assert_equal(first, second)
    assert torch.equal(first[0][0][1], first[0][0][3])
    assert not torch.equal(first[0][0][0], first[0][0][1])
    assert len(list((tmp_path / "cache/views").iterdir())) == 1


def test_what_earlier_trainings_left_is_counted(model: SemanticSam, slices: Slices) -> None:
    views = of(model, slices)
    assert views.already((torch.zeros(1),)) == 0
    features, _ = views.get([0, 2, 1, 2])
    one = tuple(f[0] for f in features)
    assert of(model, slices).already(one) == 3
    assert of(model, slices, start="other").already(one) == 0
    model.digest = RANDOM
    assert of(model, slices).already(one) == 0, "they are not kept on disk"


def test_they_are_the_slice_augmented_rounded_to_bfloat16(model: SemanticSam, slices: Slices) -> None:
    still = Augmentation(0, 0, 0, 0, 0, 0, 0)
    (kept,), truth = of(model, slices, augmentation=still).get([1])
    images, channels = slices.batch([1])
    with torch.no_grad():
        (exact,) = model.eval().encode_start(images, 1)
    torch.testing.assert_close(kept, exact, rtol=2**-8, atol=1e-6)  # half a unit in the last of 8 bits
    assert torch.equal(kept, kept.to(torch.bfloat16).float())
    assert torch.equal(truth.long(), channels)


def test_without_room_they_are_computed_each_time_and_are_the_same(
    model: SemanticSam, slices: Slices, encoded: list[int]
) -> None:
    numbers = list(range(4)) * 2
    roomy = of(model, slices).get(numbers)
    row = roomy[0][0][0].numel() * 2 + roomy[1][0].numel() * 2
    for rows, computed in ((0, 8), (1, 7), (3, 5)):
        encoded.clear()
        assert_equal(of(model, slices, most=rows * row, start=f"{rows}").get(numbers), roomy)
        assert len(encoded) <= computed
    assert len(encoded) > 4


def reordered(folder: Path) -> None:
    """The rows of the first two views, each with its checksum, in the other's place."""
    count = (folder / "checks").stat().st_size // 4
    for name in ("rows", "checks"):
        content = np.fromfile(folder / name, np.uint8).reshape(count, -1)
        content[:2] = content[1::-1]
        content.tofile(folder / name)


def without_the_last(folder: Path) -> None:
    os.truncate(folder / "rows", (folder / "rows").stat().st_size * 3 // 4)


@pytest.mark.parametrize("damage", [reordered, without_the_last])
def test_views_in_another_order_or_too_few_of_them_are_made_anew(
    model: SemanticSam, slices: Slices, encoded: list[int], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    good = of(model, slices).get([0, 1, 2, 3])
    (folder,) = (tmp_path / "cache/views").iterdir()
    damage(folder)
    encoded.clear()
    assert_equal(of(model, slices).get([0, 1, 2, 3]), good)
    assert len(encoded) == (2 if damage is reordered else 4)


@pytest.mark.parametrize(
    "change",
    [
        {"augmentation": Augmentation(shift=0.05)},
        {"block": 0},
        {"block": None},
        {"start": "other trained weights"},
        {"index": np.arange(3)},
    ],
    ids=["augmentation", "block", "end", "start", "index"],
)
def test_others_are_kept_apart(
    model: SemanticSam, slices: Slices, encoded: list[int], change: dict[str, Any], tmp_path: Path
) -> None:
    of(model, slices).get([0])
    of(model, slices, **change).get([0])
    assert len(encoded) == 2
    assert len(list((tmp_path / "cache/views").iterdir())) == 2


def test_other_pretrained_weights_are_kept_apart(model: SemanticSam, slices: Slices, tmp_path: Path) -> None:
    of(model, slices).get([0])
    model.digest = "of other weights"
    of(model, slices).get([0])
    assert len(list((tmp_path / "cache/views").iterdir())) == 2
    model.digest = "random"
    of(model, slices).get([0])
    assert len(list((tmp_path / "cache/views").iterdir())) == 2, "random weights are of one process"


def test_a_row_that_did_not_reach_the_disk_is_made_again(
    model: SemanticSam, slices: Slices, encoded: list[int], tmp_path: Path
) -> None:
    good = of(model, slices).get([0, 1])
    (folder,) = (tmp_path / "cache/views").iterdir()
    with (folder / "rows").open("rb+") as file:
        file.write(bytes(64))
    encoded.clear()
    turned = tuple(m.flip(0) for m in good[0]), good[1].flip(0)
    assert_equal(of(model, slices).get([1, 0]), turned)
    assert encoded == [1, 1], "the one that tells the size, and the broken one"
    assert_equal(of(model, slices).get([1, 0]), turned)
    assert len(encoded) == 3


def test_a_full_disk_costs_time_alone(
    model: SemanticSam, slices: Slices, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = of(model, slices, start="kept").get([0, 1])

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(views, "_write_at", full)
    encoded.clear()
    kept = of(model, slices)
    for _ in range(2):
        assert_equal(kept.get([0, 1]), good)
    assert len(encoded) == 4


def _in_a_process(make: Callable[[], Views], numbers: list[int], out: Path) -> None:
    torch.set_num_threads(1)
    torch.save(make().get(numbers), out)


def test_processes_fill_one_set_together(
    model: SemanticSam, slices: Slices, encoded: list[int], tmp_path: Path
) -> None:
    fork = multiprocessing.get_context("fork")
    orders = ([0, 1, 2, 3], [3, 2, 1, 0])
    started = [
        fork.Process(target=_in_a_process, args=(lambda: of(model, slices), order, tmp_path / f"{i}.pt"))
        for i, order in enumerate(orders)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    encoded.clear()
    here = of(model, slices).get(orders[0])
    assert len(encoded) == 1
    for i, order in enumerate(orders):
        features, truth = torch.load(tmp_path / f"{i}.pt", weights_only=True)
        again = [order.index(number) for number in orders[0]]
        assert_equal((tuple(m[again] for m in features), truth[again]), here)
