"""`sampeft oracle`: one folder per protocol and a table of all, settings in every output, wrong settings named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fabricate import folder_dataset
from fabricate.backbones import architectures
from sampeft.backbones import BACKBONES
from sampeft.cli import main
from sampeft.data import open_dataset
from sampeft.data.intensity import PRESETS
from sampeft.data.slice_cache import Preparation
from sampeft.metrics.scores import Evaluation
from sampeft.oracle.protocols import NAME, ORACLE_PROTOCOLS
from sampeft.workflows.evaluate import checked_cases
from sampeft.workflows.oracle import score_oracle

COMMON = ["--weights", "random", "--side", "64", "--masks.points_per_side", "4"]


@pytest.fixture
def backbone(monkeypatch: pytest.MonkeyPatch) -> str:
    small = architectures()["sam-vit-b"]
    monkeypatch.setitem(BACKBONES, "tiny", small)
    return "tiny"


def test_all_protocols_stand_side_by_side(tmp_path: Path, backbone: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = folder_dataset(tmp_path / "data", files_per_case=1), tmp_path / "out"
    arguments = ["oracle", "--data", str(data), "--backbone", backbone, "--out", str(out), *COMMON, "--maps"]
    arguments += ["--protocols", "boxes,points,masks,union", "--masks.predicted_iou", "0", "--masks.stability", "0"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    for name, protocol in ORACLE_PROTOCOLS.items():
        evaluation = Evaluation.read(out / name)
        assert evaluation.is_oracle
        assert evaluation.meta["oracle_protocol"] == name
        assert "uses the truth" in evaluation.meta["oracle_rule"]
        assert protocol.title in said
        assert (out / name / "maps" / "P04_1.png").is_file()
        page = (out / name / "report.html").read_text()
        assert "RANDOM WEIGHTS" in page
        assert "uses the truth" in page
    assert said.count("oracle (uses the truth): DSC") == 4
    assert (out / "table.md").read_text() in said
    assert "a grid of 4 x 4 points, 3 masks a prompt, predicted IoU above 0," in said
    for name in ("table.csv", "report.html", "per_class.png", "examples.png"):
        assert (out / name).is_file(), name
    assert not (out / "summary.json").exists()  # it would be that of one protocol
    masks, union = (Evaluation.read(out / name).matrix("dsc") for name in ("masks", "union"))
    assert (union >= masks).all()


def test_one_protocol_lies_in_the_folder_itself(
    tmp_path: Path, backbone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = folder_dataset(tmp_path / "data", files_per_case=1), tmp_path / "out"
    assert main(["oracle", "--data", str(data), "--backbone", backbone, "--out", str(out), *COMMON, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["meta"]["model"] == f"{NAME}, RANDOM WEIGHTS"
    assert Evaluation.read(out).meta["oracle_protocol"] == "boxes"
    assert "uses the truth; the box of each class" in (out / "table.md").read_text()
    other = ["oracle", "--data", str(data), "--backbone", backbone, "--out", str(out), *COMMON, "--split", "train"]
    assert main(other) == 2
    assert (
        f"{out}: holds another evaluation (split was test, is train); choose another --out" in capsys.readouterr().err
    )
    assert Evaluation.read(out).meta["split"] == "test"
    assert main([*other, "--force"]) == 0
    assert Evaluation.read(out).meta["split"] == "train"


def test_the_box_oracle_for_other_commands_gives_the_same(tmp_path: Path, backbone: str) -> None:
    from fabricate.backbones import make_tiny

    dataset = open_dataset(folder_dataset(tmp_path / "data"))
    cases = checked_cases(dataset, "test")
    model = make_tiny(backbone, dataset.labels)
    evaluation, looks = score_oracle(model, dataset, cases, Preparation(PRESETS["8bit"], 64), "test")
    assert evaluation.meta["oracle"] is True
    assert list(evaluation.counts) == ["P04"]
    assert looks[0].case == "P04"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocols", "boxes,mask"], "unknown oracle protocol 'mask'; did you mean 'masks'"),
        (["--masks.nms", "2"], "--masks.nms is 2; give 0 to 1"),
        (["--masks.masks_per_prompt", "2"], "masks per prompt are 2"),
    ],
)
def test_wrong_settings_are_named_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["oracle", "--data", "nowhere", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
