"""What a request may do wrong: an HTTP status and one sentence."""

from __future__ import annotations

from http import HTTPStatus

from sampeft.errors import SampeftError


class RequestError(SampeftError):
    """A request that is refused with a status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def not_found(kind: str, name: str) -> RequestError:
    return RequestError(HTTPStatus.NOT_FOUND, f"there is no {kind} '{name[:80]}' here")
