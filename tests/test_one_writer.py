"""One command at a time writes into a folder; a second one is told which; who is gone is in nobody's way."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import sampeft
from fabricate import folder_dataset, write_png
from sampeft.cli import main
from sampeft.errors import UsageError
from sampeft.one_writer import LOCK, one_writer
from sampeft.peft.state import FORMAT

WRITER = """
import sys, time
from pathlib import Path
from sampeft.one_writer import one_writer
with one_writer(Path(sys.argv[1])):
    print("writing", flush=True)
    time.sleep(60)
"""
Writer = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def writer() -> Iterator[Writer]:
    """Starts another process that writes into a folder."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def commands(folder: Path) -> dict[str, list[str]]:
    """Of every command that writes into a folder for long: into a run `out`, or into `results`."""
    out, image = str(folder / "out"), write_png(folder / "image.png", np.zeros((8, 8), np.uint8))
    results = str(folder / "results")
    (folder / "out").mkdir()
    (folder / "out/adapter.json").write_text(json.dumps({"format": FORMAT}))
    (folder / "sirst").mkdir()
    (folder / "run").mkdir()
    return {
        "train": ["train", "--data", str(folder), "--out", out],
        "denoise": ["train", "--data", str(folder), "--out", out, "--task", "denoise"],
        "refine": ["refine", out, "--data", str(folder)],
        "reproduce": ["reproduce", "table2", "--data_root", str(folder), "--data", str(folder), "--out", out],
        "predict": ["predict", str(folder / "run"), str(image), "--out", results],
        "evaluate": ["evaluate", str(folder / "run"), "--data", str(folder), "--out", results],
        "oracle": ["oracle", "--data", str(folder), "--out", results],
    }


def test_a_second_command_is_refused_at_once_and_told_who_writes(
    tmp_path: Path, writer: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    given = commands(tmp_path)
    folders = [tmp_path / "out", tmp_path / "results"]
    writers = {folder: writer(folder) for folder in folders}
    before = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    for name, arguments in given.items():
        assert main(arguments) == 2, name
        told = capsys.readouterr().err.splitlines()[-1]
        folder = folders[str(folders[1]) in arguments]
        who = f"process {writers[folder].pid} of {socket.gethostname()}"
        assert re.search(rf"{folder.name}: is being written by {who}, since \d{{4}}-\d\d-\d\d", told), told
        assert f"delete {folder / LOCK}" in told
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == before


def test_a_python_function_is_refused_as_its_command_is(tmp_path: Path, writer: Writer) -> None:
    commands(tmp_path)
    process = writer(tmp_path / "results")
    with pytest.raises(UsageError, match=rf"is being written by process {process.pid} of "):
        sampeft.evaluate(tmp_path / "run", tmp_path, tmp_path / "results")


def test_a_process_that_was_killed_blocks_nobody(tmp_path: Path, writer: Writer) -> None:
    process = writer(tmp_path)
    process.kill()
    process.wait()
    assert (tmp_path / LOCK).is_file()
    with one_writer(tmp_path):
        assert f"pid={os.getpid()}\n" in (tmp_path / LOCK).read_text()
    assert not (tmp_path / LOCK).exists()


def test_one_of_another_machine_blocks_until_its_file_is_deleted(tmp_path: Path) -> None:
    """Nobody here can know whether it is still there."""
    (tmp_path / LOCK).write_text("filelock/2\npid=7\nhost=node12\nmode=exclusive\n")
    with (
        pytest.raises(UsageError, match=r"process 7 of node12, since .* no longer there, delete "),
        one_writer(tmp_path),
    ):
        pass
    (tmp_path / LOCK).unlink()
    with one_writer(tmp_path):
        pass


def test_it_needs_no_locks_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    with one_writer(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()} of "), one_writer(tmp_path):
        pass


def test_the_first_of_a_distributed_run_holds_it_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with one_writer(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with one_writer(tmp_path):
            pass
        assert (tmp_path / LOCK).is_file()
        monkeypatch.setenv("RANK", "0")
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"RANK": "abc"}, "the environment variable RANK is 'abc', and must be a whole number of 0 or more"),
        ({"RANK": "-1"}, "RANK is '-1'"),
        ({"WORLD_SIZE": "2x"}, "WORLD_SIZE is '2x', and must be a whole number of 1 or more"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is ''"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"LOCAL_RANK": "1.0"}, "LOCAL_RANK is '1.0'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, but WORLD_SIZE is 2: processes count from 0"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "abc"}, "cannot find each other"),
    ],
)
def test_a_place_among_processes_that_is_none_is_a_usage_error(
    place: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    data = folder_dataset(tmp_path / "data", size=(8, 8))
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


PART = """
import sys, time
from pathlib import Path
from sampeft.errors import UsageError
from sampeft.one_writer import one_writer
try:
    with one_writer(Path(sys.argv[1])):
        print("writing", flush=True)
        time.sleep(float(sys.argv[2]))
except UsageError as error:
    print("refused:", error, flush=True)
"""


def parts_of(folder: Path, seconds: tuple[float, ...]) -> list[subprocess.Popen[str]]:
    """The processes of one distributed run, as torchrun starts them; each writes for so long."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        place = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(server.getsockname()[1]),
            "WORLD_SIZE": str(len(seconds)),
        }
    return [
        subprocess.Popen(
            [sys.executable, "-c", PART, str(folder), str(duration)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **place, "RANK": str(rank)},
        )
        for rank, duration in enumerate(seconds)
    ]


def test_where_the_first_of_a_distributed_run_is_refused_no_other_writes(tmp_path: Path, writer: Writer) -> None:
    process = writer(tmp_path)
    said = [part.communicate(timeout=300)[0] for part in parts_of(tmp_path, (0.0, 0.0))]
    assert [f"is being written by process {process.pid} of " in text for text in said] in ([True, True], [True, False])
    assert all(text.startswith("refused: ") for text in said)


def test_the_first_of_a_distributed_run_holds_it_until_the_last_has_ended(tmp_path: Path) -> None:
    first, last = parts_of(tmp_path, (0.0, 2.0))
    assert last.stdout
    assert last.stdout.readline() == "writing\n"
    assert first.stdout
    assert first.stdout.readline() == "writing\n"
    assert f"pid={first.pid}\n" in (tmp_path / LOCK).read_text()
    assert [part.wait(300) for part in (last, first)] == [0, 0]
    assert not (tmp_path / LOCK).exists()


def test_a_folder_where_nothing_was_written_is_not_left(tmp_path: Path) -> None:
    for folder, there in ((tmp_path / "new", False), (tmp_path, True)):
        with pytest.raises(UsageError, match="wrong"), one_writer(folder):
            raise UsageError("wrong")
        assert folder.exists() == there
    with one_writer(tmp_path / "new"):
        (tmp_path / "new/file").touch()
    assert (tmp_path / "new/file").exists()


def test_what_a_killed_process_had_not_finished_goes_and_nothing_else(tmp_path: Path) -> None:
    drawn = "0123456789abcdef" * 2
    left = [f".a.png.{drawn}.tmp", f"maps/.b.nii.gz.{drawn}.tmp", f".c.tif.{drawn}.rows.tmp", f".d.{drawn}.gpkg"]
    kept = [
        "a.png",
        ".hidden",
        ".notes.tmp",
        "maps/b.nii.gz",
        f"held/.e.{drawn}.tmp",
        f"held/{LOCK}",
        f"a/b/.f.{drawn}.tmp",
    ]
    for name in [*left, ".sampeft-ab_3xyz9/shares.bin", *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with one_writer(tmp_path):
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {*kept, LOCK}
