"""Many cases: what is written, kept, skipped, refused and told, with a network that is one comparison."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from fabricate import write_nifti, write_png
from sampeft.cli import main
from sampeft.data.intensity import Intensity
from sampeft.data.slice_cache import Preparation, PreparedVolume
from sampeft.data.slices import Frame, largest
from sampeft.data.values import Seen
from sampeft.errors import SampeftError, UsageError
from sampeft.io import read_volume
from sampeft.labels import LabelSet
from sampeft.prediction import scene
from sampeft.prediction.array_volume import volume_of
from sampeft.prediction.batch_size import BatchSize, memory_in_words
from sampeft.prediction.cases import key_of
from sampeft.prediction.network import InferenceOptions
from sampeft.prediction.outputs import Job
from sampeft.prediction.pipeline import watch
from sampeft.prediction.scene import SliceScene, WindowLogits
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.share_maps import KeptShareMaps
from sampeft.prediction.sinks import ClassMap, Confidence, Sink
from sampeft.volume import Volume
from sampeft.workflows import predict

LABELS = LabelSet(("background", "bright", "brightest"), (0, 3, 200))


class Levels(torch.nn.Module):
    """Grey below 0.4 is background, above 0.7 the brightest class; each class's logit grows with its distance."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.sizes: list[int] = []
        self.inside = threading.Lock()
        self.pause = pause

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        assert self.inside.acquire(blocking=False), "two threads run the model at once"
        time.sleep(self.pause)
        self.sizes.append(len(images_B3HW))
        x = images_B3HW[:, 0]
        logits = 10 * torch.stack([0.4 - x, torch.minimum(x - 0.4, 0.7 - x), x - 0.7], dim=1)
        self.inside.release()
        return logits


def segmenter(side: int = 32, **more: Any) -> Segmenter:
    preparation = Preparation(Intensity("window", 0, 255), side)
    description = {"weights_sha256": "0" * 64, "backbone": "levels", "method": "none", "options": {}}
    return Segmenter(Levels(), LABELS, preparation, description, **more)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose model is `Levels`."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "adapter.safetensors").write_bytes(b"weights")

    def load(path: Path, **how: Any) -> Segmenter:
        return segmenter(refiner=how["refiner"], views=how["views"])

    monkeypatch.setattr(predict, "load", load)
    return folder


def pictures(folder: Path, count: int = 3) -> list[Path]:
    rng = np.random.default_rng(5)
    return [write_png(folder / f"p{n}.png", rng.integers(0, 255, (24, 30), dtype=np.uint8)) for n in range(count)]


def records(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "predictions.json").read_text())["cases"])


def test_the_record_says_what_became_of_each_case(run: Path, tmp_path: Path) -> None:
    array = np.zeros((20, 24, 3), dtype=np.int16)
    array[4:8, 5:10, 1] = 250
    array[10:12, 2:4, 2] = 140
    write_nifti(tmp_path / "in/scan.nii.gz", array, np.diag([2.0, 1.5, 5.0, 1.0]))
    assert main(["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--volumes"]) == 0
    case = records(tmp_path / "out")["scan"]
    assert case["status"] == "done"
    assert case["shape"] == [20, 24, 3]
    assert case["spacing_mm"] == [2.0, 1.5, 5.0]
    assert set(case["seconds"]) == {"read", "prepare", "network", "finish", "write"}
    found = np.asarray(nib.load(tmp_path / "out/scan.nii.gz").dataobj)
    assert case["pixels"] == {name: int((found == id).sum()) for name, id in zip(LABELS.names, LABELS.ids, strict=True)}
    assert case["pixels"]["brightest"] > 10
    with (tmp_path / "out/volumes.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    # A voxel is 2 x 1.5 x 5 mm = 15 mm3 = 0.015 ml.
    assert float(rows["brightest"]["ml"]) == pytest.approx(case["pixels"]["brightest"] * 0.015, rel=1e-5)
    assert rows["brightest"]["id"] == "200"
    # A NIfTI holds neither names nor colours (N04).
    assert (tmp_path / "out/classes.csv").read_text().splitlines() == [
        "id,class,red,green,blue",
        "0,background,0,0,0",
        "3,bright,230,159,0",
        "200,brightest,86,180,233",
    ]


def test_the_record_names_the_least_share_of_a_run_that_has_one(run: Path, tmp_path: Path) -> None:
    """Maps by another share are other maps."""
    found = {}
    for share in (0.0, 0.05, 0.1):
        described = segmenter().description | {"least_share": share}
        job = Job(tmp_path)
        found[share] = job.settings(replace(segmenter(), description=described), [run])
    assert [settings.get("least_share") for settings in found.values()] == [None, 0.05, 0.1]
    assert len({key_of(settings) for settings in found.values()}) == 3
    assert key_of(found[0.0]) == key_of(Job(tmp_path).settings(segmenter(), [run]))


def test_a_second_run_leaves_finished_cases_and_makes_what_is_missing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = pictures(tmp_path / "in"), tmp_path / "out"
    command = ["predict", str(run), str(tmp_path / "in"), "--out", str(out)]
    assert main(command) == 0
    stamps = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    (out / "p1.png").unlink()
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(out / "p1.png")]
    assert "2 of 3 cases were finished before" in said.err
    assert {p.name for p in out.glob("*.png") if p.stat().st_mtime_ns == stamps[p.name]} == {"p0.png", "p2.png"}
    assert {name: case["status"] for name, case in records(out).items()} == dict.fromkeys(("p0", "p1", "p2"), "done")
    # Another content of an image, another setting, a changed map, a map of unknown origin: none is taken for finished.
    for change, reason in (
        (lambda: write_png(images[0], np.full((24, 30), 9, np.uint8)), "p0.png: belongs to another content"),
        (lambda: (out / "p0.png").write_bytes(b"mine"), "p0.png: was changed since it was written"),
    ):
        main([*command, "--force"])
        change()
        assert main(command) == 2
        assert reason in capsys.readouterr().err
    main([*command, "--force"])
    assert main([*command, "--views", "2"]) == 2
    assert "p0.png: was written with other settings (and 2 more); it is already there" in capsys.readouterr().err
    (out / "predictions.json").unlink()
    assert main(command) == 2
    assert "p0.png: was not written by this run" in capsys.readouterr().err


def test_maps_of_other_settings_are_not_joined_by_those_of_other_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One record and one table of classes stand for all maps of a folder."""
    first, second, third = pictures(tmp_path / "in")
    out = tmp_path / "out"

    def predict(image: Path, *options: str) -> int:
        return main(["predict", str(run), str(image), "--out", str(out), *options])

    assert (predict(first), predict(second)) == (0, 0)
    record = (out / "predictions.json").read_bytes()
    assert predict(third, "--views", "2") == 2
    assert "p0.png: was written with other settings (and 1 more); it is already there" in capsys.readouterr().err
    assert predict(third, "--views", "2", "--force") == 2
    assert "p0.png: was written with other settings (and 1 more), and its image is not among those given" in (
        capsys.readouterr().err
    )
    assert (out / "predictions.json").read_bytes() == record
    assert predict(first, "--force") == 0  # the same settings mix nothing
    for name in ("p0.png", "p1.png"):
        (out / name).unlink()
    assert predict(third, "--views", "2") == 0


@pytest.mark.parametrize("tile", [[], ["--tile", "16"]])
def test_another_range_of_values_is_in_the_record_and_the_table(
    tile: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """N02: a picture as those of training, the same in 16 bits, and a black one, whole and by windows."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "adapter.safetensors").write_bytes(b"weights")
    seen = Seen(0, 255, ("picture",))
    knowing = replace(segmenter().preparation, seen=seen)
    monkeypatch.setattr(predict, "load", lambda *_, **__: replace(segmenter(), preparation=knowing))
    grey = np.arange(1024).reshape(32, 32) // 4
    write_png(tmp_path / "in/same.png", grey.astype(np.uint8))
    write_png(tmp_path / "in/wide.png", (grey * 257).astype(np.uint16))
    write_png(tmp_path / "in/zero.png", np.zeros((32, 32), np.uint8))
    assert main(["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), *tile]) == 0
    said = {name: case["warnings"] for name, case in records(tmp_path / "out").items()}
    wide = "wide.png: its values are 0..65535 (uint16), those of training were 0..255, and the recipe is window 0..255"
    assert said["same"] == []
    assert wide in said["wide"][0]
    assert "zero.png: all its pixels have one value (0)" in said["zero"][0]
    assert sum(wide in record.getMessage() for record in caplog.records) == 1
    with (tmp_path / "out/cases.csv").open() as file:
        assert {row["case"]: bool(row["message"]) for row in csv.DictReader(file)} == {
            "same": False,
            "wide": True,
            "zero": True,
        }


def test_a_bad_case_is_told_at_the_end_and_in_the_tables(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "in")
    write_png(tmp_path / "in/dark.png", np.zeros((24, 30), np.uint8))
    (tmp_path / "in/p1.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    assert main(["predict", str(run), str(tmp_path / "in/*.png"), "--out", str(tmp_path / "out")]) == 1
    end = capsys.readouterr().err.strip().splitlines()[-2:]
    assert end[0] == "1 of 4 cases failed:"
    assert "p1.png: damaged" in end[1]
    assert records(tmp_path / "out")["p1"]["status"] == "failed"
    with (tmp_path / "out/cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows[:2]] == ["p1", "dark"]  # what failed, then where nothing was found
    assert float(rows[2]["confidence"]) <= float(rows[3]["confidence"])
    assert main(["predict", str(run), str(tmp_path / "in/*.bmp"), "--out", str(tmp_path / "out")]) == 2
    assert "no file or DICOM series fits this pattern" in capsys.readouterr().err


def test_processes_share_the_cases_and_leave_one_record(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "in", 5)
    command = ["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        before = set((tmp_path / "out").glob("*.png"))
        assert main(command) == 0
        made.append(len(set((tmp_path / "out").glob("*.png")) - before))
    assert made == [2, 3]
    assert sorted(records(tmp_path / "out")) == [f"p{n}" for n in range(5)]
    assert not list((tmp_path / "out").glob(".predictions.*.jsonl"))
    for rank in ("0", "1"):  # what the other process has not yet made again is no map of another image
        monkeypatch.setenv("RANK", rank)
        assert main([*command, "--views", "2", "--force"]) == 0
    assert len({case["settings"] for case in records(tmp_path / "out").values()}) == 1


KILLED = """
import sys
from pathlib import Path
import test_predicting
from sampeft.cli import main
from sampeft.workflows import predict
slow = test_predicting.segmenter()
slow.model.pause = 0.15
predict.load = lambda path, **how: slow
main(["predict", sys.argv[1], sys.argv[2], "--out", sys.argv[3]])
"""


def test_after_a_kill_the_same_command_gives_the_same_files(run: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "in", 8)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["predict", str(run), str(tmp_path / "in"), "--out", str(whole)]) == 0
    here = Path(__file__)
    folders = os.pathsep.join([str(here.parent), str(here.parents[1])])
    environment = {**os.environ, "PYTHONPATH": folders, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", KILLED, str(run), str(tmp_path / "in"), str(cut)]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while len(list(cut.glob("*.png"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert 3 <= len(list(cut.glob("*.png"))) < 8
    assert not (cut / "predictions.json").exists()
    assert main(["predict", str(run), str(tmp_path / "in"), "--out", str(cut)]) == 0
    for path in whole.glob("*.png"):
        assert (cut / path.name).read_bytes() == path.read_bytes()
    assert {name: case["status"] for name, case in records(cut).items()} == {f"p{n}": "done" for n in range(8)}
    assert not list(cut.glob(".predictions*"))


def test_shares_lie_on_the_grid_and_sum_to_one(run: Path, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (20, 24, 4)).astype(np.int16)
    affine = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 5, 100], [0, 0, 0, 1]])
    source = write_nifti(tmp_path / "scan_0000.nii.gz", array, affine)
    out = tmp_path / "out"
    more = ["--probabilities", "--uncertainty", "--views", "3"]
    assert main(["predict", str(run), str(source), "--out", str(out), *more]) == 0
    files = {name: nib.load(out / f"probabilities/scan_{name}.nii.gz") for name in LABELS.names}
    shares = np.stack([file.get_fdata() for file in files.values()])
    assert files["bright"].get_data_dtype() == np.uint8
    assert np.allclose(files["bright"].affine, affine)
    assert np.abs(shares.sum(axis=0) - 1).max() <= len(LABELS) / 510 + 1e-6  # each is rounded to 1/255
    chosen = np.asarray(nib.load(out / "scan.nii.gz").dataobj)
    clear = np.diff(np.sort(shares, axis=0)[-2:], axis=0)[0] > 0.01
    assert np.array_equal(np.asarray(LABELS.ids)[shares.argmax(axis=0)][clear], chosen[clear])
    entropy = nib.load(out / "uncertainty/scan_entropy.nii.gz").get_fdata()
    with np.errstate(divide="ignore", invalid="ignore"):
        by_hand = -np.nansum(shares * np.log(shares), axis=0) / np.log(3)
    assert np.abs(entropy - by_hand).max() < 0.03
    disagreement = nib.load(out / "uncertainty/scan_disagreement.nii.gz").get_fdata()
    assert 0 < disagreement.max() <= 2 / 3 + 1e-3
    assert not list(out.glob(".sampeft-*"))


def test_shares_of_pictures_are_grey_values(run: Path, tmp_path: Path) -> None:
    (image,) = pictures(tmp_path / "in", 1)
    assert main(["predict", str(run), str(image), "--out", str(tmp_path / "out"), "--probabilities"]) == 0
    maps = [np.asarray(Image.open(tmp_path / f"out/probabilities/p0_{name}.png")) for name in LABELS.names]
    assert maps[0].shape == (24, 30)
    assert np.abs(np.sum(maps, axis=0, dtype=int) - 255).max() <= 2


def show(prepared: PreparedVolume, logits_Khw: torch.Tensor, *sinks: Sink, temperature: float = 1.0) -> None:
    """Show sinks a picture of which the network says this."""
    scene = SliceScene(prepared)
    (window,) = scene.windows()
    watch([WindowLogits(window, logits_Khw)], scene, sinks, len(LABELS), InferenceOptions(temperature=temperature))


def test_confidence_is_the_mean_over_the_foreground_worked_by_hand() -> None:
    prepared = PreparedVolume.of(volume_of(np.zeros((2, 2), np.uint8)), Preparation(Intensity("window", 0, 1), 2))
    probabilities = torch.tensor([[[0.9, 0.2], [0.1, 0.3]], [[0.05, 0.7], [0.5, 0.3]], [[0.05, 0.1], [0.4, 0.4]]])
    shown, confidence, warm = ClassMap(), Confidence(LABELS), Confidence(LABELS)
    show(prepared, probabilities.log(), shown, confidence)
    assert shown.channels_SHW[0].tolist() == [[0, 1], [1, 2]]
    assert confidence.mean == pytest.approx((0.7 + 0.5 + 0.4) / 3, abs=1e-6)
    show(prepared, probabilities.log(), warm, temperature=2.0)
    roots = probabilities.sqrt() / probabilities.sqrt().sum(dim=0)
    assert warm.mean == pytest.approx(float(roots.amax(dim=0).flatten()[1:].mean()), abs=1e-6)
    assert Confidence(LABELS).mean is None
    with pytest.raises(UsageError, match="--temperature is 0"):
        Job(Path("out"), temperature=0.0)


def test_outside_the_box_background_is_certain(tmp_path: Path) -> None:
    frame = Frame((20, 24), (4, 5, 16, 20), 12)
    prepared = PreparedVolume.of(volume_of(np.zeros((20, 24), np.uint8)), Preparation(Intensity("window", 0, 1), 12))
    reader = KeptShareMaps(LABELS, probabilities=True, uncertainty=True, views=1, folder=tmp_path)
    show(replace(prepared, frame=frame), torch.zeros(3, 12, 12), reader)
    maps = dict(reader.maps())
    assert (maps["background"][0] == 255).all()
    assert set(np.unique(maps["background"][4:16, 5:20])) == {85}
    assert maps["bright"][0].max() == 0
    assert maps["entropy"][8, 8, 0] == 255
    assert maps["entropy"][0].max() == 0
    reader.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batch", [1, 3, 8, "auto"])
def test_any_batch_gives_the_same_map(batch: Any) -> None:
    array = np.random.default_rng(1).integers(0, 255, (11, 40, 30)).astype(np.int16)
    one = segmenter()
    whole = one.predict(array, batch=batch, spacing_mm=(5.0, 1.0, 1.0))
    each = np.concatenate([one.predict(a[None], spacing_mm=(5.0, 1.0, 1.0)) for a in array])
    assert np.array_equal(whole, each)
    assert whole.shape == array.shape
    wanted = {1: [1] * 11, 3: [3, 3, 3, 2], 8: [8, 3], "auto": None}[batch]
    assert wanted is None or one.model.sizes[: len(wanted)] == wanted  # type: ignore[union-attr]


def test_arrays_need_no_file_and_keep_their_shape() -> None:
    rng = np.random.default_rng(2)
    grey, colour = rng.integers(0, 255, (30, 40), dtype=np.uint8), np.zeros((30, 40, 3), np.uint8)
    one = segmenter(40)
    assert np.array_equal(one.predict(grey) == 2, np.round(grey / 255, 6) > 0.7)  # side 40: nothing is scaled
    assert one.predict(colour).shape == (30, 40)
    stack = rng.integers(0, 255, (3, 30, 40)).astype(np.float64)
    found = one.predict(stack, spacing_mm=(1.0, 3.0, 3.0))  # the slices are the first axis at any spacing
    assert np.array_equal(found[1], one.predict(stack[1]))
    seen = PreparedVolume.of(volume_of(stack, (1.0, 3.0, 3.0)), replace(one.preparation, plane="axial"))
    assert np.array_equal(seen.slices, stack)  # neither turned nor mirrored
    assert seen.view.spacing_mm == (1.0, 3.0, 3.0)
    with pytest.raises(UsageError, match=r"\(5, 30, 40\) is neither a picture"):
        one.predict(np.zeros((5, 30, 40)))
    with pytest.raises(UsageError, match="spacing_mm is"):
        one.predict(grey, spacing_mm=(1.0, 1.0, 1.0))


def test_many_pictures_share_batches_and_equal_single_ones() -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 255, (20 + n, 30), dtype=np.uint8) for n in range(7)]
    one = segmenter()
    together = one.predict_many(images, batch=4)
    assert one.model.sizes == [4, 3]  # type: ignore[union-attr]
    for image, found in zip(images, together, strict=True):
        assert np.array_equal(found, one.predict(image))
    assert one.predict_many([]) == []


def test_eight_threads_get_what_one_gets() -> None:
    rng = np.random.default_rng(4)
    stacks = [rng.integers(0, 255, (3, 24, 24)).astype(np.int16) for _ in range(16)]
    one = segmenter()
    alone = [one.predict(stack, spacing_mm=(5.0, 1.0, 1.0)) for stack in stacks]
    with ThreadPoolExecutor(8) as threads:
        beside = list(threads.map(lambda stack: one.predict(stack, spacing_mm=(5.0, 1.0, 1.0)), stacks))
    for a, b in zip(alone, beside, strict=True):
        assert np.array_equal(a, b)


def test_running_out_of_memory_names_the_option() -> None:
    class Hungry(Levels):
        def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
            if len(images_B3HW) > 1:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
            return super().forward(images_B3HW)

    greedy = replace(segmenter(), source=Hungry())
    stack = np.zeros((6, 24, 24), np.int16)
    with pytest.raises(SampeftError, match="out of memory with 6 slices at a time; give a smaller --batch, such as 3"):
        greedy.predict(stack, batch=6, spacing_mm=(5.0, 1.0, 1.0))
    greedy.predict(stack, batch=1, spacing_mm=(5.0, 1.0, 1.0))
    with pytest.raises(RuntimeError, match="shape"), memory_in_words(2):
        raise RuntimeError("shape")
    with pytest.raises(UsageError, match="--batch is 0"):
        BatchSize(0)


def test_the_free_memory_decides_about_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.Conv2d(3, 5, 1)  # of 10 x 10: 3 + 5 maps of 400 bytes, 3200 in all
    for free, wanted in ((64_000, 2), (10**9, 4), (10, 1)):
        monkeypatch.setattr("sampeft.prediction.batch_size.free_bytes", lambda device, free=free: free)
        size = BatchSize("auto")
        assert size.now == 1
        with size.measured(layer, 1):
            layer(torch.zeros(1, 3, 10, 10))
        assert size.now == wanted  # half of the free memory over four times the layer's


@pytest.mark.parametrize("size", [(480, 640), (33, 200), (7, 5)])
def test_logits_equal_torchs_own_scaling(size: tuple[int, int]) -> None:
    import torch.nn.functional as F

    height, width = size
    frame = Frame(size, (1, 2, height, width - 1), 56)
    logits = 5 * torch.randn(4, 28, 28, generator=torch.Generator().manual_seed(0))
    square = F.interpolate(logits[None], (56, 56), mode="bilinear", align_corners=False)
    rows, columns = frame.inner_size
    inner = square[:, :, :rows, :columns]
    wanted = F.interpolate(inner, frame.box_size, mode="bilinear", align_corners=False, antialias=True)[0]
    assert (frame.logits(logits) - wanted).abs().max() < 1e-5
    inside = frame.class_map(logits)[1:height, 2 : width - 1]
    assert (inside != wanted.argmax(dim=0).numpy()).mean() < 1e-3  # equal logits aside
    assert np.array_equal(largest(wanted), wanted.argmax(dim=0).numpy())


def test_a_full_disk_ends_the_run_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    pictures(tmp_path / "in")
    command = ["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr("sampeft.io.os.fsync", full)
        assert main(command) == 1
    assert "p0.png: No space left on device; free some space" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", lambda file, *_: full(file), raising=False)
        assert main([*command, "--probabilities"]) == 1
    assert f"{tmp_path / 'out'}: No space left on device; free some space" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob(".sampeft-*"))
    assert main(command) == 0
    assert read_volume(tmp_path / "out/p2.png").grid == (24, 30, 1)


def test_a_case_that_fails_for_any_reason_fails_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """p0 was not fetched (N03), p1 meets a fault of the program; the third is done."""
    pictures(tmp_path / "in")
    (tmp_path / "in/p0.png").unlink()
    (tmp_path / "in/p0.png").symlink_to("/nowhere/p0.png")
    real = scene.read_volume

    def faulty(path: Path) -> Volume:
        if path.name == "p1.png":
            raise ZeroDivisionError("by hand")
        return real(path)

    monkeypatch.setattr(scene, "read_volume", faulty)
    assert main(["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "p0.png: is a link to /nowhere/p0.png, which is not there" in told
    assert "p1.png: failed in a way that was not foreseen (ZeroDivisionError: by hand); please report it" in told
    assert "Traceback" not in told
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["p2.png"]


def test_run_and_image_the_wrong_way_round_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = pictures(tmp_path / "in", 1)
    run = tmp_path / "run"
    run.mkdir()
    (run / "adapter.json").write_text("{}")
    assert main(["predict", str(image), str(run), "--out", str(tmp_path / "out")]) == 2
    assert "p0.png: is no run, but" in capsys.readouterr().err
    assert main(["predict", str(run), str(run), "--out", str(tmp_path / "out")]) == 2
    assert "are runs; give an image to segment, too" in capsys.readouterr().err
