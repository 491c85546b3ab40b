"""The page in a real browser: evaluations side by side, and that all of it can be read on any screen."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from sampeft.metrics.scores import Evaluation
from viewer.browser import until
from viewer.world import World, segment, show

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


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_nothing_is_wider_than_the_screen(world: World, width: int) -> None:
    page = world.open(width, 844)
    show(page, "las")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("link", name="Compare").click()
    page.get_by_role("heading", name="Cases, worst first").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.faults == []
    page.context.close()


LINES = """() => [...document.querySelectorAll("#cases .list .name, #result h1")].flatMap((element) => {
    const found = [];
    const walk = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
        const range = document.createRange();
        range.selectNodeContents(node);
        if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) found.push(node.data);
    }
    return found;
})"""
"""Parts of names that run over more than one line."""


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_every_case_is_reached_and_no_name_breaks_within_a_word(
    world: World, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = world.service.dataset.cases
    case = listed[0]
    names = [f"TCGA-BLCA_img{n:04d}_portal_venous_phase_reconstructed" for n in range(30)]
    many = [replace(case, id=name, files=[replace(case.files[0], id=name)]) for name in names]
    monkeypatch.setattr(world.service, "dataset", replace(world.service.dataset, cases=many))
    page = world.open(width, 844)
    last = page.get_by_role("button", name=names[-1])
    last.scroll_into_view_if_needed()
    where, place = last.bounding_box(), page.locator("#cases").bounding_box()
    assert place["y"] <= where["y"] < where["y"] + where["height"] <= place["y"] + place["height"]
    assert place["height"] > 250  # several of them are seen at once
    last.click()
    until(lambda: page.locator(".legend").count())
    segment(page)
    assert page.locator("#result h1").inner_text() == names[-1]
    assert page.evaluate(LINES) == []
    assert "left" not in page.locator("body").inner_text()  # nothing is told to be where it is not on a phone
    assert page.faults == []
    page.context.close()


@pytest.mark.parametrize(("width", "panes"), [(768, 4), (1024, 4), (1101, 4), (1280, 4), (390, 1)])
def test_pictures_are_wide_enough_to_be_looked_at(world: World, width: int, panes: int) -> None:
    """Three planes and the solid beside each other, on a phone one of them."""
    page = world.open(width, 1024)
    show(page, "las")
    boxes = [pane.bounding_box() for pane in page.locator("figure.pane").all()]
    assert len(boxes) == panes
    assert all(box["width"] >= 290 and box["height"] >= 290 for box in boxes)
    lists, result, stage = (page.locator(name).bounding_box() for name in ("#look .side >> nth=0", "#result", ".stage"))
    if width <= 1100:  # above lists and result
        assert stage["width"] == width
        assert min(lists["y"], result["y"]) >= stage["y"] + stage["height"]
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(world: World, scheme: str) -> None:
    page = world.open(color_scheme=scheme)
    show(page, "las")
    low = page.evaluate(CONTRASTS)
    assert low == []
    page.context.close()
