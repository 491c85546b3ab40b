"""Where the truth lies: mean positions by hand, in files of evaluations, and truths of equal counts told apart by `compare`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabricate import write_nifti, write_png
from sampeft.cli import main
from sampeft.labels import LabelSet
from sampeft.metrics.comparable import comparable
from sampeft.metrics.places import PLACES
from sampeft.metrics.pooling import mean_over_seeds
from sampeft.metrics.protocols import PROTOCOLS
from sampeft.metrics.scores import Evaluation
from sampeft.volume import IGNORE

LABELS = LabelSet(("background", "organ", "absent"), (0, 1, 2))
# x grows against i by 2 mm, y with j by 3 mm, z with k by 5 mm.
AFFINE = np.array([[-2.0, 0, 0, 100], [0, 3, 0, -10], [0, 0, 5, 7], [0, 0, 0, 1]])


def bar(shape: tuple[int, ...] = (12, 10, 6)) -> np.ndarray:
    """Two voxels at (3, 4, 2) and (5, 4, 2): their mean is (4, 4, 2)."""
    array = np.zeros(shape, dtype=np.int16)
    array[3, 4, 2] = array[5, 4, 2] = 1
    return array


@pytest.mark.parametrize("protocol", ["default", "land-cover"])
def test_mean_position_in_mm_by_hand(protocol: str) -> None:
    truth = bar()
    truth[0, 0, 0] = IGNORE
    prediction = np.zeros_like(truth)
    prediction[11, 9, 5] = 1  # where the prediction lies does not matter
    found = PROTOCOLS[protocol].score(prediction, truth, (2, 3, 5), LABELS, affine=AFFINE).measures
    assert [found[name][1] for name in PLACES["mm"]] == [100 - 2 * 4, -10 + 3 * 4, 7 + 5 * 2]
    assert all(np.isnan(found[name][[0, 2]]).all() for name in PLACES["mm"])  # background, and what no pixel has
    assert not set(PLACES["mm"]) & set(PROTOCOLS[protocol].score(prediction, truth, (2, 3, 5), LABELS).measures.values)


def test_mean_position_in_pixels_of_all_files_of_a_case() -> None:
    rules, pictures = PROTOCOLS["default"], np.zeros((2, 8, 9, 1), dtype=np.int16)
    pictures[0, 2, 3] = 1
    pictures[1, 5, 4:6] = 1
    one, other = (rules.tally(picture, picture, (1, 1, 1), LABELS, "px") for picture in pictures)
    found = rules.finish(one + other, LABELS).measures
    assert [found[name][1] for name in PLACES["px"]] == [(2 + 5 + 5) / 3, (3 + 4 + 5) / 3, 0]


def test_labels_without_a_background_have_places_of_all_classes() -> None:
    cover = LabelSet(("water", "field"), (1, 2))
    truth = np.repeat([[[0], [1]]], 3, axis=0)
    found = PROTOCOLS["land-cover"].score(truth, truth, (1, 1, 1), cover, "px").measures
    assert found["truth_column_px"].tolist() == [0, 1]
    assert found["truth_row_px"].tolist() == [1, 1]


def evaluated(truth: np.ndarray, affine: np.ndarray = AFFINE) -> Evaluation:
    score = PROTOCOLS["default"].score(np.zeros_like(truth), truth, (2, 3, 5), LABELS, affine=affine)
    return Evaluation.of({"a": score}, LABELS, {"model": "m"})


def test_places_are_kept_beside_the_counts_and_older_evaluations_have_none(tmp_path: Path) -> None:
    evaluation = evaluated(bar())
    evaluation.write(tmp_path)
    assert Evaluation.read(tmp_path) == evaluation
    lines = [line.split(",") for line in (tmp_path / "counts.csv").read_text().splitlines()]
    assert lines[0] == ["case", "class", "tp", "fp", "fn", *PLACES["mm"]]
    assert lines[2] == ["a", "organ", "0", "0", "2", "92.0", "2.0", "17.0"]
    assert "truth_x_mm" not in (tmp_path / "scores.csv").read_text()
    (tmp_path / "counts.csv").write_text("".join(f"{','.join(line[:5])}\n" for line in lines))
    older = Evaluation.read(tmp_path)
    assert older.counts == evaluation.counts
    assert comparable({"old": older, "new": evaluated(bar()[::-1])})[0] == "dsc"
    mean = mean_over_seeds([evaluation, older])
    assert "truth_x_mm" not in mean.measures["a"].values
    same = mean_over_seeds([evaluation, evaluation])
    assert [same.measures["a"][name][1] for name in PLACES["mm"]] == [92, 2, 17]


def scored(root: Path, name: str) -> str:
    """The folder of an evaluation of ROOT/pred against ROOT/NAME."""
    (root / "labels.json").write_text('{"background": 0, "organ": 1}')
    folders = ["--pred", str(root / "pred"), "--truth", str(root / name), "--labels", str(root / "labels.json")]
    out = root / f"eval-{name}"
    assert main(["evaluate", *folders, "--out", str(out)]) == 0
    return str(out)


def test_mirrored_and_shifted_truths_are_refused_and_turned_files_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = bar()
    turned = AFFINE @ np.array([[-1.0, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    moved = np.roll(truth, 1, axis=2)
    for name, array, affine in (
        ("pred", truth, AFFINE),
        ("truth", truth, AFFINE),
        ("turned", truth[::-1], turned),
        ("mirrored", truth[::-1], AFFINE),
        ("moved", moved, AFFINE),
    ):
        write_nifti(tmp_path / name / "a.nii.gz", array.astype(np.uint8), affine)
    first = scored(tmp_path, "truth")
    to = ["--out", str(tmp_path / "out")]
    assert main(["compare", first, scored(tmp_path, "turned"), *to]) == 0
    capsys.readouterr()
    for name, place in (("mirrored", "x 86, y 2, z 17 mm"), ("moved", "x 92, y 2, z 22 mm")):
        other = scored(tmp_path, name)
        capsys.readouterr()
        assert main(["compare", first, other, *to]) == 2
        said = capsys.readouterr().err
        assert (
            f"case a: the truth's 2 pixels of 'organ' lie at x 92, y 2, z 17 mm in {first} and at {place} in {other}"
            in said
        )


def test_mirrored_pictures_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = bar((12, 10, 3))[:, :, 2].astype(np.uint8)
    for name, array in (("pred", picture), ("truth", picture), ("mirrored", picture[:, ::-1])):
        write_png(tmp_path / name / "a.png", array)
    folders = [scored(tmp_path, name) for name in ("truth", "mirrored")]
    assert main(["compare", *folders, "--out", str(tmp_path / "out")]) == 2
    assert "lie at row 4, column 4, slice 0 px in" in capsys.readouterr().err
