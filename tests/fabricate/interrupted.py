"""Commands of sampeft as processes of their own that are sent a signal at some moment; as a script, the process that forks them.

Only processes started here are sent signals. They know the backbone `tiny`, and say when the command begins and ends.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fabricate import folder_dataset
from fabricate.backbones import tiny_sam

SIDE = 64
BEGINS, ENDS = "the command begins\n", "the command has ended with code "
TRAINING = ["--backbone", "tiny", "--weights", "random", "--side", str(SIDE), "--held_out", "1",
            "--training.steps", "10", "--training.batch", "1", "--training.validations", "2", "--training.head_first", "0.3",
            "--training.head_bank", "2", "--training.head_batch", "1", "--training.checkpoint_minutes", "0.005",
            "--plan", "false"]  # fmt: skip
Arguments = Callable[[Path], list[str]]  # of a command that writes into that folder


@dataclass
class Run:
    """What became of a command. code: of its exit, or minus the signal that ended it. is_sent: whether the signal was sent
    before the end; answered_s: how long it took until the command said something of it or was gone. said: in all."""

    code: int
    said: str
    seconds: float
    is_sent: bool = False
    answered_s: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether the command came to its end, whatever became of Python then."""
        return f"{ENDS}0" in self.said

    @property
    def is_at_pythons_end(self) -> bool:
        """Whether the bare signal ended the process when the command was over, or had not yet begun to hear it."""
        return self.code < 0 and (ENDS in self.said or self.said == BEGINS)

    def faults(self, number: int, lines: int | None = None) -> list[str]:
        """What is wrong with how it ended. lines: that the command says when it is left alone; after them it is over."""
        by_command = self.said.partition(ENDS)[0]
        allowed = [0, -number if number == signal.SIGKILL else 128 + number]
        if self.is_at_pythons_end or (lines is not None and self.said.count("\n") >= lines):
            allowed.append(-number)
        if self.is_sent and self.code not in allowed:
            return [f"code {self.code}: {self.said[-500:]}"]
        return [by_command[-2000:]] if "Traceback" in by_command else []


class Nursery:
    """A process that has read all libraries and forks one command after the other; use it as a context manager.

    folder: for the commands' cache and temporary files. draws: figures as they are; else they are empty, since drawing takes
    longer than all the rest.
    """

    def __init__(self, folder: Path, draws: bool = False) -> None:
        self.folder, self.cache, self.temporary, self.log = (folder / n for n in ("", "cache", "tmp", "log.txt"))
        self.temporary.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "SAMPEFT_CACHE": str(self.cache),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]),
        }
        command = [sys.executable, "-W", "ignore", __file__, str(draws)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=folder, text=True
        )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(
        self,
        arguments: Sequence[str],
        number: int = 0,
        after_s: float = 0.0,
        used_openvino: bool = False,
        first: Callable[[], None] = lambda: None,
    ) -> Run:
        """Run a command to its end.

        number, after_s: the signal, and so many seconds after the command began and `first` was done; 0: none.
        used_openvino: whether the process made two engines before, and dropped them in that order.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([used_openvino, str(self.log), *arguments]), file=self._process.stdin, flush=True)
        pid = int(self._process.stdout.readline())
        self.wait_for(BEGINS)
        first()
        began, answered_s, is_sent = time.monotonic(), 0.0, False
        if number and not self._has_ended(after_s):
            os.kill(pid, number)  # its parent has not waited for it, so that the id is still its own
            sent, is_sent = time.monotonic(), True
            while "stop" not in self.said() and not self._has_ended(0.01):
                pass
            answered_s = time.monotonic() - sent
        code = int(self._process.stdout.readline())
        return Run(code, self.said(), time.monotonic() - began, is_sent, answered_s)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """For what the command says, for a minute."""
        end = time.monotonic() + 60
        while (found := re.search(pattern, self.said())) is None:
            if time.monotonic() > end:
                raise RuntimeError(f"the command did not say {pattern}: {self.said()}")
            time.sleep(0.01)
        return found

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def left(self) -> list[str]:
        """Temporary files, those in the cache included; the folder of torch's compiler is not ours."""
        found = [path for path in self.temporary.iterdir() if not path.name.startswith("torchinductor_")]
        return [
            str(p) for p in [*found, *self.cache.glob("*/.*"), *self.cache.rglob("*.tmp")] if p.name != ".gitignore"
        ]

    def _has_ended(self, within_s: float) -> bool:
        return bool(select.select([self._process.stdout], [], [], within_s)[0])


def commands(nursery: Nursery) -> Mapping[str, Arguments]:
    """Each command over a made data set and a run trained on it."""
    data, run = folder_dataset(nursery.folder / "data", cases=3, files_per_case=1), nursery.folder / "run"

    def to(*arguments: object) -> Arguments:
        return lambda out: [*map(str, arguments), "--out", str(out)]

    def train(out: Path) -> list[str]:
        resume = ["--resume"] if (out / "checkpoint.safetensors").is_file() else []
        return [*to("train", "--data", data, *TRAINING)(out), *resume]

    if (done := nursery.run(train(run))).code:
        raise RuntimeError(done.said)
    return {
        "train": train,
        "predict": to("predict", run, data / "images", "--batch", 1, "--probabilities"),
        "evaluate": to("evaluate", run, "--data", data, "--maps"),
        "sweep": to("sweep", "--data", data, *TRAINING, "--training.steps", 2, "--set", "options.rank=1,2"),
        "check": to("check", data),
    }


@dataclass
class Found:
    """runs: those that a signal met. late: how many had ended before it. seconds: of one that is left alone."""

    seconds: float = 0.0
    late: int = 0
    runs: list[Run] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def trials(
    nursery: Nursery,
    name: str,
    known: Mapping[str, Arguments],
    moments: random.Random,
    numbers: Sequence[int],
    points: int,
) -> Found:
    """Send a command so many signals, the numbers in turn, at moments of the time that it takes when it is left alone. What
    one leaves is what the next one begins with, until the command comes to its end, which must be as good."""
    alone, out = (nursery.folder / f"{name}-{which}" for which in ("alone", "cut"))
    if (left_alone := nursery.run(known[name](alone))).code:
        raise RuntimeError(left_alone.said)
    found, wanted = Found(left_alone.seconds), content(alone)
    lines = left_alone.said.partition(ENDS)[0].count("\n")
    for point in range(2 * points):
        if len(found.runs) == points:
            break
        number, after_s = numbers[point % len(numbers)], moments.uniform(0, found.seconds)
        before = nursery.left()
        run = nursery.run(known[name](out), number, after_s, used_openvino=point // len(numbers) % 2 == 1)
        found.late += not run.is_sent
        found.runs += [run] if run.is_sent else []
        faults = [*run.faults(number, lines), *unwhole(out, number == signal.SIGKILL)]
        faults += sorted({*nursery.left()} - {*before}) if number != signal.SIGKILL else []
        if run.is_done:
            faults += differences(out, wanted)
            shutil.rmtree(out, ignore_errors=True)
        found.faults += [f"{name}, {signal.Signals(number).name} after {after_s:.2f} s: {fault}" for fault in faults]
    last = nursery.run(known[name](out))
    at_end = [last.said[-500:]] if last.code else differences(out, wanted)
    found.faults += [f"{name}, at its end: {fault}" for fault in at_end]
    for folder in (alone, out):
        shutil.rmtree(folder)
    return found


def serve_trials(nursery: Nursery, moments: random.Random, numbers: Sequence[int], points: int) -> Found:
    """A server that is sent a signal up to a second after it took a picture to segment, or after its command began."""
    found = Found(1.0)
    arguments = ["serve", str(nursery.folder / "run"), "--port", "0", "--no_token", "true"]
    picture = next((nursery.folder / "data/images").iterdir())

    def upload() -> None:
        import httpx

        address = nursery.wait_for(r"http://[\d.:]+(?=\D)")[0]
        files = {"file": (picture.name, picture.read_bytes())}
        httpx.post(f"{address}/api/predictions", data={"run": "run"}, files=files, timeout=60).raise_for_status()

    for point in range(points):
        number, after_s = numbers[point % len(numbers)], moments.uniform(0, found.seconds)
        first = upload if point % 4 < 3 else lambda: None
        run = nursery.run(arguments, number, after_s, point // len(numbers) % 2 == 1, first)
        found.runs.append(run)
        faults = [*run.faults(number), *nursery.left()]
        if number == signal.SIGTERM and run.code == 0:  # which only Ctrl-C asks for
            faults.append("code 0")
        found.faults += [f"serve, {signal.Signals(number).name} after {after_s:.2f} s: {fault}" for fault in faults]
    return found


def unwhole(out: Path, is_killed: bool) -> list[str]:
    """The files of a folder that are half-written; files of temporary names and locks too, but where the process was killed."""
    faults = []
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        try:
            if not is_unfinished(path):
                _read(path, is_killed)
            elif not is_killed:
                faults.append(f"{path.relative_to(out)}: left behind")
        except Exception as error:  # noqa: PERF203, whatever a reader says of a broken file
            faults.append(f"{path.relative_to(out)}: {error}")
    return faults


def is_unfinished(path: Path) -> bool:
    """By its name; a journal of a prediction has a name of its own and is read by the next one."""
    return path.suffix in (".tmp", ".lock") or any(part.startswith(".sampeft") for part in path.parts)


def _read(path: Path, is_killed: bool) -> None:
    """Raises something for a file that is cut off. A log's last line may be, by a kill; who goes on writes it anew."""
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".jsonl" and not is_killed:
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    elif path.suffix == ".png":
        from PIL import Image

        Image.open(path).load()
    elif path.suffix == ".safetensors":
        from safetensors import safe_open

        safe_open(path, "pt")
    elif path.suffix in (".html", ".md", ".csv") and not path.read_bytes().endswith((b"\n", b">")):
        raise ValueError("is cut off")


_CLOCK = {"seconds", "minutes", "peak_memory_mib", "resources", "description_sha256"}
_TELL_TIME = (".html", "checkpoint.safetensors", "learning.png", "ranking.md")


def content(out: Path) -> dict[str, Any]:
    """What must be equal when a command is done: all files, but for what tells the time or the folder's place."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        if path.name.endswith(_TELL_TIME):
            found[name] = None
        elif path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text(encoding="utf-8")), out)
        elif path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            found[name] = [_timeless(json.loads(line), out) for line in lines]
        else:
            found[name] = path.read_bytes()
    return found


def _timeless(value: Any, out: Path) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part, out) for key, part in value.items() if key not in _CLOCK}
    if isinstance(value, list):
        return [_timeless(part, out) for part in value]
    return value.replace(str(out), "OUT") if isinstance(value, str) else value


def differences(out: Path, wanted: Mapping[str, Any]) -> list[str]:
    """The files that are not as they would be had the command been left alone."""
    made = content(out)
    different = [name for name in sorted({*made, *wanted}) if made.get(name, 0) != wanted.get(name, 0)]
    return [f"{name}: {_first(made.get(name, 0), wanted.get(name, 0))}" for name in different]


def _first(made: Any, wanted: Any) -> str:
    """Where they differ first."""
    if isinstance(made, dict) and isinstance(wanted, dict):
        key = next(key for key in {**made, **wanted} if made.get(key, 0) != wanted.get(key, 0))
        return f"{key}: {_first(made.get(key, 0), wanted.get(key, 0))}"
    return f"{str(made)[:80]} instead of {str(wanted)[:80]}"


def _drop_engines_in_order() -> None:
    """As after two models that were loaded with `engine="openvino"`."""
    import numpy as np
    from openvino import Model, opset13

    from sampeft.engines.openvino import _core

    def engine() -> Any:
        given = opset13.parameter([1, 8], np.float32)
        graph = Model([opset13.relu(given)], [given])
        request = _core().compile_model(graph, "CPU", {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
        request.infer([np.zeros((1, 8), np.float32)])
        return request

    first, second = engine(), engine()
    del first
    gc.collect()
    del second
    gc.collect()


def _begin(used_openvino: bool, log: str, arguments: Sequence[str]) -> int:
    """What a forked process does."""
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if used_openvino:
        _drop_engines_in_order()
    from sampeft.cli import main

    with tiny_sam(SIDE, Path(os.environ["SAMPEFT_CACHE"])):
        os.write(said, BEGINS.encode())
        code = main(arguments)
        sys.stdout.flush()
        os.write(said, f"{ENDS}{code}\n".encode())
    return code


def _read_libraries() -> None:
    """What the commands would read one by one."""
    import sampeft

    ours = [found.name for found in pkgutil.walk_packages(sampeft.__path__, "sampeft.") if "__main__" not in found.name]
    others = ["transformers.models.sam.modeling_sam", "accelerate", "peft", "matplotlib.pyplot", "openvino", "uvicorn"]
    for name in [*ours, *others]:
        with suppress(ImportError):
            importlib.import_module(name)


def _main(draws: bool) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    _read_libraries()
    if not draws:
        Figure.draw = lambda self, renderer: None
    for line in sys.stdin:
        used_openvino, log, *arguments = json.loads(line)
        Path(log).unlink(missing_ok=True)
        gc.collect()
        gc.freeze()  # else a forked process spends most of its time on what it never made
        if (pid := os.fork()) == 0:
            code = _begin(used_openvino, log, arguments)
            threading._shutdown()  # of Python's end what is ours; the rest takes longer than most of these commands
            atexit._run_exitfuncs()
            os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1] == str(True)))
