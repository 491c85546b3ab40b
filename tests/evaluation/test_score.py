"""Scoring maps by one process and by several, and scoring a predictor on the files' own grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.intensity import preset
from sampeft.data.slice_cache import Preparation, PreparedVolume
from sampeft.errors import DataError, UsageError
from sampeft.evaluation.score import score_case, score_cases, score_maps, telling_slice
from sampeft.labels import LabelSet
from sampeft.metrics.protocols import PROTOCOLS

nibabel = pytest.importorskip("nibabel")
LABELS = LabelSet(("background", "liver", "spleen"), (0, 1, 4))
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    return path


@pytest.fixture
def maps(tmp_path: Path) -> Dataset:
    """Five cases whose predictions differ from the truth; one misses the spleen."""
    generator = np.random.default_rng(0)
    cases = []
    for i in range(5):
        truth = np.zeros((12, 10, 8), dtype=np.uint8)
        truth[2:6, 2:8, 1:6], truth[7:10, 3:6, 2:5] = 1, 4
        prediction = np.roll(truth, i % 3, axis=0)
        prediction[(generator.random(truth.shape) < 0.02) & (prediction == 0)] = 1
        if i == 3:
            prediction[prediction == 4] = 0
        name = f"case{i}.nii.gz"
        file = ImageFile(
            f"case{i}", write(tmp_path / "pred" / name, prediction), write(tmp_path / "truth" / name, truth)
        )
        cases.append(Case(file.id, (file,)))
    return Dataset("maps", tmp_path, LABELS, tuple(reversed(cases)))


def test_several_processes_write_the_same_bytes_as_one(maps: Dataset, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    for processes in (1, 2):
        evaluation = score_maps(
            maps, maps.cases, {"model": "m"}, lambda done, n: steps.append((done, n)), processes=processes
        )
        evaluation.write(tmp_path / str(processes))
        assert evaluation.cases == tuple(case.id for case in maps.cases)
    assert steps == 2 * [(i, 5) for i in range(1, 6)]
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["counts.csv", "scores.csv", "summary.json"]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_maps_are_stamped_and_measured_in_mm(maps: Dataset) -> None:
    evaluation = score_maps(maps, maps.cases, {"model": "m"})
    assert evaluation.meta["protocol"] == "default"
    assert evaluation.meta["nsd_tolerance_mm"] == {"liver": 5.0, "spleen": 3.0}
    found = dict(zip(evaluation.cases, evaluation.matrix("hd95_mm"), strict=True))
    assert found["case1"][2] == 1.0  # moved by a voxel of 1 mm
    assert found["case2"][2] == 2.0
    assert found["case3"][2] == np.inf
    assert evaluation.missed()["spleen"] == ["case3"]
    spleen = evaluation.per_class("hd95_mm")[1].interval
    assert (spleen.mean, spleen.n, spleen.n_infinite) == (np.inf, 5, 1)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_wrong_map_is_the_users_mistake_in_any_process(maps: Dataset, processes: int) -> None:
    write(maps.cases[2].files[0].image, np.full((12, 10, 8), 9, dtype=np.uint8))
    with pytest.raises(DataError, match=r"case2.nii.gz: .*9"):
        score_maps(maps, maps.cases, {}, processes=processes)


def test_wrong_usage_is_told_before_any_work(maps: Dataset) -> None:
    with pytest.raises(UsageError, match="--processes is 0"):
        score_maps(maps, maps.cases, {}, processes=0)
    with pytest.raises(UsageError, match="FLARE22's ids"):
        score_maps(maps, maps.cases, {}, protocol=PROTOCOLS["flare22"])


def test_a_predictor_scores_as_its_own_maps_do(maps: Dataset, tmp_path: Path) -> None:
    """The truth moved by a pixel within each slice, predicted slice by slice, then written and read again."""

    def predict(prepared: PreparedVolume, truth_SHW: Any) -> Any:
        return np.roll(truth_SHW, 1, axis=2).astype(np.uint8)

    scans = []
    for case in maps.cases:
        values = np.random.default_rng(1).normal(size=(12, 10, 8)).astype(np.float32) * 100
        image = write(tmp_path / "scans" / f"{case.id}.nii.gz", values)
        scans.append(Case(case.id, (ImageFile(case.id, image, case.files[0].label),)))
    dataset = Dataset("scans", tmp_path, LABELS, tuple(scans))
    preparation = Preparation(preset("ct-abdomen"), 32)
    evaluation, looks = score_cases(predict, dataset, scans, preparation, {}, save=tmp_path / "out")
    assert [look.case for look in looks] == list(evaluation.cases)
    for scan, look in zip(scans, looks, strict=True):
        telling = telling_slice(dataset, scan, preparation)  # nothing is predicted for it
        again = telling.look(np.roll(telling.truth_HW, 1, axis=1))
        # Slices 2..4 show both classes, in equal numbers: the first of them.
        assert (again.file, again.slice, again.slices) == (look.file, look.slice, look.slices) == (scan.id, 2, 8)
        for shown in ("image", "truth", "prediction"):
            np.testing.assert_array_equal(getattr(again, shown), getattr(look, shown))
    counts, _ = score_case(predict, dataset, scans[0], preparation)
    assert counts == evaluation.counts[scans[0].id]
    saved = [Case(c.id, (ImageFile(c.id, tmp_path / "out" / f"{c.id}.nii.gz", c.files[0].label),)) for c in scans]
    by_maps = score_maps(Dataset("saved", tmp_path, LABELS, tuple(saved)), saved, {})
    assert by_maps.counts == evaluation.counts
    assert by_maps.measures == evaluation.measures
