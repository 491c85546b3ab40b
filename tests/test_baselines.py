"""Baselines that cost seconds: the majority is the best that one class a picture can do, ridge tells colours apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fabricate import write_png
from sampeft.baselines import BASELINES
from sampeft.data import open_dataset
from sampeft.data.case import Dataset
from sampeft.data.intensity import preset
from sampeft.data.slice_cache import Preparation
from sampeft.evaluation.score import score_cases
from sampeft.metrics.protocols import PROTOCOLS
from sampeft.report.tables import land_cover_table, table_md

PREPARATION = Preparation(preset("8bit"), 32)


def land(root: Path) -> Dataset:
    """Twelve pictures, each of one kind of land but for a fifth of its rows, of another; kinds differ in brightness."""
    rng = np.random.default_rng(0)
    for number in range(12):
        kind = number % 2
        labels = np.full((20, 20), kind, dtype=np.uint8)
        labels[:4] = 1 - kind
        write_png(
            root / "images" / f"{number:02}.png", (60 + 100 * kind + rng.integers(0, 20, (20, 20))).astype(np.uint8)
        )
        write_png(root / "labels" / f"{number:02}.png", labels)
    (root / "labels.json").write_text('{"labels": {"field": 0, "water": 1}}')
    return open_dataset(root)


def test_majority_reaches_its_share_and_is_an_oracle(tmp_path: Path) -> None:
    dataset = land(tmp_path)
    baseline = BASELINES["majority"]
    predict = baseline.fit(dataset, (), PREPARATION)
    evaluation, _ = score_cases(predict, dataset, dataset.cases, PREPARATION, {}, protocol=PROTOCOLS["land-cover"])
    assert baseline.is_oracle
    assert evaluation.pooled().tp.sum() == 12 * 320
    # Of each picture the larger class has DSC 2 * 320 / (400 + 320), the smaller one 0.
    assert np.isclose(evaluation.headline().mean, 640 / 720 / 2)


def test_ridge_learns_colours_from_the_training_cases_alone(tmp_path: Path) -> None:
    dataset = land(tmp_path)
    train, test = dataset.cases[:8], dataset.cases[8:]
    predict = BASELINES["ridge"].fit(dataset, train, PREPARATION)
    evaluation, _ = score_cases(predict, dataset, test, PREPARATION, {}, protocol=PROTOCOLS["land-cover"])
    assert evaluation.pooled().tp.sum() == 4 * 320
    assert not BASELINES["ridge"].is_oracle


def test_land_cover_tables_begin_with_all_pixels(tmp_path: Path) -> None:
    dataset = land(tmp_path)
    predict = BASELINES["majority"].fit(dataset, (), PREPARATION)
    evaluation, _ = score_cases(predict, dataset, dataset.cases, PREPARATION, {}, protocol=PROTOCOLS["land-cover"])
    text = table_md({"majority": evaluation})
    assert text.startswith("| method | F1 (all pixels) | mIoU | OA | kappa |")
    # 80 of 100 pixels are right, of both classes alike: F1 and OA 0.8, IoU 0.8 / 1.2, kappa 0.6.
    assert "| majority | 0.800 | 0.667 | 0.800 | 0.600 |" in land_cover_table([("majority", evaluation)])
