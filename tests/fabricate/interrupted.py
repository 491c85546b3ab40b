"""Commands of sampeft as processes of their own that are sent a signal at some moment; as a script, such a process itself.

Only processes started here are sent signals. They know the backbone `tiny`, and say when the command begins.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fabricate import folder_dataset

SIDE = 64
BEGINS = "the command begins"
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Exit codes."""
TRAINING = ["--backbone", "tiny", "--weights", "random", "--side", str(SIDE), "--held_out", "1",
            "--training.steps", "10", "--training.batch", "1", "--training.validations", "2", "--training.head_first", "0.3",
            "--training.head_bank", "2", "--training.head_batch", "1", "--training.checkpoint_minutes", "0.005",
            "--plan", "false"]  # fmt: skip


class Nursery:
    """A process that has read all libraries and forks one command after the other; use it as a context manager.

    folder: for the commands' cache, temporary files and what they say.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.temporary = folder, folder / "log.txt", folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "SAMPEFT_CACHE": str(folder / "cache"),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]),
        }
        command = [sys.executable, "-W", "ignore", __file__]
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
        after_s: float | None = None,
        used_openvino: bool = False,
        first: Callable[[Callable[[], str]], None] | None = None,
    ) -> tuple[int, bool]:
        """(exit code, minus the signal that ended it, whether the signal was sent before the end) of one command.

        number, after_s: the signal, and so many seconds after the command began; None: never. used_openvino: whether the
        process made two engines before, and dropped them in that order. first: what is done, with `said`, before the
        seconds are counted.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([used_openvino, str(self.log), *arguments]), file=self._process.stdin, flush=True)
        pid = int(self._process.stdout.readline())
        while BEGINS not in self.said():
            time.sleep(0.005)
        if first is not None:
            first(self.said)
        is_sent = False
        if after_s is not None:
            ended, _, _ = select.select([self._process.stdout], [], [], after_s)
            if not ended:
                os.kill(pid, number)  # its parent has not waited for it, so that the id is still its own
                is_sent = True
        return int(self._process.stdout.readline()), is_sent

    def left(self) -> list[str]:
        """Temporary files; torch makes a folder for its compiler, which stays."""
        return [path.name for path in self.temporary.iterdir() if not path.name.startswith("torchinductor_")]

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""


@dataclass(frozen=True)
class Command:
    """arguments: of an --out. free: endings of files that may differ between two runs, since they tell the time."""

    name: str
    arguments: Callable[[Path], list[str]]


def _train(data: Path) -> Callable[[Path], list[str]]:
    def arguments(out: Path) -> list[str]:
        resume = ["--resume"] if (out / "checkpoint.safetensors").is_file() else []
        return ["train", "--data", str(data), "--out", str(out), *TRAINING, *resume]

    return arguments


def commands(nursery: Nursery) -> Mapping[str, Command]:
    """Each command over a made data set and a run trained on it."""
    folder = nursery.folder
    data, run = folder_dataset(folder / "data", cases=3, files_per_case=1), folder / "run"
    if nursery.run(["train", "--data", str(data), "--out", str(run), *TRAINING])[0]:
        raise RuntimeError(nursery.said())

    def to(*arguments: object) -> Callable[[Path], list[str]]:
        return lambda out: [*map(str, arguments), "--out", str(out)]

    asked = {
        "train": _train(data),
        "predict": to("predict", run, data / "images", "--batch", 1, "--probabilities"),
        "evaluate": to("evaluate", run, "--data", data, "--maps"),
        "sweep": to("sweep", "--data", data, *TRAINING, "--set", "options.rank=1,2"),
        "check": to("check", data),
    }
    return {name: Command(name, arguments) for name, arguments in asked.items()}


def unwhole(out: Path, is_killed: bool = False) -> list[str]:
    """The files of a folder that are half-written; files of temporary names too, but where the process was killed."""
    faults = []
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        try:
            if not path.name.endswith(".tmp"):
                _read(path, is_killed)
            elif not is_killed:
                faults.append(f"{path.relative_to(out)}: left behind")
        except Exception as error:  # noqa: PERF203, whatever a reader says of a broken file
            faults.append(f"{path.relative_to(out)}: {error}")
    return faults


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


_CLOCK = {"seconds", "minutes", "peak_memory_mib", "resources"}
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


@dataclass
class Found:
    """codes: of the commands that a signal met. late: how many had ended before it. seconds: of one that is left alone."""

    seconds: float = 0.0
    late: int = 0
    codes: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def trials(nursery: Nursery, command: Command, moments: random.Random, numbers: Sequence[int], points: int) -> Found:
    """Send a command so many signals, the numbers in turn. What one leaves is what the next one begins with, until the
    command comes to its end, which must be as good as that of one that is left alone."""
    alone, out = (nursery.folder / f"{command.name}-{name}" for name in ("alone", "cut"))
    found, wanted = Found(), {}
    for _ in range(2):  # the first reads the libraries
        shutil.rmtree(alone, ignore_errors=True)
        began = time.monotonic()
        if nursery.run(command.arguments(alone))[0]:
            raise RuntimeError(nursery.said())
        found.seconds = time.monotonic() - began
    wanted = content(alone)
    shutil.rmtree(out, ignore_errors=True)
    stopped = 130 if command.name == "train" else 0  # a training says so for either signal
    while len(found.codes) < points:
        number = numbers[len(found.codes) % len(numbers)]
        after_s = moments.uniform(0, found.seconds)
        code, is_sent = nursery.run(command.arguments(out), number, after_s, len(found.codes) // 2 % 2 == 1)
        where = f"{command.name}, {signal.Signals(number).name} after {after_s:.2f} s: "
        if is_sent:
            found.codes.append(code)
            found.faults += [where + fault for fault in faults_of(nursery, out, number, code, stopped)]
        else:
            found.late += 1
        if code == 0 or (code == -number and number != signal.SIGKILL):  # Python was at its own end already
            found.faults += [where + fault for fault in differences(out, wanted)]
            shutil.rmtree(out, ignore_errors=True)
        elif not is_sent:
            found.faults.append(f"{where}begun anew, code {code}: {nursery.said()[-300:]}")
            shutil.rmtree(out, ignore_errors=True)
    if nursery.run(command.arguments(out))[0]:
        found.faults.append(f"{command.name}: begun anew: {nursery.said()[-300:]}")
    found.faults += [f"{command.name}, at its end: {fault}" for fault in differences(out, wanted)]
    return found


def faults_of(nursery: Nursery, out: Path, number: int, code: int, stopped: int) -> list[str]:
    """What is wrong after a command that a signal ended with that code, or that came to its end all the same."""
    hard = number == signal.SIGKILL
    faults = unwhole(out, hard) if out.is_dir() else []
    if code not in ((0, -number) if hard else (0, -number, ENDS[number], stopped)):
        faults.append(f"code {code}")
    if hard:
        return faults
    if "Traceback" in nursery.said():
        faults.append(nursery.said()[-1500:])
    if left := nursery.left():
        faults.append(f"left behind: {left}")
    faults += [f"{path.relative_to(out)}: left behind" for path in out.rglob("*.lock")]
    return faults


def differences(out: Path, wanted: Mapping[str, Any]) -> list[str]:
    """The files that are not as they would be had the command been left alone."""
    made = content(out)
    names = sorted(made.keys() | wanted)
    return [
        f"{name}: {_first(made.get(name, 0), wanted.get(name, 0))}"
        for name in names
        if made.get(name, 0) != wanted.get(name, 0)
    ]


def _first(made: Any, wanted: Any) -> str:
    """Where they differ first."""
    if isinstance(made, dict) and isinstance(wanted, dict):
        key = next(key for key in {**made, **wanted} if made.get(key, 0) != wanted.get(key, 0))
        return f"{key}: {_first(made.get(key, 0), wanted.get(key, 0))}"
    return f"{str(made)[:80]} instead of {str(wanted)[:80]}"


def serve_trial(nursery: Nursery, moments: random.Random, numbers: Sequence[int], points: int) -> Found:
    """A server that is sent a signal up to two seconds after it took a picture to segment, or while it begins."""
    found = Found(seconds=2.0)
    arguments = ["serve", str(nursery.folder / "run"), "--port", "0", "--no_token", "true"]
    picture = next((nursery.folder / "data" / "images").iterdir())
    nursery.run(arguments, signal.SIGINT, 30.0)
    for point in range(points):
        number, after_s = numbers[point % len(numbers)], moments.uniform(0, found.seconds)
        send = None if point % 4 == 3 else partial(_upload, picture)
        code, _ = nursery.run(arguments, number, after_s, point // 2 % 2 == 1, send)
        found.codes.append(code)
        where = f"serve, {signal.Signals(number).name} after {after_s:.2f} s: "
        if code != (143 if number == signal.SIGTERM else 0):
            found.faults.append(f"{where}code {code}")
        if "Traceback" in nursery.said():
            found.faults.append(where + nursery.said()[-1500:])
        if left := nursery.left():
            found.faults.append(f"{where}left behind: {left}")
    return found


def _upload(picture: Path, said: Callable[[], str]) -> None:
    """Send a picture as soon as the server has said its address."""
    import httpx

    while not (address := re.search(r"http://[\d.:]+", said())):
        time.sleep(0.02)
    files = {"file": (picture.name, picture.read_bytes())}
    answer = httpx.post(f"{address[0]}/api/predictions", data={"run": "run"}, files=files, timeout=30)
    answer.raise_for_status()


def _drop_engines_in_order() -> None:
    """As after two models that were loaded with `engine="openvino"`."""
    import gc

    import numpy as np
    import openvino
    import torch

    from sampeft.engines.openvino import _core

    def engine() -> Any:
        pool = torch.nn.AvgPool2d(2)
        graph = openvino.convert_model(pool, example_input=torch.rand(1, 3, 8, 8), input=[1, 3, 8, 8])
        request = _core().compile_model(graph, "CPU", {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
        request.infer([np.zeros((1, 3, 8, 8), np.float32)])
        return request

    first, second = engine(), engine()
    del first
    gc.collect()
    del second
    gc.collect()


def _begin(used_openvino: bool, log: str, arguments: Sequence[str]) -> int:
    """What a forked process does."""
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if used_openvino:
        _drop_engines_in_order()
    from fabricate.backbones import tiny_sam
    from sampeft.cli import main

    with tiny_sam(SIDE, Path(os.environ["SAMPEFT_CACHE"])):
        print(BEGINS, flush=True)
        code = main(arguments)
    if not Path(f"{log}.{arguments[0]}").is_file():
        Path(f"{log}.{arguments[0]}").write_text("\n".join(sys.modules))
    return code


def _main() -> int:
    for line in sys.stdin:
        used_openvino, log, *arguments = json.loads(line)
        Path(log).unlink(missing_ok=True)
        if (pid := os.fork()) == 0:
            return _begin(used_openvino, log, arguments)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        if arguments and (used := Path(f"{log}.{arguments[0]}")).is_file():
            for name in used.read_text().splitlines():  # those that follow need not read them again
                if name not in sys.modules:
                    with suppress(Exception):
                        importlib.import_module(name)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
