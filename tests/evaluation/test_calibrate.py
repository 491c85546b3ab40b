"""Reading a model's probabilities: a model whose calibration is known, the fitted temperature, the same class maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fabricate import write_png
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation, PreparedVolume
from sampeft.evaluation.calibrate import AS_TRAINED, Readings, temperature_on
from sampeft.evaluation.score import predictor_of, score_cases
from sampeft.io import read_volume
from sampeft.labels import LabelSet
from sampeft.metrics.scores import Evaluation
from sampeft.prediction.segmenter import Segmenter

LABELS = LabelSet(("background", "lesion"), (0, 1))
SIDE = 64
PREPARATION = Preparation(Intensity("window", 0, 255), SIDE)


class Known(torch.nn.Module):
    """Says "lesion" with the probability that the picture's grey level is, made too sure by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = images[:, 0].clamp(0.02, 0.98)
        return self.factor * torch.stack([torch.zeros_like(level), torch.log(level / (1 - level))], dim=1)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Pictures of 10 grey levels; of the pixels of a level as many are lesion as the level says."""
    generator = np.random.default_rng(0)
    cases = []
    for i in range(12):
        levels = np.repeat(np.repeat(generator.integers(5, 250, size=(8, 8)), 8, axis=0), 8, axis=1)
        truth = (generator.random(levels.shape) < levels / 255).astype(np.uint8)
        file = ImageFile(
            f"p{i}",
            write_png(tmp_path / "images" / f"p{i}.png", levels.astype(np.uint8)),
            write_png(tmp_path / "labels" / f"p{i}.png", truth),
        )
        cases.append(Case(file.id, (file,)))
    return Dataset("known", tmp_path, LABELS, tuple(cases))


def test_too_sure_by_a_factor_of_three_is_a_temperature_of_three(dataset: Dataset, tmp_path: Path) -> None:
    segmenter = Segmenter(Known(3.0), LABELS, PREPARATION, {})  # type: ignore[arg-type]
    fitted = temperature_on(segmenter, dataset, dataset.cases[:8])
    assert fitted == pytest.approx(3.0, rel=0.1)
    readings = Readings({AS_TRAINED: 1.0, "temperature": fitted})
    predictor = predictor_of(segmenter, readings.sink)
    evaluation, _ = score_cases(predictor, dataset, dataset.cases[8:], PREPARATION, {"model": "known"})
    found = readings.found
    assert found["temperature"].ece < 0.02 < 0.1 < found[AS_TRAINED].ece
    assert found["temperature"].top_n.sum() == 4 * SIDE * SIDE  # every pixel of so small a picture

    whole = Evaluation(evaluation.counts, LABELS, evaluation.meta, evaluation.measures, found)
    whole.write(tmp_path / "out")
    back = Evaluation.read(tmp_path / "out")
    assert {name: c.ece for name, c in back.calibration.items()} == {name: c.ece for name, c in found.items()}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["calibration"][AS_TRAINED]["ece"] == found[AS_TRAINED].ece
    assert summary["calibration"][AS_TRAINED]["brier"]["lesion"] == pytest.approx(found[AS_TRAINED].brier_K[1])


def test_reading_the_probabilities_does_not_change_the_class_map(dataset: Dataset) -> None:
    segmenter = Segmenter(Known(1.0), LABELS, PREPARATION, {})  # type: ignore[arg-type]
    prepared = PreparedVolume.of(read_volume(dataset.cases[0].files[0].image), PREPARATION)
    truth = np.zeros((1, SIDE, SIDE), dtype=np.int16)
    plain, read = (predictor_of(segmenter, sink)(prepared, truth) for sink in (None, Readings().sink))
    assert 0 < plain.mean() < 1
    assert np.array_equal(plain, read)
