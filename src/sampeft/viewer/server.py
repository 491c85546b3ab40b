"""Run the server on this machine's own address until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from sampeft.errors import UsageError
from sampeft.viewer.access import Access
from sampeft.viewer.settings import Settings

if TYPE_CHECKING:
    from sampeft.viewer.service import Service

ADDRESS = "127.0.0.1"
_ANSWERS_S = 1  # for answers that are on their way when the server ends
_LAST_S = 4.0  # after a signal the process is gone, whatever still computes


def serve(settings: Settings, port: int, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or a termination signal; temporary files are gone when this returns.

    port: 0 takes any free one. ready: called with the address, token included, once requests are taken. What cannot be
    stopped, such as the network on a slice, ends with the process some seconds after the signal.
    Raises UsageError when the extra is missing or the port is taken, SampeftError for a folder that is not what it should be.
    """
    try:
        import uvicorn
    except ImportError:
        raise UsageError("`sampeft serve` needs the extra 'viewer': pip install 'sampeft[viewer]'") from None
    listening = _bound(port)
    try:
        found = int(listening.getsockname()[1])
        try:
            from sampeft.viewer.app import make_app
        except ImportError as error:
            raise UsageError(
                f"`sampeft serve` needs the extra 'viewer' ({error.name} is missing): pip install 'sampeft[viewer]'"
            ) from None
        from sampeft.viewer.service import Service

        service = Service(settings)
        try:
            config = uvicorn_config(make_app(service, found))
            ready(Access(settings.token, found).address(ADDRESS))
            server = uvicorn.Server(config)
            _end_soon(server, service)
            server.run(sockets=[listening])
        finally:
            service.close()
    finally:
        listening.close()


def uvicorn_config(app: Any) -> Any:
    """How the application is run: of connections only those that ask count, and the guard says what goes wrong."""
    import uvicorn

    from sampeft.viewer.connections import Connection

    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_ANSWERS_S,
    )


def _end_soon(server: Any, service: Service) -> None:
    """After the first signal the server ends in order, or after `_LAST_S` all the same; its temporary files go either way."""
    in_order: Callable[[int, FrameType | None], None] = server.handle_exit

    def handle_exit(number: int, frame: FrameType | None) -> None:
        if not server.should_exit:
            last = threading.Timer(_LAST_S, leave, (number,))
            last.daemon = True
            last.start()
        in_order(number, frame)

    def leave(number: int) -> None:
        service.workspace.close()
        os._exit(0 if number == signal.SIGINT else 128 + number)

    server.handle_exit = handle_exit


def _bound(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise UsageError(f"port {port} cannot be used ({error.strerror}); give another --port, or 0 for any") from None
    return listening
