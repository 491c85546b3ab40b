"""What `sampeft serve` bears: stalled uploads, idle connections, many predictions in a row, and how fast it ends.

    python benchmarks/serve_load.py [--predictions 30]

A server process over a LiteMedSAM of random weights at a side of 56 pixels; sockets of this process play the clients.
Answer: seconds until a small prediction is taken (202) beside 4 stalled uploads, and until /api/about answers beside 120
idle connections. Memory: resident MiB of the server after each prediction of a volume, all files of it asked for. End:
seconds from SIGTERM to the end of the process, idle and with a prediction, a stalled upload and an unread download open.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

PATIENCE_S = 60


def make_run(folder: Path) -> Path:
    import torch

    from sampeft.backbones import RANDOM, load_backbone
    from sampeft.data.intensity import Intensity
    from sampeft.data.slice_cache import Preparation
    from sampeft.labels import LabelSet
    from sampeft.model import SemanticSam
    from sampeft.peft import attach
    from sampeft.peft.state import save_trained

    torch.manual_seed(3)
    labels = LabelSet(("background", "c1", "c2"), (0, 1, 2))
    model = SemanticSam(load_backbone("lite-medsam", RANDOM), labels, 56).eval()
    attached = attach(model, "lora", {"rank": 2})
    content = {
        "backbone": "lite-medsam",
        "weights_sha256": model.digest,
        "head": "mask",
        "head_options": {},
        "encoder_side": None,
        "least_share": 0.0,
        "seed": 3,
        "method": attached.method,
        "options": attached.options,
        "label_map": labels.to_json(),
        "preparation": Preparation(Intensity("window", 0, 255), 56).to_json(),
    }
    save_trained(folder, model, content)
    return folder


class Server:
    """A server process. address: as it prints it, with or without a token."""

    def __init__(self, run: Path) -> None:
        command = [sys.executable, "-m", "sampeft", "serve", str(run), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        address = urlsplit(self.process.stdout.readline().strip())
        self.host = address.netloc
        token = parse_qs(address.query).get("token", [""])[0]
        self.headers = {"authorization": f"Bearer {token}"} if token else {}

    def connected(self, head: str = "") -> socket.socket:
        """A connection that sends these lines (with its headers after them) and then nothing."""
        opened = socket.create_connection(("127.0.0.1", int(self.host.rpartition(":")[2])), timeout=PATIENCE_S)
        if head:
            own = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            opened.sendall(f"{head}\r\nHost: {self.host}\r\n{own}".encode())
        return opened

    def client(self) -> Any:
        import httpx

        return httpx.Client(base_url=f"http://{self.host}", headers=self.headers, timeout=PATIENCE_S)

    def ended(self, number: int = signal.SIGTERM) -> tuple[float, int]:
        """Seconds until a signal ends it, and its exit code."""
        began = time.perf_counter()
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        return time.perf_counter() - began, code


def stalled(server: Server) -> socket.socket:
    """An upload of which some bytes come, and no more."""
    found = server.connected("POST /api/predictions HTTP/1.1")
    found.sendall(b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n--x\r\n")
    return found


def timed(ask: Any) -> str:
    import httpx

    began = time.perf_counter()
    try:
        status = ask().status_code
    except httpx.TimeoutException:
        status = "none"
    return f"status {status} after {time.perf_counter() - began:.2f} s"


def waited(client: Any, id: str) -> dict[str, Any]:
    while True:
        body: dict[str, Any] = client.get(f"/api/predictions/{id}").json()
        if body["state"] not in ("queued", "running"):
            return body
        time.sleep(0.05)


def main() -> None:
    import numpy as np
    import psutil

    from fabricate import write_nifti, write_png

    parser = argparse.ArgumentParser()
    parser.add_argument("--predictions", type=int, default=30)
    most = parser.parse_args().predictions
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name, ExitStack() as after:
        folder = Path(name)
        run = make_run(folder / "run")
        picture = write_png(folder / "p.png", rng.integers(0, 255, (40, 40), dtype=np.uint8)).read_bytes()
        scan = write_nifti(folder / "s.nii.gz", rng.integers(0, 255, (256, 256, 24)).astype(np.int16), np.eye(4))
        long = write_nifti(folder / "l.nii.gz", rng.integers(0, 255, (64, 64, 900)).astype(np.int16), np.eye(4))

        def post(client: Any, file: str, content: bytes) -> Any:
            return client.post("/api/predictions", data={"run": "run"}, files={"file": (file, content)})

        server = Server(run)
        client = after.enter_context(server.client())
        waited(client, post(client, "p.png", picture).json()["id"])  # the model is loaded
        open_ones = [stalled(server) for _ in range(4)]
        time.sleep(0.5)
        print("a prediction beside 4 stalled uploads:", timed(lambda: post(client, "p.png", picture)), flush=True)
        [one.close() for one in open_ones]
        idle = [server.connected() for _ in range(120)]
        time.sleep(0.5)
        with server.client() as fresh:
            print("/api/about beside 120 idle connections:", timed(lambda: fresh.get("/api/about")), flush=True)
        [one.close() for one in idle]

        memory = []
        process = psutil.Process(server.process.pid)
        for _ in range(most):
            id = post(client, "s.nii.gz", scan.read_bytes()).json()["id"]
            assert waited(client, id)["state"] == "done"
            for kind in ("result", "map.nii.gz", "image.nii.gz"):
                client.get(f"/api/predictions/{id}/files/{kind}")
            memory.append(process.memory_info().rss >> 20)
        print("resident MiB after each prediction:", *memory, flush=True)

        print("SIGTERM, idle: ended after {:.1f} s, exit code {}".format(*server.ended()), flush=True)
        server = Server(run)
        with server.client() as client:
            id = post(client, "l.nii.gz", long.read_bytes()).json()["id"]
            download = post(client, "s.nii.gz", scan.read_bytes()).json()["id"]
            hanging = [stalled(server), server.connected("GET /api/about HTTP/1.1")]
            while client.get(f"/api/predictions/{id}").json()["progress"] < 0.1:
                time.sleep(0.1)
            client.delete(f"/api/predictions/{id}")
            waited(client, download)
            unread = server.connected(f"GET /api/predictions/{download}/files/image.nii.gz HTTP/1.1")
            unread.sendall(b"\r\n")
            post(client, "l.nii.gz", long.read_bytes())
            time.sleep(2)
            print("SIGTERM, busy: ended after {:.1f} s, exit code {}".format(*server.ended()), flush=True)
        [one.close() for one in [*hanging, unread]]


if __name__ == "__main__":
    main()
