"""A web server on this machine that cuts, stalls and refuses as real ones do."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """files: path -> content. cuts: bytes after which the next replies end, one a reply. status: answer for a path.

    ranges: whether Range is understood. etag: strong, weak or none. lengths: whether Content-Length is sent.
    pause_s: wait after each 64 KiB. moved: path -> address. asked: (path, Range) of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    status: dict[str, int] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    etag: str = "strong"
    lengths: bool = True
    pause_s: float = 0.0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[Behaviour]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            behaviour.asked.append((self.path, wanted))
            self.close_connection = True
            if self.path in behaviour.moved:
                self.send_response(302)
                self.send_header("Location", behaviour.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.path in behaviour.status or self.path not in behaviour.files:
                self.send_error(behaviour.status.get(self.path, 404))
                return
            content = behaviour.files[self.path]
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            same = self.headers.get("If-Range", tag) == tag
            start = int(wanted[6:-1]) if wanted and behaviour.ranges and same else 0
            if start >= len(content) > 0 and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if behaviour.etag != "none":
                self.send_header("ETag", tag if behaviour.etag == "strong" else f"W/{tag}")
            if behaviour.lengths:
                self.send_header("Content-Length", str(len(content) - start))
            self.send_header("Connection", "close")
            self.end_headers()
            body = content[start:]
            if behaviour.cuts:
                body = body[: behaviour.cuts.pop(0)]
            try:
                for i in range(0, len(body), 1 << 16):
                    self.wfile.write(body[i : i + (1 << 16)])
                    self.wfile.flush()
                    time.sleep(behaviour.pause_s)
            except OSError:
                pass  # the reader is gone

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    behaviour.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield behaviour
    finally:
        server.shutdown()
        server.server_close()
