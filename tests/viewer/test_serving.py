"""The server as a process: its address, Ctrl-C, what dead servers leave, and what is said when something lacks."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import httpx
import numpy as np
import pytest

from fabricate import write_png
from sampeft.commands.serve import Config
from sampeft.commands.serve import run as command
from sampeft.errors import UsageError
from sampeft.viewer.server import serve as run_server
from sampeft.viewer.settings import Settings
from sampeft.viewer.workspace import PREFIX, Workspace
from viewer.clients import Serve, predicted


def started(run: Path, folder: Path, before: str = "pass") -> tuple[subprocess.Popen[str], str]:
    """A server process whose temporary folder lies in `folder`, and its address. before: what it does first."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; from sampeft.commands.serve import Config, run; from pathlib import Path; {before}; "
         "sys.exit(run(Config([Path(sys.argv[1])], port=0)))", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_ctrl_c_ends_it_cleanly_and_a_kill_leaves_what_the_next_one_removes(run: Path, tmp_path: Path) -> None:
    process, address = started(run, tmp_path)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", address)
    base, _, token = address.partition("/?token=")
    asked = urllib.request.Request(f"{base}/api/runs", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked) as answer:
        assert b'"lite-medsam lora r=2, mask head"' in answer.read()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    [folder] = tmp_path.glob(f"{PREFIX}*")
    assert folder.stat().st_mode & 0o077 == 0
    (folder / "predictions").mkdir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.is_dir()
    process, address = started(run, tmp_path)
    assert not folder.exists()
    [folder] = tmp_path.glob(f"{PREFIX}*")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not folder.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_it_ends_within_seconds_whatever_it_is_at(run: Path, tmp_path: Path, number: int, code: int) -> None:
    """A request and a prediction that cannot be stopped, as while the network computes, and an upload that stalls."""
    slow = "import time; from sampeft.viewer import runs; runs.load = lambda *a, **k: time.sleep(60)"
    process, address = started(run, tmp_path, slow)
    base, _, token = address.partition("/?token=")
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=base, headers=headers) as client, socket.socket() as stalled:
        picture = write_png(tmp_path / "a.png", np.zeros((9, 9), np.uint8)).read_bytes()
        body = client.post("/api/predictions", data={"run": "run"}, files={"file": ("a.png", picture)}).json()
        while client.get(f"/api/predictions/{body['id']}").json()["message"] != "loading the model":
            time.sleep(0.02)
        stalled.connect(("127.0.0.1", int(base.rpartition(":")[2])))
        lines = ["POST /api/predictions HTTP/1.1", f"Host: {base[7:]}", f"Authorization: Bearer {token}",
                 "Content-Type: multipart/form-data; boundary=x", "Content-Length: 1000", "", "--x"]  # fmt: skip
        stalled.sendall("\r\n".join(lines).encode())
        time.sleep(0.2)
        [folder] = tmp_path.glob(f"{PREFIX}*")
        began = time.monotonic()
        process.send_signal(number)
        found = process.wait(30)
        assert time.monotonic() - began < 8  # 4 wanted; a busy machine needs longer
    assert found in (code, 128 + number if code else 0)
    assert not folder.exists()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


def test_folders_of_living_servers_and_of_others_stay(tmp_path: Path) -> None:
    alive = Workspace(tmp_path)
    target = tmp_path / "kept"
    target.mkdir()
    (target / "lock").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(target)
    (tmp_path / f"{PREFIX}unlocked").mkdir()
    second = Workspace(tmp_path)
    assert alive.folder.is_dir()
    assert (target / "lock").is_file()
    assert (tmp_path / f"{PREFIX}unlocked").is_dir()  # another server may be making it
    second.close()
    alive.close()
    alive.close()
    assert not alive.folder.exists()


def test_files_go_after_the_minutes_and_at_the_end(serve: Serve, tmp_path: Path) -> None:
    picture = write_png(tmp_path / "a.png", np.zeros((9, 9), np.uint8))
    with serve(keep_minutes=10) as client:
        id = predicted(client, picture)["id"]
        client.get("/api/cases/P01/images/P01_1/image.png")
        service = client.service
        inside = service.workspace.folder
        service.sweep(later_s=9 * 60)
        assert client.get(f"/api/predictions/{id}").status_code == 200
        assert len(list((inside / "cases").iterdir())) == 1
        service.sweep(later_s=11 * 60)
        assert client.get(f"/api/predictions/{id}").status_code == 404
        assert not list((inside / "predictions").iterdir())
        assert not list((inside / "cases").iterdir())
        predicted(client, picture)
    assert not inside.exists()
    assert tempfile.gettempdir() not in str(inside) or inside.parent == tmp_path


def test_what_lacks_is_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="nothing to show; give trained runs, --data or --evals"):
        command(Config([], port=0))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match=r"cannot be used .* give another --port"):
            run_server(Settings((run,)), taken.getsockname()[1], print)
    for name in ("uvicorn", "fastapi"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            for module in [m for m in sys.modules if re.fullmatch(r"sampeft\.viewer\.(app|answers|.*routes)", m)]:
                patch.delitem(sys.modules, module)
            with pytest.raises(UsageError, match=r"needs the extra 'viewer'.*pip install 'sampeft\[viewer\]'"):
                run_server(Settings((run,)), 0, print)


def test_jobs_end_with_the_server(run: Path) -> None:
    from sampeft.viewer.jobs import Job, Worker

    worker = Worker(3)
    began: list[Job] = []

    def long(job: Job) -> None:
        began.append(job)
        while True:
            job.report(0.1)
            time.sleep(0.001)

    jobs = [Job(long) for _ in range(3)]
    for job in jobs:
        worker.submit(job)
    while not began:
        time.sleep(0.001)
    worker.close()
    assert [job.state for job in jobs] == ["cancelled"] * 3
    assert began == jobs[:1]
