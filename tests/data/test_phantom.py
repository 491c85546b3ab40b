"""Laws of the phantom: seeded, anatomy in its place, volumes and densities of a real abdomen, files written once."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from sampeft.data.layouts.flare22 import FLARE22_LABELS, read
from sampeft.errors import DataError, UsageError
from sampeft.phantom.ct import PhantomConfig, generate_patient, write_phantom
from sampeft.volume import Volume

SMALL = PhantomConfig(patients=3, test_patients=1, size=48, slices=12)
ID = dict(zip(FLARE22_LABELS.names, FLARE22_LABELS.ids, strict=True))

# Of adults, with some room for small and large ones.
VOLUME_ML = {
    "liver": (1050, 1950),
    "right kidney": (100, 230),
    "left kidney": (100, 230),
    "spleen": (120, 350),
    "pancreas": (45, 130),
    "aorta": (40, 120),
    "inferior vena cava": (40, 120),
    "right adrenal gland": (3, 9),
    "left adrenal gland": (3, 9),
    "gallbladder": (18, 60),
    "esophagus": (8, 30),
    "stomach": (150, 520),
    "duodenum": (36, 95),
}
# Median inside the organ, portal venous phase. The thin adrenals see fat beside them; a stomach may hold contrast.
MEDIAN_HU = {
    "liver": (85, 135),
    "right kidney": (145, 205),
    "left kidney": (145, 205),
    "spleen": (85, 140),
    "pancreas": (50, 110),
    "aorta": (125, 190),
    "inferior vena cava": (100, 170),
    "right adrenal gland": (25, 100),
    "left adrenal gland": (25, 100),
    "gallbladder": (-15, 40),
    "esophagus": (10, 80),
    "stomach": (-20, 165),
    "duodenum": (5, 60),
}


def as_volume(index: int, config: PhantomConfig = PhantomConfig()) -> tuple[Volume, np.ndarray]:  # noqa: B008
    hu, labels, affine = generate_patient(config, index)
    return Volume(hu, affine, Path(f"patient {index}")), labels


@pytest.fixture(scope="module")
def patients() -> list[tuple[Volume, np.ndarray]]:
    return [as_volume(index) for index in range(5)]


def centre_mm(name: str, volume: Volume, labels: np.ndarray) -> np.ndarray:
    """World (RAS+) centre of an organ."""
    assert volume.affine is not None
    return (volume.affine @ np.append(np.argwhere(labels == ID[name]).mean(axis=0), 1))[:3]


def test_same_seed_gives_the_same_bytes_and_the_number_of_patients_does_not_matter() -> None:
    first = generate_patient(SMALL, 1)
    more = PhantomConfig(patients=50, test_patients=7, size=48, slices=12)
    for a, b, c in zip(first, generate_patient(SMALL, 1), generate_patient(more, 1), strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_patients_and_seeds_differ() -> None:
    labels = [generate_patient(SMALL, 0)[1], generate_patient(SMALL, 1)[1]]
    labels.append(generate_patient(PhantomConfig(seed=1, size=48, slices=12), 0)[1])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        overlap = 2 * ((labels[a] == 1) & (labels[b] == 1)).sum() / ((labels[a] == 1).sum() + (labels[b] == 1).sum())
        assert 0.4 < overlap < 0.97  # the same organ in about the same place, and not a copy


def test_volumes_and_densities_are_those_of_an_abdomen(patients: list[tuple[Volume, np.ndarray]]) -> None:
    for volume, labels in patients:
        millilitres = float(np.prod(volume.spacing_mm)) / 1000
        for name, (low, high) in VOLUME_ML.items():
            assert low < (labels == ID[name]).sum() * millilitres < high, (name, volume.path)
        for name, (low_hu, high_hu) in MEDIAN_HU.items():
            assert low_hu < np.median(volume.array[labels == ID[name]]) < high_hu, (name, volume.path)


def test_organs_lie_on_their_side_in_world_coordinates(patients: list[tuple[Volume, np.ndarray]]) -> None:
    for volume, labels in patients:
        at = {name: centre_mm(name, volume, labels) for name in FLARE22_LABELS.names[1:]}
        for name in ("liver", "right kidney", "right adrenal gland", "gallbladder", "duodenum"):
            assert at[name][0] > 0, name
        for name in ("spleen", "left kidney", "left adrenal gland", "stomach", "aorta"):
            assert at[name][0] < 0, name
        assert at["aorta"][0] < at["inferior vena cava"][0]
        assert at["right kidney"][2] < at["left kidney"][2]  # the liver pushes it down
        assert at["stomach"][1] > at["left kidney"][1]  # in front
        for side in ("right", "left"):
            assert at[f"{side} adrenal gland"][2] > at[f"{side} kidney"][2]
        assert at["esophagus"][2] > at["stomach"][2] > at["duodenum"][2]


def test_geometry_is_like_that_of_a_real_ct(patients: list[tuple[Volume, np.ndarray]]) -> None:
    spacings = np.array([volume.spacing_mm for volume, _ in patients])
    assert len(np.unique(spacings[:, 0])) == len(patients)
    assert (abs(spacings - [2.0, 2.0, 5.0]) < [0.1, 0.1, 0.3]).all()
    for volume, _ in patients:
        assert volume.affine is not None
        assert nib.aff2axcodes(volume.affine) == ("L", "P", "S")
        assert volume.array.dtype == np.int16
        assert volume.array.min() >= -1024
        corner = volume.array[:20, :20]  # air beside the patient, with noise
        assert -1010 < corner.mean() < -980
        assert 5 < corner.std() < 25


def test_a_coarse_grid_shows_the_same_patient(patients: list[tuple[Volume, np.ndarray]]) -> None:
    (fine, fine_labels), (coarse, coarse_labels) = patients[0], as_volume(0, PhantomConfig(size=96, slices=40))
    for name in FLARE22_LABELS.names[1:]:
        ratio = (coarse_labels == ID[name]).sum() * 4 / (fine_labels == ID[name]).sum()
        assert 0.8 < ratio < 1.25, name
        shift_mm = centre_mm(name, fine, fine_labels) - centre_mm(name, coarse, coarse_labels)
        assert abs(shift_mm).max() < 2.5, name


def test_edges_are_soft_and_labels_end_half_way_down(patients: list[tuple[Volume, np.ndarray]]) -> None:
    """From kidney (170 HU) to the fat around it (-90): the voxels on both sides of the border average out."""
    ring = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)[:, :, None]
    for volume, labels in patients:
        kidney = labels == ID["right kidney"]
        wider, smaller = ndimage.binary_dilation(kidney, ring), ndimage.binary_erosion(kidney, ring)
        widest, smallest = ndimage.binary_dilation(wider, ring), ndimage.binary_erosion(smaller, ring)
        means = [
            float(volume.array[a & ~b].mean())
            for a, b in ((smaller, smallest), (kidney, smaller), (wider, kidney), (widest, wider))
        ]
        assert means == sorted(means, reverse=True)
        assert means[0] - means[3] > 150
        assert abs((means[1] + means[2]) / 2 - (means[0] + means[3]) / 2) < 35


def test_written_files_are_a_flare22_data_set(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_phantom(tmp_path / "p", SMALL, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    dataset = read(tmp_path / "p")
    assert dataset.splits["train"] == ("Phantom_0001", "Phantom_0002")
    assert dataset.splits["test"] == ("Phantom_0003",)
    hu, labels, affine = generate_patient(SMALL, 2)
    file = dataset.cases[2].files[0]
    image, label = nib.load(file.image), nib.load(file.label)
    for stored, array in ((image, hu), (label, labels)):
        assert stored.get_data_dtype() == array.dtype
        np.testing.assert_array_equal(np.asarray(stored.dataobj), array)
        np.testing.assert_allclose(stored.affine, affine, atol=1e-4)
        np.testing.assert_allclose(stored.get_qform(), affine, atol=1e-3)
    stated = json.loads((tmp_path / "p" / "PHANTOM.json").read_text())
    assert stated["synthetic"] is True
    assert stated["config"]["size"] == 48


def test_second_call_touches_nothing(tmp_path: Path) -> None:
    write_phantom(tmp_path, SMALL)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*")}
    write_phantom(tmp_path, SMALL)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*")} == before


def test_interrupted_call_is_taken_up_and_gives_the_same_bytes(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_phantom(whole, SMALL)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(broken, SMALL, stop)
    (broken / "images" / ".Phantom_0002_0000.nii.gz.123.tmp").write_bytes(gzip.compress(b"half"))
    (broken / "labels" / "Phantom_0001.nii.gz").unlink()
    write_phantom(broken, SMALL)
    for path in sorted(whole.rglob("*")):
        if path.is_file():
            assert (broken / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
    assert [case.id for case in read(broken).cases] == SMALL.case_ids  # the leftover is no case


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="not a phantom"):
        write_phantom(tmp_path, SMALL)
    assert os.listdir(tmp_path) == ["images"]
    write_phantom(tmp_path / "p", SMALL)
    with pytest.raises(DataError, match="another phantom"):
        write_phantom(tmp_path / "p", PhantomConfig(patients=3, test_patients=1, size=48, slices=12, seed=1))


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"test_patients": 15}, {"size": 8}, {"slices": 2}, {"seed": -1}])
def test_impossible_configs_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="phantom"):
        PhantomConfig(**wrong)
