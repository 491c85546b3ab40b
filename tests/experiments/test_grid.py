"""Plans of sweeps: how values are read, what the runs are called, that shares and folds lose nothing."""

from __future__ import annotations

import pytest

from sampeft.errors import UsageError
from sampeft.experiments.grid import AS_GIVEN, Axis, Plan, axis_of, left_out, plain, setting_name


def plan(*texts: str, parts: tuple[str, ...] = ("held_out",), seeds: tuple[int, ...] = (0,)) -> Plan:
    return Plan(tuple(map(axis_of, texts)), parts, seeds)


def test_numbers_are_written_in_one_way_and_other_text_stays() -> None:
    assert [plain(v) for v in ("1e-3", " .001 ", "0.0010", "-2E2")] == ["0.001", "0.001", "0.001", "-200.0"]
    assert [plain(v) for v in ("4", "true", "null", "lora", "[q, v]", "1.2.3")] == [
        "4", "true", "null", "lora", "[q, v]", "1.2.3"]  # fmt: skip


def test_a_comma_in_brackets_belongs_to_the_value() -> None:
    assert axis_of("options.targets=[q,v],[q,k,v,proj]") == Axis("options.targets", ("[q,v]", "[q,k,v,proj]"))
    assert axis_of("--training.lr=1e-3, 3e-4") == Axis("training.lr", ("0.001", "0.0003"))


@pytest.mark.parametrize("text", ["options.rank", "options.rank=", "=4", "options.rank=4,,8", "options.rank=1,"])
def test_what_names_no_option_or_no_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--set wants an option and its values such as options.rank=1,4,8, got '"):
        axis_of(text)


@pytest.mark.parametrize("option", ["data", "out", "split", "held_out", "map", "layout", "resume"])
def test_what_must_be_equal_for_all_runs_is_no_axis(option: str) -> None:
    with pytest.raises(UsageError, match=f"--set {option}: is the same for all runs"):
        axis_of(f"{option}=a,b")


def test_seeds_and_repetitions_are_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="seeds are varied by --seeds"):
        axis_of("training.seed=1,2")
    with pytest.raises(UsageError, match=r"training\.lr: has the value 0\.001 twice"):
        axis_of("training.lr=1e-3,.001")
    with pytest.raises(UsageError, match=r"options\.rank: is given 2 times"):
        plan("options.rank=1", "options.rank=4")


def test_the_grid_is_every_combination_with_stable_names() -> None:
    made = plan("options.rank=1,4,8", "training.lr=1e-3,3e-4", parts=("fold1of2", "fold2of2"), seeds=(5, 6, 7))
    assert len(made.runs) == 3 * 2 * 2 * 3
    assert len({run.name for run in made.runs}) == len(made.runs)
    assert made.runs[0].name == "options.rank=1,training.lr=0.001/fold1of2-seed5"
    assert made.runs[-1].name == "options.rank=8,training.lr=0.0003/fold2of2-seed7"
    # What is done first compares all settings on the same cases.
    assert {run.setting for run in made.runs[:6]} == set(made.settings)
    assert {(run.part, run.seed) for run in made.runs[:6]} == {("fold1of2", 5)}


def test_the_runs_of_a_setting_and_seed_score_every_part_once() -> None:
    made = plan("options.rank=1,4", parts=("fold1of3", "fold2of3", "fold3of3"), seeds=(0, 1))
    for setting in made.settings:
        for seed in (0, 1):
            assert [run.part for run in made.of(setting, seed)] == ["fold1of3", "fold2of3", "fold3of3"]


def test_without_an_axis_there_is_one_setting() -> None:
    assert [run.name for run in plan(seeds=(0, 1)).runs] == [f"{AS_GIVEN}/held_out-seed{n}" for n in (0, 1)]


@pytest.mark.parametrize("shares", [1, 2, 5, 8, 20])
def test_shares_are_disjoint_whole_and_even(shares: int) -> None:
    made = plan("options.rank=1,2,3,4,5,6,7", seeds=(0, 1))
    parts = [made.share(f"{n}/{shares}") for n in range(1, shares + 1)]
    assert sorted(run.name for part in parts for run in part) == sorted(run.name for run in made.runs)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert made.share(None) == made.runs


@pytest.mark.parametrize("only", ["0/8", "9/8", "3", "3/0", "-1/2", "a/b"])
def test_a_share_that_there_is_not_is_refused(only: str) -> None:
    with pytest.raises(UsageError, match=f"--only wants a share such as 3/8.*got '{only}'"):
        plan("options.rank=1,2").share(only)


def test_names_are_safe_for_every_file_system_and_never_shared() -> None:
    assert setting_name({"backbone": "facebook/sam-vit-base"}) == "backbone=facebook-sam-vit-base"
    assert ":" not in setting_name({"intensity": "c:\\x*?"})
    long = [{"options.targets": f"[{','.join(['proj'] * 60)},{end}]"} for end in "qv"]
    names = [setting_name(values) for values in long]
    assert names[0] != names[1]
    assert all(len(name) < 255 for name in names)
    with pytest.raises(UsageError, match="would share a folder's name"):
        plan("backbone=a/b,a:b")


def test_settings_that_lack_runs_are_named_with_them() -> None:
    made = plan("options.rank=1,4", parts=("fold1of2", "fold2of2"))
    done = [run for run in made.runs if run.name != "options.rank=4/fold2of2-seed0"]
    assert {name: [run.name for run in runs] for name, runs in left_out(made, done).items()} == {
        "options.rank=4": ["options.rank=4/fold2of2-seed0"]
    }
    assert left_out(made, made.runs) == {}
