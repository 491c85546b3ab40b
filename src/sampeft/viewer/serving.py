"""Settings and a port in, a server on this machine's own address until Ctrl-C out."""

from __future__ import annotations

import socket
from collections.abc import Callable

from sampeft.errors import UsageError
from sampeft.viewer.settings import Settings

ADDRESS = "127.0.0.1"


def serve(settings: Settings, port: int, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or a termination signal; temporary files are gone when this returns.

    port: 0 takes any free one. ready: called with the address once requests are taken.
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
            config = uvicorn.Config(
                make_app(service, found),
                log_level="warning",
                access_log=False,
                server_header=False,
                limit_concurrency=100,
                timeout_graceful_shutdown=5,
                ws="none",
            )
            ready(f"http://{ADDRESS}:{found}")
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            service.close()
    finally:
        listening.close()


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
