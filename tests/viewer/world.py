"""A server over made volumes with evaluations, and its page in a browser: what the tests of the page share."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sampeft.viewer.service import Service
from viewer.browser import until
from viewer.clients import Levels

SIZE = (20, 26, 16)


LAS = np.array([[-2.0, 0, 0, 19], [0, 1.6, 0, -20], [0, 0, 4.0, -30], [0, 0, 0, 1]])


IPL = np.array([[0, 0, -2.0, 15], [0, -1.6, 0, 20], [-4.0, 0, 0, 40], [0, 0, 0, 1]])  # axes in another order


class Slow(Levels):
    """Waits before each slice for as long as a test says."""

    delay_s = 0.0

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        time.sleep(self.delay_s)
        return super().forward(images_B3HW)


@dataclass
class World:
    """What is served and by what; asked: the prompts that arrived as (slice, boxes, points)."""

    address: str
    browser: Any
    service: Service
    model: Slow
    asked: list[tuple[int, Any, Any]]
    corrections: Path

    def open(self, width: int = 1200, height: int = 800, **options: Any) -> Any:
        """A fresh page that has loaded. faults: what its console complained of."""
        context = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.faults = []
        page.on("console", lambda m: page.faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: page.faults.append(str(e)))
        page.goto(self.address)
        until(lambda: page.evaluate("Boolean(window.sampeft)"))
        return page


def show(page: Any, name: str) -> None:
    page.get_by_role("button", name=name).first.click()
    page.locator("figure.pane canvas").first.wait_for()
    until(lambda: name in page.locator("#result").inner_text() and page.locator(".legend").count())


def segment(page: Any) -> None:
    page.get_by_role("button", name=re.compile("^Segment with")).click()
    page.get_by_role("link", name="Result").wait_for()


def volume_of(page: Any, name: str) -> float:
    """Millilitres of a class, as the table beside the image shows them."""
    return float(page.locator(".legend tr", has_text=name).locator(".number").first.inner_text())


def put(page: Any, **values: Any) -> None:
    """Set how the scene is shown, as its controls do."""
    page.evaluate(
        """(v) => {
            const { scene } = window.sampeft;
            if (v.cursor) scene.moveTo(v.cursor);
            Object.assign(scene, v.set ?? {});
            scene.changed("look");
        }""",
        values,
    )


def placed(frame: dict[str, float], *ends: float) -> list[float]:
    """left, top, right, bottom in pixels of a slice to those of its canvas."""
    return [frame[("left", "top")[n % 2]] + end * frame["xy"[n % 2]] for n, end in enumerate(ends)]


def voxel_of(affine: np.ndarray, place_mm: tuple[float, ...]) -> list[int]:
    return [int(v) for v in np.rint(np.linalg.inv(affine) @ [*place_mm, 1])[:3]]
