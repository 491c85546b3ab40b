"""Laws of a download: the bytes are the server's, what came is never asked for again, a wrong file is never kept."""

from __future__ import annotations

import errno
import hashlib
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabricate.server import Behaviour, serve
from sampeft.data import download as module
from sampeft.data.download import check_space, download, part_of
from sampeft.errors import DataError, SampeftError

CONTENT = random.Random(5).randbytes(1_000_003)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


@pytest.fixture
def server() -> Iterator[Behaviour]:
    with serve(Behaviour(files={"/w.pth": CONTENT})) as behaviour:
        yield behaviour


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_whole_file_with_progress(server: Behaviour, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    found = download(
        f"{server.url}/w.pth",
        tmp_path / "new" / "w.pth",
        len(CONTENT),
        DIGEST,
        lambda done, total: seen.append((done, total)),
    )
    assert found == DIGEST
    assert (tmp_path / "new" / "w.pth").read_bytes() == CONTENT
    assert left(tmp_path / "new") == ["w.pth"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("digest", [DIGEST, None])
def test_cut_connections_are_taken_up_where_they_ended(server: Behaviour, tmp_path: Path, digest: str | None) -> None:
    server.cuts = [300_000, 100_000, 7]
    download(f"{server.url}/w.pth", tmp_path / "w.pth", digest=digest)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=400000-", "bytes=400007-"]


def test_a_later_call_asks_only_for_what_lacks(server: Behaviour, tmp_path: Path) -> None:
    server.cuts = [250_000, 0, 0, 0, 0, 0]
    with pytest.raises(SampeftError, match="cut after 250,000 of 1,000,003 bytes; 250,000 bytes are kept"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert part_of(tmp_path / "w.pth").read_bytes() == CONTENT[:250_000]
    assert not (tmp_path / "w.pth").exists()
    server.asked.clear()
    server.cuts = []
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth") == DIGEST
    assert server.asked == [("/w.pth", "bytes=250000-")]
    assert left(tmp_path) == ["w.pth"]


def test_a_file_that_changed_meanwhile_is_not_mixed(server: Behaviour, tmp_path: Path) -> None:
    server.cuts = [250_000, 0, 0, 0, 0, 0]
    with pytest.raises(SampeftError):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    server.cuts = []
    server.files["/w.pth"] = other = CONTENT[::-1]
    download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == other


@pytest.mark.parametrize("etag", ["weak", "none"])
def test_without_proof_of_sameness_and_digest_it_starts_anew(server: Behaviour, tmp_path: Path, etag: str) -> None:
    server.etag, server.cuts = etag, [250_000]
    download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert [asked for _, asked in server.asked] == [None, None]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(server: Behaviour, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [250_000]
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth", digest=DIGEST) == DIGEST
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_part_that_is_already_whole(server: Behaviour, tmp_path: Path) -> None:
    part_of(tmp_path / "w.pth").write_bytes(CONTENT)
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth", digest=DIGEST) == DIGEST
    assert left(tmp_path) == ["w.pth"]


def test_a_reply_without_length(server: Behaviour, tmp_path: Path) -> None:
    server.lengths = False
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth") == DIGEST


def test_wrong_content_is_refused_and_removed(server: Behaviour, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sha256 is .*expected 000000000000"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth", digest="0" * 64)
    assert left(tmp_path) == []


def test_wrong_size_is_refused_before_any_byte(server: Behaviour, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"offers 1,000,003 bytes, expected 5"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth", size_bytes=5)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "said"), [(404, "not there any more"), (410, "not there"), (403, "asks for a login"), (418, "refuses")]
)
def test_refusals_are_final(server: Behaviour, tmp_path: Path, code: int, said: str) -> None:
    server.status["/w.pth"] = code
    with pytest.raises(SampeftError, match=said):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert len(server.asked) == 1
    assert left(tmp_path) == []


def test_a_busy_server_is_asked_again(server: Behaviour, tmp_path: Path) -> None:
    server.status["/w.pth"] = 503
    with pytest.raises(SampeftError, match="503"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert len(server.asked) == module.ATTEMPTS


def test_redirects_are_followed_with_the_range(server: Behaviour, tmp_path: Path) -> None:
    server.moved["/old"] = "/w.pth"
    server.cuts = [400_000]
    assert download(f"{server.url}/old", tmp_path / "w.pth") == DIGEST
    assert server.asked[-1] == ("/w.pth", "bytes=400000-")


def test_a_redirect_to_an_unencrypted_address_is_refused() -> None:
    asked = urllib.request.Request("https://example.org/w.pth")
    with pytest.raises(SampeftError, match="not encrypted"):
        module._SafeRedirects().redirect_request(asked, None, 302, "", {}, "http://example.org/w.pth")


def test_offline_is_one_line_at_once(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(
        SampeftError, match=r"127\.0\.0\.1 cannot be reached \(Connection refused\).*put it at"
    ) as caught:
        download(f"http://127.0.0.1:{port}/w.pth", tmp_path / "w.pth")
    assert time.monotonic() - started < 2
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


def test_unknown_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SampeftError, match=r"zenodo.invalid cannot be reached \(Name or service not known\)"):
        download("http://zenodo.invalid/w.pth", tmp_path / "w.pth")


def test_a_silent_server_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(SampeftError, match="no answer in"):
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/w.pth", tmp_path / "w.pth")


def test_too_little_space_is_said_before_the_download(
    server: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(SampeftError, match=r"needs 1 MB, 0 MB are free"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    check_space(tmp_path / "not" / "there" / "yet", 1000)


def test_a_full_disk_names_the_file_and_keeps_the_part(server: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").symlink_to("/dev/full")
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError, match="No space") as caught:
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).endswith("w.pth.part")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_process_leaves_a_part_to_go_on_from(tmp_path: Path, sent: signal.Signals) -> None:
    target = tmp_path / "w.pth"
    with serve(Behaviour(files={"/w.pth": CONTENT}, pause_s=0.05)) as server:
        script = (
            "import sys; from pathlib import Path; from sampeft.data.download import download; "
            "download(sys.argv[1], Path(sys.argv[2]))"
        )
        command = [sys.executable, "-c", script, f"{server.url}/w.pth", str(target)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while module.length(part_of(target)) < 100_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(sent)
        process.wait()
        kept = module.length(part_of(target))
        assert 100_000 <= kept < len(CONTENT)
        assert not target.exists()
        server.pause_s = 0.0
        assert download(f"{server.url}/w.pth", target) == DIGEST
        assert server.asked[-1] == ("/w.pth", f"bytes={kept}-")
