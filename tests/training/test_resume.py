"""A training that is killed and goes on ends as one that was not: weights, scores and log, in one process and in two."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fabricate import folder_dataset
from fabricate.backbones import make_tiny, tiny
from sampeft.backbones import BACKBONES, Features
from sampeft.commands.train import Config
from sampeft.data import open_dataset
from sampeft.data.augment import Augmentation
from sampeft.data.intensity import PRESETS
from sampeft.data.slice_cache import Preparation, fingerprint, prepare
from sampeft.errors import UsageError
from sampeft.peft import attach
from sampeft.training import batches
from sampeft.training.checkpoint import FILE, Checkpoint, Progress, read_checkpoint
from sampeft.training.loop import Training, fit
from sampeft.workflows.train import known_settings, train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")

STEPS = 20  # 0 to 4 encode for the head, 5 to 9 train it, the rest train everything; scored after 5, 10, 15 and 20
SPEC = tiny(BACKBONES["sam-vit-b"])
VARIANTS: dict[str, dict[str, Any]] = {
    "adalora": {"method": "adalora", "options": {"dropout": 0.1}, "training": {"ema": 0.9}},
    "lora": {"method": "lora", "options": {"dropout": 0.1}, "training": {"checkpoint_minutes": 0.0}},
}
ENDED, KILLED, BROKEN = 0, -signal.SIGKILL, 1  # what became of a process; broken: the other of a pair was killed


@dataclass(frozen=True)
class Part:
    """One process's share of a training. Kills itself before a step, or in its n-th checkpoint, before it is renamed.
    port: where the processes of a pair meet."""

    out: Path
    resume: bool = False
    kill_before: int | None = None
    kill_in_save: int | None = None
    ends: int = ENDED
    port: int = 0


def story(root: Path, variant: str, parts: list[Part], rank: int = 0, count: int = 1) -> None:
    """Make a tiny model once, take each part in a fork of this process, look how it ended."""
    BACKBONES[SPEC.name] = SPEC
    torch.set_num_threads(1)
    dataset = open_dataset(root / "data")
    cases = dataset.cases[:3]
    preparation = Preparation(PRESETS["percentile"], SPEC.family.TINY_SIDE)
    slices = prepare(dataset, cases, preparation, fingerprint(cases), folder=root / "cache")
    model = make_tiny(SPEC.name, dataset.labels)
    chosen = VARIANTS[variant]
    attach(model, chosen["method"], chosen["options"])
    config = Training(
        steps=STEPS, head_first=0.5, validations=4, lr=5e-3, seed=3, precision="fp32", **chosen["training"]
    )
    for number, part in enumerate(parts):
        if count > 1:
            wait_for_all(root, number, rank, count)
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": part.port}
            os.environ.update({**{key: str(value) for key, value in place.items()}, "MASTER_ADDR": "127.0.0.1"})
        process = os.fork()
        if process == 0:
            try:
                resumed = read_checkpoint(part.out) if part.resume else None
                assert part.resume == (resumed is not None)
                watch(part)
                fit(model, slices, config, part.out, {}, dataset, dataset.cases[3:], preparation, {}, resumed)
                os._exit(0)
            finally:
                if part.ends != BROKEN:
                    traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(process, 0)
        assert os.waitstatus_to_exitcode(status) == part.ends, part


def wait_for_all(root: Path, number: int, rank: int, count: int) -> None:
    """Until all processes have ended their parts before this one, as a launcher does before it starts them anew."""
    (root / f"part{number} rank{rank}").touch()
    while not all((root / f"part{number} rank{other}").exists() for other in range(count)):
        time.sleep(0.05)


def watch(part: Part) -> None:
    """In this process: note the rate of every step and do the kills."""
    step, saves = 0, 0
    generator, update, rename = batches.Batches.generator, torch.optim.AdamW.step, os.replace

    def counted(self: batches.Batches, now: int) -> torch.Generator:
        nonlocal step
        step = now
        if step == part.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        return generator(self, step)

    def noted(self: torch.optim.AdamW, *arguments: Any, **named: Any) -> Any:
        with (part.out / "rates").open("a") as file:
            file.write(f"{step} {self.param_groups[0]['lr']!r}\n")
        return update(self, *arguments, **named)

    def interrupted(source: Path, target: Path) -> None:
        nonlocal saves
        if Path(target).name == FILE:
            saves += 1
            if saves == part.kill_in_save:
                os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    changes: list[tuple[Any, str, Any]] = [
        (batches.Batches, "generator", counted),
        (torch.optim.AdamW, "step", noted),
        (os, "replace", interrupted),
    ]
    for owner, name, changed in changes:
        setattr(owner, name, changed)


def told(root: Path, variant: str, *of_ranks: list[Part]) -> None:
    """`story` in processes of a server that has imported everything once, and neither trained nor touched a device."""
    context = multiprocessing.get_context("forkserver")
    modules = ["sampeft.training.loop", "transformers.models.sam.modeling_sam", "peft", "accelerate", "timm", "pytest"]
    context.set_forkserver_preload(modules)
    started = [
        context.Process(target=story, args=(root, variant, parts, rank, len(of_ranks)))
        for rank, parts in enumerate(of_ranks)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(200)
        assert process.exitcode == 0


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def log_of(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "minutes"} for record in records]


def rates_of(run: Path) -> dict[int, set[str]]:
    """All learning rates that each step was ever taken with."""
    rates: dict[int, set[str]] = {}
    for line in (run / "rates").read_text().splitlines():
        step, rate = line.split()
        rates.setdefault(int(step), set()).add(rate)
    return rates


def assert_equal_runs(a: Path, b: Path) -> None:
    assert log_of(a) == log_of(b)
    assert rates_of(a) == rates_of(b)
    assert all(len(rates) == 1 for rates in rates_of(a).values())
    for part in ("", "last"):
        assert (a / part / "adapter.safetensors").read_bytes() == (b / part / "adapter.safetensors").read_bytes()
        described = [json.loads((run / part / "adapter.json").read_text())["trained"] for run in (a, b)]
        assert {**described[0], "minutes": 0} == {**described[1], "minutes": 0}
    assert not list(a.rglob("*.tmp"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    folder_dataset(folder / "data", cases=5, files_per_case=1)
    return folder


def test_killed_at_many_steps_and_in_a_save_a_training_ends_bit_equal(root: Path) -> None:
    """Checkpoints at validations only: a kill before the first goes on from the start, one later takes steps again."""
    whole, killed = root / "whole", root / "killed"
    parts = [
        Part(whole),
        Part(killed, kill_before=2, ends=KILLED),  # training the head, from the start
        Part(killed, resume=True, kill_before=7, ends=KILLED),  # the same again, and on
        Part(killed, resume=True, kill_before=12, ends=KILLED),  # training everything
        # The state after 15 steps, whose models and score are already written.
        Part(killed, resume=True, kill_in_save=1, ends=KILLED),
        Part(killed, resume=True, kill_before=19, ends=KILLED),
        Part(killed, resume=True),
    ]
    told(root, "adalora", parts)
    assert_equal_runs(killed, whole)
    assert [r["step"] for r in log_of(whole) if "val_dsc" in r] == [5, 10, 15, 20]


def test_with_a_checkpoint_at_every_step_none_is_taken_twice(root: Path) -> None:
    whole, killed = root / "whole at each step", root / "killed at each step"
    kills = (1, 4, 5, 9, 11, 18)
    parts = [Part(killed, resume=step != kills[0], kill_before=step, ends=KILLED) for step in kills]
    told(root, "lora", [Part(whole), *parts, Part(killed, resume=True)])
    assert_equal_runs(killed, whole)
    assert (killed / "rates").read_text() == (whole / "rates").read_text()


def test_two_processes_go_on_as_two_that_were_not_killed(root: Path) -> None:
    """Case D29: every process restores, the first writes."""
    whole, killed = root / "whole pair", root / "killed pair"
    ports = [free_port() for _ in range(3)]
    first = [Part(whole), Part(killed, ends=BROKEN), Part(killed, resume=True)]
    second = [Part(whole), Part(killed, kill_before=7, ends=KILLED), Part(killed, resume=True)]
    pair = [[replace(part, port=port) for part, port in zip(parts, ports, strict=True)] for parts in (first, second)]
    told(root, "lora", *pair)
    for name in ("adapter.safetensors", "last/adapter.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert log_of(killed) == log_of(whole)
    assert all(len(rates) == 1 for rates in rates_of(killed).values())


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A run that stands at step 2 of 4, by the command's own function."""
    monkeypatch.setitem(BACKBONES, SPEC.name, SPEC)
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "cache"))
    data = folder_dataset(tmp_path / "data", cases=4, files_per_case=1)
    config = Config(
        data=data,
        out=tmp_path / "run",
        backbone=SPEC.name,
        weights="random",
        side=SPEC.family.TINY_SIDE,
        held_out=1,
        training=Training(steps=4, validations=1, head_first=0.0, checkpoint_minutes=0.0),
    )
    with monkeypatch.context() as patch:
        generator = batches.Batches.generator

        def crashing(self: batches.Batches, step: int) -> torch.Generator:
            if step == 2:
                raise MemoryError
            return generator(self, step)

        patch.setattr(batches.Batches, "generator", crashing)
        with pytest.raises(MemoryError):
            train(config)
    return config


def test_one_stopped_before_its_first_step_begins_anew(
    stopped: Config, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Means and spreads of the features, which come before it, are then not taken of the few pictures seen so far."""
    whole, cut = (replace(stopped, out=stopped.out.with_name(name)) for name in ("whole", "cut"))
    train(whole)
    examples, sent = batches.Batches.examples, []

    def stopping(self: batches.Batches) -> Iterator[Features]:
        for example in examples(self):
            yield example
            if not sent:
                sent.append(os.kill(os.getpid(), signal.SIGINT))

    with monkeypatch.context() as patch:
        patch.setattr(batches.Batches, "examples", stopping)
        result = train(cut)
    assert (result.stopped, result.signal, result.steps) == (True, signal.SIGINT, 0)
    assert "stopping after this step" in capfd.readouterr().err
    assert train(changed(cut)).steps == 4
    for name in ("adapter.safetensors", "last/adapter.safetensors"):
        assert (cut.out / name).read_bytes() == (whole.out / name).read_bytes()
    assert log_of(cut.out) == log_of(whole.out)


def changed(config: Config, **fields: Any) -> Config:
    return replace(config, resume=True, **fields)


def test_a_run_goes_on_is_then_complete_and_is_never_overwritten_unasked(
    stopped: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="stands at step 2; go on with --resume"):
        train(stopped)
    result = train(changed(stopped))
    assert (result.steps, result.stopped) == (4, False)
    assert "resume    at step 2" in capsys.readouterr().err
    before = (stopped.out / "adapter.json").read_bytes()
    again = train(changed(stopped))
    assert "already complete: 4 steps" in capsys.readouterr().err
    assert (again.steps, again.best_dsc, again.best_step) == (4, result.best_dsc, result.best_step)
    assert (stopped.out / "adapter.json").read_bytes() == before
    (stopped.out / FILE).unlink()
    with pytest.raises(UsageError, match=f"{FILE} is missing.*; start anew with --force"):
        train(changed(stopped))
    with pytest.raises(UsageError, match="holds a trained run"):
        train(stopped)
    assert train(changed(stopped, force=True)).steps == 4


def test_other_settings_are_refused_with_both_values(stopped: Config) -> None:
    """Case D27."""

    def refused(match: str, **fields: Any) -> None:
        with pytest.raises(UsageError, match=match):
            train(changed(stopped, **fields))

    refused("method was lora, is bitfit", method="bitfit")
    refused("options.rank was 4, is 8", options={"rank": 8})
    rate = replace(stopped.training, lr=2e-3)
    refused(r"training.lr was 0.001, is 0.002; give --resume with the old ones", training=rate)
    noisy = replace(stopped.training, augmentation=Augmentation(noise=0.1))
    refused(r"training.augmentation.noise was 0.03, is 0.1", training=noisy)
    refused("preparation.side was 64, is 80", side=80)
    file = stopped.data / "dataset.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "labels": {"background": 0, "c2": 1, "c1": 2}}))
    refused(r"classes was \[0 background, 1 c1, 2 c2\], is \[0 background, 1 c2, 2 c1\]")
    file.write_text(json.dumps(content))
    free = replace(stopped.training, checkpoint_minutes=5.0, max_bad_steps=3)
    picture = next((stopped.data / "images").iterdir())
    whole = picture.read_bytes()
    other = next(p for p in (stopped.data / "images").iterdir() if p != picture)
    picture.write_bytes(other.read_bytes())
    refused(r"data was [0-9a-f]{12}\.\.\., is [0-9a-f]{12}\.\.\.")
    picture.write_bytes(whole)
    assert train(changed(stopped, training=free)).steps == 4


def test_classes_whose_colours_were_exchanged_are_refused(stopped: Config) -> None:
    """The files are the same, the truth in colour-coded masks is another."""

    def settings(*colors: list[int]) -> dict[str, Any]:
        names = ("background", "c1", "c2")
        (stopped.data / "dataset.json").write_text(
            json.dumps(content | {"colors": dict(zip(names, colors, strict=True))})
        )
        dataset = open_dataset(stopped.data)
        return known_settings(stopped, dataset, list(dataset.cases), [])

    content = json.loads((stopped.data / "dataset.json").read_text())
    found = Checkpoint(stopped.out / FILE, Progress(), settings([0, 0, 0], [255, 0, 0], [0, 0, 255]), {}, {}, {})
    found.refuse_others(settings([0, 0, 0], [255, 0, 0], [0, 0, 255]))
    with pytest.raises(UsageError, match=r"label_colors\.0,0,255 was 2, is 1; label_colors\.255,0,0 was 1, is 2"):
        found.refuse_others(settings([0, 0, 0], [0, 0, 255], [255, 0, 0]))


def test_what_may_cost_the_last_bits_is_told(stopped: Config) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(UserWarning, match=f"threads was {threads} and is {threads + 1}: .* not bit-equal"):
            assert train(changed(stopped)).steps == 4
    finally:
        torch.set_num_threads(threads)


def test_other_base_weights_are_refused(stopped: Config) -> None:
    found = read_checkpoint(stopped.out)
    assert found is not None
    now = {**found.settings, "weights_sha256": 64 * "a"}
    with pytest.raises(UsageError, match=r"weights_sha256 was random.*, is aaaaaaaaaaaa\.\.\."):
        found.refuse_others(now)
