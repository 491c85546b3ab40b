"""What a run knows of its scale, from the headers of its training pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabricate import write_nifti, write_png
from fabricate.maps import place, write_tiff
from sampeft.data.intensity import Intensity
from sampeft.data.raster_scale import Scale
from sampeft.data.slice_cache import Preparation
from sampeft.errors import DataError

PREPARATION = Preparation(Intensity("window", 0, 255), 50)


def test_medians_of_the_larger_sides_and_of_the_ground(tmp_path: Path) -> None:
    """Sides 60, 100, 200; of 2 m pixels: 100 pixels are 200 m, on 50 pixels of the square 4 m each."""
    pytest.importorskip("rasterio")
    sizes = [(60, 40), (30, 100), (200, 10)]
    maps = [
        write_tiff(tmp_path / f"{h}.tif", np.zeros((3, h, w), np.uint8), photometric="rgb", **place(pixel=2.0))
        for h, w in sizes
    ]
    pictures = [write_png(tmp_path / f"{h}.png", np.zeros((h, w), np.uint8)) for h, w in sizes]
    assert Scale.of(maps, PREPARATION) == Scale(100, 4.0, 200)
    assert Scale.of(pictures, PREPARATION) == Scale(100, None, 200)
    assert Scale.of([*maps, pictures[0]], PREPARATION).gsd is None
    assert Scale.from_json({**Scale(100, 4.0, 200).to_json(), "backbone": "x"}) == Scale(100, 4.0, 200)
    assert Scale.from_json({}) == Scale()


def test_nothing_is_known_of_volumes_and_body_crops(tmp_path: Path) -> None:
    volume = write_nifti(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.int16), np.eye(4))
    picture = write_png(tmp_path / "a.png", np.zeros((20, 30), np.uint8))
    body = Preparation(Intensity("percentile", 2, 98, crop="body"), 50)
    assert Scale.of([volume], PREPARATION) == Scale.of([picture], body) == Scale.of([], PREPARATION) == Scale()
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:20])
    with pytest.raises(DataError, match=r"cut\.png: damaged"):
        Scale.of([tmp_path / "cut.png"], PREPARATION)


def test_windows_cover_the_same_ground() -> None:
    """50 pixels of 4 m are 200 m: 100 pixels of 2 m; degrees at 60 north are half as wide as high."""
    assert Scale(70, 4.0).window(50, (2.0, 2.0)) == (100, 100)
    assert Scale(70, 4.0).window(50, (2.0, 2.1)) == (98, 98)  # hardly other: square, of the mean
    assert Scale(70, 4.0).window(50, (2.0, 1.0)) == (100, 200)
    assert Scale(70, 4.0).window(50, None) == Scale(70).window(50, (2.0, 2.0)) == (70, 70)
    assert Scale().window(50, (2.0, 2.0)) is Scale(None, 4.0).window(50, None) is None
