"""Probabilities, uncertainty and confidence of rasters that are cut into windows, against what the network says of a pixel."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabricate import write_png
from fabricate.maps import place, write_tiff
from prediction.test_large_raster import LABELS, SIDE, ByPixel, scene, segmenter, true_ids, window, written
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.errors import UsageError
from sampeft.io import read_label_ids, read_volume
from sampeft.labels import LabelSet
from sampeft.prediction.cases import key_of, predict_cases
from sampeft.prediction.manifest import RunRecord
from sampeft.prediction.outputs import Job
from sampeft.prediction.tiling import RasterOptions
from sampeft.workflows.evaluate import evaluate_segmenter

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
PLACE = place()
TILES = RasterOptions(tile=str(SIDE), overlap=0.3)


def said(red_HW: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(K, H, W) probabilities of `ByPixel`, by its definition."""
    levels = red_HW / 255
    raised = np.exp(np.stack([-9 * np.abs(levels - centre) for centre in (0.2, 0.5, 0.8)]) / temperature)
    return np.asarray(raised / raised.sum(axis=0))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_maps_are_what_the_network_says_of_each_pixel(temperature: float, tmp_path: Path) -> None:
    """It looks at single pixels, so every window says the same, and so does their blend."""
    array = scene(61, 45)
    path = write_tiff(tmp_path / "a.tif", array, photometric="rgb", **PLACE)
    asked = {"temperature": temperature, "probabilities": True, "uncertainty": True}
    made_of_it = written(segmenter(), path, tmp_path / "out", TILES, **asked)
    wanted = said(array[0], temperature)
    files = [f"probabilities/a_{name}.tif" for name in LABELS.names] + ["uncertainty/a_entropy.tif"]
    entropy = -(wanted * np.log(wanted)).sum(axis=0) / math.log(3)
    for file, map_HW in zip(files, [*wanted, entropy], strict=True):
        with rasterio.open(tmp_path / "out" / file) as made:
            assert (made.crs.to_epsg(), made.transform, made.nodata) == (32650, PLACE["transform"], None)
            assert np.abs(made.read(1) * made.scales[0] - map_HW).max() <= 0.5 / 255 + 1e-5
    assert made_of_it.confidence == pytest.approx(wanted.max(axis=0).mean(), abs=1e-5)
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.tif")) == sorted(
        ["a.tif", *(Path(file).name for file in files)]
    )


def test_what_was_not_measured_counts_for_nothing(tmp_path: Path) -> None:
    """A whole window and half of one without a measurement; all of them 0 in the maps, none in the confidence."""
    array = scene(40, 40).clip(1)
    array[:, :20, :20] = array[:, 30:, :] = 0
    path = write_tiff(tmp_path / "a.tif", array, photometric="rgb", nodata=0, **PLACE)
    files = written(segmenter(), path, tmp_path / "out", TILES, probabilities=True)
    measured = (array != 0).any(axis=0)
    wanted = said(array[0])
    total = np.zeros((40, 40))
    for name in LABELS.names:
        with rasterio.open(tmp_path / "out" / "probabilities" / f"a_{name}.tif") as made:
            total += made.read(1)
    assert (total[~measured] == 0).all()
    assert np.abs(total[measured] - 255).max() <= 1.5  # three roundings
    assert files.confidence == pytest.approx(wanted.max(axis=0)[measured].mean(), abs=1e-5)


def test_confidence_is_of_the_foreground_alone(tmp_path: Path) -> None:
    labels = LabelSet(("background", "grey", "bright"), (0, 5, 9))
    array = scene(30, 30)
    path = write_png(tmp_path / "a.png", np.moveaxis(array, 0, -1))
    for red, wanted in ((array[0], None), (np.zeros((30, 30), np.uint8), 0.0)):
        picture = write_png(path, np.stack([red] * 3, axis=-1))
        files = written(replace(segmenter(), labels=labels), picture, tmp_path / "out", TILES)
        if wanted is None:
            chosen = said(red)
            assert files.confidence == pytest.approx(chosen.max(axis=0)[chosen.argmax(axis=0) > 0].mean(), abs=1e-5)
        else:
            assert files.confidence is None


def test_cases_write_the_maps_that_are_asked_for_whether_cut_or_whole(tmp_path: Path) -> None:
    """One picture is cut into windows, the other is looked at whole; both get maps, areas and a confidence."""
    pytest.importorskip("pyogrio")
    large = write_tiff(tmp_path / "large.tif", scene(50, 60) // 255 * 255, photometric="rgb", **PLACE)
    small = write_tiff(tmp_path / "small.tif", scene(SIDE, SIDE) // 255 * 255, photometric="rgb", **PLACE)
    model = segmenter(ByPixel(), pixels=SIDE)
    job = Job(
        tmp_path / "out",
        probabilities=True,
        uncertainty=True,
        rasters=RasterOptions(vector="geojson", areas=True),
    )
    with RunRecord(job.out, {}) as record:
        results = list(predict_cases(model, [large, small], job, record, key_of({})))
        assert [(target.name, fault) for _, target, fault in results if target] == [
            ("large.tif", ""),
            ("small.tif", ""),
        ]
        known = {name: record.cases[name] for name in ("large", "small")}
    for name, case in known.items():
        assert 0 < case["confidence"] <= 1
        assert sum(case["m2"].values()) == pytest.approx(16 * sum(case["pixels"].values()))
        for file in (f"{name}.geojson", f"{name}_areas.csv", f"uncertainty/{name}_entropy.tif"):
            assert (job.out / file).is_file()
        assert len(list((job.out / "probabilities").glob(f"{name}_*.tif"))) == 3
        rows = list(csv.DictReader((job.out / f"{name}_areas.csv").read_text().splitlines()))
        assert {row["class"]: int(row["pixels"]) for row in rows} == case["pixels"]
    assert tuple(known["large"]["window"]) == (SIDE, SIDE)
    assert "window" not in known["small"]


def test_a_picture_without_a_place_fails_by_itself(tmp_path: Path) -> None:
    """A GeoPackage needs a CRS; the other picture has one."""
    pytest.importorskip("pyogrio")
    bare = write_png(tmp_path / "a.png", np.moveaxis(scene(SIDE, SIDE), 0, -1))
    placed = write_tiff(tmp_path / "b.tif", scene(SIDE, SIDE), photometric="rgb", **PLACE)
    job = Job(tmp_path / "out", rasters=RasterOptions(vector="gpkg"))
    with RunRecord(job.out, {}) as record:
        (_, none, fault), (_, target, nothing) = predict_cases(segmenter(), [bare, placed], job, record, key_of({}))
        assert (none, nothing, target) == (None, "", job.out / "b.tif")
        assert "a.png" in fault
        assert "CRS" in fault
        assert [record.cases[name]["status"] for name in "ab"] == ["failed", "done"]


def test_a_temperature_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--temperature is 0"):
        Job(tmp_path, temperature=0)


def test_scores_are_of_the_map_that_is_written(tmp_path: Path) -> None:
    """A picture four times the size of training's: evaluation looks at it by windows, as prediction does."""
    array = scene(64, 64)
    image = write_png(tmp_path / "images" / "a.png", np.moveaxis(array, 0, -1))
    label = write_png(tmp_path / "labels" / "a.png", true_ids(array[0]))
    case = Case("a", (ImageFile("a", image, label),))
    dataset = Dataset("made", tmp_path, LABELS, (case,), {})
    named = {"backbone": "made", "method": "made", "options": {}}
    model = segmenter(pixels=SIDE, **named)
    evaluation, (look,) = evaluate_segmenter(model, dataset, [case], "test", tmp_path / "maps")
    files = written(model, image, tmp_path / "out")
    assert files.window == (SIDE, SIDE)
    assert np.array_equal(read_label_ids(files.map).array, read_label_ids(tmp_path / "maps" / "a.png").array)
    assert evaluation.headline().mean == 1.0  # every pixel is right, which a picture of 16 x 16 pixels could not be
    assert look.prediction.shape == (64, 64)
    whole, _ = evaluate_segmenter(segmenter(**named), dataset, [case], "test")
    assert whole.headline().mean < 0.9
    assert (evaluation.meta["by_windows"], "by_windows" in whole.meta) == (1, False)


def test_a_map_of_the_size_of_training_is_looked_at_whole(tmp_path: Path) -> None:
    """4 m pixels, 16 of which fill the square: one window, so nothing is cut, whatever the other sides are."""
    sizes = {(16, 16): None, (17, 15): None, (16, 18): (16, 16), (30, 30): (16, 16), (9, 16): (16, 16)}
    for (height, width), wanted in sizes.items():
        path = write_tiff(tmp_path / f"{height}x{width}.tif", scene(height, width), photometric="rgb", **PLACE)
        assert window(segmenter(pixels=16, gsd=4.0), path) == wanted, path


def test_python_cuts_a_picture_as_the_command_does(tmp_path: Path) -> None:
    """A file, what was read of it and an array: the map that is written, of a picture four times the size of training's."""
    array = np.moveaxis(scene(40, 64), 0, -1)
    picture = write_png(tmp_path / "a.png", array)
    for model, cut in (
        (segmenter(pixels=SIDE), True),
        (segmenter(pixels=60), False),  # hardly larger
        (segmenter(pixels=SIDE, most_pixels=64), False),  # as training's largest
        (segmenter(), False),  # nothing is known
    ):
        files = written(model, picture, tmp_path / "out")
        wanted = read_label_ids(files.map).array
        assert (files.window == (SIDE, SIDE)) == cut
        assert (wanted[..., 0] == true_ids(array[..., 0])).all() == cut
        for image in (picture, read_volume(picture)):
            np.testing.assert_array_equal(LABELS.to_ids(model.predict(image)), wanted)
        np.testing.assert_array_equal(LABELS.to_ids(model.predict(array)), wanted[..., 0])
        whole = model.predict(picture, rasters=RasterOptions(tile="off"))
        assert (LABELS.to_ids(whole)[..., 0] != true_ids(array[..., 0])).any()


def test_a_dicom_picture_is_looked_at_whole_however_it_is_given(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from fabricate.dicom import save, slice_dataset

    path = save(slice_dataset(scene(40, 64)[0].astype(np.int16), None), tmp_path / "a.dcm")
    model = segmenter(pixels=SIDE)
    for image in (path, read_volume(path)):
        network = ByPixel()
        assert replace(model, source=network).predict(image).shape == (40, 64, 1)
        assert network.seen == 1
