"""GID with five land covers: scenes as cases, colours and ids, undefined pixels without a truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabricate import write_png
from fabricate.layouts import SCENES, gid_crops_of_scenes, gid_mtl5, gid_scenes
from sampeft.data import open_dataset
from sampeft.data.check import read_labels
from sampeft.errors import DataError
from sampeft.io import read_volume
from sampeft.volume import IGNORE

COLORS = {(255, 0, 0): 0, (0, 255, 0): 1, (0, 255, 255): 2, (255, 255, 0): 3, (0, 0, 255): 4, (0, 0, 0): 255}


def test_colours_are_those_of_the_data_set(tmp_path: Path) -> None:
    gid_scenes(tmp_path)
    dataset = open_dataset(tmp_path)
    assert dataset.label_colors == COLORS
    assert dataset.labels.names == ("builtup", "farmland", "forest", "meadow", "water")
    assert dataset.labels.foreground == (0, 1, 2, 3, 4)
    assert [case.id for case in dataset.cases] == list(SCENES)


def test_crops_of_one_scene_stay_together(tmp_path: Path) -> None:
    """D38: a list that divides a scene is refused."""
    gid_crops_of_scenes(tmp_path)
    assert [len(case.files) for case in open_dataset(tmp_path).cases] == [2, 2, 2]
    (tmp_path / "train.txt").write_text(f"{SCENES[0]}_0_0_224\n")
    with pytest.raises(DataError, match=f"names 1 of the 2 files of case {SCENES[0]}"):
        open_dataset(tmp_path)


def test_five_is_undefined_in_crops_and_an_error_in_scenes(tmp_path: Path) -> None:
    """In GID-MTL5 5 is undefined; where ids count from 1 it is water, so elsewhere nothing is guessed."""
    gid_mtl5(tmp_path / "crops")
    dataset = open_dataset(tmp_path / "crops")
    file = dataset.cases[0].files[0]
    assert (read_labels(file, dataset, read_volume(file.image)).array == IGNORE).any()
    write_png(tmp_path / "scenes" / "image_RGB" / f"{SCENES[0]}.tif", np.zeros((2, 3, 3), np.uint8))
    ids = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
    write_png(tmp_path / "scenes" / "label_5classes" / f"{SCENES[0]}_label.tif", ids)
    dataset = open_dataset(tmp_path / "scenes")
    file = dataset.cases[0].files[0]
    with pytest.raises(DataError, match=r"label id 5 \(1 pixels\) is not in the label map"):
        read_labels(file, dataset, read_volume(file.image))
    dataset = open_dataset(tmp_path / "scenes", label_map={5: 255})
    assert read_labels(file, dataset, read_volume(file.image)).array.ravel().tolist() == [0, 1, 2, 3, 4, IGNORE]


def test_other_crops_are_not_taken_for_gid(tmp_path: Path) -> None:
    gid_mtl5(tmp_path)
    write_png(tmp_path / "images" / "tile_1.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match="no data set"):
        open_dataset(tmp_path)
