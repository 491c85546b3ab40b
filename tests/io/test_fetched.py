"""N03: content that was not fetched is told by name, wherever files are looked for; never fewer cases without a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabricate import CT_AFFINE, folder_dataset, write_nifti, write_png
from sampeft.cli import main
from sampeft.data import open_dataset
from sampeft.data.check import check_dataset
from sampeft.data.pairing import image_files, series_folders
from sampeft.errors import DataError
from sampeft.io import read_label_ids, read_volume
from sampeft.io.fetched import is_dangling
from sampeft.workflows.inputs import all_files

ANNEX = "../.git/annex/objects/aa/bb/MD5E-s1234--x"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 123456\n"


def unfetch(path: Path) -> None:
    path.unlink()
    path.symlink_to(ANNEX)


def make_pointer(path: Path) -> None:
    path.write_text(POINTER)


def test_a_link_to_what_is_there_is_no_fault(tmp_path: Path) -> None:
    real = write_png(tmp_path / "there" / "a.png", np.zeros((4, 5), np.uint8))
    (tmp_path / "b.png").symlink_to(real)
    assert not is_dangling(tmp_path / "b.png")
    assert not is_dangling(tmp_path / "nothing.png")
    assert read_volume(tmp_path / "b.png").grid == (4, 5, 1)


@pytest.mark.parametrize("read", [read_volume, read_label_ids])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            unfetch,
            rf"is a link to {ANNEX}, which is not there; fetch the content \(git annex get, datalad get, dvc pull\)",
        ),
        (make_pointer, "is a Git LFS pointer whose content was not fetched; run git lfs pull"),
    ],
    ids=["annex", "lfs"],
)
def test_each_reader_names_the_file_and_what_to_do(
    read: Callable[[Path], object], spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    for path in (
        write_png(tmp_path / "a.png", np.zeros((4, 5), np.uint8)),
        write_nifti(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.int16), CT_AFFINE),
    ):
        spoil(path)
        with pytest.raises(DataError, match=rf"{path.name}: {said}"):
            read(path)


def test_a_series_with_a_slice_that_was_not_fetched_is_refused_and_one_of_none_is_still_found(tmp_path: Path) -> None:
    series = tmp_path / "images" / "s1"
    series.mkdir(parents=True)
    (series / "1.dcm").symlink_to(ANNEX)
    assert series_folders(tmp_path / "images") == [series]
    with pytest.raises(DataError, match=r"1\.dcm: is a link to"):
        read_volume(series)


@pytest.mark.parametrize("spoil", [unfetch, make_pointer], ids=["annex", "lfs"])
def test_a_check_names_every_file_that_was_not_fetched(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    """Of five cases the second lacks its image, the fourth both, the fifth its label."""
    root = folder_dataset(tmp_path, cases=5, files_per_case=1, test_cases=0)
    lost = ["images/P02_1.png", "images/P04_1.png", "labels/P05_1.png"]
    for name in [*lost, "labels/P04_1.png"]:
        spoil(root / name)
    dataset = open_dataset(root)
    assert len(dataset.cases) == 5
    faults = [fault for fault in check_dataset(dataset, dataset.cases).faults if fault.severity == "error"]
    assert sorted(str(Path(fault.file).relative_to(root)) for fault in faults) == sorted(lost)


def test_predict_takes_them_for_cases_that_fail(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_png(tmp_path / name, np.zeros((4, 5), np.uint8))
    unfetch(tmp_path / "b.png")
    wanted = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    assert (
        image_files(tmp_path) == all_files([tmp_path]) == all_files(wanted) == all_files([tmp_path / "*.png"]) == wanted
    )


def test_maps_that_were_not_fetched_are_not_left_out_of_a_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in ("pred", "truth"):
        for name in ("a.png", "b.png"):
            write_png(tmp_path / side / name, np.eye(6, dtype=np.uint8))
        unfetch(tmp_path / side / "b.png")
    (tmp_path / "labels.json").write_text(json.dumps({"labels": {"background": 0, "line": 1}}))
    words = [
        "--pred",
        str(tmp_path / "pred"),
        "--truth",
        str(tmp_path / "truth"),
        "--labels",
        str(tmp_path / "labels.json"),
    ]
    assert main(["evaluate", *words, "--out", str(tmp_path / "scores")]) == 1
    assert "b.png: is a link to" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "scores", ignore_errors=True)
