"""Unpack a zip or tar archive; one that could write elsewhere or fill the disk is refused as a whole."""

from __future__ import annotations

import errno
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sampeft.data.download import check_space
from sampeft.errors import DataError

LEAST_LIMIT_BYTES = 256 << 20
MOST_TIMES = 50  # images hardly compress; a thousandfold is an attack
MOST_MEMBERS = 50_000
_CHUNK_BYTES = 1 << 16
_MOST_READ_BYTES = _CHUNK_BYTES  # in one call; headers of a hostile tar may ask for gigabytes


@dataclass(frozen=True)
class _Member:
    """A regular file in an archive. path: safe relative parts."""

    path: PurePosixPath
    size: int
    source: Any

    def copy(self, target: Path) -> int:
        written = 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.source() as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                written += len(chunk)
                if written > self.size:
                    raise DataError(f"'{self.path}' is larger than the {self.size:,} bytes that it states")
                file.write(chunk)
        return written


def unpack(archive: Path, target: Path, inside: str = "", limit_bytes: int | None = None) -> int:
    """Unpack an archive into the new folder `target`, which appears whole or not at all; returns the number of files.

    A single top folder of the archive is left off. inside: a folder below that top folder; only what lies in it is
    unpacked. `__MACOSX` is left out. limit_bytes: most that the files may hold together; by default 50 times the
    archive, at least 256 MiB. Raises DataError, and writes nothing outside a temporary folder that is removed, for a
    member with an absolute path, `..`, a drive, a backslash or a control character, for links and devices, two members
    of one name, encryption, damage, and more bytes or members than allowed.
    """
    limit = limit_bytes or max(LEAST_LIMIT_BYTES, MOST_TIMES * archive.stat().st_size)
    work = target.with_name(f".{target.name}.{os.getpid()}.unpacking")
    wanted = PurePosixPath(inside).parts
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        total = 0
        seen: set[str] = set()
        for member in _members(archive, limit):
            total += member.size
            if total > limit:
                raise DataError(f"holds more than {limit:,} bytes, too many for its {archive.stat().st_size:,}")
            if member.path.parts[0] == "__MACOSX" or (wanted and member.path.parts[1 : len(wanted) + 1] != wanted):
                continue
            name = str(member.path).casefold()
            if name in seen:
                raise DataError(f"holds '{member.path}' twice")
            seen.add(name)
            member.copy(work.joinpath(*member.path.parts))
        if not seen:
            raise DataError(f"holds no files{f' in {inside}' if inside else ''}")
        entries = list(work.iterdir())
        root = entries[0] if len(entries) == 1 and entries[0].is_dir() else work
        os.replace(root.joinpath(*wanted), target)
    except DataError as error:
        raise DataError(f"{archive}: {error}; nothing was unpacked") from None
    except _DAMAGE as error:
        raise DataError(
            f"{archive}: a damaged archive ({error or type(error).__name__}); nothing was unpacked"
        ) from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL, errno.ENAMETOOLONG):
            raise
        raise DataError(f"{archive}: a damaged archive ({error}); nothing was unpacked") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return len(seen)


_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,  # encrypted
    ValueError,
    IndexError,
    KeyError,
    FileExistsError,  # a file where a folder is needed
    NotADirectoryError,
    IsADirectoryError,
)


def _members(archive: Path, limit: int) -> Iterator[_Member]:
    with archive.open("rb") as file:
        magic = file.read(6)
    if magic[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip_members(archive, limit)
    else:
        yield from _tar_members(archive, magic)


def _zip_members(archive: Path, limit: int) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as content:
        infos = content.infolist()
        if len(infos) > MOST_MEMBERS:
            raise DataError(f"holds more than {MOST_MEMBERS:,} members")
        for info in infos:
            _safe(info.filename)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"'{info.filename}' is a link or a device")
        if (stated := sum(info.file_size for info in infos)) <= limit:
            check_space(archive.parent, stated)
        for info in infos:
            if not info.is_dir():
                yield _Member(_safe(info.filename), info.file_size, partial(content.open, info))


def _tar_members(archive: Path, magic: bytes) -> Iterator[_Member]:
    with _decompressed(archive, magic) as stream, tarfile.open(fileobj=stream, mode="r:") as content:
        for number, info in enumerate(content):
            if number >= MOST_MEMBERS:
                raise DataError(f"holds more than {MOST_MEMBERS:,} members")
            path = _safe(info.name)
            if not (info.isreg() or info.isdir()) or info.issparse():
                raise DataError(f"'{info.name}' is a link, a device or a sparse file")
            if info.isreg():
                yield _Member(path, info.size, partial(content.extractfile, info))


def _decompressed(archive: Path, magic: bytes) -> _Bounded:
    import bz2
    import gzip

    if magic[:2] == b"\x1f\x8b":
        return _Bounded(gzip.open(archive))
    if magic[:3] == b"BZh":
        return _Bounded(bz2.open(archive))
    if magic[:6] == b"\xfd7zXZ\x00":
        return _Bounded(lzma.open(archive))
    return _Bounded(archive.open("rb"))


class _Bounded(io.BufferedIOBase):
    """A stream that refuses to hand out a huge piece at once."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MOST_READ_BYTES:
            raise DataError(f"a header asks for {size} bytes")
        return bytes(self._stream.read(size))

    def seek(self, position: int, whence: int = 0, /) -> int:
        return int(self._stream.seek(position, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        self._stream.close()
        super().close()


def _safe(name: str) -> PurePosixPath:
    """The path of a member; DataError unless it stays below the folder on every system."""
    path = PurePosixPath(name)
    odd = "\\" in name or ":" in name or any(ord(c) < 32 or ord(c) == 127 for c in name)
    if odd or not name or path.is_absolute() or ".." in path.parts:
        raise DataError(f"member {name!r} could be written outside the folder")
    return path
