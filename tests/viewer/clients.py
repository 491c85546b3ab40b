"""A model that sees brightness alone, and what tests ask of a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PORT = 8765
Serve = Callable[..., Any]


class Levels(torch.nn.Module):
    """A "model" that calls black background, grey c1 and white c2; the surer, the nearer to these."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        levels_BHW = images_B3HW[:, 0]
        return torch.stack([-20 * (levels_BHW - level) ** 2 for level in (0.0, 0.5, 1.0)], dim=1)


def ended(client: Any, id: str, seconds: float = 30.0) -> dict[str, Any]:
    """What is said of a prediction once it waits and runs no more."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        body: dict[str, Any] = client.get(f"/api/predictions/{id}").json()
        if body["state"] not in ("queued", "running"):
            return body
        time.sleep(0.02)
    raise AssertionError(f"prediction {id} has not ended: {body}")


def predicted(client: Any, file: Path | None = None, **fields: str) -> dict[str, Any]:
    """A prediction of a file or a case that has ended."""
    files = {"file": (file.name, file.read_bytes())} if file else None
    answer = client.post("/api/predictions", data={"run": "run", **fields}, files=files)
    assert answer.status_code == 202, answer.text
    return ended(client, answer.json()["id"])
