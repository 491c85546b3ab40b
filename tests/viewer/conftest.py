"""A run whose model sees brightness alone, a data set, and a client of a server over them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from fabricate import folder_dataset
from sampeft.backbones import RANDOM, load_backbone
from sampeft.data.cache import Preparation
from sampeft.data.intensity import Intensity
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.state import FORMAT
from sampeft.prediction.inference import Segmenter
from viewer.clients import PORT, Levels, Serve

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
        "format": FORMAT,
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
    (folder / "adapter.json").write_text(json.dumps(segmenter.description))
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
        monkeypatch.setattr("sampeft.viewer.trained.load", lambda folder, **_: loaded)
        service = Service(replace(Settings(runs=(run,), data=data, batch=1), **changes), above=tmp_path)
        with TestClient(make_app(service, PORT), base_url=f"http://127.0.0.1:{PORT}") as client:
            client.service = service
            yield client
        service.close()

    return begin
