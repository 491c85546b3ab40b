"""Laws that every refiner keeps, and what the look-up by name refuses."""

from __future__ import annotations

from dataclasses import MISSING, fields

import numpy as np
import pytest

from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.refine import REFINERS, Evidence, Refiner, refiner

LAND = LabelSet(("water", "forest", "field"), (1, 2, 3))


def scene(labels: LabelSet, colors: int = 1) -> Evidence:
    """Three bright things of classes 1, 2 and 2 on a dark ground, seen with noise by probabilities and image."""
    generator = np.random.default_rng(3)
    truth = np.zeros((48, 56), dtype=np.uint8)
    truth[6:24, 8:30], truth[30:42, 10:24], truth[10:40, 38:50] = 1, 2, 2
    image = np.array([0.2, 0.6, 0.9])[truth] + generator.normal(0, 0.03, truth.shape)
    scores = 2.0 * (truth == np.arange(len(labels))[:, None, None]) + generator.normal(size=(len(labels), *truth.shape))
    probabilities = (np.exp(scores) / np.exp(scores).sum(axis=0)).astype(np.float32)
    return Evidence(
        np.repeat(image[..., None], colors, axis=2).clip(0, 1).astype(np.float32),
        probabilities,
        probabilities.argmax(axis=0).astype(np.uint8),
        labels,
        (1.0, 1.0),
        prompt=lambda boxes=None, points=None: np.full((len(boxes or points), *truth.shape), -1.0, dtype=np.float32),
    )


def refined(found: Refiner, evidence: Evidence) -> np.ndarray:
    rough = found.refine_slice(evidence)[None]
    return found.refine_volume(rough, (1.0, *evidence.spacing_mm), evidence.labels)[0]


@pytest.mark.parametrize("name", REFINERS)
@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("background", [True, False])
def test_gives_classes_that_were_there_and_leaves_its_input_alone(
    name: str, colors: int, background: bool, labels: LabelSet
) -> None:
    evidence = scene(labels if background else LAND, colors)
    before = evidence.channels_HW.copy()
    result = refined(refiner(name), evidence)
    np.testing.assert_array_equal(evidence.channels_HW, before)
    assert result.shape == before.shape
    assert result.dtype == np.uint8
    assert set(np.unique(result)) <= set(np.unique(before)) | ({0} if background else set())
    np.testing.assert_array_equal(refined(refiner(name), evidence), result)


@pytest.mark.parametrize("name", REFINERS)
@pytest.mark.parametrize("class_", [0, 1])
def test_one_class_everywhere_stays(name: str, class_: int, labels: LabelSet) -> None:
    seen = scene(labels)
    whole = np.full_like(seen.channels_HW, class_)
    certain = (np.arange(len(labels))[:, None, None] == whole).astype(np.float32)
    evidence = Evidence(seen.image_HWC, certain, whole, labels, (1.0, 1.0), seen.prompt)
    np.testing.assert_array_equal(refined(refiner(name), evidence), whole)


@pytest.mark.parametrize("name", REFINERS)
def test_parameters_have_ranges_and_the_grid_lies_within(name: str) -> None:
    kind = REFINERS[name]
    known = {field.name: field.default for field in fields(kind)}
    assert kind.name == name
    assert kind.about
    for parameter, values in kind.grid.items():
        assert len(set(values)) == len(values) > 1
        for value in values:
            assert getattr(refiner(name, **{parameter: value}), parameter) == value
    for parameter, default in known.items():
        of_classes = default is MISSING  # a table of numbers by class checks them itself
        assert of_classes or isinstance(default, bool) or parameter in {**kind.limits, **kind.choices}
    for parameter, (low, high) in kind.limits.items():
        for value in (low - 1, high + 1, float("nan"), "3", True, None):
            with pytest.raises(UsageError, match=f"refiner {name}: {parameter} must be"):
                refiner(name, **{parameter: value})
    for parameter in kind.choices:
        with pytest.raises(UsageError, match="one of"):
            refiner(name, **{parameter: "neither"})


def test_base_changes_nothing(labels: LabelSet) -> None:
    evidence = scene(labels)
    np.testing.assert_array_equal(refined(Refiner(), evidence), evidence.channels_HW)


def test_unknown_names_come_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="unknown refiner 'level_sets'; did you mean 'level-set'"):
        refiner("level_sets")
    with pytest.raises(
        UsageError, match="unknown option of refiner crf 'iteration'; did you mean 'iterations'"
    ) as raised:
        refiner("crf", iteration=3)
    assert "contrast" in str(raised.value)
    with pytest.raises(UsageError, match=r"whole number of 0\.\.100, got 2\.5"):
        refiner("crf", iterations=2.5)
    with pytest.raises(UsageError, match="fill_holes must be true or false, got 1"):
        refiner("components", fill_holes=1)


def test_evidence_must_be_of_one_grid(labels: LabelSet) -> None:
    seen = scene(labels)
    with pytest.raises(ValueError, match="not of one grid"):
        Evidence(seen.image_HWC[1:], None, seen.channels_HW, labels, (1.0, 1.0))
    with pytest.raises(ValueError, match="not of 4 classes"):
        Evidence(seen.image_HWC, seen.probabilities_KHW[1:], seen.channels_HW, labels, (1.0, 1.0))
