"""How fast the page of `sampeft serve` is in headless chromium: first view of a CT with labels, and the next slice.

    python benchmarks/page_speed.py [--size 512 512 100]

A server over a fabricated data set, no model; the browser draws by software. First view: from the press on a case to the
drawn planes with the labels on them, the server's reading and packing included the first time, without it the second
time. Slice: from the key to the drawn pane, the median of 20, each plane alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

READY = "() => { const s = window.sampeft.scene; return Boolean(s.maps.truth); }"
STEPS = """(figure) => {
    const taken = [];
    for (let n = 0; n < 20; n++) {
        const begin = performance.now();
        figure.pane.step(n % 2 ? -1 : 1);
        figure.pane.draw();
        figure.pane.canvas.getContext("2d").getImageData(0, 0, 1, 1);
        taken.push(performance.now() - begin);
    }
    return taken;
}"""


def write(root: Path, size: tuple[int, int, int]) -> Path:
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(0)
    i, j, k = np.ogrid[: size[0], : size[1], : size[2]]
    body = (i - size[0] / 2) ** 2 + (j - size[1] / 2) ** 2 + 0 * k < (0.4 * size[0]) ** 2
    label = np.zeros(size, np.uint8)
    for c in range(1, 14):
        x, y = size[0] * (0.3 + 0.03 * c), size[1] * (0.3 + 0.07 * (c % 7))
        label[((i - x) ** 2 + (j - y) ** 2 < (0.04 * size[0]) ** 2) & (k > 2 * c)] = c
    ct = (np.where(body, 40, -1000) + rng.normal(0, 15, size)).astype(np.int16)
    affine = np.diag([-0.8, 0.8, 3.0, 1.0])
    for folder, array in (("images", ct), ("labels", label)):
        (root / folder).mkdir(parents=True)
        nib.save(nib.Nifti1Image(array, affine), root / folder / "ct.nii.gz")
    labels = {"background": 0, **{f"organ {c}": c for c in range(1, 14)}}
    content = {"name": "speed", "modality": "CT", "labels": labels, "splits": {"test": "test.txt"}}
    (root / "dataset.json").write_text(json.dumps(content))
    (root / "test.txt").write_text("ct\n")
    return root


def main() -> None:
    from sampeft.viewer.service import Service
    from sampeft.viewer.settings import Settings
    from viewer.browser import chromium, served, until

    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 100))
    size = tuple(parser.parse_args().size)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        data = write(Path(folder) / "data", size)
        with served(Service(Settings(data=data), above=Path(folder))) as address:
            for what in ("first view, the server reads", "first view, the server has read"):
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                page.goto(address)
                until(lambda page=page: page.evaluate("Boolean(window.sampeft)"))
                begin = time.perf_counter()
                page.get_by_role("button", name="ct").first.click()
                until(lambda page=page: page.evaluate(READY))
                page.locator("figure.pane").nth(2).evaluate("(f) => f.pane.draw()")
                print(f"{what}: {time.perf_counter() - begin:.2f} s", flush=True)
            for n, plane in enumerate(("axial", "coronal", "sagittal")):
                taken = page.locator("figure.pane").nth(n).evaluate(STEPS)
                print(f"next slice, {plane}: median {statistics.median(taken):.1f} ms, most {max(taken):.1f} ms")


if __name__ == "__main__":
    main()
