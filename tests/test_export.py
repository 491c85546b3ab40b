"""Exported models: the same map as the run's, for programs that have neither torch nor sampeft."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from fabricate import write_nifti, write_png
from fabricate.backbones import make_tiny, stirred
from sampeft.backbones import NONE
from sampeft.cli import main
from sampeft.engines import ENGINES
from sampeft.engines.graph import Identity
from sampeft.engines.kept import Kept
from sampeft.export import Seen
from sampeft.labels import LabelSet
from sampeft.peft import attach
from sampeft.peft.run_files import read_description
from sampeft.peft.state import save_trained
from sampeft.peft.whole import load_whole
from sampeft.prediction.loading import load
from sampeft.prediction.segmenter import Segmenter

LABELS = LabelSet(("background", "liver", "spleen"), (0, 3, 7))
WINDOW = {"kind": "window", "low": 20.0, "high": 220.0, "crop": "none", "bands": None}
PERCENTILE = {"kind": "percentile", "low": 2.0, "high": 98.0, "crop": "none", "bands": None}
BODY = {"kind": "percentile", "low": 2.0, "high": 98.0, "crop": "body", "bands": None}


pytestmark = pytest.mark.usefixtures("tiny_backbones")


def make_run(
    folder: Path,
    intensity: dict[str, Any] = WINDOW,
    method: str = "lora",
    architecture: str = "sam-vit-b",
    head: str = "mask",
    preparation: Mapping[str, Any] | None = None,
) -> Path:
    """A run whose adapter and head do something, as after a training."""
    model = make_tiny(f"tiny {architecture}" if architecture != NONE else NONE, LABELS, head)
    attached = attach(model, method)
    generator = torch.Generator().manual_seed(3)
    if head != "mask":
        stirred(model)
    with torch.no_grad():
        if model.head.tokens is not None:
            model.head.tokens.add_(torch.randn(model.head.tokens.shape, generator=generator))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and name.startswith("sam."):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    content = {
        "backbone": model.spec.name,
        "weights_sha256": model.digest,
        "head": head,
        "head_options": {},
        "encoder_side": None,
        "least_share": 0.05,
        "seed": 7,
        "method": attached.method,
        "options": attached.options,
        "label_map": LABELS.to_json(),
        "preparation": {"intensity": intensity, "side": model.side, "plane": "auto", **(preparation or {})},
    }
    save_trained(folder, model, content)
    return folder


def picture(path: Path, colours: bool = False) -> Path:
    """A bright body with structures, off the middle, in the dark."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 255, (8, 10, 3) if colours else (8, 10), dtype=np.uint8)
    image = np.zeros((70, 90, 3) if colours else (70, 90), dtype=np.uint8)
    image[6:62, 12:82] = np.asarray(Image.fromarray(coarse).resize((70, 56), Image.Resampling.BICUBIC))
    return write_png(path, image)


def skip_without(engine: str) -> None:
    if missing := [package for package in ENGINES[engine].PACKAGES if find_spec(package) is None]:  # type: ignore[union-attr]
        pytest.skip(f"needs {', '.join(missing)}")


def run_program(folder: Path, *arguments: object, code: int = 0) -> str:
    """predict.py where neither torch nor sampeft can be imported; what it prints. code: that it ends with."""
    block = "import sys; sys.modules.update(torch=None, sampeft=None, transformers=None); import runpy; "
    program = str(folder / "predict.py")
    start = f"sys.argv = {[program, *map(str, arguments)]!r}; runpy.run_path({program!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", block + start], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def agreement(found: Path, segmenter: Segmenter, image: Path) -> float:
    ids = segmenter.labels.to_ids(segmenter.predict(image))[:, :, 0]
    assert len(np.unique(ids)) > 1
    return float((np.asarray(Image.open(found)) == ids).mean())


@pytest.mark.parametrize(("format", "head"), [("openvino", "mask"), ("onnx", "mask"), ("onnx", "pixel")])
def test_the_program_beside_the_graph_gives_our_map_without_torch_or_us(
    tmp_path: Path, format: str, head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    skip_without(format)
    run, image = make_run(tmp_path / "run", PERCENTILE, head=head), picture(tmp_path / "image.png", colours=True)
    out = tmp_path / "out"
    assert main(["export", str(run), "--format", format, "--out", str(out), "--images", str(image), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((out / "parity.json").read_text())
    assert printed["passes"] is written["passes"] is True
    assert written["looked_at"] == [str(image)]
    assert printed["agreement"] == written["agreement"] >= 0.999
    run_program(out, image, tmp_path / "map.png")
    assert agreement(tmp_path / "map.png", load(run), image) >= 0.999
    about = json.loads((out / "model.json").read_text())
    assert [(label["channel"], label["id"], label["name"]) for label in about["labels"]] == [
        (0, 0, "background"),
        (1, 3, "liver"),
        (2, 7, "spleen"),
    ]


def test_for_a_body_crop_the_program_takes_the_levels_and_box_that_we_found(tmp_path: Path) -> None:
    skip_without("onnx")
    run, image = make_run(tmp_path / "run", BODY), picture(tmp_path / "image.png")
    assert main(["export", str(run), "--out", str(tmp_path / "out"), "--images", str(image)]) == 0
    seen = json.loads((tmp_path / "out/model.json").read_text())["images"][str(image)]
    assert seen["box"] != [0, 0, 70, 90]
    run_program(tmp_path / "out", image, tmp_path / "map.png", "--levels", *seen["levels"], "--box", *seen["box"])
    assert agreement(tmp_path / "map.png", load(run), image) >= 0.999


@pytest.mark.parametrize(
    ("intensity", "plane", "context"),
    [(PERCENTILE, "auto", {}), (WINDOW, "sagittal", {"context": "neighbours", "context_mm": 3.0})],
)
def test_the_program_reads_volumes_as_we_do(
    tmp_path: Path, intensity: dict[str, Any], plane: str, context: dict[str, Any]
) -> None:
    """Axes in another order, one of them mirrored, slices thicker than their pixels; a value that is no number."""
    skip_without("onnx")
    run = make_run(tmp_path / "run", intensity, preparation={"plane": plane, **context})
    rng = np.random.default_rng(1)
    coarse = np.repeat(np.repeat(rng.uniform(60, 255, (5, 6, 7)), 5, axis=0), 6, axis=2)
    coarse = coarse.astype(np.float32)
    coarse[0, 0, 0] = np.nan
    affine = np.array([[0, 3.0, 0, -8], [0, 0, -1.5, 20], [1.2, 0, 0, -30], [0, 0, 0, 1]])
    scan = write_nifti(tmp_path / "scan.nii.gz", coarse, affine)
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    run_program(tmp_path / "out", scan, tmp_path / "map.nii.gz")
    found, segmenter = nib.load(tmp_path / "map.nii.gz"), load(run)
    ids = segmenter.labels.to_ids(segmenter.predict(scan))
    assert len(np.unique(ids)) > 1
    assert found.get_data_dtype() == np.uint8
    assert found.shape == (25, 6, 42)
    assert np.allclose(found.affine, affine)
    assert (np.asarray(found.dataobj) == ids).mean() >= 0.999


def test_the_program_says_how_it_is_used_and_what_is_wrong(tmp_path: Path) -> None:
    skip_without("onnx")
    run, image = make_run(tmp_path / "run", BODY), picture(tmp_path / "image.png")
    out = tmp_path / "out"
    assert main(["export", str(run), "--out", str(out)]) == 0
    told = " ".join(run_program(out, "--help").split())
    for word in (
        "IMAGE MAP",
        "--levels LOW HIGH",
        "--box TOP LEFT BOTTOM RIGHT",
        ".nii.gz",
        "0 background, 3 liver, 7 spleen",
    ):
        assert word in told
    Image.open(image).convert("P").save(tmp_path / "palette.png")
    for arguments, why in (
        ((image,), "the following arguments are required: MAP"),
        ((image, "map.nii"), "is a picture as well; MAP is map.nii"),
        ((tmp_path / "none.png", "map.png"), "No such file"),
        ((tmp_path / "palette.png", "map.png"), "a picture of mode P; convert it to grey or RGB first"),
        ((image, "map.png"), "looks at the body alone, which is not searched for here; give --levels and --box"),
        ((image, "map.png", "--levels", 0, 9, "--box", 0, 0, 99, 9), "the box 0 0 99 9 is not in slices of 70 x 90"),
    ):
        assert why in run_program(out, *arguments, code=2)
    assert not Path("map.png").exists()


@pytest.mark.parametrize(
    ("architecture", "method", "head"),
    [(architecture, "lora", "mask") for architecture in ("sam-vit-b", "sam2-hiera-t", "mobile-sam")]
    + [("sam-vit-b", "adapter", "mask"), ("lite-medsam", "full", "mask")]
    + [("sam2-hiera-t", "lora", "pixel"), ("sam-vit-b", "lora", "probe"), (NONE, "lora", "pixel")],
)
def test_a_merged_folder_gives_the_same_logits_without_the_base(
    tmp_path: Path, architecture: str, method: str, head: str
) -> None:
    run = make_run(tmp_path / "run", method=method, architecture=architecture, head=head)
    assert main(["export", str(run), "--format", "merged", "--out", str(tmp_path / "out")]) == 0
    segmenter = load(run)
    torch.manual_seed(12345)  # nothing may come from what the base's random weights would be
    whole = load_whole(tmp_path / "out", read_description(tmp_path / "out"), segmenter.labels)
    opened = load(tmp_path / "out")  # as a user would
    images = torch.rand(2, 3, whole.side, whole.side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.allclose(whole(images), segmenter.model(images), rtol=0, atol=1e-6)
        assert torch.equal(opened.model(images), whole(images))
    plain = method != "adapter"
    assert any(whole.is_added(name) for name, _ in whole.named_parameters()) is not plain


def test_parity_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")

    def spoilt(*arguments: Any) -> Any:
        model = load_whole(*arguments)
        with torch.no_grad():
            model.head.tokens.mul_(-1)
        return model

    monkeypatch.setattr("sampeft.export.load_whole", spoilt)
    assert main(["export", str(run), "--format", "merged", "--out", str(tmp_path / "out")]) == 1
    assert "the exported model is not equal to the run; do not use it" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/parity.json").read_text())["passes"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onx"], "--format is 'onx'; give onnx, openvino or merged"),
        (["--format", "onnx", "--precision", "int8"], "known are f32, and int8 with openvino"),
        (["--format", "openvino", "--precision", "int8"], "int8 is calibrated on images"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    assert main(["export", str(run), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert main(["export", str(run), "--out", str(run), "--format", "merged"]) == 2
    assert "is the run itself" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    arguments = ["export", str(run), "--out", str(tmp_path / "out"), "--format", "merged"]
    assert main(arguments) == 2
    assert "is not empty; choose another --out or overwrite with --force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


def test_of_many_images_those_looked_at_are_spread_over_all(tmp_path: Path) -> None:
    files = [picture(tmp_path / f"patient{n:02d}.png") for n in range(40)]
    segmenter = load(make_run(tmp_path / "run"))
    seen = Seen.of(segmenter, files)
    assert len(seen.images) == len(seen.files) == 32
    numbers = [files.index(Path(name)) for name in seen.files]
    assert (numbers[0], numbers[-1]) == (0, 38)  # 31 * 40 / 32 = 38.75
    assert {b - a for a, b in pairwise(numbers)} == {1, 2}
    assert list(Seen.of(segmenter, files[:3]).files) == [str(file) for file in files[:3]]


def test_a_calibrated_graph_is_kept_for_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without("openvino")
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sampeft.engines.openvino.quantise", lambda graph, images: graph)  # which takes a minute
    run, image = make_run(tmp_path / "run"), picture(tmp_path / "image.png")
    arguments = ["--format", "openvino", "--precision", "int8", "--images", str(image)]
    assert main(["export", str(run), "--out", str(tmp_path / "out"), *arguments]) == 0
    kept = Kept.of("openvino", Identity.of(run, read_description(run)), "int8")
    assert kept.is_whole()
    parity = kept.parity()
    assert parity is not None
    assert parity.images == 1
