"""One file that is unlike the others is told with its value and theirs; where many are, or all are, nothing is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabricate import write_nifti, write_png
from sampeft.cli import main
from sampeft.data.case import ImageFile
from sampeft.data.file_statistics import FileFacts
from sampeft.data.outliers import outliers
from sampeft.data.values import Quantiles
from sampeft.errors import UsageError
from sampeft.volume import Volume
from sampeft.workflows import train as train_module

LEVELS = Quantiles(0, 2, 300, 800, 1000)


def volume(name: str, levels: Quantiles = LEVELS, **changes: object) -> FileFacts:
    file = ImageFile(name, Path(f"{name}.nii.gz"))
    known = FileFacts.of(file, Volume(np.zeros((8, 8, 3)), np.eye(4), file.image), np.zeros((8, 8, 3), int), 2)
    usual: dict[str, object] = {"size": (30, 64, 64), "spacing_mm": (3.0, 0.8, 0.8), "plane": "axial"}
    return replace(known, levels=levels, **{**usual, **changes})  # type: ignore[arg-type]


def times(factor: float) -> Quantiles:
    return Quantiles(*(factor * level for level in LEVELS))


TWELVE = [volume(f"p{n}", times(1 + n / 10)) for n in range(11)]


def problems(*odd: FileFacts, others: list[FileFacts] = TWELVE) -> list[str]:
    return [f"{one.file.name}: {one.problem}" for one in outliers([*others, *odd])]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (volume("x", times(1000)), "its values are 2000..800000, those of the other 11 files 2..1600 (1st to 99th percentile)"),
        (volume("x", times(1 / 255)), "its values are 0.00784314..3.13725, those of the other 11 files 2..1600"),
        (volume("x", Quantiles(-1024, -1000, 0, 600, 900)), "its values are -1000..600, those of the other 11 files 2..1600"),
        (volume("x", bands=3), "has 3 channels, the other 11 files 1"),
        (volume("x", plane="coronal"), "its slices are coronal by its spacing, those of the other 11 files axial"),
        (
            volume("x", spacing_mm=(10.0, 0.8, 0.2)),
            "its spacing is 10 mm from slice to slice, that of the other 11 files 3 mm and 0.2 mm from column to column, that "
            "of the other 11 files 0.8 mm",
        ),
        (volume("x", size=(64, 30, 64)), "is 30 x 64 (rows x columns), the other 11 files are 64 x 64: it seems"),
        (volume("x", plane="picture", spacing_mm=None), "is a picture, the other 11 files are volumes"),
    ],
)  # fmt: skip
def test_one_of_twelve_is_told_with_its_value_and_the_others(odd: FileFacts, said: str) -> None:
    (told,) = problems(odd)
    assert told.startswith(f"x.nii.gz: {said}")


def test_a_picture_on_its_side_among_pictures() -> None:
    wide = [volume(f"p{n}", plane="picture", spacing_mm=None, size=(1, 48, 64)) for n in range(5)]
    (told,) = problems(replace(wide[0], size=(1, 64, 48)), others=wide)
    assert "is 64 x 48 (rows x columns), the other 5 files are 48 x 64: it seems to be transposed" in told
    assert problems(replace(wide[0], size=(1, 64, 40)), others=wide) == []  # another size is none turned


@pytest.mark.parametrize(
    "odd",
    [
        (volume("x", times(9)),),
        (volume("x", spacing_mm=(8.9, 0.8, 0.8)),),
        (volume("x", size=(60, 64, 64)),),
        (volume("x", Quantiles(-40, -20, 300, 800, 1000)),),  # resampled: a little below 0
        (volume("x", times(1000)), volume("y", times(1000))),  # two of thirteen: two scanners
        (volume("x", bands=3), volume("y", bands=3)),
        (volume("x", Quantiles(*[np.nan] * 5)),),
    ],
)
def test_what_is_near_the_others_or_not_alone_is_not_told(odd: tuple[FileFacts, ...]) -> None:
    assert problems(*odd) == []


def test_blank_files_are_none_of_the_other_files() -> None:
    """Of 11 files with values and 3 without any range, in which one is 1,000 times as bright."""
    blank = [volume(f"b{value}", Quantiles(*[value] * 5)) for value in (0.0, np.nan, -5000.0)]
    (told,) = problems(volume("x", times(1000)), *blank)
    assert "those of the other 11 files 2..1600" in told
    assert problems(*blank) == []


def test_orders_of_magnitude_between_all_files_are_how_the_data_are() -> None:
    """Five scanners with scales 1 to 10,000, and one of another 1,000 times; the same beside files that are alike."""
    spread = [volume(f"p{n}", times(8**n)) for n in range(5)]
    highest = volume("x", times(8**4 * 1000))
    assert problems(highest, others=spread) == []  # 1000 times the next, which is 4096 times the first
    assert len(problems(highest, others=spread[-1:] * 5)) == 1
    assert problems(volume("x", times(1000)), others=TWELVE[:3]) == []  # too few to tell


def test_of_many_files_a_twentieth_may_be_unlike_the_others() -> None:
    many = [volume(f"p{n}") for n in range(38)]
    assert [one.split(":")[0] for one in problems(*(volume(f"x{n}", bands=4) for n in range(2)), others=many)] == [
        "x0.nii.gz",
        "x1.nii.gz",
    ]
    assert problems(*(volume(f"x{n}", bands=4) for n in range(3)), others=many) == []


@pytest.mark.filterwarnings("ignore")
def test_check_and_train_name_the_odd_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(6):
        grey = np.roll(10 + np.arange(1024) % 90, n).reshape(16, 16, 4).astype(np.float32) * (1000 if n == 4 else 1)
        truth = np.zeros((16, 16, 4), np.uint8)
        truth[4:10, 5:11] = 1
        spacing = np.diag([0.9, 0.9, 20.0 if n == 2 else 3.0, 1.0])
        write_nifti(tmp_path / f"d/images/p{n}.nii.gz", grey, spacing)
        write_nifti(tmp_path / f"d/labels/p{n}.nii.gz", truth, spacing)
    (tmp_path / "d/dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
    words = (
        "p4.nii.gz: its values are 10000..98770, those of the other 5 files 10..98.77 (1st to 99th percentile)",
        "p2.nii.gz: its spacing is 20 mm from slice to slice, that of the other 5 files 3 mm",
    )

    def stopped(*_: object) -> None:
        raise UsageError("far enough")

    monkeypatch.setattr(train_module, "load_backbone", stopped)
    assert main(["check", str(tmp_path / "d")]) == 0
    checked = capsys.readouterr().out
    assert main(["train", "--data", str(tmp_path / "d"), "--out", str(tmp_path / "run"), "--held_out", "0"]) == 2
    trained = capsys.readouterr().err
    for word in words:
        assert f"images/{word}" in checked
        assert f"images/{word}" in trained


def test_a_picture_of_another_channel_count_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(4)
    for n in range(6):
        write_png(
            tmp_path / f"images/p{n}.png", rng.integers(0, 255, (16, 20, 3)[: 3 if n == 5 else 2], dtype=np.uint8)
        )
        write_png(tmp_path / f"labels/p{n}.png", np.eye(16, 20, dtype=np.uint8))
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "c": 1}}')
    assert main(["check", str(tmp_path)]) == 0
    assert "p5.png: has 3 channels, the other 5 files 1; save it like the others" in capsys.readouterr().out
