"""The page in a real browser: what the canvas shows of volumes lies where the labels are, moved by mouse, keys and finger."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricate import write_nifti
from sampeft.labels import LabelSet
from viewer.browser import BOXES_MM, boxes_in, extent, near, pixels, until
from viewer.world import IPL, LAS, SIZE, World, put, segment, show, voxel_of


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
