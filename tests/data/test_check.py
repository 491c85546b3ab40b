"""Every fault that a user's data can have is listed with file, values and what to do; sound data have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fabricate
from fabricate import CT_AFFINE, discs, looks_like, write_nifti, write_png
from fabricate.layouts import flare22_nnunet_names
from sampeft.cli import main
from sampeft.data import check as check_module
from sampeft.data import open_dataset
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.check import CheckReport, check_dataset
from sampeft.data.intensity import PRESETS, with_bands
from sampeft.data.values import Seen
from sampeft.errors import DataError
from sampeft.io import read_volume
from sampeft.labels import LabelSet

ONE = LabelSet(("background", "target"), (0, 1))


def one_file(root: Path, image: np.ndarray, label: np.ndarray, labels: LabelSet = ONE) -> Dataset:
    """A data set of one PNG and its mask."""
    picture = write_png(root / "images" / "a.png", image)
    file = ImageFile("a", picture, write_png(root / "labels" / "a.png", label))
    return Dataset("one", root, labels, (Case("a", (file,)),))


def problems(report: CheckReport) -> list[str]:
    return [fault.problem for fault in report.faults]


def test_a_sound_set_has_no_faults_and_its_table_counts(tmp_path: Path) -> None:
    dataset = open_dataset(fabricate.folder_dataset(tmp_path))
    steps: list[tuple[int, int]] = []
    report = check_dataset(dataset, progress=lambda done, total: steps.append((done, total)))
    report.raise_on_errors()
    assert report.faults == ()
    assert steps == [(n, 8) for n in range(1, 9)]
    masks = [read_volume(p).array for p in sorted((tmp_path / "labels").iterdir())]
    assert [c.pixels for c in report.classes] == [sum(int((m == c).sum()) for m in masks) for c in range(3)]
    assert [c.cases for c in report.classes] == [4, 4, 4]
    assert "| 2 | c2 |" in report.table()
    json.dumps(report.to_json())
    assert len(check_dataset(dataset, dataset.split("test")).classes) == 3
    assert check_dataset(dataset, dataset.split("test")).files == 2


def test_every_fault_is_listed_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    """Truncated, renamed text, wrong size, missing label, wrong id: five files, five faults, in order, no crash."""
    root = fabricate.folder_dataset(tmp_path, cases=7, files_per_case=1)
    images, labels = root / "images", root / "labels"
    (images / "P01_1.png").write_bytes((images / "P01_1.png").read_bytes()[:200])
    (labels / "P02_1.png").write_text("hello")
    write_png(labels / "P03_1.png", np.zeros((5, 5), np.uint8))
    (labels / "P04_1.png").unlink()
    write_png(labels / "P05_1.png", np.full((24, 32), 9, np.uint8))
    write_png(labels / "P99_1.png", np.zeros((24, 32), np.uint8))
    report = check_dataset(open_dataset(root))
    assert [(fault.file.parent.name, fault.file.stem) for fault in report.errors] == [
        ("images", "P01_1"),
        ("labels", "P02_1"),
        ("labels", "P03_1"),
        ("images", "P04_1"),
        ("labels", "P05_1"),
    ]
    assert all(fault.problem and fault.fix for fault in report.faults)
    assert "damaged or truncated" in report.errors[0].problem
    assert report.errors[0].fix == "copy or download it again"
    assert [fault.file.stem for fault in report.faults if fault.severity == "warning"] == ["P99_1"]
    assert report.classes[1].cases == 2
    with pytest.raises(DataError, match=r"5 faults: .*P01_1.* \| .*P02_1.* \| .*P03_1.* \| and 2 more") as caught:
        report.raise_on_errors()
    assert "\n" not in str(caught.value)


def test_labels_that_cannot_be_read_count_for_no_class(tmp_path: Path) -> None:
    """Of four cases one label stays whole: what it lacks is said of one case, and of none nothing is said."""
    labels = {"background": 0, "c1": 1, "c2": 2, "spare": 9}
    dataset = open_dataset(fabricate.folder_dataset(tmp_path, described={"labels": labels}))
    for file in [file for case in dataset.cases[1:] for file in case.files]:
        assert file.label
        file.label.write_bytes(b"no picture")
    told = [fault.problem for fault in check_dataset(dataset).faults if "in none of" in fault.problem]
    assert told == ["class 'spare' is in none of 1 case whose labels can be read, of 4"]
    for file in dataset.cases[0].files:
        assert file.label
        file.label.write_bytes(b"no picture")
    assert not [fault for fault in check_dataset(dataset).faults if "in none of" in fault.problem]


def test_absent_class_is_a_warning(tmp_path: Path) -> None:
    """D24: a map with a class that no case has."""
    labels = {"background": 0, "c1": 1, "c2": 2, "spare": 9}
    report = check_dataset(open_dataset(fabricate.folder_dataset(tmp_path, described={"labels": labels})))
    assert [fault.severity for fault in report.faults] == ["warning"]
    assert report.faults[0].problem == "class 'spare' is in none of 4 cases"
    assert report.classes[3].pixels == 0
    report.raise_on_errors()


def test_class_that_only_the_test_cases_have_is_a_warning(tmp_path: Path) -> None:
    """D24."""
    fabricate.folder_dataset(tmp_path)
    for path in (tmp_path / "labels").glob("P0[123]*.png"):
        label = read_volume(path).array[..., 0]
        write_png(path, np.where(label == 2, 0, label).astype(np.uint8))
    report = check_dataset(open_dataset(tmp_path))
    assert [fault.problem for fault in report.faults] == ["class 'c2' is in the test cases but in no training case"]


def test_255_as_the_only_class_is_said_once(tmp_path: Path) -> None:
    """D03."""
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:6] = 255
    report = check_dataset(one_file(tmp_path, mask // 2 + 1, mask))
    assert [(f.severity, f.problem) for f in report.faults] == [("warning", "255 in 1 mask, the first is a.png")]
    assert report.classes[1].pixels == 6


@pytest.mark.parametrize(("whole", "severity"), [(False, "warning"), (True, "error")])
def test_values_that_are_no_numbers(whole: bool, severity: str, tmp_path: Path) -> None:
    """D14: one NaN and one infinity are counted and told; a file of nothing else is refused."""
    array = np.arange(192, dtype=np.float32).reshape(6, 8, 4)
    array[3, 4, 3], array[0, 0, 0] = np.nan, np.inf
    image = write_nifti(tmp_path / "images/a.nii.gz", np.full_like(array, np.nan) if whole else array, CT_AFFINE)
    label = write_nifti(tmp_path / "labels/a.nii.gz", np.ones((6, 8, 4), np.uint8), CT_AFFINE)
    labels = LabelSet(("background", "a"), (0, 1))
    report = check_dataset(Dataset("d", tmp_path, labels, (Case("a", (ImageFile("a", image, label),)),)))
    told = [f for f in report.faults if f.file == image]
    wanted = "no pixel has a value" if whole else "2 values are NaN, infinite"
    assert [(f.severity, f.problem.startswith(wanted)) for f in told] == [(severity, True)]


def test_a_structure_that_vanishes_at_the_networks_side(tmp_path: Path) -> None:
    """D41: a 2 x 2 target in 2048 x 2048 pixels and a side of 256; one warning with file, class and 4 pixels.

    Each pixel of the small label is the one at the middle of 8 x 8: rows and columns 4, 12, 20, ...
    """
    mask = np.zeros((2048, 2048), np.uint8)
    mask[1000:1002, 1000:1002] = 1
    dataset = one_file(tmp_path, 3 * mask, mask)
    assert check_dataset(dataset).faults == ()
    (fault,) = check_dataset(dataset, side=256).faults
    assert (fault.file.name, fault.severity) == ("a.png", "warning")
    assert "class 'target' (4 pixels) is lost when 2048 x 2048 pixels are scaled to a side of 256" in fault.problem
    assert check_dataset(dataset, side=2048).faults == ()
    mask[:] = 0
    mask[1003:1005, 1003:1005] = 1  # holds pixel 1004 = 8 * 125 + 4
    write_png(tmp_path / "labels/a.png", mask)
    assert check_dataset(dataset, side=256).faults == ()


def test_small_structures_of_a_volume_are_told_by_the_file_not_by_the_slice(tmp_path: Path) -> None:
    """A structure that one slice keeps is not lost; and what is looked at is the body's box."""
    label = np.zeros((64, 64, 4), np.uint8)
    label[33, 33, 0] = 1
    grey = np.full((64, 64, 4), 40, np.int16)
    grey[0, 0, 0] = 41
    image = write_nifti(tmp_path / "images/a.nii.gz", grey)
    file = ImageFile("a", image, write_nifti(tmp_path / "labels/a.nii.gz", label))
    dataset = Dataset("d", tmp_path, ONE, (Case("a", (file,)),))
    whole = PRESETS["percentile"]
    assert problems(check_dataset(dataset, side=16, recipe=whole)) == [
        "class 'target' (1 voxels) is lost when 64 x 64 pixels are scaled to a side of 16"
    ]
    label[:, :, 3] = 1
    write_nifti(file.label, label)  # type: ignore[arg-type]
    assert check_dataset(dataset, side=16, recipe=whole).faults == ()


def test_equal_images_are_told_once_with_the_splits_they_are_in(tmp_path: Path) -> None:
    root = fabricate.folder_dataset(tmp_path)
    for copy in ("P01_2", "P04_1"):
        (root / f"images/{copy}.png").write_bytes((root / "images/P01_1.png").read_bytes())
    report = check_dataset(open_dataset(root))
    assert [(f.file.name, f.problem, f.severity) for f in report.faults] == [
        ("P01_1.png", "has the same pixels as P01_2.png, P04_1.png, in the splits train and test", "warning")
    ]


def test_look_alikes_of_another_split_are_told_when_asked_for(tmp_path: Path) -> None:
    """A brighter copy of a training image among the test images."""
    root = fabricate.folder_dataset(tmp_path, size=(48, 64), cases=4, files_per_case=1)
    rng = np.random.default_rng(0)
    for n in range(1, 5):
        texture = np.kron(rng.integers(0, 200, (12, 16)), np.ones((4, 4))).astype(np.uint8)
        write_png(root / f"images/P0{n}_1.png", texture)
    write_png(root / "images/P04_1.png", read_volume(root / "images/P01_1.png").array[..., 0] + np.uint8(30))
    assert check_dataset(open_dataset(root)).faults == ()
    (fault,) = check_dataset(open_dataset(root), leaks=True).faults
    assert {fault.file.name, fault.problem.split()[2]} == {"P01_1.png", "P04_1.png"}
    assert "of another split" in fault.problem


def test_cases_without_labels_are_no_fault_where_the_layout_ships_them_so(tmp_path: Path) -> None:
    flare22_nnunet_names(tmp_path)
    report = check_dataset(open_dataset(tmp_path))
    assert report.errors == ()
    assert report.notes[-1].startswith("only images were checked of 1 case that")
    assert report.files == 3


def test_classes_are_counted_by_split(tmp_path: Path) -> None:
    """D24: cases of each class in each split; 3 training cases, 1 test case, one of the three without class 2."""
    root = fabricate.folder_dataset(tmp_path, files_per_case=1)
    label = discs((24, 32), 3, 101)
    write_png(root / "labels/P01_1.png", np.where(label == 2, 0, label).astype(np.uint8))
    report = check_dataset(open_dataset(root))
    assert report.splits == {"train": 3, "test": 1}
    assert [c.by_split for c in report.classes] == [
        {"train": 3, "test": 1},
        {"train": 3, "test": 1},
        {"train": 2, "test": 1},
    ]
    assert report.table().splitlines()[-1].endswith("| 3 of 4 | 2 of 3 | 1 of 1 |")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("8 GiB"), "cannot be read (MemoryError: 8 GiB)"),
        (ZeroDivisionError("by hand"), "failed in a way that was not foreseen (ZeroDivisionError: by hand)"),
    ],
)
def test_a_failing_worker_names_the_file(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D42: what the machine lacks, and a mistake of ours, is a fault of that file; the others are checked."""
    dataset = one_file(tmp_path, looks_like(discs((9, 9), 2, 1), 2, 1), discs((9, 9), 2, 1))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(check_module, "read_truth", fail)
    (fault,) = check_dataset(dataset).errors
    assert (fault.file.name, fault.problem) == ("a.png", told)


# --- real data


def _sirst(report: CheckReport) -> None:
    """Misc_111's mask has another size; Misc_27 and Misc_31 show one sky with one target and are in two splits."""
    assert [fault.file.name for fault in report.errors] == ["Misc_111_pixels0.png"]
    assert "400 x 592" in report.errors[0].problem
    assert "220 x 325" in report.errors[0].problem
    assert [fault.problem.split(" of ")[0] for fault in report.warnings] == ["looks like Misc_27.png"]
    assert report.notes == ()
    assert report.splits == {"train": 256, "val": 85, "test": 86}
    assert report.summary["types"] == {"uint8": 268, "uint8 x 3 bands": 158}  # 37 palettes and 122 RGB but Misc_111


def _btcv(report: CheckReport) -> None:
    """No fault; 8-bit CT, every slice scaled on its own, upside down: three notes."""
    assert report.faults == ()
    assert [next(w for w in ("8-bit", "on its own", "upside down") if w in note) for note in report.notes] == [
        "8-bit",
        "on its own",
        "upside down",
    ]
    assert report.summary["intensity"]["lowest"] == [0, 0, 0]
    assert report.summary["intensity"]["highest"] == [254, 254, 254]
    assert (report.files, sum(c.pixels for c in report.classes)) == (162, 162 * 512 * 512)
    assert [c.cases for c in report.classes[1:]] == [23, 23, 23, 20, 23, 23, 23, 23, 23, 23, 23, 20, 23]


def _gid(report: CheckReport) -> None:
    assert (report.faults, report.notes) == ((), ())
    assert 0.16 < report.ignored / (200 * 224 * 224) < 0.19


EXPECTED: dict[str, Callable[[CheckReport], None]] = {"sirst": _sirst, "btcv_slices": _btcv, "gid_mtl5": _gid}


@pytest.mark.real_data
@pytest.mark.parametrize("name", EXPECTED)
def test_real_sets_have_their_known_faults_and_no_others(name: str, real_data: Path) -> None:
    EXPECTED[name](check_dataset(open_dataset(real_data / name), leaks=True))


@pytest.mark.real_data
def test_real_slices_of_ct_and_mr_have_no_faults(real_data: Path, tmp_path: Path) -> None:
    """amos_slices: one CT and one MR slice, turned by 90 degrees; too few to say so."""
    organs = (
        "liver kidney_R spleen pancreas aorta IVC adrenal_R adrenal_L gallbladder esophagus stomach duodenum kidney_L"
    )
    described = {"labels": {"background": 0, **{name: n for n, name in enumerate(organs.split(), 1)}}}
    for part in ("images", "labels"):
        (tmp_path / part).symlink_to(real_data / "amos_slices" / part)
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    report = check_dataset(open_dataset(tmp_path), leaks=True)
    assert problems(report) == ["class 'esophagus' is in none of 2 cases"]
    assert report.notes == ()


@pytest.mark.real_data
def test_real_volumes_of_nifti_and_dicom_have_no_faults(real_data: Path, tmp_path: Path) -> None:
    """totalsegmentator_ct: a NIfTI of 3 mm, and a DICOM series whose label is stored with another row order."""
    pytest.importorskip("pydicom")
    ct, files = real_data / "totalsegmentator_ct", []
    (tmp_path / "labels").mkdir()
    for id, image in (("case_a", "ct.nii.gz"), ("case_b_dicom", "dicom")):
        label = tmp_path / f"labels/{id}.nii.gz"
        label.symlink_to(ct / id / "labels_flare22.nii.gz")
        files.append(ImageFile(id, ct / id / image, label))
    labels = LabelSet(("background", *map(str, range(1, 14))), tuple(range(14)))
    report = check_dataset(Dataset("ct", ct, labels, tuple(Case(f.id, (f,)) for f in files)))
    assert problems(report) == ["class '10' is in none of 2 cases"]  # the oesophagus
    liver = report.classes[1]
    assert (liver.pixels, liver.cases) == (41602 + 366708, 2)
    assert report.summary["spacing_mm"] == {
        "across": [2, 2.5, 3],
        "down": [0.9766, 1.9883, 3],
        "along": [0.9766, 1.9883, 3],
    }
    assert report.summary["intensity"]["lowest"][0] == -1207
    assert report.summary["intensity"]["highest"][2] == 3382


def test_an_image_of_one_value_is_told_and_bands_that_it_lacks_are_an_error(tmp_path: Path) -> None:
    """D17: band 6 of an image with three."""
    mask = discs((9, 9), 2, 1)
    dataset = one_file(tmp_path, np.full((9, 9, 3), (200, 100, 50), np.uint8), mask)
    (fault,) = check_dataset(dataset).faults
    assert (fault.severity, fault.problem) == ("warning", "all its pixels have one value")
    write_png(tmp_path / "images/a.png", np.arange(243, dtype=np.uint8).reshape(9, 9, 3))
    assert check_dataset(dataset, recipe=with_bands(PRESETS["8bit"], "3,2,1")).faults == ()
    (fault,) = check_dataset(dataset, recipe=with_bands(PRESETS["8bit"], "6,2,1")).errors
    assert (fault.severity, fault.problem) == ("error", "has 3 bands, but the recipe looks at bands 6,2,1")


def test_volumes_of_several_planes_are_told_and_the_usual_one_is_chosen(tmp_path: Path) -> None:
    """D09: thick slices along the superior axis twice, along the anterior one once."""
    cases = []
    for name, spacing in (("a", (1, 5, 1)), ("b", (1, 1, 5)), ("c", (1, 1, 4))):
        grey = np.arange(480, dtype=np.int16).reshape(10, 8, 6)
        image = write_nifti(tmp_path / f"images/{name}.nii.gz", grey, np.diag([*spacing, 1.0]))
        label = write_nifti(tmp_path / f"labels/{name}.nii.gz", (grey > 200).astype(np.uint8), np.diag([*spacing, 1.0]))
        cases.append(Case(name, (ImageFile(name, image, label),)))
    report = check_dataset(Dataset("d", tmp_path, ONE, tuple(cases)))
    assert report.plane == "axial"
    assert report.seen == Seen(pytest.approx(4.79), pytest.approx(474.21), ("axial", "coronal"))
    (note,) = report.notes
    assert note.startswith(
        "by their spacing the slices of the volumes are 2 axial (such as b.nii.gz), 1 coronal (such as a"
    )
    alone = check_dataset(Dataset("d", tmp_path, ONE, tuple(cases[:1])))
    assert (alone.plane, alone.notes) == ("coronal", ())


def test_ct_that_is_stored_without_negative_values_is_told_of_each_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hounsfield units + 1024, as scanners store them, where the recipe is a window in Hounsfield units."""
    hu = np.linspace(-1024, 1500, 480).reshape(10, 8, 6).astype(np.int16)
    for n in range(2):
        write_nifti(tmp_path / f"images/p{n}.nii.gz", np.roll(hu, n) + 1024)
        write_nifti(tmp_path / f"labels/p{n}.nii.gz", (hu > 200).astype(np.uint8))
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "bone": 1}, "modality": "CT"}')
    report = check_dataset(open_dataset(tmp_path), recipe=PRESETS["ct-abdomen"])
    assert [fault.file.name for fault in report.warnings] == ["p0.nii.gz", "p1.nii.gz"]
    fault = report.warnings[0]
    assert fault.problem.startswith("its values are 0..2524 (int16), but the recipe is a window of ")
    assert fault.fix == "give the image as it was before any scaling"
    assert main(["check", str(tmp_path), "--intensity", "ct-abdomen"]) == 0
    said = capsys.readouterr().out
    assert "images/p0.nii.gz: its values are 0..2524 (int16), but the recipe is a window of " in said
    assert main(["check", str(tmp_path)]) == 0  # the recipe follows the first image then, and the note remains
    assert (
        "2 CT volumes without a value below 0, such as p0.nii.gz: these are no Hounsfield units"
        in capsys.readouterr().out
    )
    write_nifti(tmp_path / "images/p1.nii.gz", np.roll(hu, 1))
    report = check_dataset(open_dataset(tmp_path), recipe=PRESETS["ct-abdomen"])
    assert [fault.file.name for fault in report.warnings] == ["p0.nii.gz"]
    assert any(note.startswith("1 CT volume without a value below 0") for note in report.notes)
