"""Every request passes here first: who may ask, how much may be sent, and what a browser may do with the answer.

The server listens on this machine alone. A web page of elsewhere that is open in the same browser could still send it
requests: it is refused by the Host header (a name that was made to point here, DNS rebinding) and by the Origin header
(its own forms and scripts). Nothing allows another origin to read answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any

from sampeft.viewer.faults import RequestError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

UPLOAD = "/api/predictions"
_SMALL_BYTES = 8 << 20  # of a request that carries no image; a mask of a large picture has some megabytes
_FORM_BYTES = 1 << 20  # what the other fields of an upload may take
_MOST_UPLOADS = 4  # at a time; of others the body is not read yet
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"
"""For report.html, a file that is whole in itself and needs no script; the page shows it in a frame."""
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """app: what answers. hosts: what the Host header may say, such as `127.0.0.1:8765`."""

    def __init__(self, app: App, hosts: frozenset[str], max_upload_bytes: int) -> None:
        self.app, self.hosts, self.max_upload_bytes = app, hosts, max_upload_bytes
        self._uploads = asyncio.Semaphore(_MOST_UPLOADS)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no web sockets here: the connection is closed
        answer = _Answer(send)
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            upload = scope["method"] == "POST" and scope["path"] == UPLOAD
            self._check_sender(scope["method"], headers)
            most = self.max_upload_bytes + _FORM_BYTES if upload else _SMALL_BYTES
            _check_length(headers, most)
            async with self._uploads if upload else nullcontext():
                await self.app(scope, _Counted(receive, most, answer), answer.send)
            if answer.fault is not None:
                raise answer.fault
        except RequestError as fault:
            await answer.refuse(fault)
        except Exception:
            if answer.fault is not None:
                await answer.refuse(answer.fault)
                return
            logging.getLogger(__name__).exception("%s %s failed", scope["method"], scope["path"])
            sentence = "a fault inside sampeft; the terminal of `sampeft serve` tells more"
            await answer.refuse(RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, sentence))

    def _check_sender(self, method: str, headers: dict[str, str]) -> None:
        host = headers.get("host", "").lower()
        if host not in self.hosts:
            raise RequestError(
                HTTPStatus.FORBIDDEN, f"this server is {min(self.hosts)} and not '{host[:80]}'; open it by that address"
            )
        if method in _SAFE_METHODS:
            return
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "same-origin")  # programs such as curl send neither
        if (origin is not None and origin.lower() != f"http://{host}") or site not in ("same-origin", "none"):
            raise RequestError(HTTPStatus.FORBIDDEN, "only the page of this server may send data to it")


def _check_length(headers: dict[str, str], most: int) -> None:
    stated = headers.get("content-length", "0")
    if not (stated.isascii() and stated.isdecimal()):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the header Content-Length is no number")
    if int(stated[:20]) > most:
        raise _too_large(most)


def _too_large(most: int) -> RequestError:
    return RequestError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"more than the {most >> 20:,} MiB that are taken at once; start the server with a larger --max_upload_mib",
    )


class _Answer:
    """Sends an answer with the headers that all have; nothing of the application once the request is refused."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False
        self.fault: RequestError | None = None

    async def send(self, message: Message) -> None:
        if self.fault is not None and not self._begun:
            return
        if message["type"] == "http.response.start":
            self._begun = True
            own = {name.lower() for name, _ in message.get("headers", [])}
            added = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in own]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await self._send(message)

    async def refuse(self, fault: RequestError) -> None:
        if self._begun:
            return  # half an answer is out; the connection ends
        self.fault = None
        body = json.dumps({"error": str(fault)}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": int(fault.status), "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class _Counted:
    """Receives a body and stops when it is larger than allowed, whatever its headers said."""

    def __init__(self, receive: Receive, most: int, answer: _Answer) -> None:
        self._receive, self._most, self._answer = receive, most, answer
        self._bytes = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            self._answer.fault = _too_large(self._most)  # frameworks turn what is raised here into other answers
            raise self._answer.fault
        return message
