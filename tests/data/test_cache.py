"""Prepared slices: made once, found again, made anew when anything that matters changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabricate import flare22_dataset, folder_dataset, write_png
from sampeft.data import cache as cache_module
from sampeft.data import open_dataset
from sampeft.data.cache import Preparation, fingerprint, prepare
from sampeft.data.intensity import PRESETS
from sampeft.errors import DataError
from sampeft.volume import IGNORE

GREY = Preparation(PRESETS["8bit"], 48)


def test_second_time_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(folder_dataset(tmp_path / "set"))
    digest = fingerprint(dataset.cases)
    first = prepare(dataset, dataset.cases, GREY, digest, folder=tmp_path / "cache")
    monkeypatch.setattr(cache_module, "read_volume", lambda path: pytest.fail("read again"))
    second = prepare(dataset, dataset.cases, GREY, digest, folder=tmp_path / "cache")
    assert len(first) == 8
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.channels, second.channels)
    assert [int(c) for c in first.case] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_another_side_or_recipe_or_pixel_is_another_cache(tmp_path: Path) -> None:
    root = folder_dataset(tmp_path / "set")
    dataset = open_dataset(root)
    before = fingerprint(dataset.cases)
    prepare(dataset, dataset.cases, GREY, before, folder=tmp_path / "cache")
    prepare(dataset, dataset.cases, Preparation(PRESETS["8bit"], 64), before, folder=tmp_path / "cache")
    assert len(list((tmp_path / "cache/slices").iterdir())) == 2
    changed = np.zeros((24, 32), dtype=np.uint8)
    changed[3, 4] = 1
    write_png(root / "labels/P01_1.png", changed)
    assert fingerprint(open_dataset(root).cases) != before


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path / "set"))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, dataset.cases, GREY, "x", interrupt, folder=tmp_path / "cache")
    assert not list((tmp_path / "cache/slices").iterdir())
    assert len(prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")) == 8


def test_a_volume_gives_its_slices_upright_and_padded_with_ignore(tmp_path: Path) -> None:
    dataset = open_dataset(flare22_dataset(tmp_path / "set"))
    slices = prepare(dataset, dataset.cases[:1], Preparation(PRESETS["ct-abdomen"], 56), "x", folder=tmp_path / "cache")
    assert slices.images.shape == (4, 1, 56, 56)  # grey is kept as one channel
    images, truth = slices.batch([0, 3])
    assert images.shape == (2, 3, 56, 56)
    assert set(np.unique(truth)) <= {IGNORE, *range(14)}
    assert (truth == IGNORE).any()  # 40 x 28: the square is padded
    assert slices.presence(14)[0].sum() >= 10


def test_nothing_labelled_is_an_error(tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path / "set", described={"ignore": 255}))
    for file in (tmp_path / "set/labels").iterdir():
        write_png(file, np.full((24, 32), 255, dtype=np.uint8))
    with pytest.raises(DataError, match="none of the 8 training files has a labelled slice"):
        prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")
