"""Small-target sets: which list counts, and what is not one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabricate import write_png
from fabricate.layouts import nudt_sirst, sirst_v1, sirst_v2
from sampeft.data import open_dataset
from sampeft.data.check import check_dataset
from sampeft.errors import DataError


def test_the_whole_set_of_lists_counts_before_the_smaller(tmp_path: Path) -> None:
    """idx_320 leaves images out; idx_427 is the whole."""
    sirst_v1(tmp_path)
    (tmp_path / "idx_320" / "test.txt").write_text("Misc_1")
    assert open_dataset(tmp_path).splits["test"] == ("Misc_111",)


def test_several_lists_of_one_split_are_not_chosen_from(tmp_path: Path) -> None:
    nudt_sirst(tmp_path)
    (tmp_path / "img_idx" / "test_NUAA-SIRST.txt").write_text("000002")
    with pytest.raises(DataError, match=r"test_NUAA-SIRST\.txt and test_NUDT-SIRST\.txt both list test images"):
        open_dataset(tmp_path)


def test_a_list_that_names_a_missing_image_is_told(tmp_path: Path) -> None:
    sirst_v2(tmp_path)
    (tmp_path / "mixed" / "iraytek-96.png").unlink()
    with pytest.raises(DataError, match=r"test_full\.txt: 1 of 1 name without an image \(iraytek-96\)"):
        open_dataset(tmp_path, "sirst")


def test_any_binary_masks_are_no_small_targets(tmp_path: Path) -> None:
    """images/, masks/ and lists are every polyp set too."""
    root = tmp_path / "polyps"
    for name in ("images/a.png", "masks/a.png", "images/b.png", "masks/b.png"):
        write_png(root / name, np.zeros((4, 4), np.uint8))
    (root / "train.txt").write_text("a")
    (root / "test.txt").write_text("b")
    with pytest.raises(DataError, match="no data set"):
        open_dataset(root)
    assert len(open_dataset(root, "sirst").cases) == 2


@pytest.mark.real_data
def test_the_one_fault_of_the_real_set(real_data: Path) -> None:
    """Misc_111: image 220 rows x 325 columns, mask 400 x 592."""
    dataset = open_dataset(real_data / "sirst", "sirst")
    cases = [case for case in dataset.cases if case.id in ("Misc_1", "Misc_110", "Misc_111", "Misc_112")]
    (fault,) = check_dataset(dataset, cases).errors
    assert fault.file.name == "Misc_111_pixels0.png"
    assert "400 x 592" in fault.problem
    assert "220 x 325" in fault.problem


def test_lists_of_other_folders_are_splits_by_the_folders_name(tmp_path: Path) -> None:
    sirst_v1(tmp_path)
    (tmp_path / "idx_320" / "test.txt").write_text("Misc_1")
    dataset = open_dataset(tmp_path)
    assert dataset.splits["idx_320/test"] == ("Misc_1",)
    (tmp_path / "idx_320" / "test.txt").write_text("an_image_of_a_larger_copy")
    assert "idx_320/test" not in open_dataset(tmp_path).splits


def test_trainval_is_what_a_final_model_may_see(tmp_path: Path) -> None:
    sirst_v1(tmp_path)
    dataset = open_dataset(tmp_path)
    seen = [case.id for case in dataset.split("trainval")]
    assert seen == [*dataset.splits["train"], *dataset.splits["val"]]
    assert not set(seen) & set(dataset.splits["test"])
