"""Refiners and views of rasters that are cut into windows: what they are on the whole, where nothing was measured or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabricate import write_png
from fabricate.maps import place, write_tiff
from prediction.test_large_raster import LABELS, SIDE, ByPixel, ids_of, scene, segmenter, true_ids, written
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.errors import UsageError
from sampeft.evaluation.fit_refiner import Rough, fit_refiner
from sampeft.prediction import sinks
from sampeft.prediction.cases import key_of, predict_cases
from sampeft.prediction.manifest import RunRecord
from sampeft.prediction.outputs import Job
from sampeft.prediction.tiling import RasterOptions
from sampeft.refine import refiner
from sampeft.workflows.evaluate import evaluate_segmenter

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")

PLACE = place()
TILES = RasterOptions(tile=str(SIDE), overlap=0.3)
SPECKS = refiner("components", least_size=6)


def specked(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(3, H, W) two halves of other brightness with specks of 1 to 4 pixels, some across the borders of windows; and the
    ids without them."""
    red = np.full((height, width), 40, np.uint8)
    red[:, width // 2 :] = 220
    clean = true_ids(red)
    for row, column, size in ((3, 3, 1), (SIDE - 1, 5, 2), (SIDE - 1, SIDE - 1, 2), (height - 4, width - 4, 2)):
        red[row : row + size, column : column + size] = 128
    return np.stack([red] * 3), clean


def test_a_refiner_of_class_maps_gets_the_whole_map(tmp_path: Path) -> None:
    array, clean = specked(45, 61)
    path = write_tiff(tmp_path / "a.tif", array, photometric="rgb", **PLACE)
    rough = written(segmenter(), path, tmp_path / "rough", TILES)
    assert (ids_of(rough.map) != clean).sum() == 1 + 3 * 4
    refined = written(replace(segmenter(), refiner=SPECKS), path, tmp_path / "out", TILES)
    np.testing.assert_array_equal(ids_of(refined.map), clean)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.tif"]


def test_what_was_not_measured_is_of_no_class_for_a_refiner(tmp_path: Path) -> None:
    """A large area without measurement: no class's largest component, none that a speck is given to, and no data at the
    end. By windows and whole alike."""
    red = np.full((40, 40), 220, np.uint8)
    red[:, :24] = 0  # no data
    red[30:36, 30:36] = 40
    red[10, 25], red[20, 24] = 128, 40
    path = write_tiff(tmp_path / "a.tif", np.stack([red] * 3), photometric="rgb", nodata=0, **PLACE)
    expected = np.where(red == 0, 255, 9).astype(np.uint8)
    expected[30:36, 30:36] = 1
    expected[10, 25] = 5  # the largest of its class, of one pixel
    largest = replace(segmenter(), refiner=refiner("components", keep="largest"))
    for name, options in (("cut", TILES), ("whole", RasterOptions(tile="off"))):
        side = 16 if name == "cut" else 40
        model = replace(largest, preparation=replace(largest.preparation, side=side))
        files = written(model, path, tmp_path / name, options)
        np.testing.assert_array_equal(ids_of(files.map), expected)


def test_views_of_a_window_are_those_of_a_whole_picture(tmp_path: Path) -> None:
    """A raster of one window: its map, probabilities, entropy and disagreement as where it is looked at whole."""
    path = write_tiff(tmp_path / "a.tif", scene(SIDE, SIDE) // 3 + 60, photometric="rgb", **PLACE)
    model = replace(segmenter(), views=5)
    found = {}
    for name, options in (("cut", TILES), ("whole", RasterOptions(tile="off"))):
        job = Job(tmp_path / name, temperature=1.5, probabilities=True, uncertainty=True, rasters=options)
        with RunRecord(job.out, {}) as record:
            assert [fault for _, _, fault in predict_cases(model, [path], job, record, key_of({}))] == [""]
        found[name] = {str(p.relative_to(job.out)): ids_of(p) for p in sorted(job.out.rglob("*.tif"))}
    assert list(found["cut"]) == list(found["whole"])
    assert "uncertainty/a_disagreement.tif" in found["cut"]
    for file, values in found["whole"].items():
        assert np.abs(values.astype(int) - found["cut"][file]).max() <= (0 if file == "a.tif" else 1), file
    disagreement = found["cut"]["uncertainty/a_disagreement.tif"]
    # Of five views, of which some do not look at the border.
    assert set(np.unique(disagreement)) <= {round(255 * n / of) for of in range(1, 6) for n in range(of)}
    assert (disagreement > 0).any()
    assert (found["cut"]["a.tif"] != true_ids(scene(SIDE, SIDE)[0] // 3 + 60)).any()  # not those of one view


def test_every_view_goes_through_the_network_and_overlapping_windows_share_what_they_say(tmp_path: Path) -> None:
    """On a raster of one grey all views and windows say the same, but for its border, where a view may see nothing."""
    path = write_png(tmp_path / "a.png", np.full((40, 50, 3), 128, np.uint8))
    network = ByPixel()
    asked = {"uncertainty": True, "probabilities": True}
    files = written(replace(segmenter(network), views=3), path, tmp_path / "out", TILES, **asked)
    assert network.seen == 3 * 4 * 5  # ceil(24 / 11) + 1 rows of windows, ceil(34 / 11) + 1 columns
    assert files.window == (SIDE, SIDE)
    from PIL import Image

    disagreement = np.asarray(Image.open(tmp_path / "out" / "uncertainty" / "a_disagreement.png"))
    grey = np.asarray(Image.open(tmp_path / "out" / "probabilities" / "a_grey.png"))
    inside = slice(2, -2), slice(2, -2)
    assert (disagreement[inside] == 0).all()
    assert grey[inside].max() - grey[inside].min() <= 1


def test_a_refiner_that_looks_at_images_is_refused(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.moveaxis(scene(40, 40), 0, -1))
    with pytest.raises(
        UsageError, match=r"a\.png: the refiner crf looks at whole images.* take components; only .* off"
    ):
        written(replace(segmenter(), refiner=refiner("crf")), path, tmp_path / "out", TILES)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_map_that_does_not_fit_into_memory_is_told_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_png(tmp_path / "a.png", np.moveaxis(scene(40, 40), 0, -1))
    monkeypatch.setattr(sinks, "free_bytes", lambda device: 40 * 40 * 40 - 1)
    network = ByPixel()
    with pytest.raises(UsageError, match=r"a\.png: the refiner components needs the whole map of 40 x 40 pixels"):
        written(replace(segmenter(network), refiner=SPECKS), path, tmp_path / "out", TILES)
    assert network.seen == 0


def test_a_class_fills_a_share_of_a_flat_window_and_scores_say_which(tmp_path: Path) -> None:
    """4 of the 4 x 16 pixels of the only window are bright: 6 % of them, 1.6 % of the square that the network sees."""
    array = np.full((4, 16, 3), 20, np.uint8)
    array[:2, :2] = 220
    image = write_png(tmp_path / "images" / "a.png", array)
    label = write_png(tmp_path / "labels" / "a.png", true_ids(array[..., 0]))
    case = Case("a", (ImageFile("a", image, label),))
    dataset = Dataset("made", tmp_path, LABELS, (case,), {})
    named = {"pixels": SIDE, "backbone": "made", "method": "made", "options": {}}
    for share, found in ((0.05, 4), (0.07, 0)):
        model = segmenter(**named, least_share=share)
        files = written(model, image, tmp_path / str(share), TILES)
        assert (np.asarray(Image.open(files.map)) == 9).sum() == found
        assert evaluate_segmenter(model, dataset, [case], "test")[0].meta["least_share"] == share
    assert "least_share" not in evaluate_segmenter(segmenter(**named), dataset, [case], "test")[0].meta


@pytest.fixture
def large(tmp_path: Path) -> tuple[Dataset, Case]:
    """A labelled picture four times the size of training's, whose specks are none."""
    array, clean = specked(64, 64)
    image = write_png(tmp_path / "images" / "a.png", np.moveaxis(array, 0, -1))
    label = write_png(tmp_path / "labels" / "a.png", clean)
    case = Case("a", (ImageFile("a", image, label),))
    return Dataset("made", tmp_path, LABELS, (case,), {}), case


def test_evaluation_refines_large_pictures_as_prediction_does(large: tuple[Dataset, Case]) -> None:
    dataset, case = large
    model = segmenter(pixels=SIDE, backbone="made", method="made", options={})
    rough, _ = evaluate_segmenter(model, dataset, [case], "test")
    refined, _ = evaluate_segmenter(replace(model, refiner=SPECKS), dataset, [case], "test")
    assert rough.headline().mean < 1
    assert refined.headline().mean == 1
    with pytest.raises(UsageError, match=r"a\.png: the refiner crf looks at whole images"):
        evaluate_segmenter(replace(model, refiner=refiner("crf")), dataset, [case], "test")


def test_components_are_fitted_on_what_windows_say(large: tuple[Dataset, Case]) -> None:
    """Of a whole picture, scaled to a square of 16 pixels, the specks would be gone and there would be nothing to fit."""
    dataset, case = large
    network = ByPixel()
    rough = Rough.of(segmenter(network, pixels=SIDE), dataset, [case])
    assert network.seen > 1
    fitted = fit_refiner("components", rough)
    assert fitted.before < 1
    assert fitted.after == 1
    assert fitted.refiner is not None
    assert fitted.refiner.least_size == 20  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"a\.png: the refiner level-set looks at whole images"):
        fit_refiner("level-set", rough)


def test_scores_are_of_all_views_and_refiners_are_fitted_on_one_whether_cut_or_whole(
    large: tuple[Dataset, Case],
) -> None:
    dataset, case = large
    for pixels, looks in ((SIDE, 25), (64, 1)):
        network = ByPixel()
        model = segmenter(network, pixels=pixels, backbone="made", method="made", options={})
        for views in (4, 1):
            network.seen = 0
            evaluate_segmenter(replace(model, views=views), dataset, [case], "test")
            assert network.seen == views * looks
        network.seen = 0
        Rough.of(replace(model, views=4, refiner=SPECKS), dataset, [case])
        assert network.seen == looks
