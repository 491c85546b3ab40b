"""Network input: neighbouring slices as channels by distance, odd values, and the preparation that a model carries."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sampeft.data.intensity import PRESETS, Intensity
from sampeft.data.preprocessing import Preparation, PreparedVolume
from sampeft.data.values import Seen
from sampeft.errors import DataError, UsageError
from sampeft.volume import Volume

LEVELS = Intensity("window", 0, 10)


def stack(slices: int, spacing_mm: float, *, superior_first: bool = False) -> Volume:
    """Axial slices of 8 x 8 pixels of 0.5 mm; slice z, counted from the lowest, has the value z everywhere."""
    values = np.arange(slices, dtype=np.float32)
    array = np.broadcast_to(values[::-1] if superior_first else values, (8, 8, slices))
    affine = np.diag([0.5, 0.5, -spacing_mm if superior_first else spacing_mm, 1.0])
    return Volume(array, affine, Path("stack.nii.gz"))


def channels(volume: Volume, index: int, **context: Any) -> list[float]:
    """The three values of a slice of one value."""
    image = PreparedVolume.of(volume, Preparation(LEVELS, 8, **context)).image(index)
    assert image.shape == (3, 8, 8)
    assert torch.allclose(image.amin((1, 2)), image.amax((1, 2)))
    return [round(10 * float(v), 4) for v in image[:, 4, 4]]


@pytest.mark.parametrize("superior_first", [False, True])
def test_neighbours_are_below_and_above_and_the_last_is_repeated(superior_first: bool) -> None:
    volume = stack(6, 5.0, superior_first=superior_first)
    assert channels(volume, 3) == [3, 3, 3]
    assert channels(volume, 3, context="neighbours") == [2, 3, 4]
    assert channels(volume, 0, context="neighbours") == [0, 0, 1]
    assert channels(volume, 5, context="neighbours") == [4, 5, 5]


@pytest.mark.parametrize(
    ("spacing_mm", "context_mm", "reach"), [(1.0, 3.0, 3), (2.5, 3.0, 1), (1.25, 3.0, 2), (5.0, 3.0, 1), (8.0, 3.0, 0)]
)
def test_the_distance_is_physical(spacing_mm: float, context_mm: float, reach: int) -> None:
    """3 mm: 3 slices of 1 mm, 1 of 2.5 mm (2.5 is nearer than 5), 2 of 1.25 mm; of 8 mm the slice itself is nearest."""
    found = channels(stack(9, spacing_mm), 4, context="neighbours", context_mm=context_mm)
    assert found == [4 - reach, 4, 4 + reach]


def test_a_picture_is_its_own_neighbour_and_colours_have_none() -> None:
    grey = Volume(np.full((8, 8, 1), 5, np.uint8), None, Path("a.png"))
    assert channels(grey, 0, context="neighbours") == [5, 5, 5]
    colour = Volume(np.zeros((8, 8, 1, 3), np.uint8), None, Path("photo.png"))
    with pytest.raises(DataError, match=r"photo\.png: has colours"):
        PreparedVolume.of(colour, Preparation(LEVELS, 8, context="neighbours"))
    one_band = Preparation(Intensity("window", 0, 10, bands=(2,)), 8, context="neighbours")
    assert PreparedVolume.of(colour, one_band).image(0).shape == (3, 8, 8)


def test_a_context_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown context 'both'; known: repeat, neighbours"):
        Preparation(LEVELS, 8, context="both")  # type: ignore[arg-type]
    for wrong in ({"context_mm": 3.0}, {"context": "neighbours", "context_mm": 0.0}):
        with pytest.raises(UsageError, match="context_mm"):
            Preparation(LEVELS, 8, **wrong)  # type: ignore[arg-type]


def test_grey_by_any_file_gives_equal_input() -> None:
    """D44: grey, three equal channels, and one or three chosen bands."""
    grey = np.random.default_rng(0).integers(0, 255, (12, 9, 1)).astype(np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=3)
    whole, first = (Preparation(Intensity("window", 0, 255, bands=bands), 16) for bands in (None, (1,)))
    inputs = [
        PreparedVolume.of(Volume(array, None, Path("x.png")), preparation).image(0)
        for array in (grey, colour)
        for preparation in (whole, first)
    ]
    assert all(torch.equal(image, inputs[0]) for image in inputs)


def test_slices_without_nan_are_bit_equal_to_those_of_the_sound_file() -> None:
    """D14: one NaN and one infinity in two slices of a CT."""
    rng = np.random.default_rng(1)
    sound = np.full((40, 40, 6), -1000, np.float32)
    sound[8:34, 6:30] = rng.normal(40, 60, (26, 24, 6))
    spoilt = sound.copy()
    spoilt[3, 4, 5], spoilt[0, 0, 0], spoilt[20, 20, 0] = np.nan, np.inf, np.nan
    preparation = Preparation(PRESETS["ct-abdomen"], 32)
    one, other = (PreparedVolume.of(Volume(a, np.eye(4), Path("n.nii")), preparation) for a in (sound, spoilt))
    assert all(torch.equal(one.image(s), other.image(s)) for s in (1, 2, 3, 4))
    assert torch.isfinite(other.image(0)).all()
    assert not torch.equal(one.image(0), other.image(0))


def test_a_preparation_comes_back_and_that_of_an_older_version_takes_the_defaults() -> None:
    new = Preparation(Intensity("percentile", 1, 99, bands=(3, 2, 1)), 224, "axial", "neighbours", 4.0)
    assert Preparation.from_json(json.loads(json.dumps(asdict(new)))) == new
    intensity = {"kind": "window", "low": -160.0, "high": 240.0, "crop": "body"}
    old = Preparation.from_json({"intensity": intensity, "side": 256, "plane": "auto"})
    assert old == Preparation(PRESETS["ct-abdomen"], 256)
    with pytest.raises(UsageError, match="unknown option of the stored preparation 'zoom'"):
        Preparation.from_json({"intensity": intensity, "side": 256, "plane": "auto", "zoom": 2})


def test_an_image_of_another_plane_than_training_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """D09: a run of axial slices, 4 mm apart; a coronal stack is sliced as the run is and told of, an even one just sliced."""
    preparation = Preparation(PRESETS["minmax"], 8, "axial", seen=Seen(0, 100, ("axial",)))
    grey = np.arange(480, dtype=np.int16).reshape(10, 8, 6) // 5

    def told(spacing: tuple[float, float, float]) -> tuple[str, ...]:
        return PreparedVolume.of(
            Volume(grey, np.diag([*spacing, 1.0]), Path(f"{spacing[1]}.nii")), preparation
        ).warnings

    assert told((1, 1, 4)) == told((1, 1, 1)) == ()
    (text,) = told((1, 4, 1))
    assert text == (
        "4.nii: is a volume of coronal slices, 4 mm apart, but the run was trained on axial slices; it is looked at in axial ones"
    )
    (text,) = PreparedVolume.of(Volume(grey[:, :, :1], None, Path("a.png")), preparation).warnings
    assert text.startswith("a.png: is a picture, but the run was trained on axial slices")
    stored = json.loads(json.dumps(preparation.to_json()))
    assert Preparation.from_json(stored) == preparation
    shown = preparation.as_shown(stack=True)
    assert (shown.plane, shown.seen) == ("axial", Seen(0, 100))
