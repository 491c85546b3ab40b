"""What `sampeft export` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sampeft.options import READ

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
        weights: file of the backbone's weights; nothing: found by name.
        last: use the last model of the run instead of its best.
        force: overwrite what is in the folder.
        json: print the comparison as one JSON object on stdout.
    """

    run: Path = field(metadata=READ)
    out: Path
    format: Literal["onnx", "openvino", "merged"] = "onnx"
    precision: Literal["f32", "int8"] = "f32"
    images: str | list[str] | None = None
    weights: str | None = None
    last: bool = False
    force: bool = False
    json: bool = False
