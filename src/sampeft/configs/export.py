"""What `sampeft export` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sampeft.options import READ, WRITTEN

POSITIONAL = {"run": {"type": Path, "help": "folder of a trained run"}}


@dataclass(frozen=True)
class Config:
    """What to write.

    Args:
        out: folder for the model; it must be new or empty.
        format: onnx or openvino: a graph from image to class map, with a program that runs it; merged: weights for
            `sampeft.load` on a machine without the backbone's weights.
        precision: number format of the graph: f32, or int8 (openvino only), calibrated on --images.
        images: image files, folders or patterns on which the graph is compared with the run, and calibrated for
            int8. Default: synthetic images.
        force: overwrite what is in the folder.
        last: use the run's last checkpoint instead of its best.
        weights: file of the backbone's weights. Default: found by the name of the run's backbone.
        json: print the comparison as one JSON object on stdout.
    """

    run: Path = field(metadata=READ)
    out: Path = field(metadata=WRITTEN)
    format: Literal["onnx", "openvino", "merged"] = "onnx"
    precision: Literal["f32", "int8"] = "f32"
    images: str | list[str] | None = None
    force: bool = False
    last: bool = False
    weights: str | None = None
    json: bool = False
