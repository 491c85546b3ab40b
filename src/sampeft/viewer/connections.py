"""Close connections that keep the server waiting too long."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 10.0
MOST_SILENT = 100


class Connection(H11Protocol):
    """Closed when the headers of its request are not whole after HEADERS_S. Of more than MOST_SILENT connections that have
    not asked for anything the oldest is closed, so that those who ask find room. Between requests uvicorn's own time for
    keeping alive counts.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        silent = [other for other in self.connections if isinstance(other, Connection) and other._late is not None]
        if len(silent) > MOST_SILENT:
            min(silent, key=Connection._closes_at)._close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._late is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEADERS_S, self._close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._stop_waiting()
        self.timeout_keep_alive_handler()

    def _closes_at(self) -> float:
        assert self._late is not None
        return self._late.when()
