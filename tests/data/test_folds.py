"""Splits: disjoint, complete, by case, the same for a seed whatever the order; a shared case is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from fabricate import folder_dataset
from sampeft.cli import main
from sampeft.data import open_dataset
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.folds import drawn, fold_of, hold_out, k_folds, read_splits, split_cases
from sampeft.data.pairing import group_cases, natural_key
from sampeft.errors import DataError, FormError, UsageError
from sampeft.labels import LabelSet

IDS = [f"p{i}" for i in range(1, 24)]


@pytest.mark.parametrize("seed", range(5))
def test_hold_out_is_disjoint_complete_and_blind_to_order(seed: int) -> None:
    train, held = hold_out(IDS, 0.2, seed)
    assert len(held) == round(0.2 * 23) == 5
    assert not set(train) & set(held)
    assert set(train) | set(held) == set(IDS)
    assert hold_out(reversed(IDS), 0.2, seed) == (train, held)
    assert list(held) == sorted(held, key=natural_key)


def test_seeds_differ_and_counts_are_counts() -> None:
    assert len({hold_out(IDS, 4, seed)[1] for seed in range(10)}) > 5
    assert len(hold_out(IDS, 4, 0)[1]) == 4
    assert len(hold_out(IDS, 0.001, 0)[1]) == 1


@pytest.mark.parametrize(("ids", "wanted"), [(IDS, 23), (IDS, 0), (IDS, -1), (IDS, 2.5), (["a"], 0.5), ([], 0.5)])
def test_an_empty_side_is_an_error(ids: list[str], wanted: float) -> None:
    with pytest.raises(UsageError, match="cannot hold out"):
        hold_out(ids, wanted, 0)


def test_fewer_cases_are_among_more_and_blind_to_order() -> None:
    few, more = drawn(IDS, 3, seed=1), drawn(IDS, 12, seed=1)
    assert (len(few), len(more)) == (3, 12)
    assert set(few) < set(more) < set(IDS)
    assert drawn(IDS[::-1], 12, seed=1) == more
    assert drawn(IDS, 23, seed=1) == tuple(sorted(IDS, key=natural_key))
    assert len({drawn(IDS, 3, seed) for seed in range(10)}) > 5


@pytest.mark.parametrize("count", [0, -1, 24])
def test_cases_that_are_not_there(count: int) -> None:
    with pytest.raises(UsageError, match=rf"cannot train on {count} of 23 cases; give 1\.\.23"):
        drawn(IDS, count, 0)


def test_along_a_learning_curve_the_same_cases_are_held_out(tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path, cases=9))
    curve = [split_cases(dataset, "auto", 2, seed=0, count=count) for count in (1, 3, 6, None)]
    trained = [{case.id for case in train} for train, _ in curve]
    assert [len(ids) for ids in trained] == [1, 3, 6, 6]
    assert trained[0] < trained[1] < trained[2] == trained[3]
    assert len({tuple(case.id for case in held_out) for _, held_out in curve}) == 1


@pytest.mark.parametrize("k", [2, 5, 23])
def test_each_case_is_held_out_once(k: int) -> None:
    folds = k_folds(IDS, k, seed=3)
    assert sorted(i for _, held in folds for i in held) == sorted(IDS)
    assert {len(held) for _, held in folds} <= {23 // k, 23 // k + 1}
    for train, held in folds:
        assert not set(train) & set(held)
        assert len(train) + len(held) == 23
    assert k_folds(IDS[::-1], k, seed=3) == folds


@pytest.mark.parametrize("k", [1, 24])
def test_folds_that_cannot_be(k: int) -> None:
    with pytest.raises(UsageError, match=rf"cannot make {k} folds of 23 cases; choose 2\.\.23"):
        k_folds(IDS, k, 0)


def time_points() -> tuple[Case, ...]:
    """D38: p01_t0..t2 and p02_t0..t2, 20 slices each."""
    files = [
        ImageFile(name := f"p{p:02d}_t{t}_{s}", Path(f"{name}.png"))
        for p in (1, 2)
        for t in range(3)
        for s in range(20)
    ]
    return group_cases(files, "^(p[0-9]+)_", Path("dataset.json"))


@pytest.mark.parametrize("seed", range(8))
def test_no_patient_on_both_sides_for_any_seed(seed: int) -> None:
    """D38: half of the patients, never half of the slices."""
    cases = time_points()
    assert [len(case.files) for case in cases] == [60, 60]
    train, held = hold_out([case.id for case in cases], 0.5, seed)
    assert (len(train), len(held)) == (1, 1)
    assert set(train) | set(held) == {"p01", "p02"}


def test_given_lists_that_share_a_patient_are_refused(tmp_path: Path) -> None:
    """D38: names the patients. Lists may hold stems, file names or case ids."""
    cases = time_points()
    stems = [file.id for case in cases for file in case.files]
    (tmp_path / "train.txt").write_text("\n".join(stems[:60]) + "\n\n")
    (tmp_path / "test.txt").write_text("\n".join(f"{stem}.png" for stem in stems[60:]))
    lists = {"train": tmp_path / "train.txt", "test": tmp_path / "test.txt"}
    assert read_splits(lists, cases) == {"train": ("p01",), "test": ("p02",)}
    assert read_splits({"train": ["p02"], "test": ["p01"]}, cases) == {"train": ("p02",), "test": ("p01",)}
    written = ["images\\p02.NII.GZ"], ["images/p01.nii.gz"]  # N07: as programs on Windows do, and as others
    assert read_splits(dict(zip(("train", "test"), written, strict=True)), cases) == {
        "train": ("p02",),
        "test": ("p01",),
    }
    with pytest.raises(DataError, match=r"'train' and 'test' share 1 case \(p02\)"):
        read_splits({"train": ["p01", "p02"], "test": lists["test"]}, cases)


def test_a_list_never_divides_a_case_nor_names_what_is_not_there() -> None:
    cases = time_points()
    with pytest.raises(DataError, match="names 2 of the 60 files of case p01"):
        read_splits({"train": ["p01_t0_0", "p01_t0_1"]}, cases)
    with pytest.raises(DataError, match=r"1 of 2 names without an image \(p03\)"):
        read_splits({"train": ["p01", "p03"]}, cases)


def test_groups_need_a_pattern_that_fits() -> None:
    files = [ImageFile("a_1", Path("a_1.png")), ImageFile("b", Path("b.png"))]
    for pattern, message in (("^([a-z])_", "does not fit the file b.png"), ("(", "no regular"), ("^a", "no group")):
        with pytest.raises(DataError, match=message):
            group_cases(files, pattern, Path("dataset.json"))


def test_named_folds_of_a_data_set_cover_every_case_once_and_never_share_one(tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path, cases=7))
    seen: list[str] = []
    for number in range(1, 4):
        parts = fold_of(dataset, f"fold{number}of3")
        assert parts is not None
        outside, inside = ([case.id for case in part] for part in parts)
        assert not set(outside) & set(inside)
        assert len(outside) + len(inside) == 7
        seen += inside
    assert sorted(seen) == sorted(case.id for case in dataset.cases)
    assert fold_of(dataset, "test") is None
    with pytest.raises(UsageError, match="fold1of3 to fold3of3"):
        fold_of(dataset, "fold4of3")


def classes_of(n: int, seed: int) -> dict[str, list[bool]]:
    """n cases: class 0 in all, class 1 in half of them, 2 in a quarter, 3 in just five."""
    rng = Random(seed)
    has = [[True] * n, *([i < count for i in range(n)] for count in (n // 2, n // 4, 5))]
    for column in has[1:]:
        rng.shuffle(column)
    return {f"case_{i}": [column[i] for column in has] for i in range(n)}


@pytest.mark.parametrize("seed", range(6))
def test_stratified_folds_hold_each_class_evenly(seed: int) -> None:
    """Five cases have the rarest class, so each of five folds has one of them; sizes differ by one at most."""
    presence = classes_of(43, seed)
    folds = k_folds(presence, 5, seed, presence)
    assert sorted(i for _, held in folds for i in held) == sorted(presence)
    assert sorted(len(held) for _, held in folds) == [8, 8, 9, 9, 9]
    assert all(not set(train) & set(held) and len(train) + len(held) == 43 for train, held in folds)
    per_class = [[sum(presence[i][c] for i in held) for _, held in folds] for c in range(4)]
    assert per_class[3] == [1] * 5
    assert max(per_class[2]) - min(per_class[2]) <= 1
    assert max(per_class[1]) - min(per_class[1]) <= 2
    assert k_folds(reversed(list(presence)), 5, seed, presence) == folds


def test_stratified_folds_are_more_even_than_drawn_ones_and_differ_by_seed() -> None:
    presence = classes_of(40, 0)

    def spread(folds: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]) -> int:
        counts = [[sum(presence[i][c] for i in held) for _, held in folds] for c in range(4)]
        return sum(max(row) - min(row) for row in counts)

    seeds = range(10)
    assert max(spread(k_folds(presence, 4, s, presence)) for s in seeds) < min(
        spread(k_folds(presence, 4, s)) for s in seeds
    )
    assert len({k_folds(presence, 4, s, presence) for s in seeds}) > 5


def test_cases_without_any_class_are_dealt_out_too() -> None:
    presence = {f"c{i}": [i < 2, False] for i in range(8)}
    folds = k_folds(presence, 2, 0, presence)
    assert [sum(presence[i][0] for i in held) for _, held in folds] == [1, 1]
    assert [len(held) for _, held in folds] == [4, 4]


def test_named_folds_take_presence_and_leave_the_unlabelled_out(tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path, cases=8))
    dataset = replace(dataset, splits={"unlabelled": ("P03", "P08")})
    presence = {case.id: [case.id in ("P01", "P02")] for case in dataset.cases}
    for number in (1, 2):
        parts = fold_of(dataset, f"fold{number}of2", presence)
        assert parts is not None
        ids = [{case.id for case in part} for part in parts]
        assert [len(part) for part in ids] == [3, 3]
        assert all(len(part & {"P01", "P02"}) == 1 and not part & {"P03", "P08"} for part in ids)


def test_one_case_cannot_be_divided_and_the_way_out_is_named() -> None:
    """N11."""
    with pytest.raises(
        UsageError, match=r"cannot hold out 0\.15 of 1 case \(all files of a patient or .* --held_out 0"
    ):
        hold_out(["P01"], 0.15, 0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_lists_of_any_unicode_and_line_end_are_read(encoding: str, tmp_path: Path) -> None:
    """N07: PowerShell writes UTF-16 with a byte order mark."""
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    for ends in ("\n", "\r\n", "\r"):
        (tmp_path / "train.txt").write_bytes(mark + f"images/é1.png{ends}b2{ends}".encode(encoding))
        cases = [Case(name, (ImageFile(name, Path(name)),)) for name in ("é1", "b2")]
        assert read_splits({"train": tmp_path / "train.txt"}, cases) == {"train": ("é1", "b2")}


def test_lists_that_are_no_text_or_empty_are_told(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes("Müller".encode("latin-1"))
    with pytest.raises(
        FormError, match=r"train\.txt: the list of a split cannot be read: byte 2 is no UTF-8; save it as"
    ):
        read_splits({"train": tmp_path / "train.txt"}, [])
    (tmp_path / "train.txt").write_text("\n \n")
    with pytest.warns(UserWarning, match=r"train\.txt: the list of the split 'train' is empty"):
        assert read_splits({"train": tmp_path / "train.txt"}, []) == {"train": ()}


def test_a_part_of_a_case_cannot_be_held_out_and_an_empty_validation_list_is_none(tmp_path: Path) -> None:
    """N11, with other numbers: 1.5 of 4 cases; a val split that names nothing, beside three cases."""
    cases = tuple(Case(name, (ImageFile(name, Path(name)),)) for name in "abcd")
    labels = LabelSet(("background", "c"), (0, 1))
    dataset = Dataset("d", tmp_path, labels, cases)
    with pytest.raises(
        UsageError, match=r"cannot hold out 1\.5 of 4 cases; give a share between 0 and 1 or a whole number"
    ):
        split_cases(dataset, "auto", 1.5, 0)
    assert [len(part) for part in split_cases(dataset, "auto", 2.0, 0)] == [2, 2]
    empty = replace(dataset, splits={"train": ("a", "b", "c"), "val": (), "test": ("d",)})
    assert [len(part) for part in split_cases(empty, "auto", 0.15, 0)] == [2, 1]
    with pytest.raises(UsageError, match="cannot make 2 folds of 1 case; they need two cases or more"):
        k_folds(["a"], 2, 0)


@pytest.mark.parametrize(("asked", "said"), [("1.0", True), ("1", True), ("2", False), ("0.25", False)])
def test_one_held_out_case_is_said_to_be_one(
    asked: str, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gives shares may mean all cases by 1.0."""

    def stopped(*_: object) -> None:
        raise UsageError("far enough")

    monkeypatch.setattr("sampeft.workflows.train.load_backbone", stopped)
    data = folder_dataset(tmp_path / "data", cases=6, size=(16, 16))
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), "--held_out", asked]) == 2
    assert ("note      --held_out 1 is one case; give a share below 1" in capsys.readouterr().err) is said
