"""Trained run in, the whole prompt-free model for other programs out: merged weights, ONNX or OpenVINO, with a parity report."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from sampeft.commands.predict import all_files
from sampeft.errors import UsageError
from sampeft.export import export
from sampeft.prediction.inference import load

POSITIONAL = {"run": {"type": Path, "help": "folder of a trained run"}}


@dataclass(frozen=True)
class Config:
    """What to write.

    Args:
        out: folder for the model; it must be new or empty.
        format: onnx or openvino: a graph from image to class map, with a program that uses it; merged: weights for
            `sampeft.load` on a machine without the base weights.
        precision: f32, or int8 for openvino, calibrated on the images.
        images: images of your own (files, folders, patterns; can be given several times) to compare both on and to
            calibrate with; nothing: made ones.
        weights: file of the backbone's weights when it is not found by name.
        last: use the last model of the run instead of its best.
        force: overwrite what is in the folder.
        json: print the comparison as one JSON object on stdout.
    """

    run: Path
    out: Path
    format: str = "onnx"
    precision: str = "f32"
    images: str | list[str] | None = None
    weights: str | None = None
    last: bool = False
    force: bool = False
    json: bool = False


def run(config: Config) -> int:
    folder = config.run / "last" if config.last else config.run
    if config.out.resolve() == folder.resolve():
        raise UsageError(f"{config.out}: is the run itself; choose another --out")
    if not config.force and config.out.is_dir() and any(config.out.iterdir()):
        raise UsageError(f"{config.out}: is not empty; choose another --out or overwrite with --force")
    given = [config.images] if isinstance(config.images, str) else config.images or []
    files = all_files([Path(name) for name in given]) if given else []
    segmenter = load(config.run, weights=config.weights, last=config.last)
    if segmenter.has_random_weights:
        print("warning: this run was trained from RANDOM WEIGHTS", file=sys.stderr)
    parity = export(segmenter, folder, config.out, config.format, config.precision, files)
    passes = parity.passes(config.precision)
    if config.json:
        print(json.dumps({**parity.to_json(), "passes": passes, "out": str(config.out)}))
    else:
        print(
            f"{config.out}: {config.format}, {config.precision}, against the model in torch on "
            f"{'your' if files else 'made'} images"
        )
        print(f"{parity}\n")
        print("| class | DSC of both maps |\n|---|---:|")
        for k, dsc in parity.dsc.items():
            print(f"| {segmenter.labels.names[k]} | {dsc:.4f} |")
    if not passes:
        print("error: the exported model is not equal to the run; do not use it", file=sys.stderr)
    elif segmenter.preparation.denoise:
        print("warning: this run denoises images first; predict.py and model.json leave that to you", file=sys.stderr)
    return 0 if passes else 1
