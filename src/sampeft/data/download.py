"""Download a file: resumed where it was cut, verified, renamed into place when whole."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from sampeft.errors import DataError, SampeftError
from sampeft.io import sha256

Progress = Callable[[int, "int | None"], None]

TIMEOUT_S = 30.0
PAUSE_S = 1.0  # before the second attempt; doubled with every attempt that brings no byte
ATTEMPTS = 5  # in a row that bring no byte
_CHUNK_BYTES = 1 << 18


class _PassingError(Exception):
    """A fault that another attempt may not meet."""


class _UnreachableError(_PassingError):
    """The server never answered."""


def download(
    url: str,
    target: Path,
    size_bytes: int | None = None,
    digest: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Fetch `url` into the file `target` and return its sha256.

    Bytes go to `TARGET.part`, which stays after a cut, a kill or a full disk; the next call asks only for what lacks, if
    the server proves that its file is still the same or `digest` will tell. size_bytes, digest (sha256): what is
    expected, where known. progress gets the bytes so far and the bytes in all, or None.
    Raises SampeftError when the file cannot be had, DataError when it is another one than expected (it is then removed).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, record = part_of(target), part_of(target).with_suffix(".from")
    first, idle = length(part), 0
    while True:
        before = length(part)
        try:
            _receive(url, part, record, size_bytes, digest is not None, progress or (lambda done, total: None))
            break
        except _PassingError as fault:
            idle = 0 if length(part) > before else idle + 1
            if idle >= ATTEMPTS or (isinstance(fault, _UnreachableError) and length(part) == first):
                kept = f"; {length(part):,} bytes are kept, the same command goes on from there" if length(part) else ""
                raise SampeftError(
                    f"{url}: {fault}{kept}; check the network and the proxy (https_proxy), or fetch it elsewhere and put "
                    f"it at {target}"
                ) from None
            time.sleep(PAUSE_S * 2**idle)
    found = sha256(part)
    if digest and found != digest:
        _remove(part, record)
        raise DataError(
            f"{url}: sha256 is {found[:12]}..., expected {digest[:12]}...; the download was removed: run the same command "
            "again, and if it ends the same, the file at that address is not the one that was published"
        )
    os.replace(part, target)
    record.unlink(missing_ok=True)
    return found


def part_of(target: Path) -> Path:
    """Where the bytes of an unfinished download lie."""
    return target.with_name(f"{target.name}.part")


def length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raises SampeftError when the disk of a folder (which may not be there yet) has less free than needed."""
    there = next(f for f in (folder.resolve(), *folder.resolve().parents) if f.exists())
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        raise SampeftError(
            f"{folder}: needs {needed_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; free some space or choose "
            "another folder with --out"
        )


def _receive(url: str, part: Path, record: Path, size: int | None, certain: bool, progress: Progress) -> None:
    """One request; appends to `part`. Returns only when the file is whole as far as the server tells."""
    have, validator = length(part), _validator(record, url)
    headers = {"User-Agent": "sampeft", "Accept-Encoding": "identity"}
    if have and (validator or certain):
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = _open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416 and "Range" in headers:  # nothing lacks, or the file has become shorter
            if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return
            _remove(part, record)
        elif error.code not in (408, 429) and error.code < 500:
            raise SampeftError(_refusal(url, error.code)) from None
        raise _PassingError(f"the server answers {error.code} {error.reason}") from None
    with response:
        span = response.headers.get("Content-Range", "")
        resumed = response.status == 206 and span.startswith(f"bytes {have}-")
        if not resumed and response.status != 200:
            raise SampeftError(f"{url}: the server answers {response.status} {response.reason}, not the file")
        have = have if resumed else 0
        stated = span.rpartition("/")[2] if resumed else response.headers.get("Content-Length", "")
        total = int(stated) if stated.isdigit() else None
        if size is not None and total is not None and total != size:
            _remove(part, record)
            raise DataError(
                f"{url}: the server offers {total:,} bytes, expected {size:,}; the file at that address is not the one that "
                "was published"
            )
        total = total or size
        check_space(part.parent, (total or have) - have)
        if not resumed:
            tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            record.write_text(json.dumps({"url": url, "validator": "" if tag.startswith("W/") else tag}))
        with part.open("ab" if resumed else "wb", buffering=0) as file:
            have = _copy(response, file, have, total, progress)
    if total is not None and have < total:
        raise _PassingError(f"the connection was cut after {have:,} of {total:,} bytes")
    if total is not None and have > total:
        _remove(part, record)
        raise DataError(f"{url}: the server sent {have:,} bytes, expected {total:,}; run the same command again")


def _copy(response: Any, file: IO[bytes], have: int, total: int | None, progress: Progress) -> int:
    """Bytes in the file afterwards; ends early when the connection does."""
    while total is None or have <= total:
        progress(have, total)
        try:
            chunk = response.read1(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(f"the connection was cut after {have:,} bytes ({_reason(error)})") from None
        if not chunk:
            break
        try:
            file.write(chunk)
        except OSError as error:
            error.filename = file.name  # a full disk does not say on which file
            raise
        have += len(chunk)
    return have


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise SampeftError(f"{req.full_url}: sends us on to {newurl}, which is not encrypted; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str]) -> Any:
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _UnreachableError(f"{urlsplit(url).hostname} cannot be reached ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError) or getattr(cause, "errno", None) == errno.ETIMEDOUT:
        return f"no answer in {TIMEOUT_S:.0f} s"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _refusal(url: str, code: int) -> str:
    if code in (404, 410):
        return f"{url}: is not there any more ({code}); look for its new place on the page that `sampeft fetch --list` names"
    if code in (401, 403):
        return f"{url}: the server asks for a login or refuses ({code}); open it in a browser and put the file in place"
    return f"{url}: the server refuses ({code})"


def _validator(record: Path, url: str) -> str:
    """The mark of the file that a part belongs to; empty when it is of another address or nothing is known."""
    try:
        content = json.loads(record.read_text())
        return str(content["validator"]) if content["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
