"""Several runs together: the mean of their probabilities over one loaded base; runs that do not go together are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fabricate import folder_dataset, write_png
from fabricate.backbones import tiny_sam
from sampeft.backbones import RANDOM, load_backbone
from sampeft.cli import main
from sampeft.data import open_dataset
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.state import save_trained
from sampeft.prediction.ensemble import mean_logits
from sampeft.prediction.loading import load

LABELS = LabelSet(("background", "a", "b"), (0, 1, 2))
SIDE = 64


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs of one seeded random base whose heads differ, one of them with a LoRA that does something."""
    with tiny_sam(SIDE, tmp_path / "cache"):
        made = []
        for number in range(2):
            torch.manual_seed(0)
            model = SemanticSam(load_backbone("tiny", RANDOM), LABELS, SIDE, "pixel")
            attached = attach(model, "lora", {"rank": 2})
            generator = torch.Generator().manual_seed(number + 1)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if parameter.requires_grad and (number or "lora" not in name):
                        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            save_trained(tmp_path / f"run{number}", model, {
                "backbone": "tiny", "weights_sha256": RANDOM, "seed": 0, "head": "pixel", "method": "lora",
                "options": attached.options, "label_map": LABELS.to_json(), "symmetries": 8,
                "preparation": Preparation(Intensity("window", 0, 255), SIDE).to_json(),
            })  # fmt: skip
            made.append(tmp_path / f"run{number}")
        yield made


def test_the_mean_is_of_probabilities_by_hand() -> None:
    first, second = (torch.tensor(p).log().reshape(1, 2, 1, 1) for p in ([0.9, 0.1], [0.2, 0.8]))
    mean = mean_logits([first, second], 1).softmax(dim=1).flatten()
    assert torch.allclose(mean, torch.tensor([0.55, 0.45]))


def test_one_run_twice_is_that_run_and_two_are_their_mean(runs: list[Path]) -> None:
    image = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        alone = [load(run).model(image).softmax(dim=1) for run in runs]
        twice = load([runs[0], runs[0]]).model(image).softmax(dim=1)
        both = load(runs).model(image).softmax(dim=1)
    assert torch.allclose(twice, alone[0], atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    assert torch.allclose(both, (alone[0] + alone[1]) / 2, atol=1e-5)


def test_the_base_is_in_memory_once(runs: list[Path]) -> None:
    first, second = load(runs).model.models
    assert first.sam is second.sam


def test_runs_that_were_prepared_otherwise_are_refused_by_name(runs: list[Path]) -> None:
    path = runs[1] / "adapter.json"
    content = json.loads(path.read_text())
    content["preparation"]["intensity"]["high"] = 100
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"run0 and .*run1 differ in preparation"):
        load(runs)


def test_the_commands_take_several_runs(runs: list[Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_png(tmp_path / "picture.png", rng.integers(0, 255, (40, 50), dtype=np.uint8))
    words = [*map(str, runs), str(tmp_path / "picture.png"), "--engine", "torch", "--views", "8"]
    assert main(["predict", *words, "--out", str(tmp_path / "maps")]) == 0
    record = json.loads((tmp_path / "maps" / "predictions.json").read_text())
    assert len(record["settings"]["adapter_sha256"]) == 2
    assert main(["predict", *map(str, runs), "--out", str(tmp_path / "none")]) == 2


def test_scored_cases_that_any_run_was_trained_on_are_told(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of four cases the first run saw P01 and P02, the second P02 and P04; a P03 of other data is another case."""
    data = folder_dataset(tmp_path / "data", described={"labels": {"background": 0, "a": 1, "b": 2}})
    name = open_dataset(data).name
    for run, seen in zip(runs, (["P01", "P02"], ["P02", "P04"]), strict=True):
        (run / "config.json").write_text(json.dumps({"training_cases": seen, "description": {"data": {"name": name}}}))
        (run / "metrics.jsonl").write_text("")
    words = ["--data", str(data), "--split", "all", "--out", str(tmp_path / "scores")]
    assert main(["evaluate", *map(str, runs), *words]) == 0
    said = "3 of the 4 scored cases were trained on"
    assert f"{said}; what a model has seen says nothing of new images (P01, P02, P04)" in capsys.readouterr().err
    assert said in (tmp_path / "scores" / "report.html").read_text()
    (runs[0] / "config.json").write_text(
        json.dumps({"training_cases": ["P03"], "description": {"data": {"name": "x"}}})
    )
    assert main(["evaluate", str(runs[0]), *words, "--force"]) == 0
    assert "trained on" not in capsys.readouterr().err


def test_random_bases_of_other_seeds_are_not_taken_for_one(runs: list[Path]) -> None:
    path = runs[1] / "adapter.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 1}))
    with pytest.raises(UsageError, match=r"run0 and .*run1 differ in seed"):
        load(runs)
