"""What a hostile or careless client may try, each refused with one sentence and without a trace."""

from __future__ import annotations

import asyncio
import io
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricate import write_nifti, write_png
from sampeft.io import read_volume
from sampeft.viewer.guard import Guard
from sampeft.viewer.settings import MIB
from sampeft.viewer.uploads import safe_name
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
        asyncio.run(Guard(app, frozenset({"127.0.0.1:1"}), MIB)(scope, receive, send))
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


def test_few_images_are_received_at_once_and_the_others_wait_unread() -> None:
    now = most = done = 0

    async def app(_: Any, receive: Any, send: Any) -> None:
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await receive()
        await asyncio.sleep(0.002)
        now -= 1
        done += 1

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x"}

    async def send(_: Any) -> None: ...

    async def twenty() -> None:
        guard = Guard(app, frozenset({"127.0.0.1:1"}), MIB)
        scope = {"type": "http", "method": "POST", "path": URL, "headers": [(b"host", b"127.0.0.1:1")]}
        await asyncio.gather(*(guard(scope, receive, send) for _ in range(20)))

    asyncio.run(twenty())
    assert (most, done) == (4, 20)


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
