"""The page in a real browser: what the canvas shows lies where the labels are, and what a user can do does what it says."""

from __future__ import annotations

import gzip
import json
import re
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pytest
import torch

from fabricate import write_nifti, write_png
from sampeft.labels import LabelSet
from sampeft.metrics.counts import count
from sampeft.metrics.scores import Evaluation
from sampeft.model import SemanticSam
from sampeft.prediction.inference import Segmenter
from sampeft.viewer.service import Service
from sampeft.viewer.settings import Settings
from viewer.browser import BOXES_MM, boxes_in, chromium, extent, near, pixels, served, until, write_volume_dataset
from viewer.clients import Levels

SIZE = (20, 26, 16)
LAS = np.array([[-2.0, 0, 0, 19], [0, 1.6, 0, -20], [0, 0, 4.0, -30], [0, 0, 0, 1]])
IPL = np.array([[0, 0, -2.0, 15], [0, -1.6, 0, 20], [-4.0, 0, 0, 40], [0, 0, 0, 1]])  # axes in another order
rng = np.random.default_rng(5)


CONTRASTS = """() => {
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const ground = (element) => {
        for (; element; element = element.parentElement) {
            const found = numbers(getComputedStyle(element).backgroundColor);
            if (found.length < 4 || found[3] > 0.9) return found;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const element of document.querySelectorAll("main:not([hidden]) *, header *")) {
        const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!words || element.disabled || !element.checkVisibility()) continue;
        const levels = [light(numbers(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
        const ratio = (levels[0] + 0.05) / (levels[1] + 0.05);
        if (ratio < 4.5) found.push([element.textContent.slice(0, 40), ratio]);
    }
    return found;
}"""
"""Texts whose contrast to what they stand on is below 4.5, as WCAG reckons it."""


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


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, run: Path, segmenter: Segmenter, classes: LabelSet
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("page")
    data = write_volume_dataset(folder / "data", {"las": LAS, "ipl": IPL}, SIZE)
    truths = {name: boxes_in(LAS, SIZE) for name in ("las", "ipl", "elsewhere")}
    for name, wrong in (("good", 0.02), ("bad", 0.4), ("told", 0.01)):
        counts = {}
        for case, truth in truths.items():
            flipped = np.where(rng.random(truth.shape) < wrong, 2 - truth, truth)
            counts[case] = count(flipped.astype(np.int16), truth.astype(np.int16), 3)
        meta = {"model": name, "data": "boxes", "split": "test", "oracle": name == "told", "protocol": "default"}
        Evaluation(counts, classes, meta).write(folder / "evals" / name)
    (folder / "evals" / "good" / "report.html").write_text("<!doctype html><p>the report of good</p>")
    model = Slow()
    asked: list[tuple[int, Any, Any]] = []

    def disc(prediction: Any, _: Any, s: int, boxes: Any, points: Any, adapted: bool = False) -> Any:
        """Instead of the network: the boxes, and a disc around each point inside."""
        asked.append((s, boxes, points))
        height, width = prediction.done()[0].size()
        rows, columns = np.mgrid[:height, :width]
        mask = np.zeros((height, width), bool)
        for x0, y0, x1, y1 in boxes:
            mask |= (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
        for x, y, inside in points[0] if points else ():
            near_it = (columns - x) ** 2 + (rows - y) ** 2 <= 4
            mask = mask | near_it if inside else mask & ~near_it
        return mask, 1.0

    with pytest.MonkeyPatch.context() as patch, chromium() as browser:
        loaded = replace(segmenter, source=cast(SemanticSam, model))
        patch.setattr("sampeft.viewer.trained.load", lambda folder, **_: loaded)
        settings = Settings(
            runs=(run,), data=data, evals=(folder / "evals",), corrections=folder / "corrected", batch=1
        )
        service = Service(settings, above=folder)
        patch.setattr(service.prompts, "mask", disc)
        with served(service) as address:
            yield World(address, browser, service, model, asked, folder / "corrected")


@pytest.fixture
def page(world: World) -> Iterator[Any]:
    page = world.open()
    yield page
    assert page.faults == []
    page.context.close()


def show(page: Any, name: str) -> None:
    page.get_by_role("button", name=name).first.click()
    page.locator("figure.pane canvas").first.wait_for()
    until(lambda: name in page.locator("#result").inner_text() and page.locator(".legend").count())


def segment(page: Any) -> None:
    page.get_by_role("button", name=re.compile("^Segment with")).click()
    page.get_by_role("link", name="Result").wait_for()


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


@pytest.mark.parametrize(("name", "affine"), [("las", LAS), ("ipl", IPL)])
def test_the_overlay_lies_where_the_label_is_in_all_three_planes(
    page: Any, name: str, affine: np.ndarray, classes: LabelSet
) -> None:
    show(page, name)
    segment(page)
    label = boxes_in(affine, SIZE)
    corners = np.array([[0, 0, 0, 1], [*SIZE, 1]]) - [0.5, 0.5, 0.5, 0]
    ends_mm = np.sort((corners @ affine.T)[:, :3], axis=0)  # of the whole image, along R, A and S
    spacing_mm = [float(np.abs(affine[w, :3]).max()) for w in range(3)]
    # World axes across, along the columns and down the rows. The screen's left is R or A, its top is A or S.
    planes = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}
    axis_of = [int(np.abs(affine[w, :3]).argmax()) for w in range(3)]
    for n, (plane, (across, along, down)) in enumerate(planes.items()):
        pane = page.locator("figure.pane").nth(n)
        for k in (1, 2):
            inside_mm = [float(np.mean(BOXES_MM[k][w])) for w in range(3)]
            voxel = voxel_of(affine, tuple(inside_mm))
            # The cross hair stands in a corner of the slice, where it hides nothing.
            cursor = [0 if axis != axis_of[across] else voxel[axis] for axis in range(3)]
            put(page, cursor=cursor, set={"opacity": 1})
            coloured = near(pixels(pane), classes.colors[k])
            put(page, set={"opacity": 0})
            grey = near(pixels(pane), (128, 128, 128) if k == 1 else (255, 255, 255), by=25)
            frame = pane.evaluate("(f) => f.pane.frame")
            assert frame["x"] / frame["y"] == pytest.approx(spacing_mm[along] / spacing_mm[down], rel=1e-3), plane
            own = np.nonzero(label == k)
            places_mm = np.stack([*own, np.ones_like(own[0])], axis=1) @ affine.T
            scale = frame["x"] / spacing_mm[along]
            half = [spacing_mm[along] / 2, spacing_mm[down] / 2]
            wanted = (
                frame["left"] + (ends_mm[1, along] - places_mm[:, along].max() - half[0]) * scale,
                frame["top"] + (ends_mm[1, down] - places_mm[:, down].max() - half[1]) * scale,
                frame["left"] + (ends_mm[1, along] - places_mm[:, along].min() + half[0]) * scale,
                frame["top"] + (ends_mm[1, down] - places_mm[:, down].min() + half[1]) * scale,
            )
            slack = np.array([frame["x"], frame["y"]] * 2) / 2
            assert (np.abs(np.subtract(extent(coloured), wanted)) < slack).all(), (plane, k, extent(coloured), wanted)
            assert (np.abs(np.subtract(extent(grey), wanted)) < 2 * slack).all(), (plane, k)  # smoothed at its edge
        letters = pane.locator(".letter").all_inner_texts()
        assert (
            letters
            == {"axial": ["A", "P", "R", "L"], "coronal": ["S", "I", "R", "L"], "sagittal": ["S", "I", "A", "P"]}[plane]
        )


def test_what_is_read_under_the_cursor_is_the_voxel_of_the_file(page: Any) -> None:
    show(page, "ipl")
    label = boxes_in(IPL, SIZE)
    pane = page.locator("figure.pane").first
    voxel = voxel_of(IPL, (10, 12, 16))
    put(page, cursor=voxel)
    text = page.locator("#readout").inner_text()
    assert label[tuple(voxel)] == 1
    assert "128" in text or "127" in text
    assert "truth: c1" in text
    # A click on the plane moves the cross hair to the voxel that lies there, and no further along the axis across.
    before = page.evaluate("window.sampeft.scene.cursor")
    box = pane.locator("canvas").bounding_box()
    frame = pane.evaluate("(f) => f.pane.frame")
    page.mouse.click(box["x"] + frame["left"] + 3.5 * frame["x"], box["y"] + frame["top"] + 4.5 * frame["y"])
    after = page.evaluate("window.sampeft.scene.cursor")
    # Axial: columns from R to L are axis 2 (x = 15 - 2 k, so k = 3), rows from A to P axis 1 (y = 20 - 1.6 j, so j = 4).
    assert after == [before[0], 4, 3]


def test_slices_windows_and_classes_by_mouse_and_by_keys(page: Any, world: World, classes: LabelSet) -> None:
    show(page, "las")
    canvas = page.locator("figure.pane canvas").first
    caption = page.locator("figure.pane figcaption").first

    def number() -> int:
        found = re.search(r"(\d+) / 16", caption.inner_text())
        assert found
        return int(found[1])

    start = number()
    canvas.focus()
    page.keyboard.press("ArrowUp")
    until(lambda: number() == start + 1)
    page.keyboard.press("End")
    until(lambda: number() == 16)
    page.keyboard.press("Home")
    until(lambda: number() == 1)
    page.locator("figure.pane input[type=range]").first.fill("9")
    until(lambda: number() == 9)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.wheel(0, -120)
    until(lambda: number() == 10)
    # The window by dragging with the right button; values that are no HU offer no presets.
    assert page.get_by_role("button", name="Lung").count() == 0
    before = page.evaluate("window.sampeft.scene.window")
    page.mouse.down(button="right")
    page.mouse.move(box["x"] + 120, box["y"] + 90)
    page.mouse.up(button="right")
    after = page.evaluate("window.sampeft.scene.window")
    assert after["high"] - after["low"] > before["high"] - before["low"]
    page.get_by_role("button", name="Auto").click()
    assert page.evaluate("window.sampeft.scene.window") == before
    # A class is hidden and shown again by the space bar.
    pane = page.locator("figure.pane").first
    put(page, cursor=[0, 0, voxel_of(LAS, (10, 12, 16))[2]], set={"opacity": 1})
    assert near(pixels(pane), classes.colors[1]).any()
    page.get_by_label("Show c1").focus()
    page.keyboard.press("Space")
    assert not near(pixels(pane), classes.colors[1]).any()
    page.keyboard.press("Space")
    assert near(pixels(pane), classes.colors[1]).any()
    # Next and previous case.
    canvas.focus()
    page.keyboard.press("n")
    until(lambda: page.locator("#result h1").inner_text() == "ipl")
    page.keyboard.press("p")
    until(lambda: page.locator("#result h1").inner_text() == "las")
    page.get_by_label("Search cases").fill("ip")
    assert page.locator("#cases .list button").all_inner_texts()[0].startswith("ipl")


def test_hu_get_presets(page: Any, tmp_path: Path) -> None:
    hu = np.full((12, 12, 4), -1000, np.int16)
    hu[3:9, 3:9] = 40
    hu[4:6, 4:6] = 1200
    page.locator("#file").set_input_files(write_nifti(tmp_path / "ct.nii.gz", hu))
    page.get_by_role("link", name="Result").wait_for()
    page.get_by_role("button", name="Soft tissue").click()
    assert page.evaluate("window.sampeft.scene.window") == {"low": -160, "high": 240}  # level 40, width 400
    put(page, cursor=[0, 0, 1], set={"opacity": 0})
    shown = pixels(page.locator("figure.pane").first)
    assert near(shown, (128, 128, 128), by=2).any()  # 40 HU is the middle of the window
    page.get_by_role("button", name="Lung").click()
    assert page.evaluate("window.sampeft.scene.window") == {"low": -1350, "high": 150}


def test_a_dropped_picture_is_segmented_shown_and_downloaded(page: Any, tmp_path: Path, classes: LabelSet) -> None:
    picture = np.zeros((30, 40), np.uint8)
    picture[5:12, 20:34] = 255
    content = write_png(tmp_path / "seen.png", picture).read_bytes()
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "seen.png"));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        list(content),
    )
    page.get_by_role("link", name="Result").wait_for()
    pane = page.locator("figure.pane").first
    assert page.locator("figure.pane").count() == 1
    put(page, set={"opacity": 1})
    frame = pane.evaluate("(f) => f.pane.frame")
    found = extent(near(pixels(pane), classes.colors[2]))
    wanted = placed(frame, 20, 5, 34, 12)
    assert np.abs(np.subtract(found, wanted)).max() < frame["x"] / 2
    row = page.locator(".legend tr", has_text="c2").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="Result").click()
    assert download.value.suggested_filename == "seen.png"
    from PIL import Image

    written = np.asarray(Image.open(download.value.path()))
    assert extent(written == 2) == (20, 5, 34, 12)
    assert row.split()[-1] == str((written == 2).sum())
    # It survives a reload of the page, and is removed when that is asked for.
    page.reload()
    page.locator("#predictions button", has_text="seen").first.click()
    page.get_by_role("link", name="Result").wait_for()
    page.get_by_label("Remove seen").click()
    until(lambda: page.locator("#predictions li").count() == 0)


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore")
def test_a_zipped_series_is_a_volume_and_its_result_a_dicom_seg(page: Any, real_data: Path, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    with zipfile.ZipFile(tmp_path / "liver.zip", "w") as archive:
        for path in (real_data / "dicom_odd" / "ct_liver_3slice").rglob("*"):
            archive.write(path, f"study/{path.name}")
    page.locator("#file").set_input_files(tmp_path / "liver.zip")
    page.get_by_role("link", name="Result").wait_for()
    assert [text.split(" / ")[-1] for text in page.locator("figure.pane figcaption").all_inner_texts()[:3]] == [
        "3",
        "512",
        "512",
    ]
    page.get_by_role("button", name="Soft tissue").click()  # it is in HU
    put(page, set={"opacity": 0})
    assert np.ptp(pixels(page.locator("figure.pane").first)) > 200  # air, fat and liver
    with page.expect_download() as download:
        page.get_by_role("link", name="Result").click()
    assert download.value.suggested_filename == "liver.dcm"
    assert pydicom.dcmread(download.value.path()).Modality == "SEG"


def test_a_tiff_of_colours_is_segmented(page: Any, tmp_path: Path) -> None:
    from PIL import Image

    picture = np.zeros((30, 40, 3), np.uint8)
    picture[5:12, 20:34] = (255, 90, 20)
    Image.fromarray(picture).save(tmp_path / "field.tif")
    page.locator("#file").set_input_files(tmp_path / "field.tif")
    page.get_by_role("link", name="Result").wait_for()
    put(page, set={"opacity": 0})
    pane = page.locator("figure.pane").first
    frame = pane.evaluate("(f) => f.pane.frame")
    found = extent(near(pixels(pane), (255, 90, 20)))
    assert np.abs(np.subtract(found, placed(frame, 20, 5, 34, 12))).max() < frame["x"] / 2


def test_a_prediction_is_cancelled_and_refusals_are_sentences(page: Any, world: World, tmp_path: Path) -> None:
    world.model.delay_s = 1.5  # a slice batch; a busy machine must find it under way
    try:
        page.locator("#file").set_input_files(write_nifti(tmp_path / "long.nii.gz", np.full((9, 9, 60), 100, np.int16)))
        page.get_by_role("progressbar").wait_for()
        until(lambda: "left" in page.locator(".progress").inner_text())
        page.locator(".progress").get_by_role("button", name="Cancel").click()
        until(lambda: "Cancelled." in page.locator("#panes").inner_text())
    finally:
        world.model.delay_s = 0.0
    assert page.get_by_role("progressbar").count() == 0
    (tmp_path / "notes.txt").write_text("no image")
    page.locator("#file").set_input_files(tmp_path / "notes.txt")
    until(lambda: "no image that is known; send NIfTI" in page.get_by_role("alert").inner_text())
    assert "{" not in page.get_by_role("alert").inner_text()
    assert [fault for fault in page.faults if "415" not in fault] == []  # the browser notes the refusal
    page.faults.clear()
    broken = gzip.compress(nib.Nifti1Image(np.zeros((5, 5, 5), np.int16), np.eye(4)).to_bytes()[:400])
    (tmp_path / "broken.nii.gz").write_bytes(broken)
    page.locator("#file").set_input_files(tmp_path / "broken.nii.gz")
    until(lambda: "broken.nii.gz" in page.get_by_role("alert").inner_text())


def test_a_correction_by_a_click_a_box_undo_and_save(page: Any, world: World, classes: LabelSet) -> None:
    show(page, "las")
    segment(page)
    id = page.evaluate("window.sampeft.body.id")
    predicted = np.array(world.service.prediction(id).map.array())
    page.get_by_role("button", name="Correct this result").click()
    pane = page.locator("figure.pane").first
    place = voxel_of(LAS, (0, 0, 2))
    put(page, cursor=place, set={"opacity": 1})
    number = pane.evaluate("(f) => f.pane.place")
    canvas, frame = pane.locator("canvas").bounding_box(), pane.evaluate("(f) => f.pane.frame")

    def on_screen(column: float, row: float) -> tuple[float, float]:
        return canvas["x"] + frame["left"] + column * frame["x"], canvas["y"] + frame["top"] + row * frame["y"]

    page.get_by_label("Class", exact=True).select_option("c2")
    page.mouse.click(*on_screen(9.5, 12.3))
    until(lambda: "13 pixels" in page.locator(".correct").inner_text())  # a disc of radius 2
    assert world.asked[-1] == (number, [], [[(9.0, 12.0, 1)]])
    page.keyboard.down("Shift")
    page.mouse.click(*on_screen(11.5, 12.5))
    page.keyboard.up("Shift")
    until(lambda: world.asked[-1][2] == [[(9.0, 12.0, 1), (11.0, 12.0, 0)]])
    page.keyboard.press("Escape")
    page.mouse.click(*on_screen(9.5, 12.5))
    until(lambda: "13 pixels" in page.locator(".correct").inner_text())
    before = near(pixels(pane), classes.colors[2])
    page.get_by_role("button", name="Accept").click()
    until(lambda: page.get_by_role("button", name="Undo (1)").count())
    drawn = near(pixels(pane), classes.colors[2]) & ~before
    assert np.abs(np.subtract(extent(drawn), placed(frame, 7, 10, 12, 15))).max() < frame["y"] / 2 + 1
    # LAS: columns run as the first array axis, rows against the second.
    changed = np.argwhere(world.service.prediction(id).map.array() != predicted)
    assert len(changed) == 13
    assert changed.mean(axis=0).tolist() == [9, SIZE[1] - 1 - 12, place[2]]
    # The background erases by a box, and the two steps are taken back.
    page.get_by_label("Class", exact=True).select_option("background")
    page.get_by_role("button", name="Box").click()
    page.mouse.move(*on_screen(5.5, 8.5))
    page.mouse.down()
    page.mouse.move(*on_screen(12.5, 15.5), steps=3)
    page.mouse.up()
    until(lambda: "49 pixels" in page.locator(".correct").inner_text())
    page.locator("figure.pane canvas").first.focus()
    page.keyboard.press("Enter")
    until(lambda: page.get_by_role("button", name="Undo (2)").count())
    assert np.array_equal(world.service.prediction(id).map.array(), predicted)
    page.keyboard.press("Control+z")
    until(lambda: page.get_by_role("button", name="Undo (1)").count())
    assert near(pixels(pane), classes.colors[2])[
        int(frame["top"] + 12.5 * frame["y"]), int(frame["left"] + 9.5 * frame["x"])
    ]
    page.get_by_role("button", name="Save case").click()
    until(lambda: "Saved: images/las.nii.gz" in page.get_by_role("alert").inner_text())
    saved = np.asarray(nib.load(world.corrections / "labels" / "las.nii.gz").dataobj)
    assert (saved != predicted).sum() == 13
    assert "truth" in page.locator("#cases").inner_text()
    assert page.locator("details.scores").count() == 1  # it is scored against the truth of the data set


def test_all_are_segmented_and_the_least_sure_come_first(page: Any, world: World) -> None:
    names = page.locator("#cases .list button .name")
    assert [name.strip() for name in names.all_inner_texts()] == ["ipl", "las"]
    page.get_by_role("button", name="Segment all that are listed").click()
    until(lambda: sum("%" in text for text in page.locator("#cases .list .badge").all_inner_texts()) == 2)
    bodies = page.evaluate("window.sampeft.predictions.bodies.map((b) => [b.image, b.result.confidence])")
    surely = dict(bodies)
    assert surely["las"] < surely["ipl"]  # which is brighter
    page.get_by_label("Search cases").fill("ip")
    page.get_by_label("Search cases").fill("")
    page.get_by_label("Order").select_option("least sure first")
    assert [name.strip() for name in names.all_inner_texts()] == ["las", "ipl"]
    # What is not segmented comes last, however unsure it was.
    page.evaluate("window.sampeft.predictions.end(window.sampeft.predictions.bodies.find((b) => b.image === 'las'))")
    until(lambda: [name.strip() for name in names.all_inner_texts()] == ["ipl", "las"])


def test_after_a_segmentation_other_cases_are_opened(page: Any, classes: LabelSet) -> None:
    show(page, "las")
    segment(page)
    page.get_by_role("button", name="ipl").first.click()
    until(lambda: page.locator("#result h1").inner_text() == "ipl" and page.locator(".legend").count())
    assert page.get_by_role("link", name="Result").count() == 0  # nothing of the other case is left
    assert page.evaluate("Object.keys(window.sampeft.scene.maps)") == ["truth"]
    assert page.evaluate("window.sampeft.scene.image.affine[2]") == [-4, 0, 0, 40]
    segment(page)
    page.get_by_role("button", name="las").first.click()
    page.get_by_role("link", name="Result").wait_for()  # it was segmented before
    assert page.locator("#result h1").inner_text() == "las"
    assert sorted(page.evaluate("Object.keys(window.sampeft.scene.maps)")) == ["prediction", "truth"]


def test_a_truth_that_is_refused_is_told_and_the_rest_is_shown(page: Any) -> None:
    show(page, "las")
    segment(page)
    page.get_by_role("button", name="ipl").first.click()
    until(lambda: page.locator("#result h1").inner_text() == "ipl" and page.locator(".legend").count())
    page.route("**/truth.nii.gz", lambda route: route.fulfill(status=422, json={"error": "las: this truth is damaged"}))
    page.get_by_role("button", name="las").first.click()
    until(lambda: "this truth is damaged" in page.get_by_role("alert").inner_text())
    page.get_by_role("link", name="Result").wait_for()
    assert page.evaluate("Object.keys(window.sampeft.scene.maps)") == ["prediction"]
    page.faults[:] = [fault for fault in page.faults if "422" not in fault]


def test_more_predictions_than_the_server_answers_at_once_are_kept(page: Any) -> None:
    asked: list[int] = []

    def answer(route: Any) -> None:
        ids = re.findall(r"ids=([^&]+)", route.request.url)
        asked.append(len(ids))
        done = {"state": "done", "run": "run", "case": None, "result": {"confidence": None}}
        route.fulfill(json=[{"id": id, "name": id, **done} for id in ids if id != "id7"])

    page.route("**/api/predictions?*", answer)
    kept = page.evaluate(
        """async () => {
            const { predictions } = window.sampeft;
            predictions.ids = [...Array(450).keys()].map((n) => `id${n}`);
            await predictions.refresh();
            return [predictions.ids.length, predictions.bodies.length, JSON.parse(sessionStorage["sampeft.predictions"]).length];
        }"""
    )
    assert asked == [200, 200, 50]
    assert kept == [449, 449, 449]  # the server has forgotten one


def test_truth_and_prediction_on_each_other_and_side_by_side(page: Any, classes: LabelSet) -> None:
    show(page, "las")
    segment(page)
    slice = voxel_of(LAS, (10, 12, 16))[2]
    put(page, cursor=[0, 0, slice], set={"opacity": 1})
    pane = page.locator("figure.pane").first
    inside = near(pixels(pane), classes.colors[1])
    page.get_by_role("button", name="Both").click()
    both = pixels(pane)
    edge = near(both, tuple((255 + 2 * c) // 3 for c in classes.colors[1]))  # of the truth, which the prediction equals
    assert extent(edge) == extent(inside)
    assert near(both, classes.colors[1]).sum() + edge.sum() == inside.sum()
    page.get_by_role("button", name="Beside truth").click()
    panes = page.locator("figure.pane")
    until(lambda: panes.count() == 2)
    titles = panes.locator("figcaption").all_inner_texts()
    assert [title.split()[0] for title in titles] == ["prediction", "truth"]
    put(page, cursor=[0, 0, slice])
    left, right = (near(pixels(panes.nth(n)), classes.colors[1]) for n in range(2))
    assert left.any()
    assert extent(left) == extent(right)
    panes.first.locator("canvas").focus()
    page.keyboard.press("ArrowUp")
    until(lambda: len({text.split()[-3] for text in panes.locator("figcaption").all_inner_texts()}) == 1)


def test_a_finger_moves_the_cross_hair(world: World) -> None:
    page = world.open(390, 844, has_touch=True, is_mobile=True)
    show(page, "ipl")
    pane = page.locator("figure.pane").first
    pane.scroll_into_view_if_needed()
    box, frame = pane.locator("canvas").bounding_box(), pane.evaluate("(f) => f.pane.frame")
    page.touchscreen.tap(box["x"] + frame["left"] + 3.5 * frame["x"], box["y"] + frame["top"] + 4.5 * frame["y"])
    assert page.evaluate("window.sampeft.scene.cursor")[1:] == [4, 3]  # as by the mouse
    assert page.faults == []
    page.context.close()


def test_two_evaluations_side_by_side(page: Any, world: World) -> None:
    page.get_by_role("link", name="Compare").click()
    page.get_by_role("heading", name="Cases, worst first").wait_for()
    means = page.get_by_role("region", name="Means of classes").inner_text()
    wanted = Evaluation.read(world.service.evaluations["good"].folder).headline().mean
    assert f"{wanted:.3f}" in means
    rows = page.get_by_role("region", name="Cases").locator("tbody tr").all_inner_texts()
    values = [float(row.split()[1]) for row in rows]  # of `bad`, the first column
    assert len(rows) == 3
    assert values == sorted(values)
    # An oracle is chosen by hand, is said to be one, and does not count among the best.
    page.get_by_label(re.compile(r"told \(oracle\)")).check()
    table = page.get_by_role("region", name="Means of classes")
    until(lambda: table.locator("thead th").all_inner_texts() == ["Class", "bad", "good", "told (oracle)"])
    told = Evaluation.read(world.service.evaluations["told"].folder).headline().mean
    means = table.locator("tr.mean td")
    assert f"{told:.3f}" in means.nth(2).inner_text()
    assert "best" not in (means.nth(2).get_attribute("class") or "").split()
    page.get_by_role("button", name="Report", exact=True).click()
    frame = page.frame_locator("dialog iframe")
    frame.get_by_text("the report of good").wait_for()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="ipl").first.click()
    until(lambda: page.locator("#result h1").inner_text() == "ipl")


def test_the_3d_view_is_niivue_or_says_how_to_get_it(page: Any, world: World) -> None:
    show(page, "las")
    button = page.get_by_role("button", name="Show in 3-D")
    if button.count():
        button.click()
    solid = page.locator("figure.solid")
    there = json.loads(page.evaluate("fetch('/api/about').then((a) => a.text())"))["solid"]
    if not there:
        until(lambda: "run `make page` once" in solid.inner_text())
        return
    until(lambda: solid.evaluate("(f) => Boolean(f.niivue)"), 120)
    found = solid.evaluate("(f) => { f.niivue.drawScene(); return f.niivue.volumes.map((v) => v.dimsRAS.slice(1)); }")
    assert len(found) == 2
    page.faults[:] = [fault for fault in page.faults if "GPU stall" not in fault and "GL Driver" not in fault]


def test_without_the_3d_library_the_page_says_how_to_get_it(page: Any) -> None:
    page.route("**/api/about", lambda route: route.fulfill(json={**route.fetch().json(), "solid": False}))
    show(page, "las")
    page.get_by_role("button", name="Show in 3-D").click()
    until(lambda: "run `make page` once" in page.locator("figure.solid").inner_text())
    assert page.locator("figure.pane").count() == 4  # the planes are there all the same


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_screen(world: World, width: int) -> None:
    page = world.open(width, 844)
    show(page, "las")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto(f"{world.address}/#compare")
    page.get_by_role("heading", name="Cases, worst first").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.faults == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(world: World, scheme: str) -> None:
    page = world.open(color_scheme=scheme)
    show(page, "las")
    low = page.evaluate(CONTRASTS)
    assert low == []
    page.context.close()
