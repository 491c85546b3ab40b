"""What a hostile or careless client may try, each refused with one sentence and without a trace."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import re
import socket
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricate import write_nifti, write_png
from sampeft.errors import UsageError
from sampeft.io import read_volume
from sampeft.viewer.access import Access
from sampeft.viewer.security import Guard
from sampeft.viewer.service import Service
from sampeft.viewer.settings import MIB, Settings
from sampeft.viewer.uploads import safe_name
from viewer.browser import served
from viewer.clients import Serve, ended, predicted

rng = np.random.default_rng(2)
URL = "/api/predictions"


def post(client: Any, name: str, content: bytes, **options: Any) -> Any:
    return client.post(URL, data={"run": "run"}, files={"file": (name, content)}, **options)


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    return write_png(tmp_path / "p.png", rng.integers(0, 255, (20, 20), dtype=np.uint8)).read_bytes()


def test_only_this_host_and_this_origin_are_answered(serve: Serve, picture: bytes) -> None:
    with serve() as client:
        for host in ("evil.example:8765", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:8765", ""):
            answer = client.get("/api/runs", headers={"host": host})
            assert answer.status_code == 403
            assert answer.json()["error"].startswith("this server is 127.0.0.1:8765 and not")
        assert client.get("/api/runs", headers={"host": "localhost:8765"}).status_code == 200
        for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            assert post(client, "p.png", picture, headers=headers).status_code == 403
            assert client.delete(f"{URL}/{'0' * 32}", headers=headers).status_code == 403
        assert post(client, "p.png", picture, headers={"origin": "http://127.0.0.1:8765"}).status_code == 202
        # Another origin is never allowed to read, and asks in vain whether it may send.
        asked = client.options(URL, headers={"origin": "http://evil.example", "access-control-request-method": "POST"})
        assert not [name for name in asked.headers if name.startswith("access-control")]


def test_every_answer_tells_the_browser_to_be_careful(serve: Serve) -> None:
    with serve() as client:
        for path, status in (("/", 200), ("/docs", 200), ("/api/runs", 200), ("/nothing", 404), ("/api/runs/x", 404)):
            answer = client.get(path)
            assert answer.status_code == status
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        for path in ("/", "/docs"):
            assert not re.search(r"(src|href)=.(https?:)?//", client.get(path).text)  # works offline
        assert "POST /api/predictions" in client.get("/docs").text


def test_too_large_is_refused_before_reading_and_while_reading(serve: Serve, tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        while sent < 64 * MIB:
            sent += MIB
            yield b"\0" * MIB

    sent = 0
    with serve(max_upload_bytes=2 * MIB) as client:
        form = {"content-type": "multipart/form-data; boundary=x"}
        stated = client.post(URL, content=endless(), headers={**form, "content-length": str(10**12)})
        assert (stated.status_code, sent) in ((413, 0), (413, MIB), (413, 64 * MIB))
        streamed = client.post(URL, content=endless(), headers=form)
        for answer in (stated, streamed):
            assert answer.status_code == 413
            assert answer.json() == {
                "error": "more than the 3 MiB that are taken at once; start the server with a larger --max_upload_mib"
            }
        assert post(client, "a.png", bytes(2 * MIB + 1)).status_code == 413
        small = client.post(f"{URL}/{'0' * 32}/prompt", content=bytes(9 * MIB))
        assert small.status_code == 413
        assert not list((client.service.workspace.folder / "predictions").glob("*"))


def test_the_body_is_not_read_when_its_length_says_too_much() -> None:
    async def app(*_: Any) -> None:
        raise AssertionError("was asked")

    async def receive() -> Any:
        raise AssertionError("was read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    for length in (b"4000000", b"9" * 400, b"-1", b"1e3"):
        scope = {
            "type": "http",
            "method": "POST",
            "path": URL,
            "headers": [(b"host", b"127.0.0.1:1"), (b"content-length", length)],
        }
        asyncio.run(Guard(app, frozenset({"127.0.0.1:1"}), Access(None, 1), MIB)(scope, receive, send))
    assert [m["status"] for m in sent[::2]] == [413, 413, 400, 400]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\x.png", "x.png"),
        ("/abs/olute.nii.gz", "olute.nii.gz"),
        ("..", "image"),
        ("", "image"),
        (".hidden.png", "hidden.png"),
        ("a\0b\n.png", "a_b_.png"),
        ("Müller scan (1).png", "Müller_scan_1_.png"),
        ("x" * 300 + ".nii.gz", "x" * 93 + ".nii.gz"),
    ],
)
def test_file_names_of_clients_are_names_only(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_names_that_lead_elsewhere_write_nothing_elsewhere(serve: Serve, tmp_path: Path, picture: bytes) -> None:
    with serve() as client:
        before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(client.service.workspace.folder)}
        body = post(client, "../../../escaped.png", picture).json()
        assert body["name"] == "escaped"
        for member in ("../escaped.png", "/tmp/escaped.png", "a/../../escaped.png", "C:\\escaped.png"):
            answer = post(client, "s.zip", zipped(**{member: picture}))
            assert answer.status_code == 422
            assert "could be written outside the folder" in answer.json()["error"]
            assert str(tmp_path) not in answer.json()["error"]
        after = {p for p in tmp_path.rglob("*") if not p.is_relative_to(client.service.workspace.folder)}
        assert before == after


def test_bombs_and_wrong_types_are_refused(serve: Serve, picture: bytes) -> None:
    with serve(max_upload_bytes=8 * MIB) as client:
        bomb = post(client, "b.zip", zipped(**{"a.png": bytes(300 * MIB)}))
        assert bomb.status_code == 422
        assert "too many for its" in bomb.json()["error"]
        for name, content, status in (
            ("a.txt", b"hello", 415),
            ("a.png", b"MZ\x90\0" * 100, 415),
            ("a.nii.gz", b"\x1f\x8b" + bytes(50), 415),
            ("a.html", b"<script>alert(1)</script>", 415),
            ("empty.png", b"", 415),
            ("none.zip", zipped(**{"a.txt": b"hello"}), 422),
            ("two.zip", zipped(**{"a.png": picture, "b.png": picture}), 422),
            ("broken.zip", zipped(**{"a.png": picture})[:40], 422),
        ):
            answer = post(client, name, content)
            assert (name, answer.status_code) == (name, status)
            assert set(answer.json()) == {"error"}
            assert "\n" not in answer.json()["error"]
        assert post(client, "one.zip", zipped(**{"s/a.png": picture})).status_code == 202


def test_nobody_sees_anything_without_the_id(serve: Serve, tmp_path: Path) -> None:
    pictures = [write_png(tmp_path / f"{n}.png", np.full((9, 9), 127 * n, np.uint8)).read_bytes() for n in (0, 1, 2)]
    with serve(max_waiting=20) as client, ThreadPoolExecutor(10) as pool:
        bodies = list(pool.map(lambda n: post(client, "same.png", pictures[n % 3]).json(), range(12)))
        ids = [body["id"] for body in bodies]
        assert len(set(ids)) == 12
        assert all(re.fullmatch("[0-9a-f]{32}", id) for id in ids)
        for n, id in enumerate(ids):
            shown = {"c1": 81 * (n % 3 == 1), "c2": 81 * (n % 3 == 2)}
            assert ended(client, id)["result"]["pixels"] == shown
        assert client.get(URL).json() == []
        for other in (ids[0][:-1] + ("0" if ids[0][-1] != "0" else "1"), "..", "%2e%2e", f"..%2f{ids[0]}"):
            assert client.get(f"{URL}/{other}/files/result").status_code == 404


def test_paths_outside_the_given_folders_are_never_opened(
    serve: Serve, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    import builtins

    opened: list[str] = []
    original = builtins.open
    monkeypatch.setattr(builtins, "open", lambda file, *a, **k: (opened.append(str(file)), original(file, *a, **k))[1])
    with serve() as client:
        for path in (
            "/../secret.txt",
            "/%2e%2e/%2e%2e/secret.txt",
            "/..%2f..%2fetc/passwd",
            "//etc/passwd",
            "/api/cases/..%2f..%2f/images/x/image.png",
            "/api/cases/P01/images/..%2fP01_1/image.png",
            "/api/cases/P01/images/P01_1/..%2fdataset.json",
            "/api/evaluations/..%2f../report.html",
            "/api/runs/..%2frun",
        ):
            answer = client.get(path)
            assert answer.status_code in (404, 422), path
            assert "secret" not in answer.text.replace(path, "").replace("secret.txt", "")
    assert not [p for p in opened if "secret" in p or "passwd" in p]


def test_twenty_requests_at_once_hold_one_image_in_memory(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write_nifti(tmp_path / "scan.nii.gz", rng.integers(0, 255, (96, 96, 12)).astype(np.int16), np.eye(4))
    now, most = 0, 0
    lock = threading.Lock()

    def counted(path: Path) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            time.sleep(0.01)
            return read_volume(path)
        finally:
            with lock:
                now -= 1

    with serve(max_waiting=20) as client, ThreadPoolExecutor(20) as pool:
        ids = [predicted(client, scan)["id"] for _ in range(5)]
        for module in ("predictions", "service"):
            monkeypatch.setattr(f"sampeft.viewer.{module}.read_volume", counted)
        paths = [
            *(f"{URL}/{id}/files/{kind}" for id in ids for kind in ("result", "map.nii.gz")),
            *(f"/api/cases/P0{n}/images/P0{n}_{m}/image.nii.gz" for n in (1, 2, 3, 4) for m in (1, 2)),
            *(f"/api/cases/P0{n}/images/P0{n}_1/truth.nii.gz" for n in (1, 2)),
        ]
        assert len(paths) == 20
        answers = list(pool.map(client.get, paths))
    assert [a.status_code for a in answers] == [200] * 20
    assert most == 1
    assert len({a.content for a in answers[1:10:2]}) == 1


def test_stalled_uploads_hold_nobody_up_and_are_given_up_in_the_end() -> None:
    async def app(_: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def asked(guard: Guard, *parts: bytes) -> int:
        """Send the parts of a body and then nothing; the status of the answer."""
        left, sent = list(parts), []

        async def receive() -> Any:
            if not left:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": (part := left.pop(0)), "more_body": part != b"last"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": URL, "headers": [(b"host", b"127.0.0.1:1")]}
        await guard(scope, receive, send)
        status: int = sent[0]["status"]
        return status

    async def forty() -> None:
        guard = Guard(app, frozenset({"127.0.0.1:1"}), Access(None, 1), MIB, stalled_s=0.5)
        stalled = [asyncio.create_task(asked(guard, b"first")) for _ in range(40)]
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(asked(guard, b"first", b"last"), 0.3) == 202
        assert not any(task.done() for task in stalled)
        assert await asyncio.gather(*stalled) == [408] * 40

    asyncio.run(forty())


def test_silent_connections_make_room_and_are_closed(
    serve: Serve, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At real sockets: more than there is room for say nothing, others say half of it."""
    monkeypatch.setattr("sampeft.viewer.connections.HEADERS_S", 1.0)
    monkeypatch.setattr("sampeft.viewer.connections.MOST_SILENT", 20)
    service = Service(Settings(runs=(run,), token=None), above=tmp_path)
    with served(service) as address, ExitStack() as after:
        port = int(address.rpartition(":")[2])
        silent = [after.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(30)]
        half = after.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        half.sendall(b"GET /api/about HTTP/1.1\r\nHost: 127.0")
        with urllib.request.urlopen(f"{address}/api/about", timeout=5) as answer:
            assert answer.status == 200
        began = time.monotonic()
        assert silent[0].recv(1) == b""  # the oldest made room
        assert time.monotonic() - began < 0.8
        assert [one.recv(1) for one in (*silent, half)] == [b""] * 31  # the others had their time
        slow = after.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        for part in (b"GET /api/about HTTP/1.1\r\n", f"Host: 127.0.0.1:{port}\r\n\r\n".encode()):
            time.sleep(0.3)
            slow.sendall(part)
        assert slow.recv(100).startswith(b"HTTP/1.1 200")


def test_a_fault_inside_is_one_sentence(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("/home/someone/secret")

    with serve() as client:
        monkeypatch.setattr(client.service, "image_of", broken)
        answer = client.post(URL, data={"run": "run", "case": "P01"})
        assert answer.status_code == 500
        assert answer.json() == {"error": "a fault inside sampeft; the terminal of `sampeft serve` tells more"}
        assert "/home/someone/secret" in caplog.text


def test_a_full_disk_is_said(serve: Serve, picture: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as client:
        usage = type("Usage", (), {"free": 10})()
        monkeypatch.setattr("sampeft.data.download.shutil.disk_usage", lambda _: usage)
        answer = post(client, "p.png", picture)
        assert (answer.status_code, answer.json()) == (507, {"error": "the server's temporary disk is full"})
        assert not list((client.service.workspace.folder / "predictions").glob("*"))


def test_a_disk_that_fills_while_a_picture_is_segmented_is_said(
    serve: Serve, picture: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    (tmp_path / "p.png").write_bytes(picture)
    with serve() as client:
        monkeypatch.setattr("sampeft.viewer.predictions.write_array", full)
        said = predicted(client, tmp_path / "p.png")
        assert said["state"] == "failed"
        assert f"the server's temporary folder {tempfile.gettempdir()} is full; free some space" in said["message"]


class _FullDisk(io.BytesIO):
    """Takes the first bytes of a file, and no more."""

    def write(self, content: Any) -> int:
        if self.tell() + len(content) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def test_a_disk_that_fills_while_an_image_comes_is_said(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as client:
        with monkeypatch.context() as patch:
            patch.setattr("starlette.formparsers.SpooledTemporaryFile", lambda **_: _FullDisk())
            answer = post(client, "p.png", bytes(5000))
        assert (answer.status_code, answer.json()) == (507, {"error": "the disk is full; free some space"})
        with monkeypatch.context() as patch:
            patch.setattr(
                "sampeft.viewer.uploads.shutil.copyfileobj", lambda _, file, *__: _FullDisk().write(bytes(5000))
            )
            answer = post(client, "p.png", bytes(5000))
        assert (answer.status_code, answer.json()) == (507, {"error": "the disk is full; free some space"})
        assert not list((client.service.workspace.folder / "predictions").glob("*"))


def test_without_the_token_nothing_is_answered(serve: Serve, picture: bytes) -> None:
    with serve() as client:
        token = client.service.settings.token
        right = f"Bearer {token}"
        assert re.fullmatch(r"[\w-]{43}", token)
        del client.headers["authorization"]
        wrong = ({}, {"authorization": "Bearer "}, {"authorization": f"{right}x"}, {"authorization": token},
                 {"authorization": "Bearer None"}, {"authorization": "Basic " + token}, {"cookie": "sampeft-8765=;"},
                 {"cookie": f"sampeft-8766={token}"}, {"cookie": f"other={token}"},
                 {"cookie": "é;;=".encode("latin-1")})  # fmt: skip
        for headers in wrong:
            for path in ("/", "/main.js", "/docs", "/openapi.json", "/api/runs", "/nothing", f"/?token={token[:-1]}"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401, (headers, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "open the whole address that `sampeft serve` printed" in answer.json()["error"]
            assert post(client, "p.png", picture, headers=headers).status_code == 401
        assert post(client, "p.png", picture, params={"token": token}).status_code == 401  # a form of elsewhere
        for headers in ({"authorization": right}, {"authorization": f"bearer  {token}"},
                        {"cookie": f'a b="; sampeft-8765={token}'}):  # fmt: skip
            assert client.get("/api/runs", headers=headers).status_code == 200
        assert client.get("/api/runs", headers={"authorization": right, "host": "evil.example"}).status_code == 403


def test_the_first_visit_brings_the_token_and_the_page_goes_on_with_a_cookie(serve: Serve) -> None:
    with serve() as client:
        token = client.service.settings.token
        del client.headers["authorization"]
        first = client.get(f"/?token={token}", follow_redirects=False)
        assert (first.status_code, first.headers["location"]) == (303, "/")
        assert {"httponly", "samesite=lax", "path=/"} <= set(first.headers["set-cookie"].lower().split("; "))
        assert token not in client.get("/").text  # by the cookie that the client has now
        assert client.get("/api/runs").status_code == 200
        for path in (f"//evil.example/?token={token}", f"/%5cevil.example/?token={token}"):
            moved = client.get(f"http://127.0.0.1:8765{path}", follow_redirects=False)
            assert re.match(r"/[\w.]", moved.headers["location"])  # of this server
        kept = client.get(f"/api/cases?split=test&token={token}", follow_redirects=False)
        assert kept.headers["location"] == "/api/cases?split=test"
    with serve(token=None) as client:
        del client.headers["authorization"]
        assert client.get("/api/runs").status_code == 200
        assert client.get("/api/runs", headers={"host": "evil.example"}).status_code == 403


def test_the_log_says_who_did_what_and_holds_no_access(serve: Serve, tmp_path: Path, picture: bytes) -> None:
    log = tmp_path / "logs" / "audit.jsonl"
    with serve(audit=log, corrections=tmp_path / "out") as client:
        client.get("/api/cases/P01/images/P01_1/image.nii.gz")
        body = ended(client, post(client, "Müller.png", picture).json()["id"])
        url = f"{URL}/{body['id']}"
        client.get(f"{url}/files/map.nii.gz")
        mask = {"size": [20, 20], "counts": [0, 7, 393]}
        changed = client.post(f"{url}/corrections", json={"slice": 0, "label": "c1", "mask": mask}).json()["changed"]
        assert client.post(f"{url}/save", json={}).status_code == 201
        client.get(f"{URL}/{'0' * 32}/files/map.nii.gz")  # nothing came of it
        client.delete(url)
        lines = [json.loads(line) for line in log.read_text().splitlines()]  # while the server runs
    assert log.stat().st_mode & 0o077 == 0
    times = [datetime.fromisoformat(line.pop("time")) for line in lines]
    assert times == sorted(times)
    assert abs((datetime.now(timezone.utc) - times[-1]).total_seconds()) < 60
    assert {line.pop("address") for line in lines} == {"testclient"}
    of = {"prediction": body["id"][:8], "image": "Müller"}
    assert lines == [
        {"did": "looked at", "case": "P01", "image": "P01_1", "file": "image.nii.gz"},
        {"did": "predicted", **of, "run": "run"},
        {"did": "looked at", **of, "file": "map.nii.gz"},
        {"did": "corrected", **of, "slice": 0, "label": "c1", "pixels": changed},
        {"did": "saved", **of, "files": ["images/Müller.png", "labels/Müller.png"]},
        {"did": "removed", **of},
    ]
    with serve(audit=log) as client:
        client.get("/api/cases/P01/images/P01_1/truth.nii.gz", headers={"x-forwarded-for": "10.0.0.7"})
    *_, last = lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 7  # after those that were there
    assert (last["address"], last["forwarded_for"]) == ("testclient", "10.0.0.7")
    with (
        pytest.raises(UsageError, match=r"--audit .*: Is a directory; give a file that can be written"),
        serve(audit=tmp_path),
    ):
        pass
