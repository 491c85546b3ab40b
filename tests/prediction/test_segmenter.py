"""Segmenter: prompts on a picture's own grid, and several runs over one loaded base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation
from sampeft.errors import UsageError, WeightsError
from sampeft.labels import LabelSet
from sampeft.peft import attach
from sampeft.peft.state import save_trained
from sampeft.prediction.loading import load
from sampeft.prediction.segmenter import Segmenter
from sampeft.volume import Volume

PREPARATION = {"intensity": {"kind": "window", "low": 0, "high": 255, "crop": "none"}, "side": 64, "plane": "auto"}


def made(folder: Path, method: str, options: dict[str, object], labels: LabelSet, seed: int = 3) -> Path:
    """A run of a method whose every trained weight was pushed away from its start."""
    from sampeft.backbones import RANDOM, load_backbone
    from sampeft.model import SemanticSam

    torch.manual_seed(seed)
    model = SemanticSam(load_backbone("lite-medsam", RANDOM), labels, 64)
    attached = attach(model, method, options)
    generator = torch.Generator().manual_seed(len(method))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    save_trained(
        folder,
        model,
        {
            "backbone": "lite-medsam",
            "weights_sha256": RANDOM,
            "seed": seed,
            "method": method,
            "options": attached.options,
            "label_map": labels.to_json(),
            "preparation": PREPARATION,
        },
    )
    return folder


@pytest.fixture
def picture() -> Volume:
    array = np.random.default_rng(0).integers(0, 255, (40, 60, 1), dtype=np.uint8)
    return Volume(array, None, Path("picture.png"))


def test_runs_over_one_base_switch_bit_for_bit(tmp_path: Path, labels: LabelSet, picture: Volume) -> None:
    other_labels = LabelSet(("background", "target"), (0, 1))
    runs = [
        made(tmp_path / "lora", "lora", {}, labels),
        made(tmp_path / "full", "full", {}, other_labels),
        made(tmp_path / "adapter", "adapter", {}, labels),
    ]
    alone = [load(run).predict(picture) for run in runs]
    first = load(runs[0])
    shared = [first, *(load(run, beside=first) for run in runs[1:])]
    assert len({id(s.model.sam) for s in shared}) == 1
    for _ in range(2):
        for segmenter, wanted in zip(shared, alone, strict=True):
            assert np.array_equal(segmenter.predict(picture), wanted)
    assert len({a.tobytes() for a in alone}) == 3


def test_another_base_is_not_shared(tmp_path: Path, labels: LabelSet) -> None:
    first = load(made(tmp_path / "a", "lora", {}, labels, seed=3))
    with pytest.raises(WeightsError, match="trained on lite-medsam with content random"):
        load(made(tmp_path / "b", "lora", {}, labels, seed=4), beside=first)


def test_prompts_give_masks_on_the_pictures_grid_by_the_base_or_adapted(
    tmp_path: Path, labels: LabelSet, picture: Volume
) -> None:
    segmenter = load(made(tmp_path / "run", "lora", {}, labels))
    unmerged = load(tmp_path / "run", merged=False)
    box, point = [(10, 5, 40, 30)], [[(20, 20, 1), (55, 3, 0)]]
    for prompts in ({"boxes": box}, {"points": point}, {"boxes": box, "points": point}):
        base = segmenter.segment(picture, **prompts)
        assert base.shape == (1, 40, 60)
        assert base.dtype == bool
        assert np.array_equal(base, unmerged.segment(picture, **prompts))  # the base is the same however it is folded
    two = segmenter.segment(picture, boxes=[(10, 5, 40, 30), (0, 0, 20, 20)])
    assert np.array_equal(two[0], segmenter.segment(picture, boxes=box)[0])  # prompts do not see each other
    uneven = segmenter.segment(picture, points=[[(20, 20, 1)], [(20, 20, 1), (55, 3, 0)]])
    assert np.array_equal(uneven[1], segmenter.segment(picture, points=point)[0])
    before = segmenter.predict(picture)
    segmenter.segment(picture, boxes=box, adapted=True)
    assert np.array_equal(before, segmenter.predict(picture))


def test_wrong_prompts_are_named(tmp_path: Path, labels: LabelSet, picture: Volume) -> None:
    segmenter = load(made(tmp_path / "run", "lora", {}, labels))
    with pytest.raises(UsageError, match="give boxes, lists of points or as many of both, got 0 and 0"):
        segmenter.segment(picture)
    with pytest.raises(UsageError, match=r"picture\.png: has slices 0\.\.0, not 3"):
        segmenter.segment(picture, boxes=[(0, 0, 5, 5)], slice=3)


def test_a_volume_is_asked_for_its_slice(tmp_path: Path, labels: LabelSet) -> None:
    segmenter = load(made(tmp_path / "run", "lora", {}, labels))
    stack = np.random.default_rng(0).integers(0, 255, (5, 40, 60)).astype(np.uint8)
    with pytest.raises(UsageError, match=r"is a volume of 5 slices; say in which one, such as slice=2"):
        segmenter.segment(stack, boxes=[(0, 0, 5, 5)], spacing_mm=(5.0, 1.0, 1.0))
    found = segmenter.segment(stack, boxes=[(0, 0, 5, 5)], spacing_mm=(5.0, 1.0, 1.0), slice=2)
    assert found.shape == (1, 40, 60)


def test_what_it_is_and_what_to_beware_of_in_a_few_lines(tmp_path: Path, labels: LabelSet) -> None:
    segmenter = load(made(tmp_path / "run", "lora", {}, labels))
    assert repr(segmenter).startswith("Segmenter(lite-medsam lora")
    assert f"{len(labels.foreground)} classes: {labels.names[labels.foreground[0]]}" in repr(segmenter)
    assert len(repr(segmenter).splitlines()) == 3
    assert segmenter.cautions == ["this run was trained from RANDOM WEIGHTS"]
    drawn = replace(segmenter, description={**segmenter.description, "data": {"synthetic": True}})
    assert "SYNTHETIC DATA" in drawn.cautions[1]


def test_preparation_in_the_description_is_what_is_used(tmp_path: Path, labels: LabelSet) -> None:
    segmenter = load(made(tmp_path / "run", "lora", {}, labels))
    assert segmenter.preparation == Preparation(Intensity("window", 0, 255), 64)
    assert isinstance(segmenter, Segmenter)
