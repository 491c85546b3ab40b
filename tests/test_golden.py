"""Golden results: what commands write for every kind of image and every way of predicting, to the bit.

They protect rebuilding: a change that means to leave results alone leaves these alone. One that means to change some records
them anew, and its commit says why: `SAMPEFT_RECORD=1 pytest tests/test_golden.py`. Other processors and other versions of
torch round differently; there they are skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fabricate import folder_dataset, write_nifti, write_png
from fabricate.backbones import make_tiny, stirred, tiny_sam
from fabricate.dicom import save, slice_dataset
from fabricate.layouts import nnunet
from fabricate.maps import place, write_tiff
from fabricate.runs import description_of
from sampeft import load
from sampeft.cli import main
from sampeft.data.intensity import Intensity
from sampeft.data.preprocessing import Preparation
from sampeft.io import read_volume
from sampeft.labels import LabelSet
from sampeft.peft import attach
from sampeft.peft.state import save_trained
from sampeft.training import batches

FILE = Path(__file__).parent / "golden/paths.json"
SIDE = 32
HEADS = ("mask", "pixel")
RECIPES = {
    "8bit": Intensity("window", 0, 255),
    "ct": Intensity("window", -160, 240),
    "cropped": Intensity("percentile", 1, 99, "body"),
}
INPUTS = {
    "8bit": ("grey.png", "colour.png", "cut.tif"),
    "ct": ("volume.nii.gz", "series"),
    "cropped": ("volume.nii.gz",),
}
LABELS = LabelSet(("background", "c1", "c2"), (0, 1, 2))
VOLATILE = ("seconds", "resources")


def machine() -> dict[str, str]:
    """What decides how numbers are rounded: the processor with all that it can do, and the libraries."""
    path = Path("/proc/cpuinfo")
    known = dict.fromkeys(("vendor_id", "cpu family", "model", "model name", "stepping", "flags"), platform.processor())
    for line in path.read_text().splitlines() if path.is_file() else []:
        name, _, value = line.partition(":")
        if name.strip() in known:
            known[name.strip()] = " ".join(sorted(value.split()))
    return {
        "processor": f"{known['model name']} {digest(known)}",
        "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
        "numpy": np.__version__,
    }


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, str]]:
    """Digests by name; what a test adds is kept when they are recorded anew."""
    recorded = json.loads(FILE.read_text()) if FILE.is_file() else {}
    if os.environ.get("SAMPEFT_RECORD"):
        made: dict[str, str] = {}
        yield made
        FILE.write_text(json.dumps({"machine": machine(), "digests": made}, indent=1, sort_keys=True) + "\n")
    elif recorded.get("machine") != machine():
        pytest.skip(f"golden results are of {recorded.get('machine')}, this is {machine()}")
    else:
        yield recorded["digests"]


def compare(golden: dict[str, str], found: dict[str, str]) -> None:
    if os.environ.get("SAMPEFT_RECORD"):
        golden.update(found)
    assert {name: golden.get(name) for name in found} == found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs `RECIPE-HEAD`, images of each kind and two data sets."""
    root = tmp_path_factory.mktemp("golden")
    with tiny_sam(SIDE, root / "cache"):
        for recipe, intensity in RECIPES.items():
            for head in HEADS:
                model = make_tiny("tiny", LABELS, head, side=SIDE)
                attached = attach(model, "lora", {"rank": 2})
                known = description_of(
                    model, "lora", attached.options, head=head, head_options={}, pixels=40, gsd=None, most_pixels=48,
                    preparation=Preparation(intensity, SIDE).to_json(), least_share=0.05,
                )  # fmt: skip
                save_trained(root / f"{recipe}-{head}", stirred(model), known)
        rng = np.random.default_rng(11)
        smooth = np.add.outer(np.linspace(0, 200, 60), 25 * np.sin(np.arange(90) / 7)) + rng.normal(0, 9, (60, 90))
        grey = smooth.clip(0, 255).astype(np.uint8)
        write_png(root / "images/grey.png", grey[:40, :36])
        write_png(root / "images/colour.png", np.stack([grey, grey[::-1], grey[:, ::-1]], axis=2)[:44, :48])
        cut = np.stack([grey, grey[:, ::-1], grey[::-1]])
        cut[:, 20:35, 50:] = 0
        write_tiff(root / "images/cut.tif", cut, photometric="rgb", nodata=0, **place())
        z, y, x = np.mgrid[:3, :28, :40]
        hu = np.where((x - 20) ** 2 / 200 + (y - 14) ** 2 / 100 + z / 9 < 1, 40 + 6 * x - 3 * y + 9 * z, -1000)
        write_nifti(root / "images/volume.nii.gz", hu.transpose(2, 1, 0).astype(np.int16))
        for k, plane in enumerate(hu.astype(np.int16)):
            save(slice_dataset(plane, (0, 0, 5.0 * k)), root / f"images/series/{k}.dcm")
        folder_dataset(root / "pictures", size=(40, 36))
        (root / "volumes").mkdir()
        nnunet(root / "volumes", {"labels": {"background": 0, "c1": 1, "c2": 2, "ignore": 3}})
        yield root


def digest(*parts: Any) -> str:
    content = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            content.update(f"{part.dtype.name} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            content.update(json.dumps(part, sort_keys=True).encode())
    return content.hexdigest()[:20]


def digest_of_files(folder: Path) -> str:
    """Of the pixels and places of all maps of a folder and what lies below it."""
    maps = sorted(p for p in folder.rglob("*") if p.name.endswith((".png", ".tif", ".nii.gz")))
    assert maps
    parts: list[Any] = []
    for path in maps:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = read_volume(path)
        parts += [str(path.relative_to(folder)), volume.array[:]]
        parts += [volume.affine] if volume.affine is not None else []
    return digest(*parts)


def steady(value: Any) -> Any:
    """JSON without what differs from one time or place to another."""
    if isinstance(value, dict):
        return {key: steady(inner) for key, inner in value.items() if key not in VOLATILE}
    return [steady(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_predictions(recipe: str, head: str, root: Path, tmp_path: Path, golden: dict[str, str]) -> None:
    """Class maps, probabilities, uncertainty and the record of each case."""
    found = {}
    for views in (1, 3):
        for refiner in (None, "components"):
            out = tmp_path / f"{views}-{refiner}"
            inputs = [str(root / "images" / name) for name in INPUTS[recipe]]
            more = ["--refine", refiner, "--refine_options.keep", "largest"] if refiner else []
            asked = ["--views", str(views), "--probabilities", "--uncertainty", "--nifti", *more]
            assert main(["predict", str(root / f"{recipe}-{head}"), *inputs, "--out", str(out), *asked]) == 0
            cases = json.loads((out / "predictions.json").read_text())["cases"]
            facts = {case: {k: known[k] for k in ("confidence", "pixels")} for case, known in cases.items()}
            found[f"predict {recipe} {head} views {views} refine {refiner}"] = digest(digest_of_files(out), facts)
    compare(golden, found)


@pytest.mark.parametrize("head", HEADS)
def test_arrays(head: str, root: Path, golden: dict[str, str]) -> None:
    segmenter = load(root / f"8bit-{head}")
    rng = np.random.default_rng(2)
    flat, stack = rng.integers(0, 255, (30, 40), dtype=np.uint8), rng.integers(0, 255, (2, 30, 40), dtype=np.uint8)
    maps = [segmenter.predict(flat), segmenter.predict(stack, spacing_mm=(2.0, 1.0, 1.0))]
    compare(golden, {f"array {head}": digest(*maps)})


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("recipe", "data"), [("8bit", "pictures"), ("ct", "volumes"), ("cropped", "volumes")])
def test_evaluations(recipe: str, data: str, head: str, root: Path, tmp_path: Path, golden: dict[str, str]) -> None:
    """Every number of summary.json."""
    found = {}
    for views, refiner in ((1, None), (3, "components")):
        out = tmp_path / str(views)
        asked = ["--views", str(views), *(["--refine", refiner, "--refine_options.keep", "largest"] if refiner else [])]
        command = ["evaluate", str(root / f"{recipe}-{head}"), "--data", str(root / data), "--out", str(out), *asked]
        assert main(command) == 0
        found[f"evaluate {recipe} {head} views {views} refine {refiner}"] = digest(
            steady(json.loads((out / "summary.json").read_text())), (out / "scores.csv").read_text()
        )
    compare(golden, found)


@pytest.mark.parametrize("head", HEADS)
def test_training(
    head: str, root: Path, tmp_path: Path, golden: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log and the weights of six steps, in one go and with a crash before the fourth."""
    asked = ["--data", str(root / "pictures"), "--backbone", "tiny", "--weights", "random", "--head", head]
    asked += ["--plan", "false"]
    for key, value in {"steps": 6, "validations": 2, "head_first": 0.5, "checkpoint_minutes": 0, "seed": 3}.items():
        asked += [f"--training.{key}", str(value)]

    def state(out: Path) -> str:
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        rows = [{k: v for k, v in line.items() if k != "minutes"} for line in lines]
        return digest(rows, hashlib.sha256((out / "last/adapter.safetensors").read_bytes()).hexdigest())

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(["train", *asked, "--out", str(whole)]) == 0
    generator = batches.Batches.generator

    def crashing(self: batches.Batches, step: int) -> torch.Generator:
        if step == 3:
            raise MemoryError
        return generator(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(batches.Batches, "generator", crashing)
        with pytest.raises(MemoryError):
            main(["train", *asked, "--out", str(broken)])
    assert main(["train", *asked, "--out", str(broken), "--resume", "true"]) == 0
    assert state(broken) == state(whole)
    compare(golden, {f"train {head}": state(whole)})
