"""The plan of a training: its arithmetic by hand, its measured part against real steps and against the training loop."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from fabricate.backbones import make_tiny, tiny
from sampeft.backbones import BACKBONES
from sampeft.data.augment import augment
from sampeft.data.slice_cache import Slices
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.losses import segmentation_loss
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.planning import step_trial
from sampeft.planning.machine import left_by_groups, room_bytes
from sampeft.planning.planner import (
    FIRST,
    FITS,
    HEAD,
    SCORE,
    TOO_LARGE,
    UNSURE,
    WHOLE,
    Workload,
    needed,
    plan,
    simulate,
    smaller_sides,
)
from sampeft.planning.step_costs import Costs, Line
from sampeft.planning.step_trial import measure_costs, noise_slices
from sampeft.training.batches import Batch, Batches
from sampeft.training.loop import Training, fit
from sampeft.training.step import TrainStep

Make = Callable[..., SemanticSam]
MIB = 1 << 20
SPEC = tiny(BACKBONES["sam-vit-b"])
CPU = torch.device("cpu")
WORKLOAD = Workload(slices=100, slice_bytes=1000, held_out_slices=10, scoring_seconds=0.5)


def by_hand(**changes: Any) -> Costs:
    """Round numbers: four blocks, of which the first is frozen; a slice saves 20 MiB in each of the others and 10 after."""
    costs = Costs(
        total=1000,
        trained=100,
        weights_bytes=50 * MIB,
        trained_bytes=5 * MIB,
        trains_head=True,
        saved=Line(2 * MIB, 70 * MIB),
        head_saved=Line(0, 10 * MIB),
        saved_before_block=(0, 0, 20 * MIB, 40 * MIB, 60 * MIB),
        block_input_bytes=(MIB,) * 4,
        block_view_bytes=(MIB,) * 4,
        recomputes=False,
        saved_in_bf16=35 * MIB,
        resident_growth=Line(10 * MIB, 100 * MIB),
        inference_bytes=30 * MIB,
        banked_bytes=MIB,
        view_bytes=2 * MIB,
        banked_already=0,
        viewed_already=0,
        encoding_seconds=0.5,
        head_seconds=Line(0.25, 0.25),
        step_seconds=Line(1.0, 2.0),
        view_seconds=0.25,
        update_seconds=0.0,
        inference_seconds=0.5,
        resident=250 * MIB,
        peak_before=260 * MIB,
        room=10_000 * MIB,
        gpu_room=0,
        device="cpu",
        is_timed=True,
    )
    return replace(costs, **changes)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, labels: LabelSet) -> Make:
    """Equal models of a tiny SAM with a method."""
    monkeypatch.setitem(BACKBONES, SPEC.name, SPEC)

    def made(method: str = "lora", **options: Any) -> SemanticSam:
        model = make_tiny(SPEC.name, labels)
        attach(model, method, options)
        return model

    return made


def measured(model: SemanticSam, room: int = 1 << 40, **settings: Any) -> Costs:
    return measure_costs(model, Training(**{"batch": 2, **settings}), "no", CPU, room)


def test_the_memory_of_the_fullest_phase_adds_up_by_hand() -> None:
    (memory,) = needed(by_hand(), Training(steps=10, batch=3, head_first=0.0), WORKLOAD)
    mib = {name: value / MIB for name, value in memory.parts.items() if name != "prepared slices"}
    # Growth of 10 + 3 x 100 MiB, of which 2 + 3 x 70 are saved and 5 are gradients; moments come beside.
    assert mib == {
        "weights": 50, "rest of the process": 200, "gradients": 5, "optimizer": 10, "averaged weights": 0,
        "activations": 212, "working space": 93, "encoded slices": 0, "at an earlier moment": 0,
    }  # fmt: skip
    assert memory.parts["prepared slices"] == memory.reclaimed == 100_000
    assert memory.peak == 570 * MIB + 100_000
    assert memory.phase == WHOLE
    assert memory.share == pytest.approx(570 / 10_000)


def test_parts_of_a_step_averages_and_earlier_peaks_count() -> None:
    def peak(costs: Costs, **settings: Any) -> float:
        (memory,) = needed(costs, Training(**{"steps": 10, "batch": 4, "head_first": 0.0, **settings}), WORKLOAD)
        return round(memory.peak / MIB)

    assert peak(by_hand()) == 250 + 10 + 410
    assert peak(by_hand(), accumulate=2) == 250 + 10 + 210
    assert peak(by_hand(), ema=0.9) == 250 + 10 + 410 + 5
    assert peak(by_hand(peak_before=900 * MIB)) == 900


def test_encoded_slices_in_memory_cannot_be_taken_back() -> None:
    training = Training(steps=400, batch=1, head_first=0.5, head_bank=20, cache_mib=15)
    on_disk, in_memory = (
        needed(by_hand(), training, replace(WORKLOAD, views_on_disk=disk))[0] for disk in (True, False)
    )
    assert on_disk.parts["encoded slices"] == in_memory.parts["encoded slices"] == 15 * MIB  # of 20, 15 have room
    assert in_memory.share - on_disk.share == pytest.approx(15 / 10_000)


def test_a_gpu_holds_the_step_and_the_machine_what_is_kept() -> None:
    costs = by_hand(device="cuda", gpu_room=400 * MIB)
    gpu, memory = needed(costs, Training(steps=10, batch=3, head_first=0.0), replace(WORKLOAD, slices=0))
    assert gpu.peak == (50 + 10 + 310) * MIB
    assert gpu.share == pytest.approx(370 / 400)
    assert memory.peak == 250 * MIB
    assert plan(costs, Training(steps=10, batch=3, head_first=0.0), WORKLOAD, SPEC, 448).verdict == UNSURE


def test_the_course_by_steps_is_what_the_costs_say() -> None:
    training = Training(steps=10, batch=2, head_first=0.3, head_batch=3, head_bank=10**9, validations=4)
    course = simulate(training, by_hand(), WORKLOAD)
    assert course.steps == {HEAD: 3, WHOLE: 7, FIRST: 9, SCORE: 4}
    assert course.seconds == pytest.approx({HEAD: 3 * 1.0, WHOLE: 7 * 5.0, FIRST: 9 * 0.5, SCORE: 4 * 10.0})
    assert course.total_seconds == pytest.approx(82.5)
    # In two parts the fixed second comes twice; without anything behind the encoder there is no head to train first.
    parts = simulate(replace(training, accumulate=2), by_hand(trains_head=False), WORKLOAD)
    assert parts.steps[HEAD] == 0
    assert parts.seconds[WHOLE] == pytest.approx(10 * 6.0)


def test_the_course_by_minutes_fills_them() -> None:
    costs = by_hand(encoding_seconds=0.0, head_seconds=Line(1.0, 0.0), step_seconds=Line(2.0, 0.0))
    course = simulate(Training(minutes=1, head_first=0.5, validations=1), costs, replace(WORKLOAD, held_out_slices=0))
    assert (course.steps[HEAD], course.steps[WHOLE], course.steps[SCORE]) == (30, 15, 1)
    assert course.total_seconds == pytest.approx(60)


def test_views_are_computed_once_each_while_there_is_room() -> None:
    few = replace(WORKLOAD, slices=10)
    training = Training(steps=500, batch=2, head_first=0.0, cached_views=4, validations=1)
    course = simulate(training, by_hand(), few)
    assert course.views == 40
    assert course.steps[FIRST] == pytest.approx(40, abs=0.5)
    none = simulate(replace(training, cache_mib=0), by_hand(), few)
    assert none.steps[FIRST] == 1000  # without room each is computed each time
    assert simulate(training, by_hand(viewed_already=40), few).steps[FIRST] == 0
    half = replace(training, steps=1, batch=4)
    assert simulate(half, by_hand(viewed_already=20), few).steps[FIRST] == 2  # of four, each there by one half


def test_the_course_is_that_of_the_training_loop(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The loop and its simulation are written twice; this holds them together."""
    seen = {HEAD: 0, WHOLE: 0}
    for name, phase in (("encoded", HEAD), ("drawn", WHOLE)):
        original = getattr(Batches, name)

        def counting(self: Batches, generator: Any, original: Any = original, phase: str = phase) -> Any:
            seen[phase] += 1
            return original(self, generator)

        monkeypatch.setattr(Batches, name, counting)
    model = make()
    config = Training(steps=7, batch=1, head_first=0.4, validations=2, head_bank=4)
    fit(model, noise_slices(model), config, tmp_path, {"seed": 0}, dataset=None)  # type: ignore[arg-type]
    course = simulate(config, by_hand(), WORKLOAD)
    assert {HEAD: course.steps[HEAD], WHOLE: course.steps[WHOLE]} == seen
    assert course.steps[SCORE] == config.validations


def really_saved(model: SemanticSam, count: int) -> int:
    """Bytes of the distinct storages that a step of so many slices keeps for its backward pass, all held at once."""
    held: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    slices = noise_slices(model)
    generator = torch.Generator().manual_seed(0)
    images, truth = augment(
        *slices.batch(np.zeros(count, dtype=np.int64)), model.labels, Training().augmentation, generator
    )
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = torch.nn.functional.interpolate(model(images), truth.shape[-2:], mode="bilinear")
        loss = segmentation_loss(logits, truth)
    assert loss.total.requires_grad
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    return sum(storage.nbytes() for pointer, storage in held.items() if pointer not in weights)


@pytest.mark.parametrize("method", ["lora", "decoder"])
def test_activations_of_a_larger_batch_are_told_within_a_twentieth(make: Make, method: str) -> None:
    model = make(method)
    costs = measured(model)
    assert costs.saved.at(4) == pytest.approx(really_saved(model, 4), rel=0.05)


def test_counting_without_keeping_counts_the_same(make: Make) -> None:
    """A storage that is gone may be followed by another at its address; both count."""
    model = make()
    costs = measured(model, batch=1)
    starved = measured(model, batch=1, room=1)
    assert costs.is_timed
    assert not starved.is_timed
    assert starved.saved.at(1) == pytest.approx(costs.saved.at(1), rel=0.01)


def test_what_last_blocks_would_save_is_what_they_save(make: Make) -> None:
    everything = measured(make(), room=1)
    for last in (1, 3):
        told = everything.changed(last=last).saved.at(1)
        assert told == pytest.approx(measured(make(last=last), room=1).saved.at(1), rel=0.1)
        assert told < 0.97 * everything.saved.at(1)


def test_what_recomputing_saves_is_told_within_a_tenth(make: Make) -> None:
    model = make()
    before, after = measured(model, room=1), measured(model, room=1, recompute=True)
    assert after.recomputes
    # What enters a block and the largest block, for as long as it is computed again, no hook of ours sees.
    inputs = sum(before.block_input_bytes)
    largest = max(later - earlier for earlier, later in pairwise(before.saved_before_block))
    told = before.changed(recompute=True).saved.at(1)
    assert told == pytest.approx(after.saved.at(1) + inputs + largest, rel=0.1)
    assert told < before.saved.at(1)


def everything_of(model: SemanticSam) -> dict[str, Any]:
    return {
        **{name: tensor.clone() for name, tensor in model.state_dict().items()},
        **{f"{name} gradient": p.grad for name, p in model.named_parameters()},
        **{f"{name} mode": torch.tensor(module.training) for name, module in model.named_modules()},
        **{f"{name} trained": torch.tensor(p.requires_grad) for name, p in model.named_parameters()},
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.random.get_state()[1].astype(np.int64)),  # type: ignore[union-attr, call-overload]
        "python": torch.tensor(random.getstate()[1]),
        "hooks": torch.tensor(sum(len(m._forward_pre_hooks) for m in model.modules())),
        "own": torch.tensor(sum("forward" in vars(m) for m in model.modules())),
    }


@pytest.mark.parametrize(
    ("method", "options", "settings", "training"),
    [
        ("lora", {"dropout": 0.5}, {}, True),
        ("adalora", {}, {"recompute": True}, False),
        ("lora", {"last": 2}, {"cached_views": 2}, True),
    ],
)
def test_planning_leaves_model_and_random_numbers_as_they_were(
    make: Make, method: str, options: dict[str, Any], settings: dict[str, Any], training: bool
) -> None:
    model = make(method, **options).train(training)
    model.head.tokens.grad = torch.full_like(model.head.tokens, 3.0)
    before = everything_of(model)
    assert measured(model, **settings).is_timed
    after = everything_of(model)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value is after[name] if value is None else torch.equal(value, after[name]), name


def test_a_training_after_a_plan_ends_as_one_without(make: Make, tmp_path: Path) -> None:
    for name in ("planned", "not"):
        model = make(dropout=0.2)
        slices: Slices = noise_slices(model)
        if name == "planned":
            measured(model)
        fit(model, slices, Training(steps=2, head_first=0.0, validations=1), tmp_path / name, {"seed": 0}, dataset=None)  # type: ignore[arg-type]
    names = ("adapter.safetensors", "last/adapter.safetensors")
    assert all((tmp_path / "planned" / n).read_bytes() == (tmp_path / "not" / n).read_bytes() for n in names)


def test_one_forward_pass_and_a_few_small_steps(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    decode = SemanticSam.decode
    monkeypatch.setattr(
        SemanticSam, "decode", lambda self, features, *of: sizes.append(len(features[0])) or decode(self, features, *of)
    )
    measured(make(), batch=16)
    assert sizes == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("seconds", "room", "batch", "sizes"),
    [
        (1e9, 1e9, 16, [1, 16] * 4),
        (1e9, 1e9, 1, [1] * 8),
        (0.0, 1e9, 16, [1, 2, 1]),  # takes long; the first one is cold
        (0.0, 1e9, 1, [1, 1]),
        (1e9, 100 * 32, 16, [1, 2] * 4),  # sixteen would take half of the room
        (1e9, 100 * 2 - 1, 16, [1]),
        (1e9, 99, 16, []),
    ],
)
def test_steps_of_the_real_size_where_time_and_memory_allow(
    seconds: float, room: float, batch: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slice lets the process grow by 100 bytes."""
    monkeypatch.setattr(step_trial, "_ENOUGH_SECONDS", seconds)
    trial = SimpleNamespace(step=lambda count: SimpleNamespace(count=count, growth=100 * count))
    found = step_trial._Trial.steps(cast(Any, trial), batch, 100, int(room))
    assert [step.count for step in found] == sizes


def test_what_is_measured_is_the_step_of_the_training(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own loss: that of the windows and of the cached views, which `Batches` draws."""
    seen: list[Batch] = []
    loss = TrainStep.loss
    monkeypatch.setattr(TrainStep, "loss", lambda self, batch: seen.append(batch) or loss(self, batch))
    model = make(last=1)
    patch = model.window_unit()
    costs = measured(model, patch=patch, cached_views=2)
    assert costs.is_timed
    assert [batch.count for batch in seen] == [1, 1, 2, 1]
    for batch in seen:
        assert batch.windows is not None
        assert len(batch.windows) == batch.count
        assert (batch.images_B3HW, batch.block) == (None, model.frozen_blocks())
    assert costs.step_seconds.at(1) > costs.head_seconds.at(1) > 0


def test_where_one_slice_does_not_fit_no_step_is_tried(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case D39: no memory runs out; the answer names what to change, in order, with numbers."""
    monkeypatch.setattr(step_trial._Trial, "step", lambda *_: pytest.fail("a real step was run"))
    costs = measured(make(), room=1, batch=4)
    found = plan(costs, Training(steps=10, batch=4), WORKLOAD, SPEC, 448, last_blocks=True)
    assert found.verdict == TOO_LARGE
    assert found.schedule is None
    assert "at least" in found.lines()[1]
    with pytest.raises(UsageError, match=r"at least .*iB of memory and may fill 0 MiB; give .*--training\.accumulate"):
        found.refuse()


def test_advice_comes_in_order_with_the_peak_of_each_by_hand() -> None:
    costs = by_hand(room=625 * MIB)  # up to 500 MiB fit for sure
    training = Training(steps=10, batch=4, head_first=0.0)
    workload = replace(WORKLOAD, slices=0)
    found = plan(costs, training, workload, replace(SPEC, good_multiple=224), 448, last_blocks=True)
    assert (found.verdict, found.fullest.peak) == (UNSURE, 670 * MIB)
    told = [(change.options, change.need // MIB, change.fits) for change in found.suggestions]
    assert told == [
        ("--training.accumulate 2", 470, True),
        ("--training.batch 2", 470, True),
        ("--options.last 1 --training.cached_views 4", 670 - 4 * 40, False),
        ("--side 224", 250 + 10 + 10 + 100, True),
        ("--training.precision bf16", 670 - 4 * (72 - 35), False),
        # Of 60 MiB in three blocks one block and three inputs stay.
        ("--training.recompute true", 670 - 4 * (60 - 20 - 3), False),
        (
            "--training.accumulate 2 --options.last 1 --training.cached_views 4 --side 224 --training.precision bf16 "
            "--training.recompute true",
            found.suggestions[-1].need // MIB,
            True,
        ),
    ]
    assert found.suggestions[-1].need < min(change.need for change in found.suggestions[:-1])


def test_the_mildest_change_that_fits_is_advised() -> None:
    costs = by_hand(room=800 * MIB)  # up to 640 MiB fit for sure
    training = Training(steps=10, batch=4, head_first=0.0)
    found = plan(costs, training, replace(WORKLOAD, slices=0), SPEC, 448, last_blocks=True)
    told = {change.options.split(" ")[0]: change.options for change in found.suggestions if change.fits}
    assert told["--training.batch"] == "--training.batch 3"
    assert told["--options.last"] == "--options.last 2 --training.cached_views 4"
    found.refuse()  # between four and six fifths nobody knows, so nobody is stopped


@pytest.mark.parametrize(("room", "verdict"), [(838, FITS), (837, UNSURE), (559, UNSURE), (558, TOO_LARGE)])
def test_four_fifths_fit_and_six_fifths_do_not(room: int, verdict: str) -> None:
    workload = replace(WORKLOAD, slices=0)
    found = plan(by_hand(room=room * MIB), Training(steps=10, batch=4, head_first=0.0), workload, SPEC, 448)
    assert found.verdict == verdict
    assert bool(found.suggestions) == (verdict != FITS)
    if verdict == TOO_LARGE:
        with pytest.raises(UsageError, match=r"about 670 MiB .* 558 MiB; give .*--plan false"):
            found.refuse()


def test_smaller_sides_pad_no_window_where_that_is_possible() -> None:
    spec = replace(SPEC, multiple=16, good_multiple=224)
    assert smaller_sides(spec, 1024) == [896, 672, 448, 224]
    assert smaller_sides(spec, 448) == [224]
    assert smaller_sides(spec, 64) == [48, 32]


def test_a_line_through_noise_stays_between_nothing_and_all() -> None:
    assert Line.through({1: 3, 2: 5}).at(10) == 1 + 20
    assert Line.through({1: 3, 4: 9}).at(10) == 1 + 20
    assert Line.through({1: 1, 2: 5}).at(10) == 25  # a second slice that costs more than the first: all is per slice
    assert Line.through({4: 4, 1: 5}).at(10) == 4  # more that cost less: nothing is
    assert Line.through({1: 3}).at(10) == 30
    assert Line.through({}).at(10) == 0


def test_limits_of_control_groups_of_both_versions(tmp_path: Path) -> None:
    def group(path: Path, **files: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (path / name.replace("__", ".")).write_text(content)

    root, own = tmp_path / "cgroup", tmp_path / "own"
    group(root / "job/step", memory__max="max\n", memory__current="5\n", memory__stat="inactive_file 1\n")
    group(root / "job", memory__max="1000\n", memory__current="400\n", memory__stat="anon 9\ninactive_file 50\n")
    own.write_text("0::/job/step\n")
    assert left_by_groups(root, own) == [650]
    old = {
        "memory__limit_in_bytes": "700\n",
        "memory__usage_in_bytes": "900\n",
        "memory__stat": "total_inactive_file 10",
    }
    group(root / "memory/box", **old)
    own.write_text("4:cpu,memory:/box\n3:cpuset:/\n")
    assert left_by_groups(root, own) == [0]
    assert left_by_groups(root, tmp_path / "none") == []
    assert room_bytes() > 0


def test_validations_take_a_fifth_of_the_minutes_at_most_and_too_few_steps_are_told() -> None:
    """A step of two slices takes 1 + 2 x 2 = 5 s, a validation 10 x (0.5 + 0.5) = 10 s; 5 minutes are 300 s."""
    found = plan(by_hand(), Training(minutes=5, validations=8, head_first=0.0), WORKLOAD, SPEC, 64)
    assert found.validations == 6  # 60 s
    assert found.schedule is not None
    assert found.schedule.steps[WHOLE] == 50  # (300 - 5 x 10) / 5: the last validation comes when the time is over
    (fewer,) = found.warnings
    assert fewer.startswith(
        "8 validations would take 27 % of the 5 minutes; there will be 6: give more --training.minutes"
    )
    found = plan(by_hand(), Training(minutes=2, validations=1, head_first=0.0), WORKLOAD, SPEC, 64)
    assert found.validations == 1
    (few,) = found.warnings
    # 50 steps of 5 s and a validation of 10 s are 4.33 minutes.
    assert few.startswith("2 minutes buy about 24 steps, too few to learn from; give --training.minutes 4.4 or more")
    assert f"warning   {few}" in found.lines(short=True)


def test_an_end_by_steps_keeps_its_validations() -> None:
    found = plan(by_hand(), Training(steps=6, validations=6, head_first=0.0), WORKLOAD, SPEC, 64)
    assert (found.validations, found.warnings) == (6, ())
