"""Predictions over HTTP: the same maps as of `Segmenter`, in the image's own kind, with volumes, confidence and scores."""

from __future__ import annotations

import gzip
import io
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from fabricate import write_nifti, write_png
from fabricate.maps import place, write_tiff
from sampeft.data import open_dataset
from sampeft.data.check import check_dataset
from sampeft.data.ground_truth import read_labels
from sampeft.data.slice_cache import PreparedVolume
from sampeft.io import read_label_ids, read_volume
from sampeft.metrics.protocols import PROTOCOLS
from sampeft.prediction.outputs import Job
from sampeft.prediction.pipeline import predict_scenes
from sampeft.prediction.scene import SliceScene
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.sinks import KeptLogits
from viewer.clients import Levels, Serve, ended, predicted

rng = np.random.default_rng(0)
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.0, 0, -40], [0, 0, 5.0, 100], [0, 0, 0, 1]])


def opened(content: bytes) -> Any:
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    values = rng.integers(-100, 300, (24, 30, 5)).astype(np.int16)
    values[:, :, 2] = 5000  # one slice that looks like no other
    return write_nifti(tmp_path / "scan_0000.nii.gz", values, AFFINE)


def test_a_volume_gives_the_map_of_the_segmenter_on_its_grid(serve: Serve, segmenter: Segmenter, volume: Path) -> None:
    wanted = segmenter.predict(volume, batch=1)
    with serve() as client:
        body = predicted(client, volume)
        assert (body["state"], body["progress"], body["name"]) == ("done", 1.0, "scan")
        files = f"/api/predictions/{body['id']}/files"
        result, shown, image = (
            opened(client.get(f"{files}/{k}").content) for k in ("result", "map.nii.gz", "image.nii.gz")
        )
    source = nib.load(volume)
    for found in (result, shown):
        assert np.array_equal(np.asarray(found.dataobj), wanted)
        assert np.allclose(found.affine, AFFINE)
    assert np.array_equal(np.asarray(image.dataobj), np.asarray(source.dataobj))
    assert image.get_data_dtype() == np.int16
    found = body["result"]
    counts = {name: int((wanted == k).sum()) for k, name in ((1, "c1"), (2, "c2"))}
    assert found["pixels"] == counts
    assert found["ml"] == pytest.approx({name: n * 20 / 1000 for name, n in counts.items()})  # 2 x 2 x 5 mm
    assert (found["kind"], found["plane"], found["slices"]) == ("nifti", "axial", 5)
    assert found["slice_size"] == [30, 24]


def test_slices_come_with_the_least_sure_first_and_agree_with_the_probabilities(
    serve: Serve, segmenter: Segmenter, volume: Path
) -> None:
    with serve() as client:
        found = predicted(client, volume)["result"]
    prepared = PreparedVolume.of(read_volume(volume), segmenter.preparation)
    wanted, sums = {}, np.zeros(2)
    kept = KeptLogits()
    list(predict_scenes(segmenter.model, [(SliceScene(prepared), [kept])], len(segmenter.labels)))
    for s, logits in enumerate(kept.windows):
        assert logits is not None
        most = prepared.frame.logits(logits).softmax(dim=0).max(dim=0)
        sure = most.values[most.indices > 0]
        if len(sure):
            wanted[s] = float(sure.mean())
            sums += float(sure.sum()), len(sure)
    order = [w["slice"] for w in found["worst_slices"]]
    assert order == sorted(wanted, key=lambda s: wanted[s])
    assert [w["confidence"] for w in found["worst_slices"]] == pytest.approx([wanted[s] for s in order], abs=1e-5)
    assert found["confidence"] == pytest.approx(sums[0] / sums[1], abs=1e-5)


def test_a_large_picture_is_cut_into_windows_as_by_predict(serve: Serve, segmenter: Segmenter, tmp_path: Path) -> None:
    """Four times the size of training's pictures: scaled to one square, single pixels would be lost."""
    picture = write_png(tmp_path / "large.png", rng.choice(np.array([0, 128, 255], np.uint8), (200, 224)))
    trained = replace(segmenter, description={**segmenter.description, "pixels": 56})
    map, facts = trained.write_prediction(picture, Job(tmp_path / "out"))
    with serve(loaded=trained) as client:
        body = predicted(client, picture)
        result = client.get(f"/api/predictions/{body['id']}/files/result").content
    assert facts["window"] == (56, 56)
    (tmp_path / "result.png").write_bytes(result)
    found = read_label_ids(tmp_path / "result.png").array
    assert np.array_equal(found, read_label_ids(map).array)
    assert np.array_equal(found[..., 0], read_volume(picture).array[..., 0] // 127)
    assert body["result"]["worst_slices"] == [{"slice": 0, "confidence": body["result"]["confidence"]}]


def test_pictures_come_back_as_png_and_are_shown_upright(serve: Serve, segmenter: Segmenter, tmp_path: Path) -> None:
    levels = rng.integers(0, 255, (20, 34), dtype=np.uint8)
    picture = write_png(tmp_path / "frame.png", levels)
    with serve() as client:
        body = predicted(client, picture)
        files = f"/api/predictions/{body['id']}/files"
        result = client.get(f"{files}/result")
        shown = Image.open(io.BytesIO(client.get(f"{files}/image.png").content))
        map, image = (opened(client.get(f"{files}/{kind}").content) for kind in ("map.nii.gz", "image.nii.gz"))
    assert result.headers["content-type"] == "image/png"
    channels = segmenter.predict(picture)[:, :, 0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(result.content))), channels)
    assert np.array_equal(np.asarray(shown), levels)
    for found, wanted in ((map, channels), (image, levels)):
        assert np.array_equal(np.asarray(found.dataobj)[:, :, 0].T, wanted)
        assert nib.aff2axcodes(found.affine) == ("R", "P", "S")  # columns to the right, rows downwards
    assert (body["result"]["kind"], body["result"]["flat"], body["result"]["ml"]) == ("png", True, None)


def test_a_geotiff_comes_back_at_its_place(serve: Serve, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    where = place()
    tile = write_tiff(tmp_path / "tile.tif", rng.integers(0, 255, (3, 16, 24), dtype=np.uint8), **where)
    with serve() as client:
        body = predicted(client, tile)
        files = f"/api/predictions/{body['id']}/files"
        (tmp_path / "map.tif").write_bytes(client.get(f"{files}/result").content)
        shown = Image.open(io.BytesIO(client.get(f"{files}/image.png").content))
    assert body["result"]["kind"] == "geotiff"
    assert (shown.mode, shown.size) == ("RGB", (24, 16))
    with rasterio.open(tmp_path / "map.tif") as found:
        assert found.crs.to_epsg() == 32650
        assert found.transform == where["transform"]


def test_a_case_is_scored_against_its_truth(serve: Serve, segmenter: Segmenter, data: Path) -> None:
    file = open_dataset(data).cases[1].files[0]
    truth = np.asarray(Image.open(file.label))
    channels = segmenter.predict(file.image)
    dsc = {k: 2 * ((channels[..., 0] == k) & (truth == k)).sum() for k in (1, 2)}
    dsc = {k: n / ((channels == k).sum() + (truth == k).sum()) for k, n in dsc.items()}
    with serve() as client:
        body = predicted(client, case="P02", image="P02_1")
        scores = client.get(f"/api/predictions/{body['id']}/scores").json()
        again = client.get("/api/cases/P02/images/P02_1/truth.nii.gz").content
        shown = Image.open(io.BytesIO(client.get("/api/cases/P02/images/P02_1/image.png").content))
    assert body["result"]["has_truth"]
    assert scores["policy"] == PROTOCOLS["default"].about
    assert scores["classes"]["c1"]["dsc"] == pytest.approx(dsc[1])
    assert scores["classes"]["c2"]["dsc"] == pytest.approx(dsc[2])
    assert np.array_equal(np.asarray(opened(again).dataobj)[:, :, 0].T, truth)
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(file.image)))


def test_what_to_look_at_first_comes_first(serve: Serve, tmp_path: Path) -> None:
    pictures = [write_png(tmp_path / f"{n}.png", rng.integers(0, 40 * n, (20, 20), dtype=np.uint8)) for n in (1, 3, 6)]
    broken = tmp_path / "broken.nii"
    broken.write_bytes(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()[:400])
    with serve() as client:
        bodies = [predicted(client, path) for path in (*pictures, broken)]
        ids = [body["id"] for body in bodies]
        found = client.get("/api/predictions", params={"ids": [*ids, "0" * 32]}).json()
        assert client.get("/api/predictions").json() == []
    assert [f["state"] for f in found] == ["failed", "done", "done", "done"]
    assert [f["result"]["confidence"] is None for f in found[1:]] == [True, False, False]  # no foreground at all
    sure = [f["result"]["confidence"] for f in found[2:]]
    assert sure == sorted(sure)
    assert "broken.nii: damaged or truncated NIfTI" in found[0]["message"]
    assert str(tmp_path) not in found[0]["message"]  # nothing of where the server keeps it


def test_cancelling_stops_the_network_and_frees_the_queue(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    slow = write_nifti(tmp_path / "slow.nii.gz", rng.integers(0, 255, (16, 16, 40)).astype(np.int16), AFFINE)
    entered, go = threading.Event(), threading.Event()
    slices = 0
    forward = Levels.forward

    def counted(self: Levels, images: torch.Tensor) -> torch.Tensor:
        nonlocal slices
        slices += len(images)
        entered.set()
        go.wait(20)
        return forward(self, images)

    monkeypatch.setattr(Levels, "forward", counted)
    with serve(max_waiting=2) as client:
        post = [
            client.post("/api/predictions", data={"run": "run"}, files={"file": ("slow.nii.gz", slow.read_bytes())})
        ]
        assert entered.wait(20)
        post += [
            client.post("/api/predictions", data={"run": "run", "case": "P01", "image": "P01_1"}) for _ in range(3)
        ]
        assert [answer.status_code for answer in post] == [202, 202, 202, 429]
        assert post[3].json() == {"error": "2 predictions are waiting; try again later"}
        ids = [answer.json()["id"] for answer in post[:3]]
        states = [client.get(f"/api/predictions/{id}").json() for id in ids]
        assert [s["state"] for s in states] == ["running", "queued", "queued"]
        assert [s["waiting_before"] for s in states] == [0, 1, 2]
        assert client.get(f"/api/predictions/{ids[0]}/files/result").status_code == 409
        for id in ids[:2]:
            assert client.delete(f"/api/predictions/{id}").status_code == 204
        assert client.post("/api/predictions", data={"run": "run", "case": "P01", "image": "P01_1"}).status_code == 202
        go.set()
        assert [ended(client, id)["state"] for id in ids] == ["cancelled", "cancelled", "done"]
        assert slices < 20  # and not 40
        assert client.delete(f"/api/predictions/{ids[0]}").status_code == 204
        assert client.get(f"/api/predictions/{ids[0]}").status_code == 404


def test_progress_grows_and_tells_the_time_left(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Levels.forward
    monkeypatch.setattr(Levels, "forward", lambda self, images: (time.sleep(0.05), forward(self, images))[1])
    long = write_nifti(tmp_path / "long.nii.gz", rng.integers(0, 255, (16, 16, 12)).astype(np.int16), AFFINE)
    with serve() as client:
        answer = client.post(
            "/api/predictions", data={"run": "run"}, files={"file": ("long.nii.gz", long.read_bytes())}
        )
        seen = []
        while True:
            body = client.get(f"/api/predictions/{answer.json()['id']}").json()
            seen.append((body["progress"], body["eta_s"]))
            time.sleep(0.01)
            if body["state"] == "done":
                break
        progress = [p for p, _ in seen]
        assert progress == sorted(progress)
        between = [(p, eta) for p, eta in seen if 0.1 < p < 0.9]
        assert between
        assert all(eta > 0 for _, eta in between)
        assert seen[-1] == (1.0, None)


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore")
def test_a_real_series_as_zip_becomes_a_dicom_seg_and_is_saved_as_nifti(
    serve: Serve, segmenter: Segmenter, real_data: Path, tmp_path: Path
) -> None:
    highdicom = pytest.importorskip("highdicom")
    series = real_data / "dicom_odd" / "ct_liver_3slice"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in series.rglob("*"):
            archive.write(path, f"study/1/{path.name}")
    archived = tmp_path / "liver.zip"
    archived.write_bytes(file.getvalue())
    volume = read_volume(series)
    channels = segmenter.predict(volume)
    with serve(corrections=tmp_path / "corrected") as client:
        body = predicted(client, archived)
        assert (body["name"], body["result"]["kind"], body["result"]["slices"]) == ("liver", "dicom", 3)
        files = f"/api/predictions/{body['id']}/files"
        image, map = (opened(client.get(f"{files}/{kind}").content) for kind in ("image.nii.gz", "map.nii.gz"))
        result = client.get(f"{files}/result")
        saved = client.post(f"/api/predictions/{body['id']}/save", json={}).json()
    assert np.array_equal(np.asarray(image.dataobj), volume.array)
    assert np.allclose(image.affine, volume.affine, atol=1e-4)
    assert np.array_equal(np.asarray(map.dataobj), channels)
    assert result.headers["content-type"] == "application/dicom"
    seg = highdicom.seg.segread(io.BytesIO(result.content))
    assert seg.FrameOfReferenceUID == volume.header.datasets[0].FrameOfReferenceUID
    stored = seg.get_volume(combine_segments=True, skip_overlap_checks=True)
    assert (stored.array > 0).sum() == (channels > 0).sum()
    assert saved == {"image": "images/liver.nii.gz", "label": "labels/liver.nii.gz"}
    dataset = open_dataset(tmp_path / "corrected")
    check_dataset(dataset).raise_on_errors()
    again = dataset.cases[0].files[0]
    assert np.array_equal(read_labels(again, dataset, read_volume(again.image)).array, channels)
