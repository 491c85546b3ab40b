"""A real server at a real port, and Debian's chromium to look at its page; both are skipped where they are not there."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sampeft.viewer.service import Service

CHROMIUM = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome")
_PATIENCE_S = 60.0


@contextmanager
def served(service: Service) -> Iterator[str]:
    """The address, with its token, of a server over this service, which is closed at the end."""
    import uvicorn

    from sampeft.viewer.access import Access
    from sampeft.viewer.app import make_app
    from sampeft.viewer.server import ADDRESS, _bound, uvicorn_config

    listening = _bound(0)
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn_config(make_app(service, port)))
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield Access(service.settings.token, port).address(ADDRESS)
    finally:
        server.should_exit = True
        thread.join(10)
        service.close()
        listening.close()


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser that draws WebGL by software."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the page is not looked at: pip install playwright for it"
    )
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("the page is not looked at: chromium is not installed (apt-get install chromium)")
    options = ["--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]
    if hasattr(os, "getuid") and os.getuid() == 0:
        options.append("--no-sandbox")  # which root has none of
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


def until(holds: Callable[[], Any], seconds: float = _PATIENCE_S) -> Any:
    """Wait until something holds, and give it; a strict Content-Security-Policy lets Playwright not wait by itself."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < end, "it has not become so"
        time.sleep(0.05)


def pixels(pane: Any) -> np.ndarray:
    """(H, W, 3) uint8 of what a pane's canvas shows, freshly drawn; the device's pixels are CSS pixels here."""
    content = pane.evaluate(
        """(figure) => {
            figure.pane.draw();
            const canvas = figure.pane.canvas;
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let text = "";
            for (let n = 0; n < data.length; n += 8192) text += String.fromCharCode(...data.subarray(n, n + 8192));
            return [canvas.height, canvas.width, btoa(text)];
        }"""
    )
    import base64

    height, width, packed = content
    found = np.frombuffer(base64.b64decode(packed), np.uint8).reshape(height, width, 4)
    return found[..., :3]


def extent(mask_HW: np.ndarray) -> tuple[float, float, float, float]:
    """left, top, right, bottom of what is true, in pixels; half open."""
    rows, columns = np.nonzero(mask_HW)
    assert len(rows), "nothing is there"
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def near(image_HW3: np.ndarray, color: tuple[int, int, int], by: int = 3) -> np.ndarray:
    """(H, W) where an image has a colour."""
    return (np.abs(image_HW3.astype(int) - color) <= by).all(axis=2)


def write_volume_dataset(root: Path, affines: dict[str, np.ndarray], size: tuple[int, int, int]) -> Path:
    """A `folder` data set of volumes by name: classes c1 (grey) and c2 (white) as boxes far from the middle, on black.

    The boxes lie at the same places of the patient whatever the affine: c1 right, anterior, superior of c2. The first
    volume is a little darker, so that a model which sees brightness is less sure of it.
    """
    import json

    from fabricate import write_nifti

    for name, affine in affines.items():
        label = boxes_in(affine, size)
        levels = label * (120 if name == next(iter(affines)) else 127.5)
        write_nifti(root / "images" / f"{name}.nii.gz", levels.astype(np.int16), affine)
        write_nifti(root / "labels" / f"{name}.nii.gz", label.astype(np.uint8), affine)
    content = {
        "name": "boxes",
        "modality": "made",
        "labels": {"background": 0, "c1": 1, "c2": 2},
        "splits": {"train": "train.txt", "test": "test.txt"},
    }
    (root / "dataset.json").write_text(json.dumps(content))
    names = list(affines)
    (root / "train.txt").write_text("\n".join(names[1:]) + "\n")
    (root / "test.txt").write_text(f"{names[0]}\n")
    return root


BOXES_MM = {1: ((4, 16), (6, 18), (8, 24)), 2: ((-16, -6), (-14, -5), (-24, -8))}
"""Class -> from and to along R, A and S."""


def boxes_in(affine: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """(I, J, K) of the class whose box holds the middle of the voxel."""
    places = np.moveaxis(np.indices(size), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    label = np.zeros(size, np.int16)
    for k, limits in BOXES_MM.items():
        label[
            np.all([(places[..., w] > low) & (places[..., w] < high) for w, (low, high) in enumerate(limits)], axis=0)
        ] = k
    return label
