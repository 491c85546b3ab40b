"""`sampeft check` as a user meets it: what is printed and written, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabricate import flare22_dataset, folder_dataset, write_png
from sampeft.cli import run
from sampeft.errors import UsageError
from sampeft.io import read_volume


def test_a_sound_set_is_0_and_a_fault_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder_dataset(tmp_path)
    assert run("check", [str(root)]) == 0
    shown = capsys.readouterr().out
    assert "4 cases in 8 files, train 3, test 1" in shown
    assert "| 2 | c2 |" in shown
    assert "1 x 24 x 32 (slices x rows x columns)" in shown
    assert shown.rstrip().endswith("no faults")
    write_png(root / "labels/P02_1.png", np.full((24, 32), 9, np.uint8))
    assert run("check", [str(root)]) == 1
    shown = capsys.readouterr().out
    assert "1 error\n" in shown
    assert "P02_1.png: label id 9 (768 pixels) is not in the label map {0..2}" in shown
    assert run("check", [str(root), "--map", "9:2"]) == 0


def test_json_is_one_object_with_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder_dataset(tmp_path, cases=12, files_per_case=1)
    for n in range(1, 13):
        (root / f"labels/P{n:02d}_1.png").unlink()
    assert run("check", [str(root), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len([fault for fault in found["faults"] if fault["severity"] == "error"]) == 12
    assert found["intensity"] == "8bit: window 0..255, crop none"
    assert found["splits"] == {"train": 11, "test": 1}
    assert run("check", [str(root)]) == 1
    shown = capsys.readouterr().out
    assert "12 errors" in shown
    assert "... and 2 more; --json lists all" in shown


def test_out_gets_the_findings_and_a_sheet_of_the_sound_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = flare22_dataset(tmp_path / "set")
    (root / "images/case_02_0000.nii.gz").write_bytes(b"broken")
    assert run("check", [str(root), "--out", str(tmp_path / "out"), "--intensity", "ct-liver"]) == 1
    shown = capsys.readouterr()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"check.json", "contact.png"}
    for name in ("check.json", "contact.png"):
        assert f"written   {tmp_path / 'out' / name}" in shown.err
    found = json.loads((tmp_path / "out/check.json").read_text())
    assert found["intensity"] == "ct-liver: window -45..105, crop body"
    assert found["summary"]["spacing_mm"] == {"across": [5, 5, 5], "down": [2, 2, 2], "along": [2, 2, 2]}
    with Image.open(tmp_path / "out/contact.png") as sheet:
        assert min(sheet.size) > 300


def test_structures_lost_at_a_side_are_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D41."""
    root = folder_dataset(tmp_path, size=(96, 128))
    label = read_volume(root / "labels/P01_1.png").array[..., 0].copy()
    label[label == 2] = 0
    label[40, 90] = 2
    write_png(root / "labels/P01_1.png", label)
    assert run("check", [str(root), "--side", "32"]) == 0
    assert "class 'c2' (1 pixels) is lost when 96 x 128 pixels are scaled to a side of 32" in capsys.readouterr().out


def test_a_set_without_any_readable_image_still_lists_its_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_dataset(tmp_path, cases=2, files_per_case=1)
    for path in (root / "images").iterdir():
        path.write_bytes(b"nothing")
    assert run("check", [str(root), "--out", str(tmp_path / "out")]) == 1
    assert "2 errors" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["check.json"]


@pytest.mark.parametrize("wrong", [["--intensity", "ct"], ["--bands", "1,2"], ["--map", "4"], ["--side", "0"]])
def test_wrong_usage_is_told_before_any_file_is_opened(wrong: list[str], tmp_path: Path) -> None:
    root = folder_dataset(tmp_path)
    for path in (root / "images").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(UsageError):
        run("check", [str(root), *wrong])
