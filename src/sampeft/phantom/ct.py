"""Synthetic abdominal CT from a seed: one case, or a folder of them in FLARE22's layout.

One smooth random map leads from voxels to a patient frame in which the organs are drawn, so image and labels are warped
alike. Synthetic: good to try, test and time a pipeline; a score on it says nothing about real patients.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import SYNTHETIC
from sampeft.errors import DataError, UsageError
from sampeft.io import write_atomically
from sampeft.phantom.anatomy import Patient
from sampeft.phantom.scene import Scene, smooth_field

VERSION = 1  # of the drawing; raise it when the same seed gives other voxels
NOTE = "Synthetic CT phantoms, no patients: scores on them say that the machinery works, not how good it is."


@dataclass(frozen=True)
class PhantomConfig:
    """What to make: `patients` in all, the last `test_patients` of them for the test split.

    size, slices: pixels in plane and axial slices. What they cover is fixed in millimetres and varies by a few per cent
    from patient to patient, so they set the spacing: 2 x 2 x 5 mm by default.
    Raises UsageError for values that make no data set.
    """

    patients: int = 14
    seed: int = 0
    size: int = 192
    slices: int = 40
    test_patients: int = 4
    field_of_view_mm: float = 384.0
    height_mm: float = 200.0

    def __post_init__(self) -> None:
        if not 0 <= self.test_patients <= self.patients or self.patients < 1:
            raise UsageError(
                f"phantom: test_patients must lie in 0..patients, got {self.test_patients} of {self.patients}"
            )
        if self.size < 32 or self.slices < 8 or self.seed < 0:
            raise UsageError(
                f"phantom: needs size >= 32, slices >= 8 and seed >= 0, got {self.size}, {self.slices}, {self.seed}"
            )

    @property
    def case_ids(self) -> list[str]:
        return [f"Phantom_{index + 1:04d}" for index in range(self.patients)]


def generate_patient(
    config: PhantomConfig, index: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Patient `index`, from 0: HU (X, Y, Z) in -1024..3071, FLARE22 label ids (X, Y, Z), affine (4, 4) to RAS+ mm.

    Depends on the seed, the index and the grid only, not on how many patients there are. The first index grows to the
    patient's left, the second to posterior, the third to superior, as in most CT files.
    """
    from scipy.ndimage import correlate1d, gaussian_filter

    rng = np.random.default_rng([config.seed, index])
    in_plane_mm = config.field_of_view_mm * rng.uniform(0.96, 1.04) / config.size
    centre_mm = rng.uniform([0, -180, -900], [0, -120, -300])  # where the table stood in the scanner
    spacing_mm = np.array([in_plane_mm, in_plane_mm, config.height_mm * rng.uniform(0.98, 1.04) / config.slices])
    steps_mm = spacing_mm * [-1, -1, 1]
    shape = (config.size, config.size, config.slices)
    axes = [((np.arange(n) - (n - 1) / 2) * step).astype(np.float32) for n, step in zip(shape, steps_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    stature, girth, roll = rng.uniform(0.96, 1.04), rng.uniform(0.95, 1.06), rng.uniform(-0.07, 0.07)
    shift = rng.uniform([-6, -6, -3], [6, 6, 3]).tolist()
    turned = (x - roll * y, y + roll * x, z)
    frame = []
    for coordinate, size, offset, strength in zip(turned, (girth, girth, stature), shift, (4.0, 3.5, 3.5), strict=True):
        warp = strength * smooth_field(rng, axes, 110) + 1.2 * smooth_field(rng, axes, 35)
        frame.append(((coordinate - offset) / size + warp).astype(np.float32))
    scene = Scene((frame[0], frame[1], frame[2]), smooth_field(rng, axes, 11), edge_mm=1.2 * in_plane_mm)
    Patient(scene, rng).draw()

    hu = correlate1d(scene.hu, [0.12, 0.76, 0.12], axis=2, mode="nearest")  # a slice sees a little of its neighbours
    grain = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0.8, 0.8, 0.3))
    noise = grain * np.float32(rng.uniform(12, 18) / grain.std())
    hu = gaussian_filter(hu, (0.45, 0.45, 0)) + noise + 4 * smooth_field(rng, axes, 120)
    affine = np.diag([*steps_mm, 1.0])
    affine[:3, 3] = centre_mm - (np.array(shape) - 1) / 2 * steps_mm
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), scene.labels, affine


def write_phantom(root: Path, config: PhantomConfig, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the data set: images/<id>_0000.nii.gz, labels/<id>.nii.gz, train.txt, test.txt, PHANTOM.json.

    Patients already there are kept, so a second call does nothing and an interrupted one is taken up where it stopped.
    progress: called with (patients done, patients in all).
    Raises DataError when the folder holds another phantom or images that are none.
    """
    written: dict[str, Any] = {"note": NOTE, "synthetic": True, "version": VERSION, "config": asdict(config)}
    _claim(root, written)
    ids, first_test = config.case_ids, config.patients - config.test_patients
    lists = {"train.txt": ids[:first_test], "test.txt": ids[first_test:]}
    for name, members in lists.items():
        if not (root / name).is_file():
            write_atomically(root / name, "".join(f"{case_id}\n" for case_id in members))
    for index, case_id in enumerate(ids):
        image, label = root / "images" / f"{case_id}_0000.nii.gz", root / "labels" / f"{case_id}.nii.gz"
        if not (image.is_file() and label.is_file()):
            hu, labels, affine = generate_patient(config, index)
            write_atomically(image, _nifti(hu, affine))
            write_atomically(label, _nifti(labels, affine))
        if progress is not None:
            progress(index + 1, config.patients)


def _claim(root: Path, written: dict[str, Any]) -> None:
    """Make the folders and mark them as this phantom's; DataError when they are someone else's."""
    marker = root / SYNTHETIC
    if marker.is_file():
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != written:
            raise DataError(
                f"{root}: holds another phantom ({marker.name} does not state version {VERSION} with "
                f"{written['config']}); choose an empty folder or delete this one"
            )
    elif any((root / name).exists() for name in ("images", "labels", "train.txt", "test.txt")):
        raise DataError(f"{root}: holds a data set that is not a phantom (no {marker.name}); choose an empty folder")
    root.mkdir(parents=True, exist_ok=True)
    if not marker.is_file():
        write_atomically(marker, json.dumps(written, indent=2) + "\n")
    for name in ("images", "labels"):
        (root / name).mkdir(exist_ok=True)


def _nifti(array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """The bytes of a .nii.gz, equal for equal arrays."""
    import nibabel as nib

    file = nib.Nifti1Image(array, affine)
    file.set_sform(affine, 1)
    file.set_qform(affine, 1)  # both codes: scanner coordinates
    file.header.set_xyzt_units("mm", "sec")
    return gzip.compress(file.to_bytes(), compresslevel=1, mtime=0)
