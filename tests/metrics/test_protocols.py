"""Protocols: the policy for absent classes, units, ignored pixels, FLARE22's rules against the official package."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from sampeft.data.layouts.flare22 import FLARE22_LABELS
from sampeft.errors import DataError, UsageError
from sampeft.labels import LabelSet
from sampeft.metrics import METRICS
from sampeft.metrics.counts import count
from sampeft.metrics.overlap import dsc
from sampeft.metrics.places import PLACES
from sampeft.metrics.protocols import (
    FLARE22_TOLERANCE_MM,
    PROTOCOLS,
    TARGET_COUNTS,
    Protocol,
    protocol_of,
    read_tolerances,
)
from sampeft.volume import IGNORE

TWO = LabelSet(("background", "organ", "absent"), (0, 1, 2))
DEFAULT = PROTOCOLS["default"]


def box(*sides: tuple[int, int], shape: tuple[int, ...] = (12, 12, 12), k: int = 1) -> np.ndarray:
    array = np.zeros(shape, dtype=np.int16)
    array[tuple(slice(*side) for side in sides)] = k
    return array


def test_d31_default_in_mm() -> None:
    """The cube of case D31; its tolerance is the 2 mm of an unknown organ: both planes 2 x 2 mm apart are out."""
    truth, prediction = box((0, 10), (0, 10), (0, 10)), box((0, 10), (0, 10), (2, 12))
    found = DEFAULT.score(prediction, truth, (1, 1, 2), TWO).measures
    strict = DEFAULT.with_tolerances({"organ": 1.9}).score(prediction, truth, (1, 1, 2), TWO).measures
    assert found["hd95_mm"][1] == 4.0
    assert strict["nsd"][1] == pytest.approx(0.735913, abs=1e-6)
    assert found["volume_error_ml"][1] == found["volume_error_percent"][1] == 0.0
    assert np.isnan([values[k] for values in found.values.values() for k in (0, 2)]).all()
    smaller = DEFAULT.score(box((0, 10), (0, 10), (0, 5)), truth, (1, 1, 2), TWO).measures
    assert smaller["volume_error_ml"][1] == pytest.approx(-1.0)  # 500 voxels of 2 mm3
    assert smaller["volume_error_percent"][1] == pytest.approx(-50.0)


def test_d30_missed_and_false() -> None:
    organ, nothing = box((2, 4), (2, 4), (2, 4)), np.zeros((12, 12, 12), np.int16)
    missed = DEFAULT.score(nothing, organ, (1, 1, 1), TWO)
    assert dsc(missed.counts)[1] == missed.measures["nsd"][1] == 0.0
    assert missed.measures["hd95_mm"][1] == missed.measures["assd_mm"][1] == np.inf
    assert missed.measures["volume_error_percent"][1] == -100.0
    false = DEFAULT.score(organ, nothing, (1, 1, 1), TWO)
    assert (false.measures["nsd"][1], false.measures["hd95_mm"][1]) == (0.0, np.inf)
    assert (false.measures["volume_error_ml"][1], false.measures["volume_error_percent"][1]) == (0.008, np.inf)
    for values in DEFAULT.score(nothing, nothing, (1, 1, 1), TWO).measures.values.values():
        assert np.isnan(values).all()


def test_pictures_are_measured_in_pixels_and_say_so() -> None:
    truth, prediction = (box((2, 8), side, (0, 1), shape=(12, 12, 1)) for side in ((2, 6), (2, 9)))
    found = DEFAULT.score(prediction, truth, (1, 1, 1), TWO, unit="px").measures
    assert set(found.values) - set(PLACES["px"]) == {"nsd_px", "hd95_px", "assd_px"} < set(METRICS)
    assert found["hd95_px"][1] == 3.0
    slice_mm = DEFAULT.score(prediction, truth, (1, 0.5, 7), TWO).measures
    assert slice_mm["hd95_mm"][1] == 1.5  # one slice is a picture: its thickness is no surface
    turned = DEFAULT.score(prediction.transpose(2, 0, 1), truth.transpose(2, 0, 1), (7, 1, 0.5), TWO).measures
    assert turned == slice_mm


def test_a_tolerance_that_only_rounding_misses_is_met() -> None:
    """5 voxels of 0.6 mm, which a float32 header makes 3.0000001 mm, are within 3 mm."""
    spacing = (float(np.float32(0.6)), 1.0, 1.0)
    truth, prediction = box((2, 3), (0, 12), (0, 12)), box((7, 8), (0, 12), (0, 12))
    found = DEFAULT.with_tolerances({"organ": 3.0}).score(prediction, truth, spacing, TWO).measures
    assert found["nsd"][1] == 1.0


@pytest.mark.parametrize("name", ["default", "pixels", "paper"])
def test_ignored_pixels_change_no_number(name: str) -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(3, size=(9, 10, 8)).astype(np.int16)
    truth[4:, 3:8] = IGNORE
    prediction = generator.integers(3, size=truth.shape).astype(np.int16)
    scrambled = np.where(truth == IGNORE, generator.integers(3, size=truth.shape), prediction).astype(np.int16)
    first, second = (PROTOCOLS[name].score(p, truth, (1, 2, 3), TWO) for p in (prediction, scrambled))
    assert first == second
    assert first.counts == count(prediction, truth, 3)


def test_cropping_changes_no_number() -> None:
    """Empty space around both, and a label map without a background, where nothing is empty."""
    generator = np.random.default_rng(1)
    truth, prediction = generator.integers(3, size=(2, 7, 8, 6)).astype(np.int16)
    wide = [np.pad(array, ((3, 9), (0, 4), (2, 2))) for array in (prediction, truth)]
    tight, loose = DEFAULT.score(prediction, truth, (1, 1, 2), TWO), DEFAULT.score(*wide, (1, 1, 2), TWO)
    assert tight.measures == loose.measures
    assert loose.counts == count(*wide, 3)
    everything = LabelSet(("meadow", "forest", "water"), (0, 1, 2))
    found = DEFAULT.score(prediction, truth, (1, 1, 2), everything).measures
    np.testing.assert_array_equal(found["hd95_mm"][1:], tight.measures["hd95_mm"][1:])
    assert np.isfinite(found["hd95_mm"][0])
    assert DEFAULT.score(truth, truth, (1, 1, 2), everything).measures["nsd"].tolist() == [1, 1, 1]


def test_files_of_a_case_pool() -> None:
    """Volume errors add; two equal files have the surface numbers of one."""
    truth, prediction = box((0, 6), (0, 6), (0, 6)), box((1, 7), (0, 6), (0, 5))
    tally = DEFAULT.tally(prediction, truth, (1, 1, 1), TWO)
    one, two = DEFAULT.finish(tally, TWO), DEFAULT.finish(tally + tally, TWO)
    assert two.measures["volume_error_ml"][1] == 2 * one.measures["volume_error_ml"][1] != 0
    assert two.measures["nsd"][1] == pytest.approx(one.measures["nsd"][1], rel=1e-12)
    with pytest.raises(DataError, match="score them as two cases"):
        tally + DEFAULT.tally(prediction, truth, (1, 1, 1), TWO, unit="px")


def test_targets_are_counted_in_pictures() -> None:
    truth = box((2, 4), (2, 4), (0, 1), shape=(20, 20, 1)) + box((10, 12), (10, 12), (0, 1), shape=(20, 20, 1))
    prediction = box((2, 4), (3, 5), (0, 1), shape=(20, 20, 1)) + box((16, 18), (2, 4), (0, 1), shape=(20, 20, 1))
    found = PROTOCOLS["targets"].score(prediction, truth, (1, 1, 1), TWO, unit="px").measures
    assert {name: found[name][1] for name in ("pd", "fa", *TARGET_COUNTS)} == {
        "pd": 0.5, "fa": 4 / 400, "targets": 2, "targets_found": 1, "targets_false": 1, "targets_false_pixels": 4, "pixels": 400,
    }  # fmt: skip
    with pytest.raises(UsageError, match="in pictures, not in volumes"):
        PROTOCOLS["targets"].score(box((1, 2)), box((1, 2)), (1, 1, 1), TWO)


def flare(*places: tuple[int, tuple[slice, ...]], shape: tuple[int, int, int] = (16, 16, 12)) -> np.ndarray:
    array = np.zeros(shape, dtype=np.int16)
    for k, place in places:
        array[place] = k
    return array


def test_flare22_rules_by_hand() -> None:
    """Aorta (5) in slices 2..7, predicted in 0..11: official scores see 2..6 only, so the DSC is 1."""
    cross = (slice(4, 8), slice(4, 8))
    truth, prediction = flare((5, (*cross, slice(2, 8)))), flare((5, (*cross, slice(0, 12))))
    for name in ("flare22", "flare22-package"):
        found = PROTOCOLS[name].score(prediction, truth, (1, 1, 1), FLARE22_LABELS).measures
        assert (found["dsc"][5], found["nsd"][5]) == (1.0, 1.0)
        assert (found["dsc"][1], found["nsd"][1]) == (1.0, 1.0)  # liver in neither
    default = DEFAULT.score(prediction, truth, (1, 1, 1), FLARE22_LABELS)
    assert dsc(default.counts)[5] == pytest.approx(12 / 18)
    assert np.isnan(dsc(default.counts)[1])


def test_flare22_repository_zeroes_nsd_of_a_low_dsc_and_the_package_does_not() -> None:
    truth, prediction = flare((1, (slice(2, 3),))), flare((1, (slice(4, 5),)))
    names = ("flare22", "flare22-package")
    scores = {name: PROTOCOLS[name].score(prediction, truth, (1, 1, 1), FLARE22_LABELS).measures for name in names}
    assert scores["flare22"]["dsc"][1] == scores["flare22-package"]["dsc"][1] == 0.0
    assert (scores["flare22"]["nsd"][1], scores["flare22-package"]["nsd"][1]) == (0.0, 1.0)


def shim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that the package of 2022 takes from numpy and scipy."""
    import scipy.ndimage

    for name, value in {"Inf": np.inf, "NaN": np.nan}.items():
        monkeypatch.setattr(np, name, value, raising=False)
    for name in ("filters", "morphology"):
        monkeypatch.setattr(scipy.ndimage, name, scipy.ndimage, raising=False)


@pytest.mark.real_data
def test_flare22_package_is_equal_to_4_decimals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole CT with 12 organs; predictions are shifted, eroded, emptied and mixed copies."""
    if not os.environ.get("SAMPEFT_DATA"):
        pytest.skip("set SAMPEFT_DATA to the folder of the shared real data")
    shim(monkeypatch)
    package = pytest.importorskip("FLARE22_DSC_NSD_TEST.DSC_NSD_TEST")
    nibabel = pytest.importorskip("nibabel")
    ndimage = pytest.importorskip("scipy.ndimage")
    source = Path(os.environ["SAMPEFT_DATA"]) / "totalsegmentator_ct" / "case_a" / "labels_flare22.nii.gz"
    image = nibabel.load(source)
    truth = np.asarray(image.dataobj).astype(np.uint8)
    eroded = np.where(ndimage.binary_erosion(truth > 0, iterations=1), truth, 0)
    shifted = np.roll(truth, (2, -1, 1), axis=(0, 1, 2))
    mixed = shifted.copy()
    mixed[np.isin(mixed, (2, 5, 9))] = 0  # missed
    mixed[:4, :4, :4] = 10  # a false esophagus
    mixed[mixed == 13] = 8  # one class taken for another
    predictions = {
        "same": truth, "shifted": shifted, "far": np.roll(truth, 30, axis=0), "eroded": eroded,
        "emptied": np.zeros_like(truth), "mixed": mixed,
    }  # fmt: skip
    for side in ("pred", "truth"):
        (tmp_path / side).mkdir()
    for name, prediction in predictions.items():
        for side, array in (("pred", prediction), ("truth", truth)):
            nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), image.affine), tmp_path / side / f"{name}.nii.gz")
    theirs = package.DSC_NSD(str(tmp_path / "pred"), str(tmp_path / "truth"), str(tmp_path), "scores.csv")
    spacing = nibabel.affines.voxel_sizes(image.affine)
    organs = [name.removesuffix("_DSC") for name in theirs if name.endswith("_DSC")]
    for i, name in enumerate(theirs["Name"]):
        prediction = predictions[name.removesuffix(".nii.gz")]
        ours = PROTOCOLS["flare22-package"].score(prediction, truth, spacing, FLARE22_LABELS).measures
        np.testing.assert_array_equal(ours["dsc"][1:], [theirs[f"{organ}_DSC"][i] for organ in organs], err_msg=name)
        np.testing.assert_array_equal(ours["nsd"][1:], [theirs[f"{organ}_NSD"][i] for organ in organs], err_msg=name)


def test_a_tube_of_one_slice_has_no_score_by_flare22() -> None:
    """Its last slice is its only one; the official scorers fail there."""
    truth = flare((10, (slice(2, 4), slice(2, 4), slice(3, 4))))
    found = PROTOCOLS["flare22"].score(truth, truth, (1, 1, 1), FLARE22_LABELS).measures
    assert np.isnan([found["dsc"][10], found["nsd"][10]]).all()


def test_flare22_is_for_its_own_labels_and_tolerances() -> None:
    assert tuple(FLARE22_TOLERANCE_MM) == FLARE22_LABELS.names[1:]
    with pytest.raises(UsageError, match=r"for FLARE22's ids 0..13"):
        PROTOCOLS["flare22"].score(box((1, 2)), box((1, 2)), (1, 1, 1), TWO)
    with pytest.raises(UsageError, match="fixes the tolerances"):
        PROTOCOLS["flare22"].with_tolerances({"liver": 3.0})
    with pytest.raises(UsageError, match="volumes with a pixel size"):
        PROTOCOLS["flare22"].score(box((1, 2)), box((1, 2)), (1, 1, 1), FLARE22_LABELS, unit="px")


def test_protocols_by_name_and_tolerances_by_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown protocol 'flare'; did you mean 'flare22'"):
        protocol_of("flare")
    path = tmp_path / "tolerances.json"
    path.write_text(json.dumps({"organ": 4}))
    found = protocol_of("default", path)
    assert [found.tolerance(name, "mm") for name in ("organ", "absent", "liver")] == [4.0, 2.0, 5.0]
    with pytest.raises(UsageError, match="tolerances are given for organ"):
        found.check(FLARE22_LABELS)
    for text in ("[1]", '{"organ": 0}', '{"organ": "2"}', '{"organ": true}', "{"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"tolerances.json: "):
            read_tolerances(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_tolerances(tmp_path / "none.json")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_names_itself_and_its_rules(name: str) -> None:
    protocol: Protocol = PROTOCOLS[name]
    assert protocol.name == name
    assert len(protocol.about) > 40
