"""Several processes train as one does: the same batches, losses, gradients and weights, also when a batch does not divide."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fabricate import folder_dataset
from fabricate.backbones import make_tiny, tiny
from sampeft import losses
from sampeft.backbones import BACKBONES
from sampeft.cli import main
from sampeft.data.slice_cache import Slices
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.losses import Loss, segmentation_loss
from sampeft.peft import attach
from sampeft.peft.state import trained_state
from sampeft.training.batches import Batches, shares
from sampeft.training.checkpoint import read_checkpoint
from sampeft.training.loop import Training, fit
from sampeft.training.processes import refuse_unequal
from sampeft.volume import IGNORE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks processes")

LABELS = LabelSet(("background", "liver", "spleen", "kidney"), (0, 1, 2, 3))
SPEC = tiny(BACKBONES["sam-vit-b"])
STORIES: dict[str, dict[str, Any]] = {
    # 7 slices are 3 + 4 and 2 + 2 + 3, and 2 slices leave one of three processes without any.
    "head first": {"options": {}, "batch": 7, "head_first": 0.5, "head_batch": 2},
    "kept start": {"options": {"last": 1}, "batch": 2, "head_first": 0.0, "cached_views": 2},
    "pixel head in windows": {"head": "pixel", "options": {"last": 1}, "batch": 2, "head_first": 0.5, "patch": 32},
}


def uneven_slices(side: int) -> Slices:
    """Eight slices whose classes and shares of ignored pixels differ, so that no two parts of a batch weigh the same."""
    generator = np.random.default_rng(5)
    truth = np.repeat(np.repeat(generator.integers(0, 4, size=(8, side // 8, side // 8)), 8, 1), 8, 2)
    for i in range(8):
        truth[i] = np.minimum(truth[i], 1 + i % 3)
        truth[i, : 5 * i] = IGNORE
    images = np.clip(60 * truth + generator.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    return Slices(images[:, None], truth.astype(np.int16), np.arange(8, dtype=np.int32))


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def worker(root: Path, rank: int, count: int, port: int) -> None:
    """Trains every story as one of `count` processes; leaves its losses, and the weights."""
    if count > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
        os.environ.update({**{key: str(value) for key, value in place.items()}, "MASTER_ADDR": "127.0.0.1"})
    BACKBONES[SPEC.name] = SPEC
    os.environ["OMP_NUM_THREADS"] = "1"  # or accelerate takes all cores for each
    torch.set_num_threads(1)
    found: list[list[float]] = []

    def noted(*given: Any, **named: Any) -> Loss:
        loss = segmentation_loss(*given, **named)
        found.append([term.item() for term in loss])
        return loss

    # AdamW divides a gradient by its size: where it is zero but for rounding, rounding becomes a whole step. Not so here.
    changes: list[tuple[Any, str, Any]] = [
        (losses, "segmentation_loss", noted),
        (torch.optim, "AdamW", partial(torch.optim.AdamW, eps=1e-4)),
    ]
    for owner, name, changed in changes:
        setattr(owner, name, changed)
    no_dataset: Any = None
    for story_name, story in STORIES.items():
        settings = {key: value for key, value in story.items() if key not in ("head", "options")}
        config = Training(steps=8, validations=1, seed=3, precision="fp32", lr=2e-3, **settings)
        model = make_tiny(SPEC.name, LABELS, story.get("head", "mask"))
        attach(model, "lora", story["options"])
        found.clear()
        fit(model, uneven_slices(model.side), config, root / f"{story_name} {count}", {}, no_dataset)
        torch.save((found, trained_state(model)), root / f"{story_name} {count} {rank}.pt")


def in_processes(target: Any, *arguments: tuple[Any, ...]) -> None:
    """One process for each set of arguments, forked from one that has imported everything."""
    started = [prepared_context().Process(target=target, args=given) for given in arguments]
    for process in started:
        process.start()
    for process in started:
        process.join(200)
        assert process.exitcode == 0


def prepared_context() -> Any:
    context = multiprocessing.get_context("forkserver")
    modules = ["sampeft.training.loop", "transformers.models.sam.modeling_sam", "peft", "accelerate", "timm", "pytest"]
    context.set_forkserver_preload(modules)
    return context


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one, two and three processes made of the same settings."""
    root = tmp_path_factory.mktemp("many")
    for count in (1, 2, 3):
        port = free_port()
        in_processes(worker, *((root, rank, count, port) for rank in range(count)))
    return root


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("count", [2, 3])
def test_losses_and_weights_are_those_of_one_process(trained: Path, name: str, count: int) -> None:
    expected, weights = torch.load(trained / f"{name} 1 0.pt")
    assert np.ptp(np.array(expected)[:, 0]) > 0.01
    for rank in range(count):
        found, state = torch.load(trained / f"{name} {count} {rank}.pt")
        assert np.abs(np.array(found) - np.array(expected)).max() < 1e-5
        assert state.keys() == weights.keys()
        assert max(float((state[key] - weights[key]).abs().max()) for key in weights) < 1e-5


def test_shares_are_neighbours_that_together_are_the_batch() -> None:
    assert shares([0, 1, 2, 3, 4, 5, 6], 3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert shares([0, 1], 3) == [[], [0], [1]]
    for processes in range(1, 12):
        parts = shares(range(10), processes)
        assert [i for part in parts for i in part] == list(range(10))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.filterwarnings("ignore:training.batch is 9 slices for 10")
def test_a_step_draws_the_same_slices_for_any_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To the bit, with their augmentation; one that is drawn twice is changed in two ways."""
    monkeypatch.setitem(BACKBONES, SPEC.name, SPEC)
    model = make_tiny(SPEC.name, LABELS)
    slices = uneven_slices(model.side)

    def drawn(count: int, rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        accelerator = SimpleNamespace(num_processes=count, process_index=rank, device=torch.device("cpu"))
        part = Batches.of(slices, model, Training(batch=9, seed=4, head_first=0.0), accelerator)
        return part.drawn(part.generator(step))

    alone, truth = drawn(1, 0, step=6)
    assert len({image.numpy().tobytes() for image in alone}) == 9  # of eight slices
    for count in (2, 4, 9):
        parts = [drawn(count, rank, step=6) for rank in range(count)]
        assert torch.equal(torch.cat([images for images, _ in parts]), alone)
        assert torch.equal(torch.cat([found for _, found in parts]), truth)
    assert not torch.equal(drawn(1, 0, step=7)[0], alone)
    with pytest.warns(UserWarning, match=r"training.batch is 9 slices for 10 processes, of which 1 have nothing to do"):
        drawn(10, 0, step=6)
    idle = [found for _, found in (drawn(10, rank, step=6) for rank in range(10)) if bool((found == IGNORE).all())]
    assert len(idle) == 1


def test_slices_drawn_ahead_are_the_same_and_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes 0.2 s and the device 0.2 s a step: one after the other 5 steps take 2 s, side by side 1.2 s."""
    monkeypatch.setitem(BACKBONES, SPEC.name, SPEC)
    model = make_tiny(SPEC.name, LABELS)
    accelerator = SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu"))
    config = Training(batch=9, seed=4, head_first=0.0)
    plain = Batches.of(uneven_slices(model.side), model, config, accelerator)
    assert plain.ahead is None  # on a CPU
    drawing = Batches.drawn

    def slow(self: Batches, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(0.2)
        return drawing(self, generator)

    with ThreadPoolExecutor(1) as pool:
        ahead = replace(plain, ahead=pool)
        monkeypatch.setattr(Batches, "drawn", slow)
        started, found = time.monotonic(), []
        for step in range(5):
            found.append(ahead.images(step))
            time.sleep(0.2)
        assert time.monotonic() - started < 1.7
    monkeypatch.undo()
    for step, (images, truth) in enumerate(found):
        generator = plain.generator(step)
        expected = plain.drawn(generator)
        assert torch.equal(images, expected[0])
        assert torch.equal(truth, expected[1])


def test_a_model_in_parts_is_refused_in_words() -> None:
    """FSDP gives no process the whole weights, which scoring, keeping views and saving want."""
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP, num_processes=2)
    with pytest.raises(UsageError, match=r"set up for FSDP, which cuts the model into parts.* leave --use_fsdp"):
        refuse_unequal(accelerator, {}, None)


def started_otherwise(root: Path, rank: int, port: int, settings: dict[str, Any], told: str) -> None:
    """As one of two processes; leaves a file when it is refused in these words."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({**{key: str(value) for key, value in place.items()}, "MASTER_ADDR": "127.0.0.1"})
    BACKBONES[SPEC.name] = SPEC
    no_dataset: Any = None
    model = make_tiny(SPEC.name, LABELS)
    attach(model, "lora")
    with pytest.raises(UsageError, match=told):
        fit(model, uneven_slices(model.side), Training(steps=2), root, {}, no_dataset, settings=settings)
    (root / f"refused {rank}").touch()


def test_processes_that_were_started_otherwise_are_refused_by_all(tmp_path: Path) -> None:
    """Two machines with other data would train on, each on its own."""
    port = free_port()
    told = r"process 1 would not train what process 0 does: data was 1234, is 5678; start all with the same command"
    in_processes(
        started_otherwise, (tmp_path, 0, port, {"data": "1234"}, told), (tmp_path, 1, port, {"data": "5678"}, told)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["refused 0", "refused 1"]


def test_a_process_that_was_killed_starts_again_with_all_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun --max-restarts with `train --resume --force`: anew the first time, from the checkpoint afterwards."""
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Else, with torch 2.14, a process that starts again may read the address of the one that was killed.
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    data = folder_dataset(tmp_path / "data", cases=5, files_per_case=1)
    settings = {"steps": 8, "validations": 2, "head_first": 0.0, "checkpoint_minutes": 0.0, "batch": 3}
    options = {"data": data, "backbone": SPEC.name, "weights": "random", "side": SPEC.family.TINY_SIDE, "held_out": 2}
    options |= {f"training.{name}": value for name, value in settings.items()}
    arguments = ["train", *(f"--{name}={value}" for name, value in options.items()), "--resume", "--force"]
    prepared_context()
    for name, kill_before in (("whole", None), ("killed", 5)):
        launched = LaunchConfig(
            *(1, 1, 2),  # one machine, two processes
            run_id=name,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            max_restarts=3,
            monitor_interval=0.1,
            start_method="forkserver",
        )
        elastic_launch(launched, restarted)([*arguments, f"--out={tmp_path / name}"], kill_before, tmp_path)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    starts = [path.name for path in sorted(tmp_path.glob("started *"))]
    assert starts == [
        f"started {part}" for part in ("killed 0 0", "killed 0 1", "killed 1 0", "killed 1 1", "whole 0 0", "whole 0 1")
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for name in ("adapter.safetensors", "last/adapter.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
    found = read_checkpoint(killed)
    assert found is not None
    assert (found.progress.step, found.progress.finished) == (8, True)
    assert not list(tmp_path.rglob("*.tmp"))


def restarted(arguments: list[str], kill_before: int | None, notes: Path) -> None:
    """One worker: the command, in which the second process is killed once."""
    BACKBONES[SPEC.name] = SPEC
    attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
    (notes / f"started {Path(arguments[-1]).name} {attempt} {rank}").touch()
    generator = Batches.generator

    def killing(self: Batches, step: int) -> torch.Generator:
        if step == kill_before and (attempt, rank) == ("0", "1"):
            os.kill(os.getpid(), signal.SIGKILL)
        return generator(self, step)

    setattr(Batches, "generator", killing)  # noqa: B010
    if code := main(arguments):
        raise SystemExit(code)
