"""The pieces of `sampeft reproduce`: plans, subsets, folders, undefined pixels, means over seeds and changes by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fabricate import write_png
from fabricate.evaluations import evaluation_of
from fabricate.layouts import GID_COLORS, SCENES, UNDEFINED, flare22, gid_mtl5, gid_scenes, small_targets
from sampeft.data import open_dataset
from sampeft.data.check import read_labels
from sampeft.errors import DataError, UsageError
from sampeft.experiments.paper import (
    Place,
    find_data,
    spread,
    undefined_as_background,
    without_faulty,
)
from sampeft.experiments.paper_refinement import change, change_text
from sampeft.experiments.paper_tables import PLANS, SAM, SeedMean, lora
from sampeft.io import read_volume
from sampeft.provenance import differences


def test_the_rows_stand_beside_the_columns_of_the_paper() -> None:
    rows = PLANS["table2"].rows(False)
    assert [(row.paper, row.method, dict(row.options)) for row in rows[1:] if row.paper] == [
        ("SAM Adapter", "adapter", {}),
        ("SAM LoRA r=1", "lora", {"rank": 1}),
        ("SAM LoRA r=4", "lora", {"rank": 4}),
        ("SAM LoRA r=8", "lora", {"rank": 8}),
    ]
    assert all(row.head == "mask" for plan in PLANS.values() for row in plan.rows(False) if row.paper)
    assert [(row.head, row.control) for row in rows if not row.paper] == [("pixel", False), ("pixel", True)]
    assert rows[0].kind == "oracle"
    assert PLANS["table2"].rows(True)[2].options == {"rank": 1, "whole_decoder": True}
    assert [row.second for row in PLANS["table4"].rows(False)] == [False, True]
    slugs = [row.slug for plan in PLANS.values() for whole in (False, True) for row in plan.rows(whole)]
    # Oracles, Adapter, three ranks of both kinds, pixel with and without SAM, probe, two baselines: none shares a folder.
    assert len(set(slugs)) == 2 + 1 + 2 * 3 + 2 + 1 + 2


def test_subsets_are_spread_evenly_with_both_ends() -> None:
    cases: Any = list(range(9))
    assert spread(cases, 3) == [0, 4, 8]
    assert spread(cases, 5) == [0, 2, 4, 6, 8]
    assert spread(cases, None) == spread(cases, 9) == spread(cases, 50) == cases
    for count in range(1, 9):
        assert len(set(spread(cases, count))) == count


def test_the_first_known_folder_is_taken_and_what_was_looked_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has none of gid_mtl5, GID-MTL5, GID5, gid5; .*--data FOLDER"):
        find_data("gid5", tmp_path, None)
    for name in ("gid5", "GID-MTL5"):
        (tmp_path / name).mkdir()
    assert find_data("gid5", tmp_path, None) == tmp_path / "GID-MTL5"
    assert find_data("gid5", tmp_path, Path("elsewhere")) == Path("elsewhere")


def test_the_faulty_image_of_sirst_is_in_neither_cases_nor_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = open_dataset(small_targets(tmp_path / "sirst"))
    assert "Misc_111" in dataset.splits["test"]
    kept = without_faulty(dataset)
    assert {case.id for case in dataset.cases} - {case.id for case in kept.cases} == {"Misc_111"}
    assert all("Misc_111" not in ids for ids in kept.splits.values())
    assert len(kept.split("test")) == 5
    assert "Misc_111 is left out" in capsys.readouterr().err
    assert without_faulty(kept) is kept
    other = replace(dataset, name="NUDT")  # an image of that name in another set is not at fault
    assert without_faulty(other) is other


def test_undefined_pixels_become_the_first_class_of_ids(tmp_path: Path) -> None:
    truth = gid_mtl5(tmp_path).truth
    plain = open_dataset(tmp_path)
    dataset = undefined_as_background(plain)
    assert dataset.labels.names == ("background", "builtup", "farmland", "forest", "meadow", "water")
    assert dataset.labels.ignore is None
    assert dataset.labels.colors[1:] == plain.labels.colors
    for case in dataset.cases:
        file = case.files[0]
        found = read_labels(file, dataset, read_volume(file.image)).array.squeeze()
        expected = np.where(truth[case.id] == 255, 0, truth[case.id].astype(int) + 1)
        assert {0, 1, 5} <= set(np.unique(expected))
        np.testing.assert_array_equal(found, expected)
    # 255 is undefined as well; what was no class before is none now.
    file = dataset.cases[0].files[0]
    assert file.label
    label = np.array(Image.open(file.label))
    write_png(file.label, np.where(label == UNDEFINED, 255, label).astype(np.uint8))
    found = read_labels(file, dataset, read_volume(file.image)).array.squeeze()
    np.testing.assert_array_equal(found == 0, truth[file.id] == 255)
    write_png(file.label, np.where(label == UNDEFINED, 6, label).astype(np.uint8))
    with pytest.raises(DataError, match="label id 6"):
        read_labels(file, dataset, read_volume(file.image))
    assert undefined_as_background(dataset) is dataset


def test_undefined_pixels_become_the_first_class_of_colours(tmp_path: Path) -> None:
    truth = gid_scenes(tmp_path).truth
    dataset = undefined_as_background(open_dataset(tmp_path))
    for case in dataset.cases:
        file = case.files[0]
        found = read_labels(file, dataset, read_volume(file.image)).array.squeeze()
        np.testing.assert_array_equal(found, np.where(truth[case.id] == 255, 0, truth[case.id].astype(int) + 1))
    # In scenes 5 is an error (it may be water), and shifting the ids must not make it a class.
    file = dataset.cases[0].files[0]
    assert file.label
    numbers = np.argmin(np.abs(np.array(Image.open(file.label))[..., None, :] - GID_COLORS.astype(int)).sum(-1), -1)
    assert UNDEFINED in numbers
    write_png(file.label, numbers.astype(np.uint8))
    with pytest.raises(DataError, match="label id 5"):
        read_labels(file, dataset, read_volume(file.image))


def test_without_a_test_list_a_fold_is_scored_and_the_rest_trained_on(tmp_path: Path) -> None:
    flare22(tmp_path / "flare22")
    assert Place("flare22", tmp_path / "flare22", tmp_path).splits == ("fold1of5", "fold1of5")
    small_targets(tmp_path / "sirst")
    place = Place("sirst", tmp_path / "sirst", tmp_path)
    assert place.splits == ("train", "test")
    for folder in ("idx_427", "idx_320"):
        (tmp_path / "sirst" / folder / "train.txt").unlink()
        (tmp_path / "sirst" / folder / "trainval.txt").unlink(missing_ok=True)
    with pytest.raises(UsageError, match="lists test cases but none to train on"):
        _ = Place("sirst", tmp_path / "sirst", tmp_path).splits


def test_the_stamp_says_the_effort_in_words(tmp_path: Path) -> None:
    place = Place("sirst", small_targets(tmp_path / "sirst"), tmp_path, seeds=1)
    assert place.stamp([lora(4, False)]) == (
        "5 test cases of sirst; 1 seed, 30 minutes of training; lite-medsam at side 256"
    )
    assert place.stamp([SAM]) == "5 test cases of sirst; lite-medsam"
    less = replace(place, seeds=2, minutes=2.5, subset=1, side=112, weights="random")
    assert less.stamp([lora(4, False)]) == (
        "1 test case of sirst (REDUCED: a subset of 5); 2 seeds, 2.5 minutes (REDUCED by --budget) of training each; "
        "lite-medsam at side 112; RANDOM WEIGHTS: nothing pretrained is used"
    )


def test_the_mean_over_seeds_by_hand() -> None:
    nan = float("nan")
    first = evaluation_of([[0.2, 0.4], [0.6, nan], [nan, nan]], ["a", "b", "c"])
    second = evaluation_of([[0.4, 0.8], [nan, nan], [0.5, nan]], ["a", "b", "c"])
    mean = SeedMean.of([first, second])
    # Over seeds: a 0.3, 0.6; b 0.6, nothing; c 0.5, nothing.
    assert mean.classes["organ_1"].mean == pytest.approx((0.3 + 0.6 + 0.5) / 3)
    assert mean.classes["organ_1"].n == 3
    assert mean.classes["organ_2"].mean == pytest.approx(0.6)
    assert mean.classes["organ_2"].n == 1
    assert mean.headline.mean == pytest.approx(((0.3 + 0.6 + 0.5) / 3 + 0.6) / 2)
    assert mean.each == pytest.approx((((0.2 + 0.6) / 2 + 0.4) / 2, ((0.4 + 0.5) / 2 + 0.8) / 2))
    assert mean.background == 1.0
    assert mean.with_background == pytest.approx((1 + (0.3 + 0.6 + 0.5) / 3 + 0.6) / 3)


@pytest.mark.parametrize("cases", [3, 12])
def test_the_mean_over_one_seed_is_the_evaluation(cases: int) -> None:
    """With its intervals, though the cases are in no order: a bootstrap draws them by number."""
    generator = np.random.default_rng(3)
    names = [f"case_{n}" for n in generator.permutation(cases)]
    evaluation = evaluation_of(generator.integers(0, 1000, (cases, 2)) / 1000, names)
    mean = SeedMean.of([evaluation])
    assert mean.headline == evaluation.headline()
    assert list(mean.classes.values()) == [score.interval for score in evaluation.per_class()]
    assert mean.with_background == evaluation.with_background_mean()


def test_other_settings_are_named_with_both_values() -> None:
    before = {"side": 56, "training": {"steps": 2, "lr": 1.0}, "options": {"rank": 4}}
    now = {"side": 56, "training": {"steps": 3, "lr": 1.0}, "options": {"rank": 8}, "head": "mask"}
    assert differences(before, now) == [
        "training.steps was 2, is 3",
        "options.rank was 4, is 8",
        "head was None, is mask",
    ]
    assert differences(before, before) == []


def test_changes_by_hand_leave_out_what_has_no_difference() -> None:
    nan, inf = float("nan"), float("inf")
    hd95 = {"hd95_mm": [[1.0, inf], [4.0, inf], [nan, nan], [nan, 2.0]]}
    after = {"hd95_mm": [[2.0, 3.0], [2.0, inf], [nan, nan], [1.0, 1.0]]}
    dsc = [[0.5, 0.5]] * 4
    interval, left_out = change(evaluation_of(dsc, measures=hd95), evaluation_of(dsc, measures=after), "hd95_mm")
    # Class 1: +1 and -2, and one pair without a score before; class 2: -1, and two pairs with an infinite distance.
    assert interval.mean == pytest.approx(((1 - 2) / 2 - 1) / 2)
    assert left_out == 3
    text = change_text(interval, left_out)
    assert re.fullmatch(r"-0\.7500 \[-\d+\.\d{4}, [+-]\d+\.\d{4}\], 3 pairs left out", text)
    nothing, left_out = change(*(evaluation_of(dsc, measures={"hd95_mm": [[inf, inf]] * 4}) for _ in "ab"), "hd95_mm")
    assert change_text(nothing, left_out) == "not scored, 8 pairs left out"
    once = {"hd95_mm": [[1.0, nan], [nan, nan], [nan, nan], [nan, nan]]}
    assert change_text(*change(*(evaluation_of(dsc, measures=once) for _ in "ab"), "hd95_mm")) == "+0.0000"


def test_the_scenes_of_the_fabricated_set_are_those_of_gid() -> None:
    """The colour test above rests on names that the reader knows as scenes."""
    assert all(re.match(r"GF2_PMS[12]__L1A\d{10}-MSS[12]$", scene) for scene in SCENES)
