"""Access by a token that the printed address carries.

Whoever can log in on the machine can reach 127.0.0.1, and so can every program there: the token keeps them out. A
browser brings it in the address, once, and gets it as a cookie, which images and downloads carry as well; programs send
it as `Authorization: Bearer TOKEN`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hmac import compare_digest
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from sampeft.viewer.errors import RequestError

_QUERY = "token"
_SCHEME = "bearer "


def new_token() -> str:
    """256 random bits as 43 letters that an address may hold."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Access:
    """token: that requests must carry; None: all are answered. port: in the cookie's name, as browsers send the cookies of
    a host to all of its ports."""

    token: str | None
    port: int

    @property
    def cookie(self) -> str:
        return f"sampeft-{self.port}"

    def address(self, host: str) -> str:
        """That a browser opens first."""
        return f"http://{host}:{self.port}" + (f"/?{_QUERY}={self.token}" if self.token else "")

    def check(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> list[tuple[bytes, bytes]] | None:
        """The headers of a redirection to the same address without the token, for a visit with it; None for a request that
        is to be answered. Raises RequestError (401) for one without the token."""
        if self.token is None:
            return None
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        in_query = [value for name, value in query if name == _QUERY]
        if scope["method"] in ("GET", "HEAD") and self._is_token(in_query):
            rest = urlencode([(name, value) for name, value in query if name != _QUERY])
            # One slash: two of them would begin the name of another host.
            target = "/" + quote(scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")
            cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
            return [(b"location", target.encode()), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
        stated = headers.get("authorization", "")
        bearer = [stated[len(_SCHEME) :].strip()] if stated.lower().startswith(_SCHEME) else []
        if not self._is_token([*bearer, *self._cookies(headers.get("cookie", ""))]):
            raise RequestError(
                HTTPStatus.UNAUTHORIZED,
                "open the whole address that `sampeft serve` printed, with its token; "
                "programs send the header 'Authorization: Bearer TOKEN'",
            )
        return None

    def _cookies(self, text: str) -> list[str]:
        """Ours among those of all servers of this host, whatever they look like."""
        pairs = [part.strip().partition("=") for part in text.split(";")]
        return [value for name, _, value in pairs if name == self.cookie]

    def _is_token(self, given: list[str]) -> bool:
        """Compared in the same time wherever they differ."""
        token = (self.token or "").encode()
        return any(compare_digest(one.encode(), token) for one in given)
