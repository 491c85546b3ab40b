"""A run whose model sees brightness alone, a data set, and a client of a server over them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save

from fabricate import folder_dataset
from sampeft.backbones import RANDOM, load_backbone
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation
from sampeft.labels import LabelSet
from sampeft.metrics.counts import count
from sampeft.metrics.scores import Evaluation
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.run_files import WEIGHTS, write_run
from sampeft.prediction.segmenter import Segmenter
from sampeft.viewer.service import Service
from sampeft.viewer.settings import Settings
from viewer.browser import boxes_in, chromium, served, write_volume_dataset
from viewer.clients import PORT, Levels, Serve
from viewer.world import IPL, LAS, SIZE, Slow, World

pytest.importorskip("fastapi")
pytest.importorskip("httpx")


@pytest.fixture(scope="session")
def classes() -> LabelSet:
    return LabelSet(("background", "c1", "c2"), (0, 1, 2))


@pytest.fixture(scope="session")
def segmenter(classes: LabelSet) -> Segmenter:
    """Sees the brightness alone, which costs no time."""
    preparation = Preparation(Intensity("window", 0, 255), 56)
    description = {
        "backbone": "lite-medsam",
        "weights_sha256": RANDOM,
        "seed": 3,
        "method": "lora",
        "options": {"rank": 2},
        "label_map": classes.to_json(),
        "preparation": preparation.to_json(),
    }
    return Segmenter(cast(SemanticSam, Levels()), classes, preparation, description)


@pytest.fixture(scope="session")
def sam(segmenter: Segmenter) -> Segmenter:
    """A LiteMedSAM of random weights, for what needs prompts."""
    torch.manual_seed(3)
    model = SemanticSam(load_backbone("lite-medsam", RANDOM), segmenter.labels, 56).eval()
    attach(model, "lora", {"rank": 2})
    return replace(segmenter, source=model)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, segmenter: Segmenter) -> Path:
    """What the server looks at of a trained run before it is used."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    folder.mkdir()
    write_run(folder, WEIGHTS, save({"head.tokens": torch.zeros(3, 256)}), segmenter.description)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_dataset(tmp_path_factory.mktemp("sets") / "data")


@pytest.fixture
def serve(run: Path, data: Path, tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`with serve(max_waiting=1) as client:` a client of a server with these settings; its service is `client.service`.

    loaded: what loading the run gives instead of `segmenter`.
    """
    from fastapi.testclient import TestClient

    from sampeft.viewer.app import make_app
    from sampeft.viewer.service import Service
    from sampeft.viewer.settings import Settings

    @contextmanager
    def begin(loaded: Segmenter = segmenter, **changes: Any) -> Iterator[TestClient]:
        monkeypatch.setattr("sampeft.viewer.runs.load", lambda folder, **_: loaded)
        service = Service(replace(Settings(runs=(run,), data=data, batch=1), **changes), above=tmp_path)
        headers = {"authorization": f"Bearer {service.settings.token}"}
        with TestClient(make_app(service, PORT), base_url=f"http://127.0.0.1:{PORT}", headers=headers) as client:
            client.service = service
            yield client
        service.close()

    return begin


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, run: Path, segmenter: Segmenter, classes: LabelSet
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(5)
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
        patch.setattr("sampeft.viewer.runs.load", lambda folder, **_: loaded)
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
