"""The page in a real browser: what users bring is segmented, shown, corrected, kept and downloaded; what cannot be is told."""

from __future__ import annotations

import gzip
import re
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fabricate import write_nifti, write_png
from sampeft.labels import LabelSet
from viewer.browser import extent, near, pixels, until
from viewer.world import LAS, SIZE, World, placed, put, segment, show, volume_of, voxel_of


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
    # It survives a reload of the page, is shown again, and is removed when that is asked for.
    page.reload()
    page.get_by_role("link", name="Result").wait_for()
    assert page.locator("#predictions button", has_text="seen").first.get_attribute("aria-current") == "true"
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
    before, ml = near(pixels(pane), classes.colors[2]), volume_of(page, "c2")
    page.get_by_role("button", name="Accept").click()
    until(lambda: page.get_by_role("button", name="Undo (1)").count())
    # 13 voxels of 2 x 1.6 x 4 mm
    assert page.locator(".correct").get_by_role("status").inner_text() == "Changed. c2: +0.17 ml."
    assert volume_of(page, "c2") == pytest.approx(ml + 0.1664, abs=0.011)
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
    assert ((saved == 2) & (predicted != 2)).sum() == 13
    assert "truth" in page.locator("#cases").inner_text()
    assert page.locator("details.scores").count() == 1  # it is scored against the truth of the data set


def test_all_are_segmented_and_the_least_sure_come_first(page: Any, world: World) -> None:
    names = page.locator("#cases .list button .name")
    assert [name.strip() for name in names.all_inner_texts()] == ["ipl", "las"]
    page.get_by_role("button", name="Segment all that are listed").click()
    until(lambda: sum(text.startswith("0.") for text in page.locator("#cases .list .badge").all_inner_texts()) == 2)
    bodies = page.evaluate("window.sampeft.predictions.bodies.map((b) => [b.image, b.result.confidence])")
    surely = dict(bodies)
    assert surely["las"] < surely["ipl"]  # which is brighter
    page.get_by_label("Search cases").fill("ip")
    page.get_by_label("Search cases").fill("")
    page.get_by_label("Order").select_option("least confident first")
    assert [name.strip() for name in names.all_inner_texts()] == ["las", "ipl"]
    # What is not segmented comes last, however unsure it was.
    page.evaluate("window.sampeft.predictions.end(window.sampeft.predictions.bodies.find((b) => b.image === 'las'))")
    until(lambda: [name.strip() for name in names.all_inner_texts()] == ["ipl", "las"])


def test_a_reload_brings_back_the_case_its_segmentation_and_its_corrections(page: Any, world: World) -> None:
    show(page, "las")
    segment(page)
    id = page.evaluate("window.sampeft.body.id")
    found = world.service.prediction(id)
    assert found.map.draw(3, np.ones(found.map.size(), bool), 2, True)
    page.reload()
    page.get_by_role("link", name="Result").wait_for()
    assert page.locator("#result h1").inner_text() == "las"
    shown = page.locator("#cases .list li", has=page.locator("[aria-current]"))
    assert [text.strip() for text in shown.locator("span").all_inner_texts()][:2] == ["las", f"{found.confidence:.2f}"]
    text = page.locator("#result").inner_text()
    assert f"Mean probability of the classes shown: {found.confidence:.2f}, no measure of error." in text
    assert not re.search(r"\d+ ?% sure|sure \d", page.locator("body").inner_text())
    # 520 pixels of 2 x 1.6 x 4 mm are 6.66 ml, and what was found in other slices.
    assert volume_of(page, "c2") == pytest.approx(found.millilitres()["c2"], abs=0.006)
    assert volume_of(page, "c2") > 6.65
    assert page.evaluate("window.sampeft.body.id") == id


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
