"""Prediction: on the input's own grid whatever its axes, streamed, self-describing, and safe to load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from data.test_slices import ORIENTATIONS, oriented
from fabricate import write_nifti, write_png
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation
from sampeft.errors import WeightsError
from sampeft.io import read_volume
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.state import save_trained
from sampeft.prediction.loading import load
from sampeft.prediction.network import InferenceOptions
from sampeft.prediction.outputs import output_stem
from sampeft.prediction.pipeline import predict_scenes
from sampeft.prediction.scene import open_scene
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.sinks import ClassMap
from sampeft.volume import Volume

Make = Callable[[], SemanticSam]


class Threshold(torch.nn.Module):
    """A "model" that calls everything above mid-grey class 1, and remembers the largest batch it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.largest = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.largest = max(self.largest, len(images))
        return torch.stack([torch.full_like(images[:, 0], 0.5), images[:, 0]], dim=1)


WINDOW = Preparation(Intensity("window", 0, 100), 16)


def predict_volume(
    model: torch.nn.Module,
    volume: Volume,
    preparation: Preparation,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Class channels on the volume's own grid, four slices at a time."""
    made, options = ClassMap(), InferenceOptions(batch=4)
    list(predict_scenes(model, [(open_scene(volume, preparation), [made])], 2, options, progress))
    return made.on_own_grid()


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_for_all_48_axis_orders_the_map_equals_the_threshold(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    world = np.where(rng.random((16, 16, 3)) > 0.6, 90, 10)
    volume = oriented(world, order, signs, (1.0, 1.0, 4.0))
    assert np.array_equal(predict_volume(Threshold(), volume, WINDOW), volume.array > 50)


def test_left_stays_left(tmp_path: Path) -> None:
    array = np.zeros((32, 32, 4), dtype=np.int16)
    array[4:8, 10:14, 1:3] = 90  # with a step of -2 mm along x: world x = +20 .. +26
    path = write_nifti(
        tmp_path / "scan.nii.gz", array, np.array([[-2.0, 0, 0, 34], [0, 2, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
    )
    found = predict_volume(Threshold(), read_volume(path), Preparation(Intensity("window", 0, 100), 32))
    index = np.append(np.argwhere(found).mean(axis=0), 1)
    assert (nib.load(path).affine @ index)[0] == pytest.approx(23, abs=1.0)


def test_slices_are_streamed_in_batches() -> None:
    model = Threshold()
    volume = Volume(np.zeros((16, 16, 11)), np.diag([1.0, 1, 4, 1]), Path("x"))
    done: list[tuple[int, int]] = []
    predict_volume(model, volume, WINDOW, lambda *now: done.append(now))
    assert done == [(n, 11) for n in range(1, 12)]
    assert model.largest == 4


def test_a_class_of_a_wide_picture_fills_a_share_of_the_picture_not_of_the_square() -> None:
    """4 of 4 x 16 pixels: 6 % of the picture, 1.6 % of the square that the network sees."""
    array = np.full((4, 16, 1), 20, dtype=np.uint8)
    array[:2, :2] = 90
    volume = Volume(array, None, Path("x.png"))
    model = Threshold()
    for share, found in ((0.05, 4), (0.07, 0)):
        model.least_share = share  # type: ignore[assignment]
        assert predict_volume(model, volume, WINDOW).sum() == found


@pytest.mark.parametrize("shape", [(7, 5, 1), (64, 64, 1), (3, 200, 1)])
def test_tiny_and_odd_pictures_keep_their_shape(shape: tuple[int, int, int]) -> None:
    volume = Volume(np.full(shape, 90, dtype=np.uint8), None, Path("x.png"))
    found = predict_volume(Threshold(), volume, WINDOW)
    assert found.shape == shape
    assert found.all()


def save_run(model: SemanticSam, folder: Path, **changes: object) -> Path:
    attached = attach(model, "lora", {"rank": 2})
    content = {
        "backbone": "lite-medsam",
        "weights_sha256": "random",
        "seed": 7,
        "method": attached.method,
        "options": attached.options,
        "label_map": model.labels.to_json(),
        "preparation": {
            "intensity": {"kind": "window", "low": 0, "high": 255, "crop": "none"},
            "side": 56,
            "plane": "auto",
        },
        "trained": {"val_dsc": np.float64(0.9)},  # scalars of numpy are what makes others' checkpoints unreadable
        **changes,
    }
    save_trained(folder, model, content)
    return folder


def test_a_run_loads_alone_and_gives_the_same_map(make_model: Make, labels: LabelSet, tmp_path: Path) -> None:
    model = make_model()
    run = save_run(model, tmp_path / "run")
    picture = write_png(tmp_path / "p.png", np.random.default_rng(0).integers(0, 255, (30, 40), dtype=np.uint8))
    segmenter = load(run, merged=False)
    direct = Segmenter(model, labels, segmenter.preparation, segmenter.description)
    assert segmenter.labels == labels
    assert np.array_equal(segmenter.predict(picture), direct.predict(picture))
    assert segmenter.name == "lite-medsam lora r=2, mask head"
    written = segmenter.predict_file(picture, tmp_path / "out")
    assert set(np.unique(np.asarray(read_volume(written).array))) <= set(range(256))
    assert json.loads((run / "adapter.json").read_text())["trained"]["val_dsc"] == 0.9


@pytest.mark.real_weights
def test_a_run_of_another_base_is_refused_by_hash(make_model: Make, real_weights: Path, tmp_path: Path) -> None:
    run = save_run(make_model(), tmp_path / "run", weights_sha256="0" * 64)
    with pytest.raises(
        WeightsError, match=r"content 00000000\.\.\., but .*lite_medsam\.pth is lite-medsam with 5e066f15"
    ):
        load(run)


def test_a_run_of_another_format_or_none_is_refused(make_model: Make, tmp_path: Path) -> None:
    newer = save_run(make_model(), tmp_path / "newer", format=99)
    with pytest.raises(WeightsError, match="format 99, this version reads format 2"):
        load(newer)
    with pytest.raises(WeightsError, match="no trained model here"):
        load(tmp_path / "nothing")


def test_names_of_label_maps_follow_the_image() -> None:
    names = ["scan.nii.gz", "FLARE22_Tr_0001_0000.nii.gz", "a.b.png", "IMG_0000.png"]
    assert [output_stem(Path(name)) for name in names] == ["scan", "FLARE22_Tr_0001", "a.b", "IMG"]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["case_a/ct.nii.gz", "case_a/ct_sm.nii.gz"])
def test_a_real_ct_comes_back_on_its_grid(make_model: Make, real_data: Path, tmp_path: Path, name: str) -> None:
    run = save_run(make_model(), tmp_path / "run")
    source = real_data / "totalsegmentator_ct" / name
    written = load(run).predict_file(source, tmp_path / "out", batch=16)
    image, label = nib.load(source), nib.load(written)
    assert label.shape == image.shape
    assert np.allclose(label.affine, image.affine, atol=1e-4)
    assert nib.aff2axcodes(label.affine) == nib.aff2axcodes(image.affine)
    assert label.header["qform_code"] > 0
    assert label.header["sform_code"] > 0
    assert np.allclose(label.get_qform(), label.get_sform(), atol=1e-4)
    assert set(np.unique(np.asarray(label.dataobj))) <= {0, 1, 2, 13}


def talkative(model: SemanticSam) -> SemanticSam:
    """An untrained head gives every class the same score; this one has something to say everywhere."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        model.head.tokens.add_(torch.randn(model.head.tokens.shape, generator=generator))
    return model


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore:.*lacks SeriesInstanceUID, StudyInstanceUID")
def test_a_real_jpeg_2000_series_becomes_a_dicom_seg_with_the_same_voxels(
    make_model: Make, real_data: Path, tmp_path: Path
) -> None:
    highdicom = pytest.importorskip("highdicom")
    series = real_data / "totalsegmentator_ct/case_b_dicom/dicom"
    segmenter = load(save_run(talkative(make_model()), tmp_path / "run"))
    written = segmenter.predict_file(series, tmp_path / "out", batch=16)
    volume = read_volume(series)
    channels = segmenter.predict(volume, batch=16)
    assert written.name == "dicom.dcm"
    seg = highdicom.seg.segread(written)
    assert seg.FrameOfReferenceUID == volume.header.datasets[0].FrameOfReferenceUID
    read_back = seg.get_volume(combine_segments=True, skip_overlap_checks=True)
    found = 0
    for number in seg.segment_numbers:
        name = seg.get_segment_description(number).segment_label
        wanted = np.argwhere(channels == segmenter.labels.names.index(name))
        index = np.argwhere(read_back.array == number)
        to_lps = np.diag([-1, -1, 1, 1]) @ volume.affine
        places = [(i @ a[:3, :3].T + a[:3, 3]).round(1) + 0.0 for i, a in ((wanted, to_lps), (index, read_back.affine))]
        assert len(places[0]) == len(places[1])
        assert all(np.array_equal(*(np.sort(p[:, axis]) for p in places)) for axis in range(3))
        found += len(wanted)
    assert found > 100_000


def test_nothing_found_in_a_dicom_series_is_written_as_nifti(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = Volume(np.zeros((16, 16, 3), dtype=np.int16), np.diag([1.0, 1, 3, 1]), tmp_path / "series")
    monkeypatch.setattr("sampeft.prediction.scene.read_volume", lambda path: series)
    monkeypatch.setattr("sampeft.io.label_suffix", lambda volume: ".dcm")
    segmenter = Segmenter(Threshold(), LabelSet(("background", "c1"), (0, 1)), WINDOW, {})  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="nothing was found in it; written as NIfTI, not as DICOM SEG"):
        written = segmenter.predict_file("series", tmp_path / "out")
    assert written.name == "series.nii.gz"
    assert not np.asarray(nib.load(written).dataobj).any()
