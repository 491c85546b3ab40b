"""The state of a training on disk: whole or the older one, equal to the bit when it comes back, refused when it is not right."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fabricate.backbones import make_tiny, tiny
from sampeft.backbones import BACKBONES
from sampeft.errors import UsageError, WeightsError
from sampeft.labels import LabelSet
from sampeft.losses import segmentation_loss
from sampeft.peft import attach
from sampeft.peft.lora import RankBudget
from sampeft.peft.state import trained_state
from sampeft.provenance import differences
from sampeft.training.averaging import Average
from sampeft.training.checkpoint import FILE, Checkpoint, Progress, TrainState, read_checkpoint

SPEC = tiny(BACKBONES["sam-vit-b"])
PROGRESS = Progress(7, 1 / 3, 1, 3, 1, True, [[0.1, 0.2, 0.3]], 0.0, 0.1 + 0.2, 5, 1)


class Scale:
    """What of fp16's gradient scaler is used: its state."""

    def __init__(self, scale: float) -> None:
        self.state: dict[str, Any] = {"scale": scale, "_growth_tracker": 4}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


@pytest.fixture
def make_state(monkeypatch: pytest.MonkeyPatch, labels: LabelSet) -> Callable[[], TrainState]:
    monkeypatch.setitem(BACKBONES, SPEC.name, SPEC)

    def make(scale: float = 1.0) -> TrainState:
        model = make_tiny(SPEC.name, labels)
        attach(model, "adalora")
        trained = [p for p in model.parameters() if p.requires_grad]
        return TrainState(model, torch.optim.AdamW(trained, lr=1e-2), Average(model, 0.9), Scale(scale))

    return make


def step(state: TrainState, progress: float) -> None:
    model = state.model.train()
    images = torch.rand(2, 3, model.side, model.side, generator=torch.Generator().manual_seed(1))
    logits = model(images)
    truth = torch.randint(0, 4, (2, *logits.shape[-2:]), generator=torch.Generator().manual_seed(2))
    assert model.regulator is not None
    torch.autograd.backward(segmentation_loss(logits, truth).total + model.regulator.penalty())
    state.optimizer.step()
    model.regulator.update(progress)
    state.average.update()
    state.optimizer.zero_grad()


@pytest.mark.parametrize("before", [0.2, 0.5, 0.7], ids=["importance only", "ranks fall", "ranks are fixed"])
def test_what_comes_back_goes_on_to_the_bit(
    make_state: Callable[..., TrainState], tmp_path: Path, before: float
) -> None:
    """AdaLoRA in each of its phases; the scale and the counters come back as they were."""
    first, second = make_state(512.0), make_state()
    for n in range(3):
        step(first, before - 0.01 * (2 - n))
    first.write(tmp_path, PROGRESS, {"method": "adalora", "sizes": (1, 2)}, {"processes": 1})
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.progress == PROGRESS
    assert found.settings == {"method": "adalora", "sizes": [1, 2]}
    second.restore(found)
    assert second.scaler.state == first.scaler.state
    for state in (first, second):
        step(state, before + 0.05)
        step(state, before + 0.1)
    for states in zip(*(trained_state(x.model).items() for x in (first, second)), strict=True):
        assert states[0][0] == states[1][0]
        assert torch.equal(states[0][1], states[1][1]), states[0][0]
    assert all(torch.equal(first.average.values[name], value) for name, value in second.average.values.items())
    assert first.average.updates == second.average.updates == 5


def test_a_method_without_its_state_or_with_that_of_an_earlier_version(
    make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    """Earlier versions wrote AdaLoRA's ranks beside the others' values."""
    first, second = make_state(), make_state()
    step(first, 0.7)
    first.write(tmp_path, PROGRESS, {}, {})
    path = tmp_path / FILE
    with safe_open(path, "pt") as file:
        content = json.loads(file.metadata()["content"])
    pattern = content["others"].pop("regulator")["pattern"]
    assert pattern
    save_file(
        load_file(path), path, {"content": json.dumps(content | {"others": content["others"] | {"pattern": pattern}})}
    )
    found = read_checkpoint(tmp_path)
    assert found is not None
    second.restore(found)
    assert cast(RankBudget, second.model.regulator).pattern == pattern

    found.others["regulator"].clear()
    with pytest.raises(WeightsError, match=r"does not fit this training \('pattern'\)"):
        second.restore(found)
    odd = {**found.tensors, "regulator/other/x": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"does not fit this training \('other'\)"):
        second.restore(Checkpoint(path, found.progress, {}, {}, {**found.others, "regulator": {"pattern": None}}, odd))


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_an_interrupted_save_leaves_the_older_state_readable(
    make_state: Callable[..., TrainState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Case D27."""
    state = make_state()
    state.write(tmp_path, PROGRESS, {}, {})
    before = (tmp_path / FILE).read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    step(state, 0.1)
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left") as raised:
        state.write(tmp_path, Progress(8), {}, {})
    assert raised.value.filename == str(tmp_path / FILE)
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.progress.step == 7


def test_a_finished_training_keeps_its_position_alone(make_state: Callable[..., TrainState], tmp_path: Path) -> None:
    make_state().write(tmp_path, Progress(9, finished=True), {"method": "lora"}, {})
    assert (tmp_path / FILE).stat().st_size < 1000
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert (found.progress.step, found.progress.finished, found.tensors) == (9, True, {})


def test_a_state_that_is_not_right_is_refused(make_state: Callable[..., TrainState], tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None
    state = make_state()
    step(state, 0.1)
    state.write(tmp_path, PROGRESS, {}, {})
    path = tmp_path / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"cannot be read .*; start anew with --force"):
        read_checkpoint(tmp_path)

    path.write_bytes(whole)
    found = read_checkpoint(tmp_path)
    assert found is not None
    forgetful = {name: t for name, t in found.tensors.items() if not name.startswith("optimizer/")}
    with pytest.raises(WeightsError, match="the optimizer's state is missing"):
        state.restore(Checkpoint(path, found.progress, {}, {}, found.others, forgetful))
    headless = {name: t for name, t in found.tensors.items() if not name.startswith("model/head.")}
    with pytest.raises(WeightsError, match="tensors missing"):
        state.restore(Checkpoint(path, found.progress, {}, {}, found.others, headless))

    save_file(load_file(path), path, {"content": json.dumps({"format": 1, "position": {}})})
    with pytest.raises(WeightsError, match="format 1, this version reads 2"):
        read_checkpoint(tmp_path)
    save_file(load_file(path), path, {"content": json.dumps({"format": 2, "position": {}})})
    with pytest.raises(WeightsError, match="its content lacks settings, circumstances, others"):
        read_checkpoint(tmp_path)


def test_differences_name_the_old_and_the_new_value() -> None:
    old = {
        "method": "lora",
        "training": {"lr": 1e-3, "steps": 5, "gone": 1},
        "classes": ["0 a", "1 b"],
        "data": 64 * "0",
    }
    assert differences(old, {"method": "lora", "training": {"lr": 1e-3, "steps": 5, "gone": 1}}, lost=True) == []
    now = {"method": "dora", "training": {"lr": 1e-4, "steps": 5}, "classes": ["0 b", "1 a"], "data": 64 * "f"}
    assert differences(old, now, lost=True) == [
        "method was lora, is dora",
        "training.lr was 0.001, is 0.0001",
        "training.gone was 1, is None",
        "classes was [0 a, 1 b], is [0 b, 1 a]",
        "data was 000000000000..., is ffffffffffff...",
    ]
    with pytest.raises(UsageError, match=r"^run: cannot go on with other settings: method was lora, is dora; give"):
        Checkpoint(Path("run") / FILE, Progress(), old, {}, {}, {}).refuse_others({"method": "dora"})


def test_the_average_by_hand() -> None:
    """Weights 1, then 2, 4, 8 at a decay of 0.15; the first update's is 1/10: 1.9, then 0.285 + 3.4, then 0.55275 + 6.8."""
    model: Any = torch.nn.Linear(1, 1, bias=False)
    weight = model.weight
    torch.nn.init.constant_(weight, 1.0)
    average = Average(model, 0.15)
    found = []
    for value in (2.0, 4.0, 8.0):
        torch.nn.init.constant_(weight, value)
        average.update()
        found.append(float(average.values["weight"]))
    assert found == pytest.approx([1.9, 3.685, 7.35275], abs=1e-6)
    with average.in_use():
        assert weight.item() == pytest.approx(7.35275, abs=1e-6)
    assert weight.item() == 8.0
    assert model.weight is weight

    off = Average(model, 0.0)
    off.update()
    with off.in_use():
        assert weight.item() == 8.0
    assert off.values == {}
