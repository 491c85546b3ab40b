"""One of each kind that can be added: a registry's line is all it takes to be trained, evaluated, compared and listed.

Nothing but the registries is touched here; what stands above each line is the file that an addition would bring.
"""

from __future__ import annotations

import csv
import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from fabricate import discs, looks_like, write_png
from fabricate.backbones import architectures
from fabricate.methods import GainOptions, gain
from sampeft import cli
from sampeft.backbones import BACKBONES
from sampeft.data import DATASETS
from sampeft.data.case import Case, Dataset
from sampeft.data.pairing import pair_files
from sampeft.denoise import DENOISERS
from sampeft.heads import HEADS, HeadKind, Setting
from sampeft.heads.given import Given, Output
from sampeft.io import read_label_ids
from sampeft.labels import LabelSet
from sampeft.losses import LOSSES, LossTerms, cross_entropy
from sampeft.metrics import METRICS, Metric
from sampeft.metrics.counts import Counts
from sampeft.metrics.scores import Evaluation
from sampeft.peft import METHODS, Method
from sampeft.refine import REFINERS, Refiner

LABELS = LabelSet(("background", "c1", "c2"), (0, 1, 2))


@dataclass(frozen=True)
class FlatOptions:
    """bias: whether there is one."""

    bias: bool = True


class FlatHead(nn.Module):
    reads_encoder_maps, tells_presence, tokens = True, False, None

    def __init__(self, setting: Setting, options: FlatOptions) -> None:
        super().__init__()
        self.layer = nn.Conv2d(setting.maps[-1].width, setting.classes, 1, bias=options.bias)

    def on_whole(self, given: Given) -> Given:
        return given

    def standardise(self, givens: Any) -> None:
        pass

    def forward(self, given: Given) -> Output:
        return Output(self.layer(given.maps[-1]))

    def is_untrained(self) -> bool:
        return False


def flat(setting: Setting, options: FlatOptions) -> FlatHead:
    """One linear layer on the encoder's last map."""
    return FlatHead(setting, options)


def worst_class(sums_3K: torch.Tensor) -> torch.Tensor:
    """(K,) twice the same: the smallest share of a class's pixels that are right."""
    found_K: torch.Tensor = (sums_3K[0] + 1) / (sums_3K[2] + 1)
    return found_K.min().expand_as(found_K)


class ScansAndMasks:
    """Pictures in scans/, masks in masks/, half of the cases for testing."""

    LOOKS_FOR = "scans/ beside masks/"

    def matches(self, root: Path) -> bool:
        return (root / "scans").is_dir() and (root / "masks").is_dir()

    def read(self, root: Path) -> Dataset:
        cases = tuple(Case(file.id, (file,)) for file in pair_files(root / "scans", root / "masks"))
        names = tuple(case.id for case in cases)
        half = len(names) // 2
        return Dataset(root.name, root, LABELS, cases, {"train": names[:half], "test": names[half:]})


def false_discovery(counts: Counts) -> npt.NDArray[np.float64]:
    """Share of the predicted pixels that are wrong, fp / (tp + fp); 1 for a class that is missed."""
    absent = counts.tp + counts.fp + counts.fn == 0
    return np.where(absent, np.nan, 1 - counts.tp / np.maximum(counts.prediction, 1))


@dataclass(frozen=True)
class Always(Refiner):
    """channel: what every pixel becomes."""

    name: ClassVar[str] = "always"
    about: ClassVar[str] = "gives every pixel to one class"
    limits: ClassVar[dict[str, tuple[float, float]]] = {"channel": (0, 2)}
    channel: int = 1

    def refine_volume(self, channels_SHW: Any, spacing_mm: Any, labels: LabelSet) -> Any:
        return np.full_like(channels_SHW, self.channel)


@dataclass(frozen=True)
class Dim:
    """Every level times a factor.

    factor: 0 to 1.
    """

    factor: float = 0.5
    seen: ClassVar[list[float]] = []

    def __call__(self, levels_CHW: torch.Tensor) -> torch.Tensor:
        self.seen.append(self.factor)
        return levels_CHW * self.factor


@pytest.fixture(scope="module", autouse=True)
def added(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The lines, one for each kind."""
    tiny = replace(architectures()["sam2-hiera-t"], name="made-up-sam", native_side=64, side=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMPEFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(BACKBONES, "made-up-sam", tiny)
        patch.setitem(METHODS, "gain", Method("Gain on MLPs", GainOptions, gain))
        patch.setitem(HEADS, "flat", HeadKind(FlatOptions, flat))
        patch.setitem(LOSSES, "ce+worst", LossTerms(cross_entropy, worst_class))
        patch.setitem(DATASETS, "scans", ScansAndMasks())
        patch.setitem(
            METRICS, "fdr", Metric("false discovery", "", "lower", (0.0, 1.0), false_discovery, beside_dsc=True)
        )
        patch.setitem(REFINERS, "always", Always)
        patch.setitem(DENOISERS, "dim", Dim)
        yield


@pytest.fixture(scope="module")
def data(added: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for i in range(4):
        label = discs((40, 48), 3, i)
        write_png(root / f"scans/{i}.png", looks_like(label, 3, i))
        write_png(root / f"masks/{i}.png", label)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by what was added, each by its name and with an option of its own."""
    out = tmp_path_factory.mktemp("runs") / "run"
    chosen = {
        "data": data, "out": out, "backbone": "made-up-sam", "weights": "random", "method": "gain", "options.start": 0.9,
        "head": "flat", "head_options.bias": "false", "layout": "scans", "denoise": "dim", "denoise_options.factor": 0.8,
        "training.loss": "ce+worst", "training.steps": 1, "training.batch": 1, "held_out": 0, "plan": "false",
    }  # fmt: skip
    assert cli.run("train", [part for name, value in chosen.items() for part in (f"--{name}", str(value))]) == 0
    return out


@pytest.fixture(scope="module")
def evaluated(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """As trained, and refined; the layout is recognised."""
    folder = tmp_path_factory.mktemp("evaluations")
    refined = ["--refine", "always", "--refine_options.channel", "2"]
    for name, more in (("rough", []), ("refined", refined)):
        assert cli.run("evaluate", [str(run), "--data", str(data), "--out", str(folder / name), *more]) == 0
    return {name: folder / name for name in ("rough", "refined")}


def test_a_run_records_what_it_was_trained_with_and_by_which_options(run: Path) -> None:
    config = json.loads(next(run.rglob("adapter.json")).read_text())
    assert config["backbone"] == "made-up-sam"
    assert (config["method"], config["options"]["start"]) == ("gain", 0.9)
    assert (config["head"], config["head_options"]["bias"]) == ("flat", False)
    assert config["preparation"]["denoise"] == {"name": "dim", "options": {"factor": 0.8}}
    assert set(Dim.seen) == {0.8}
    trained = json.loads((run / "config.json").read_text())
    assert trained["training"]["loss"] == "ce+worst"


def test_a_metric_of_counts_is_scored_written_summarised_and_read_again(evaluated: dict[str, Path]) -> None:
    evaluation = Evaluation.read(evaluated["refined"])
    np.testing.assert_allclose(evaluation.matrix("fdr"), 1 - evaluation.matrix("precision"), equal_nan=True)
    assert "fdr" in evaluation.summary()["headline"]
    rows = list(csv.DictReader((evaluated["refined"] / "scores.csv").open(encoding="utf-8", newline="")))
    assert {row["metric"] for row in rows} == set(evaluation.metrics)


def test_a_refiner_makes_the_maps(evaluated: dict[str, Path]) -> None:
    """Every pixel is of class 2 then: sensitivity is 1, and precision the class's share of the picture."""
    evaluation = Evaluation.read(evaluated["refined"])
    for counts in evaluation.counts.values():
        np.testing.assert_array_equal(counts.prediction, [0, 0, counts.truth.sum()])


def test_predictions_are_refined_alike(run: Path, data: Path, tmp_path: Path) -> None:
    chosen = ["--out", str(tmp_path), "--refine", "always", "--refine_options.channel", "1"]
    assert cli.run("predict", [str(run), str(data / "scans/0.png"), *chosen]) == 0
    assert set(np.unique(read_label_ids(next(tmp_path.rglob("*.png"))).array)) == {1}


def test_a_comparison_and_its_page_name_them(
    evaluated: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--metrics", "fdr", "--names", "rough,refined", "--out", str(tmp_path)]
    assert cli.run("compare", [*map(str, evaluated.values()), *chosen]) == 0
    assert "false discovery" in capsys.readouterr().out
    page = (evaluated["rough"] / "report.html").read_text(encoding="utf-8")
    assert "Gain on MLPs" in page
    assert "false discovery" in page


def test_info_params_and_fetch_list_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run("info", ["--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["backbones"]["made-up-sam"]["side"] == 64
    assert info["methods"]["gain"].startswith("A factor on every MLP")
    assert info["heads"]["flat"] == "One linear layer on the encoder's last map [bias]"
    assert "ce+worst" in info["losses"]
    assert info["layouts"]["scans"] == "Pictures in scans/, masks in masks/, half of the cases for testing"
    assert (
        info["metrics"]["fdr"]
        == "Share of the predicted pixels that are wrong, fp / (tp + fp); 1 for a class that is missed"
    )
    assert info["refiners"]["always"] == "gives every pixel to one class [channel]"
    assert info["denoisers"]["dim"] == "Every level times a factor [factor]"
    assert cli.run("params", ["--backbone", "made-up-sam", "--method", "gain", "--json"]) == 0
    assert "gain" in capsys.readouterr().out
    assert cli.run("fetch", ["--list"]) == 0
    assert "`made-up-sam`" in capsys.readouterr().out


def test_the_table_of_where_to_add_what_names_files_and_registries_that_are_there() -> None:
    page = (Path(__file__).parents[1] / "docs/architecture.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in page.partition("## Where to add what")[2].splitlines() if row.startswith("| ")]
    lines = [re.match(r" `([A-Z]+)` in `(\S+)\.py`", row[3]) for row in rows[1:]]
    assert len(lines) == 10
    for line in lines:
        assert line
        module = importlib.import_module(f"sampeft.{line[2].replace('/', '.').removesuffix('.__init__')}")
        assert len(getattr(module, line[1])) > 1
