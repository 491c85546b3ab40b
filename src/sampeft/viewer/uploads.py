"""Store uploaded images, as a file or a DICOM series in a prediction's own folder."""

from __future__ import annotations

import re
import shutil
import zlib
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sampeft.data.download import check_space
from sampeft.data.unpack import LEAST_LIMIT_BYTES, MOST_TIMES, unpack
from sampeft.errors import DataError, SampeftError
from sampeft.io import FORMATS, IMAGE_SUFFIXES, dicom, is_series, portable_name
from sampeft.viewer.errors import RequestError

_HEAD_BYTES = 4096
_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_GZIP = b"\x1f\x8b"
_LONGEST_NAME = 100
_KINDS = "NIfTI, NRRD, MetaImage, DICOM (a series as zip), PNG, JPEG, TIFF or GeoTIFF"


def safe_name(name: str) -> str:
    """The last part of a file name that a client gave, with plain characters only; never hidden and never empty."""
    last = PurePosixPath(name.replace("\\", "/")).name
    plain = re.sub(r"[^\w.+-]+", "_", last).lstrip("._-")
    if len(plain) > _LONGEST_NAME:
        suffix = next((s for s in IMAGE_SUFFIXES if plain.lower().endswith(s)), "")
        plain = plain[: _LONGEST_NAME - len(suffix)] + suffix
    return portable_name(plain or "image")


def receive(source: BinaryIO, name: str, folder: Path, max_bytes: int) -> Path:
    """Write what is sent into `folder`; the file, or the folder of the one series (or the one image) inside a zip.

    Raises RequestError: 413 above max_bytes, 415 for what is no image, 422 for a zip that holds none, several, or what
    cannot be unpacked safely, 507 for a full disk.
    """
    folder.mkdir(parents=True)
    path = folder / safe_name(name)
    size = source.seek(0, 2)
    source.seek(0)
    if size > max_bytes:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the image has more than the {max_bytes >> 20:,} MiB that are taken"
        )
    try:
        check_space(folder, 2 * size)
    except SampeftError:
        raise RequestError(HTTPStatus.INSUFFICIENT_STORAGE, "the server's temporary disk is full") from None
    with path.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    head = _head(path)
    if head.startswith(_ZIP):
        return _unpacked(path, max_bytes)
    if not _is_image(head):
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{path.name}: no image that is known; send {_KINDS}")
    return path


def _unpacked(archive: Path, max_bytes: int) -> Path:
    target = archive.with_name("unpacked")
    limit = min(max(LEAST_LIMIT_BYTES, MOST_TIMES * archive.stat().st_size), 4 * max(max_bytes, 1))
    try:
        unpack(archive, target, limit_bytes=limit)
    except SampeftError as error:
        sentence = str(error).replace(f"{archive.parent}/", "")
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, sentence) from None
    archive.unlink()
    folders = [target, *(p for p in sorted(target.rglob("*")) if p.is_dir())] if target.is_dir() else []
    images = [folder for folder in folders if is_series(folder)]
    if not images:
        files = [target] if target.is_file() else [p for p in sorted(target.rglob("*")) if p.is_file()]
        images = [p for p in files if _is_image(_head(p))]
    if len(images) != 1:
        what = "no image" if not images else f"{len(images)} images or series"
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"{archive.name}: holds {what}; send a zip with one DICOM series"
        )
    found = images[0]
    # The label map is named after the image: a series after its zip.
    own = found.with_name(f"{archive.stem}" if found.is_dir() else safe_name(found.name))
    if found != own and not own.exists():
        found = found.rename(own)
    return found


def _is_image(head: bytes) -> bool:
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _HEAD_BYTES)
        except zlib.error:
            return False
        return not head.startswith(_GZIP) and FORMATS[0].recognises(head)
    try:
        return any(known.recognises(head) for known in FORMATS) or dicom.recognises(head)
    except DataError:
        return True  # its reader says what is wrong


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
