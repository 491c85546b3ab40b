"""Laws of unpacking: what is in the archive is in the folder; a hostile or damaged archive leaves nothing behind."""

from __future__ import annotations

import gzip
import io
import random
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sampeft.data import unpack as module
from sampeft.data.unpack import unpack
from sampeft.errors import DataError

FILES = {"top/images/a b.png": b"image", "top/labels/é.png": b"label", "top/read.me": b""}


def zipped(path: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def tarred(path: Path, files: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] | None = None) -> Path:
    with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change:
                change(info)
            archive.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_the_folder_holds_what_the_archive_holds(tmp_path: Path, name: str) -> None:
    archive = (zipped if name == "a.zip" else tarred)(tmp_path / name, FILES)
    assert unpack(archive, tmp_path / "data") == 3
    assert tree(tmp_path / "data") == {n.removeprefix("top/"): content for n, content in FILES.items()}
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "data"]
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) & 0o500 == 0o500


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", FILES).rename(tmp_path / "a.zip")
    assert unpack(archive, tmp_path / "data") == 3


def test_only_the_wanted_folder_and_no_macos_rubbish(tmp_path: Path) -> None:
    files = {**FILES, "__MACOSX/top/._a.png": b"x", "top/other/images/a.png": b"no"}
    assert unpack(zipped(tmp_path / "a.zip", files), tmp_path / "one", "images") == 1
    assert tree(tmp_path / "one") == {"a b.png": b"image"}
    assert unpack(zipped(tmp_path / "a.zip", files), tmp_path / "all") == 4
    with pytest.raises(DataError, match="holds no files in nowhere"):
        unpack(tmp_path / "a.zip", tmp_path / "none", "nowhere")


def test_several_top_folders_stay(tmp_path: Path) -> None:
    unpack(zipped(tmp_path / "a.zip", {"images/1": b"1", "labels/1": b"2"}), tmp_path / "data")
    assert tree(tmp_path / "data") == {"images/1": b"1", "labels/1": b"2"}


TRICKS = ["../x", "top/../../x", "/etc/x", "C:/x", "C:x", "a\\..\\x", "\\\\host\\x", "top/\nx", "..", "a:stream"]


@pytest.mark.parametrize("name", TRICKS)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_member_leaves_the_folder(tmp_path: Path, name: str, kind: str) -> None:
    home = tmp_path / "deep" / "home"
    home.mkdir(parents=True)
    make = zipped if kind == "zip" else tarred
    archive = make(home / f"a.{kind}", {"good": b"1", name: b"evil"})
    with pytest.raises(DataError, match=r"could be written outside.*nothing was unpacked"):
        unpack(archive, home / "data")
    assert [p.name for p in tmp_path.rglob("*")] == ["deep", "home", archive.name]


LINKS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]


@pytest.mark.parametrize("kind", LINKS)
def test_no_links_or_devices_in_tar(tmp_path: Path, kind: bytes) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "a":
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    archive = tarred(tmp_path / "a.tar", {"a": b"", "a/x": b"through the link"}, change)
    with pytest.raises(DataError, match="link, a device"):
        unpack(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_no_links_in_zip(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a": b"/etc/passwd"}, stat.S_IFLNK | 0o777)
    with pytest.raises(DataError, match="link or a device"):
        unpack(archive, tmp_path / "data")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_two_members_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        unpack(zipped(tmp_path / "a.zip", {"A.png": b"1", "a.PNG": b"2"}), tmp_path / "data")
    with pytest.raises(DataError, match="damaged"):
        unpack(zipped(tmp_path / "b.zip", {"a": b"1", "a/b": b"2"}), tmp_path / "data")


def test_bombs_are_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_LIMIT_BYTES", 1 << 20)
    zeros = bytes(3 << 20)
    for make, name in ((zipped, "a.zip"), (tarred, "a.tar.gz")):
        archive = make(tmp_path / name, {f"{i}": zeros for i in range(5)})
        with pytest.raises(DataError, match=r"holds more than 1,048,576 bytes"):
            unpack(archive, tmp_path / "data")
        assert not (tmp_path / "data").exists()


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": bytes(1 << 20)})
    content = path.read_bytes().replace((1 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(content)
    with pytest.raises(DataError):
        unpack(path, tmp_path / "data")


def test_a_tar_header_that_asks_for_a_gigabyte(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)))
    with pytest.raises(DataError, match="asks for"):
        unpack(path, tmp_path / "data")


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_MEMBERS", 10)
    for make, name in ((zipped, "a.zip"), (tarred, "a.tar")):
        with pytest.raises(DataError, match="holds more than"):
            unpack(make(tmp_path / name, {f"{i}": b"" for i in range(11)}), tmp_path / "data")


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": b"1"})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # flag of the local header
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        unpack(path, tmp_path / "data")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_corrupted_archives_give_a_line_and_leave_nothing(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    noise = {f"top/{i}": chance.randbytes(2000) + bytes(2000) for i in range(5)}
    whole = (zipped if name == "a.zip" else tarred)(tmp_path / name, noise).read_bytes()
    started, refused = time.monotonic(), 0
    for i in range(100):
        content = bytearray(whole)
        if i % 3 == 0:
            content = content[: chance.randrange(len(content))]
        for _ in range(chance.randrange(1, 20)):
            if content:
                content[chance.randrange(min(len(content), 600) if i % 2 else len(content))] = chance.randrange(256)
        (tmp_path / name).write_bytes(content)
        said = ""
        try:
            unpack(tmp_path / name, tmp_path / f"data{i}")
        except DataError as error:
            said = str(error)
        assert bool(said) != (tmp_path / f"data{i}").exists()
        assert said.startswith(str(tmp_path / name) if said else "")
        refused += bool(said)
    assert refused > 30
    assert time.monotonic() - started < 10
    assert not list(tmp_path.glob(".*"))
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError):
        unpack(tmp_path / name, tmp_path / "data")
