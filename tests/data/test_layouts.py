"""Laws of every layout: it is recognised, finds each image's own label, and never puts a case on two sides."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from fabricate.layouts import COPIES, Copy
from sampeft.data import DATASETS, open_dataset
from sampeft.data.check import read_labels
from sampeft.errors import DataError
from sampeft.io import read_volume
from sampeft.volume import IGNORE

ALL = [pytest.param(name, make, id=f"{name}-{make.__name__}") for name in DATASETS for make in COPIES[name]]

Maker = Callable[[Path], Copy]


def copy_of(make: Maker, root: Path) -> tuple[Path, Copy]:
    """The folder to open and what is in it; a copy that makes one folder of its own is opened there."""
    copy = make(root)
    own = [path for path in root.iterdir() if path.is_dir() and path.name == "SIRST-5k"]
    return (own or [root])[0], copy


@pytest.mark.parametrize(("name", "make"), ALL)
def test_looking_finds_the_layout_and_each_file_its_own_truth(name: str, make: Maker, tmp_path: Path) -> None:
    root, copy = copy_of(make, tmp_path)
    assert next(known for known, layout in DATASETS.items() if layout.matches(root)) == name
    dataset = open_dataset(root)
    assert dataset == open_dataset(root, name)
    assert len(dataset.cases) == copy.cases
    files = [file for case in dataset.cases for file in case.files]
    assert len({file.id for file in files}) == len(files)
    labelled = {file.id: file for file in files if file.label}
    assert labelled.keys() == copy.truth.keys()
    ids = np.array([*dataset.labels.ids, 255])
    for id, truth in copy.truth.items():
        image = read_volume(labelled[id].image)
        channels = read_labels(labelled[id], dataset, image).array
        found = ids[np.where(channels == IGNORE, len(dataset.labels), channels)]
        np.testing.assert_array_equal(found.squeeze(), truth)
        assert len(np.unique(truth)) >= 2


@pytest.mark.parametrize(("name", "make"), ALL)
def test_splits_are_those_of_the_lists_and_share_no_case(name: str, make: Maker, tmp_path: Path) -> None:
    root, copy = copy_of(make, tmp_path)
    dataset = open_dataset(root)
    splits = {split: ids for split, ids in dataset.splits.items() if "/" not in split}  # others are second divisions
    assert splits == copy.splits
    known = {case.id for case in dataset.cases}
    assert all(set(ids) <= known for ids in dataset.splits.values())
    assert not any(set(a) & set(b) for a, b in combinations(splits.values(), 2))


@pytest.mark.parametrize("name", DATASETS)
def test_what_a_layout_looks_for_is_told_where_nothing_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"no data set; looked for .* here are: photos/") as told:
        open_dataset(tmp_path)
    assert f"{DATASETS[name].LOOKS_FOR} ({name})" in str(told.value)
    with pytest.raises(DataError):
        open_dataset(tmp_path, name)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "layout", "cases", "splits"),
    [
        ("btcv_slices", "folder", 23, {"train": 18, "test": 5}),
        ("gid_mtl5", "gid", 200, {"train": 140, "test": 60}),
        ("sirst", "sirst", 427, {"train": 256, "val": 85, "test": 86}),
    ],
)
def test_real_sets_by_their_layout_and_as_described(
    folder: str, layout: str, cases: int, splits: dict[str, int], real_data: Path
) -> None:
    """They carry a dataset.json, which comes first; its word and the layout's are the same."""
    described, known = open_dataset(real_data / folder), open_dataset(real_data / folder, layout)
    for dataset in (described, known):
        assert len(dataset.cases) == cases
        assert {name: len(ids) for name, ids in dataset.splits.items() if "/" not in name} == splits
    assert described.cases == known.cases
    assert described.labels.ids == known.labels.ids
    assert described.labels.ignore == known.labels.ignore
