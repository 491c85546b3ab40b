"""Every recipe is read by the real command line and trains on a tiny copy of its layout; none names an option in vain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fabricate import folder_dataset
from fabricate.backbones import tiny_sam
from fabricate.layouts import decathlon, flare22, gid_crops_of_scenes, sirst_v1
from sampeft.backbones import BACKBONES
from sampeft.cli import main

RECIPES = Path(__file__).parents[1] / "recipes"
LAYOUTS: dict[str, Callable[[Path], Any]] = {
    "flare22": flare22,
    "gid5": gid_crops_of_scenes,
    "sirst": sirst_v1,
    "btcv_slices": folder_dataset,
    "hippocampus": decathlon,
}
SIDE = 64


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with tiny_sam(SIDE, tmp_path_factory.mktemp("cache")):
        yield


def leaves(content: dict[str, Any], within: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= leaves(value, f"{within}{name}.") if isinstance(value, dict) else {f"{within}{name}": value}
    return found


def test_every_recipe_has_a_layout_here() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_recipe_trains_and_all_of_it_arrives(name: str, tmp_path: Path) -> None:
    recipe = RECIPES / f"{name}.yaml"
    LAYOUTS[name](tmp_path / "data")
    small = ["--backbone", "tiny", "--weights", "random", "--side", str(SIDE), "--encoder_side", str(SIDE),
             "--held_out", "1",
             "--training.steps", "2", "--training.validations", "1", "--training.head_first", "0"]  # fmt: skip
    asked = leaves(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    small += ["--training.patch", str(SIDE // 2)] if "training.patch" in asked else []
    arguments = ["--config", str(recipe), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *small]
    assert main(["train", *arguments]) == 0
    used = leaves(json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8")))
    overridden = {flag.removeprefix("--") for flag in small if flag.startswith("--")}
    assert {option: used[option] for option in asked if option not in overridden} == {
        option: value for option, value in asked.items() if option not in overridden
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_side_and_backbone_of_a_recipe_go_together_and_each_line_says_why(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    BACKBONES[content["backbone"]].check_side(content["side"])
    assert f"sampeft train --config recipes/{name}.yaml --data " in text
    bare = [line for line in text.splitlines() if not line.endswith(":") and "# " not in line]
    assert bare == []


@pytest.mark.parametrize("name", ["flare22", "btcv_slices"])
def test_no_recipe_mirrors_a_body(name: str) -> None:
    content = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    assert content["training"]["augmentation"]["mirror"] == 0
