"""Several series, echoes or stacks of DICOM: the one that is asked for is read, in every command; without a choice none is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabricate import folder_dataset, write_nifti
from fabricate.dicom import AXIAL, multi_frame, save, slice_dataset, slice_values, write_series
from sampeft.cli import main
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation, digest_of
from sampeft.errors import DataError, UsageError
from sampeft.io import dicom
from sampeft.io.dicom_series import VARIABLE, SeriesChoice, series_chosen
from sampeft.labels import LabelSet
from sampeft.prediction.segmenter import Segmenter
from sampeft.workflows import evaluate as evaluate_module
from sampeft.workflows import predict as predict_module
from sampeft.workflows import train as train_module

pydicom = pytest.importorskip("pydicom", reason="needs pip install 'sampeft[dicom]'")

T1 = {"SeriesInstanceUID": "1.2.3.71", "SeriesNumber": 7, "SeriesDescription": "T1 sag, post"}


def two_series(folder: Path) -> Path:
    """Series 4 `portal venous` of three slices with 0..223 as `slice_values`, and series 7 of two with 1000 more."""
    write_series(folder, (0, 2, 4))
    for k in range(2):
        save(slice_dataset((slice_values(k) + 1000).astype(np.int16), (0, 0, 5 * k), **T1), folder / f"t1_{k}.dcm")
    return folder


def first_value(path: Path, series: str) -> tuple[int, tuple[int, int, int], float]:
    with series_chosen(series):
        volume = dicom.image(path)
    return int(volume.array[0, 0, 0]), volume.grid, volume.spacing_mm[2]


@pytest.mark.parametrize(
    ("series", "value"),
    [
        ("4", 0),
        ("7", 1000),
        ("SeriesNumber=07", 1000),
        ("SeriesDescription=t1*", 1000),
        ("SeriesDescription=T1 sag, post", 1000),
        ("SeriesInstanceUID=1.2.3.71,Modality=CT", 1000),
        ("4,SeriesDescription=Portal*", 0),
    ],
)
def test_one_of_two_series_by_number_or_attribute(series: str, value: int, tmp_path: Path) -> None:
    sizes = {0: ((4, 3, 3), 2.0), 1000: ((4, 3, 2), 5.0)}
    assert first_value(two_series(tmp_path), series) == (value, *sizes[value])


def test_series_are_listed_with_the_option_that_chooses_and_a_wrong_choice_lists_them_again(tmp_path: Path) -> None:
    two_series(tmp_path)
    listed = (
        "series 4 'portal venous' 3 slices of 4x3, as 03_0.dcm; series 7 'T1 sag, post' 2 slices of 4x3, as t1_0.dcm"
    )
    with pytest.raises(DataError) as caught:
        dicom.image(tmp_path)
    assert f"holds 2 series or stacks: {listed}; choose one, such as --series 4 (or SAMPEFT_SERIES" in str(caught.value)
    with (
        series_chosen("5"),
        pytest.raises(DataError, match=r"holds no image with --series 5, but series 4 'portal") as other,
    ):
        dicom.image(tmp_path)
    assert listed in str(other.value)
    with pytest.raises(UsageError, match="did you mean 'SeriesDescription'"), series_chosen("SeriesDescripton=T1*"):
        pass
    alone = write_series(tmp_path / "alone", (0, 2))
    with series_chosen("7"), pytest.raises(DataError, match="holds no image with --series 7, but series 4 'portal"):
        dicom.image(alone)  # nor is the only series another than that which was asked for


def test_series_of_equal_name_and_number_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    """A scout of two orientations in one series, and two series that a program has merged."""
    for k, axes in enumerate(([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1])):
        save(slice_dataset(slice_values(k), ImageOrientationPatient=axes), tmp_path / "scout" / f"{k}.dcm")
        save(slice_dataset(slice_values(k), SeriesInstanceUID=f"1.2.3.{k}"), tmp_path / "merged" / f"{k}.dcm")
    for name, keyword in (("scout", "ImageOrientationPatient"), ("merged", "SeriesInstanceUID")):
        with pytest.raises(DataError, match=rf"--series '?{keyword}=\S+'? \(or") as caught:
            dicom.image(tmp_path / name)
        chosen = str(caught.value).split("--series ")[1].split(" (or")[0].strip("'")
        assert first_value(tmp_path / name, chosen)[:2] == (0, (4, 3, 1))


def test_echoes_and_stacks_of_one_file_and_a_series_with_two_echoes(tmp_path: Path) -> None:
    """Frame n holds 12 n to 12 n + 11."""
    coronal = (1, 0, 0, 0, 0, -1)
    echoes = [((0, 0, 4 * k), AXIAL, echo, "1") for echo in (5.0, 30.0) for k in range(3)]
    both = [*echoes, *(((0, 4 * k, 0), coronal, 5.0, "2") for k in range(2))]
    path = multi_frame(tmp_path / "echoes.dcm", echoes)
    assert first_value(path, "EffectiveEchoTime=30") == (36, (3, 4, 3), 4.0)
    path = multi_frame(tmp_path / "both.dcm", both)
    assert first_value(path, "StackID=2") == (72, (3, 4, 2), 4.0)
    with series_chosen("StackID=1"), pytest.raises(DataError, match=r"--series StackID=1,EffectiveEchoTime=5\.0 \("):
        dicom.image(path)
    assert first_value(path, "StackID=1,EffectiveEchoTime=5") == (0, (3, 4, 3), 4.0)
    for k, echo in enumerate((5, 5, 30, 30)):
        save(slice_dataset(slice_values(k), (0, 0, 2 * (k % 2)), EchoTime=echo), tmp_path / "series" / f"{k}.dcm")
    assert first_value(tmp_path / "series", "4,EchoTime=30.0") == (200, (4, 3, 2), 2.0)


@pytest.mark.parametrize("text", ["T1", "", "4,T1", "=4", "-1", "4;5"])
def test_what_is_no_choice_of_a_series_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give the number of a series, such as 3, or DICOM attributes"):
        SeriesChoice.of(text)
    assert main(["check", str(tmp_path), "--series", text]) == 2


def test_a_name_that_is_no_attribute_is_told_before_any_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(folder_dataset(tmp_path / "data")), "--series", "EchoTimes=5"]) == 2
    assert capsys.readouterr().err == (
        "sampeft check: error: --series names 'EchoTimes', which is no attribute of DICOM; did you mean 'EchoTime'?\n"
    )


def test_the_choice_ends_with_its_block_and_is_part_of_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = two_series(tmp_path / "scan")
    file = save(slice_dataset(slice_values(0)), tmp_path / "one.dcm")
    other = tmp_path / "notes.txt"
    other.write_text("no DICOM")
    monkeypatch.setenv(VARIABLE, "4")
    with series_chosen("7"), series_chosen(None):
        assert os.environ[VARIABLE] == "7"
        seven = [digest_of(path) for path in (folder, file, other)]
    assert os.environ[VARIABLE] == "4"
    four = [digest_of(path) for path in (folder, file, other)]
    monkeypatch.delenv(VARIABLE)
    none = [digest_of(path) for path in (folder, file, other)]
    assert all(len({*digests}) == 3 for digests in list(zip(seven, four, none, strict=True))[:2])
    assert seven[2] == four[2] == none[2]


LABELS = LabelSet(("background", "bright"), (0, 1))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two cases of two series each; the truth is of series 7, whose values are 1000..1123, and calls those from 1100 on
    `bright`."""
    for name in ("a", "b"):
        folder = two_series(tmp_path / "data/images" / name)
        with series_chosen("7"):
            volume = dicom.image(folder)
        write_nifti(tmp_path / f"data/labels/{name}.nii.gz", (volume.array >= 1100).astype(np.uint8), volume.affine)
    described = {"labels": {"background": 0, "bright": 1}, "splits": {"train": ["a"], "test": ["b"]}, "modality": "MR"}
    (tmp_path / "data/dataset.json").write_text(json.dumps(described))
    return tmp_path / "data"


@pytest.fixture
def segmenter(monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    import torch

    class Threshold(torch.nn.Module):
        labels = LABELS

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.full_like(images[:, 0], 0.5), images[:, 0]], dim=1)

    description = {"weights_sha256": "0" * 64, "backbone": "made", "method": "none", "options": {}}
    made = Segmenter(Threshold(), LABELS, Preparation(Intensity("window", 1000, 1190), 4), description)  # type: ignore[arg-type]
    load: Callable[..., Segmenter] = lambda *_, **__: made  # noqa: E731
    monkeypatch.setattr(predict_module, "load", load)
    monkeypatch.setattr(evaluate_module, "load", load)
    return made


def test_check_and_train_read_the_series_that_is_chosen(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["check", str(data)]) == 1
    assert "a: holds 2 series or stacks: series 4 'portal venous' 3 slices of 4x3" in capsys.readouterr().out
    assert main(["check", str(data), "--series", "4"]) == 1  # the labels are not of that one
    assert "4 x 3 x 2 voxels" in capsys.readouterr().out
    assert main(["check", str(data), "--series", "SeriesDescription=T1*"]) == 0
    assert "lowest 1000, " in capsys.readouterr().out

    def stopped(*_: object) -> None:
        raise UsageError("far enough")

    monkeypatch.setattr(train_module, "load_backbone", stopped)
    words = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--held_out", "0"]
    assert main(words) == 1
    assert "--series 4 (or" in capsys.readouterr().err
    assert main([*words, "--series", "7"]) == 2
    told = capsys.readouterr().err
    assert "| 1 | bright | 12 |" in told
    assert "far enough" in told


def test_predict_and_evaluate_read_the_series_that_is_chosen(
    data: Path, segmenter: Segmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "adapter.safetensors").write_bytes(b"weights")
    command = ["predict", str(run), str(data / "images"), "--nifti", "--out"]
    assert main([*command, str(tmp_path / "none")]) == 1
    assert "b: holds 2 series or stacks" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "out"), "--series", "7"]) == 0
    record = json.loads((tmp_path / "out/predictions.json").read_text())["cases"]
    assert record["a"]["shape"] == [4, 3, 2]
    assert record["a"]["pixels"]["bright"] == 12  # the second slice, 1100..1123, is above 1095
    assert main([*command, str(tmp_path / "out"), "--series", "4"]) == 2  # what is there is of another series
    assert "belongs to another content" in capsys.readouterr().err
    words = ["evaluate", str(run), "--data", str(data), "--out", str(tmp_path / "e"), "--calibrate", "false"]
    assert main([*words, "--series", "7"]) == 0
    assert "| bright | 1.000 | 1 | 0 | 0 |" in (tmp_path / "e/table.md").read_text()
