"""Every request passes here first: who may ask, how much may be sent, and what a browser may do with the answer.

The server listens on this machine alone. A web page of elsewhere that is open in the same browser could still send it
requests: it is refused by the Host header (a name that was made to point here, DNS rebinding) and by the Origin header
(its own forms and scripts). Nothing allows another origin to read answers. Other programs and users of this machine are
refused by the token of `Access`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from sampeft.viewer.access import Access
from sampeft.viewer.errors import RequestError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

UPLOAD = "/api/predictions"
_SMALL_BYTES = 8 << 20  # of a request that carries no image; a mask of a large picture has some megabytes
_FORM_BYTES = 1 << 20  # what the other fields of an upload may take
_STALLED_S = 30.0  # for which nothing of a body comes
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
    """app: what answers. hosts: what the Host header may say, such as `127.0.0.1:8765`. stalled_s: a body of which nothing
    comes for so long is given up. Nothing waits for another's body here."""

    def __init__(
        self, app: App, hosts: frozenset[str], access: Access, max_upload_bytes: int, stalled_s: float = _STALLED_S
    ) -> None:
        self.app, self.hosts, self.access = app, hosts, access
        self.max_upload_bytes, self.stalled_s = max_upload_bytes, stalled_s

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
            self._check_host(headers)
            if redirection := self.access.check(scope, headers):
                await answer.send({"type": "http.response.start", "status": 303, "headers": redirection})
                await answer.send({"type": "http.response.body", "body": b""})
                return
            self._check_origin(scope["method"], headers)
            most = self.max_upload_bytes + _FORM_BYTES if upload else _SMALL_BYTES
            _check_length(headers, most)
            await self.app(scope, _Body(receive, most, self.stalled_s, answer), answer.send)
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

    def _check_host(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "").lower()
        if host not in self.hosts:
            raise RequestError(
                HTTPStatus.FORBIDDEN, f"this server is {min(self.hosts)} and not '{host[:80]}'; open it by that address"
            )

    def _check_origin(self, method: str, headers: dict[str, str]) -> None:
        if method in _SAFE_METHODS:
            return
        host, origin = headers["host"].lower(), headers.get("origin")
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
        if fault.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        await self.send({"type": "http.response.start", "status": int(fault.status), "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class _Body:
    """Receives a body and stops when it is larger than allowed, whatever its headers said, or when nothing comes any more."""

    def __init__(self, receive: Receive, most: int, stalled_s: float, answer: _Answer) -> None:
        self._receive, self._most, self._stalled_s, self._answer = receive, most, stalled_s, answer
        self._bytes = 0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:  # what comes now is the end of the connection, for which an answer may wait
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._stalled_s)
        except asyncio.TimeoutError:
            sentence = f"nothing more of the request came for {self._stalled_s:g} s; send it again"
            raise self._given_up(RequestError(HTTPStatus.REQUEST_TIMEOUT, sentence)) from None
        self._whole = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            raise self._given_up(_too_large(self._most))
        return message

    def _given_up(self, fault: RequestError) -> RequestError:
        self._answer.fault = fault  # frameworks turn what is raised here into other answers
        return fault
