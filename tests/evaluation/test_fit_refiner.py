"""Fitting refiners: the known best of a synthetic map is found, ties keep the smaller effect, nothing is made worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch

from fabricate import write_png
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation
from sampeft.errors import DataError
from sampeft.evaluation import fit_refiner as fitting
from sampeft.evaluation.fit_refiner import Rough, fit_refiner
from sampeft.evaluation.score import predictor_of, score_cases
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.prediction.segmenter import Segmenter
from sampeft.refine import REFINERS, Refiner

LABELS = LabelSet(("background", "target"), (0, 1))


class Bright(torch.nn.Module):
    """A "trained model" to which all bright pixels are the target; it counts the slices that it sees."""

    labels = LABELS

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.slices = 0

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        self.slices += len(images_B3HW)
        level_B1HW = images_B3HW[:, :1]
        return 20 * torch.cat([0.5 - level_B1HW, level_B1HW - 0.5], dim=1) + self.nothing


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Dataset, list[Case]]:
    """Two true targets, one of them with a dark hole, and bright specks of 15 pixels that are none.

    So the best components are: all that are above 20 pixels and below 100, with holes filled.
    """
    cases = []
    for n in range(2):
        truth = np.zeros((64, 64), np.uint8)
        truth[10 + n : 24 + n, 8:22] = 1  # 196 pixels
        truth[40:46, 40 + n : 50 + n] = 1  # 60 pixels
        image = 220 * truth
        image[14 + n : 17 + n, 12:15] = 0
        image[2:5, 50:55] = image[58:61, 5:10] = 220
        name = f"case_{n}"
        label = write_png(tmp_path / "labels" / f"{name}.png", truth)
        cases.append(Case(name, (ImageFile(name, write_png(tmp_path / "images" / f"{name}.png", image), label),)))
    return Dataset("pictures", tmp_path, LABELS, tuple(cases)), cases


def rough_of(dataset: Dataset, cases: list[Case]) -> tuple[Rough, Bright]:
    model = Bright().eval()
    preparation = Preparation(Intensity("window", 0, 255, "none"), 64)
    segmenter = Segmenter(cast(SemanticSam, model), LABELS, preparation, {"backbone": "bright"})
    return Rough.of(segmenter, dataset, cases), model


def test_the_known_best_is_found_with_one_look_of_the_network(pictures: tuple[Dataset, list[Case]]) -> None:
    rough, model = rough_of(*pictures)
    assert model.slices == 2
    ordinary, _ = score_cases(predictor_of(rough.segmenter), *pictures, rough.segmenter.preparation, {})
    before = rough.dsc(None)
    assert before == ordinary.headline().mean < 0.95
    model.slices = 0
    shown: list[tuple[int, int]] = []
    fitted = fit_refiner("components", rough, lambda done, total: shown.append((done, total)))
    assert model.slices == 0
    assert fitted.refiner == REFINERS["components"](keep="all", least_size=20.0, fill_holes=True)  # type: ignore[call-arg]
    assert (fitted.before, fitted.after) == (before, 1.0)
    assert shown == [(n, 24) for n in range(1, 25)]
    assert fitted.tried[0] == ({"fill_holes": False, "keep": "all", "least_size": 0.0}, before)
    assert rough.dsc(fitted.refiner) == 1.0


def test_nothing_is_kept_where_nothing_helps(tmp_path: Path, pictures: tuple[Dataset, list[Case]]) -> None:
    dataset, cases = pictures
    for case in cases:
        from PIL import Image

        file = case.files[0]
        assert file.label
        write_png(file.image, 220 * np.array(Image.open(file.label)))
    fitted = fit_refiner("components", rough_of(dataset, cases)[0])
    assert fitted.refiner is None
    assert (fitted.before, fitted.after) == (1.0, 1.0)


# --- the search, on scores that are made up ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Knobs(Refiner):
    """27 combinations: more than are all tried. The default lies in the middle of each grid."""

    name: ClassVar[str] = "knobs"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"a": (0, 1, 2), "b": (0, 1, 2), "c": (0, 1, 2)}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"a": (0, 2), "b": (0, 2), "c": (0, 2)}

    a: int = 1
    b: int = 1
    c: int = 1


@dataclass(frozen=True)
class Two(Knobs):
    """Nine combinations, all of which are tried."""

    name: ClassVar[str] = "two"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"a": (0, 1, 2), "b": (0, 1, 2)}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Knobs, Two):
        monkeypatch.setitem(fitting.REFINERS, kind.name, kind)


def scores(before: float, of: Callable[[Any], float]) -> Rough:
    return cast(
        Rough,
        SimpleNamespace(
            dsc=lambda r: before if r is None else of(r), maps={}, dataset=SimpleNamespace(root=Path("set"))
        ),
    )


def test_one_parameter_after_the_other_finds_what_is_best_of_each() -> None:
    fitted = fit_refiner("knobs", scores(0.1, lambda r: 0.5 - abs(r.a - 2) / 9 - abs(r.b - 0) / 9 - abs(r.c - 1) / 9))
    assert fitted.refiner == Knobs(2, 0, 1)
    assert [options for options, _ in fitted.tried] == [{name: n} for name in "abc" for n in range(3)]


@pytest.mark.parametrize("name", ["knobs", "two"])
def test_of_equal_ones_the_smallest_effect_is_taken(name: str) -> None:
    """What makes no difference goes to the first of its grid, though another is the default."""
    fitted = fit_refiner(name, scores(0.2, lambda r: 0.3 + (r.a == 2) / 10))
    assert fitted.refiner is not None
    kind = REFINERS[name]
    assert {p: getattr(fitted.refiner, p) for p in kind.grid} == {p: 2 if p == "a" else 0 for p in kind.grid}
    assert fit_refiner(name, scores(0.3, lambda r: 0.3)).refiner is None


@pytest.mark.parametrize("name", ["knobs", "two"])
def test_what_is_kept_is_never_worse_than_nothing(name: str) -> None:
    for seed in range(30):
        table = np.random.default_rng(seed).uniform(0, 1, (3, 3, 3))
        fitted = fit_refiner(name, scores(0.8, lambda r, table=table: float(table[r.a, r.b, r.c])))
        assert fitted.after == max(score for _, score in fitted.tried)
        if fitted.refiner is None:
            assert fitted.after <= 0.8
        else:
            kept = cast(Knobs, fitted.refiner)
            assert table[kept.a, kept.b, kept.c] == fitted.after > 0.8


def test_cases_without_a_class_are_refused_and_emptied_ones_never_win() -> None:
    with pytest.raises(DataError, match="set: the cases to fit on show no foreground class"):
        fit_refiner("two", scores(float("nan"), lambda r: 0.5))
    # A refiner that takes the only, false, class away leaves nothing to score.
    fitted = fit_refiner("two", scores(0.0, lambda r: float("nan") if r.a == 0 else 0.1))
    assert fitted.refiner == Two(1, 0)
