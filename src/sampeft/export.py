"""Write a trained run's whole prompt-free model into a folder for other programs, with the proof that it is equal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sampeft.data.slice_cache import PreparedVolume
from sampeft.engines import ENGINES, onnx, openvino, require
from sampeft.engines.graph import CLASSES, INPUT, LOGITS, ClassMap, Identity
from sampeft.engines.kept import Kept
from sampeft.engines.parity import Parity, Run
from sampeft.errors import DataError, UsageError, unknown_name
from sampeft.export_example import program
from sampeft.io import read_volume, write_atomically
from sampeft.peft.run_files import read_description
from sampeft.peft.whole import load_whole, save_whole
from sampeft.prediction.segmenter import Segmenter
from sampeft.provenance import json_text

FORMATS = ("merged", "onnx", "openvino")
_FILES = {"onnx": "model.onnx", "openvino": "model.xml"}
_MOST_IMAGES = 32
"""Slices that are looked at, for calibration and comparison; more say little more and take long."""


@dataclass(frozen=True)
class Seen:
    """Slices of the user's own: as the network sees them (3, side, side), and what the recipe found for each file."""

    images: list[torch.Tensor]
    files: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, segmenter: Segmenter, files: Sequence[Path]) -> Seen:
        """Evenly chosen slices of each file, 32 in all; of more files evenly chosen ones, as lists are often in the order of
        patients."""
        images: list[torch.Tensor] = []
        found: dict[str, dict[str, Any]] = {}
        most = min(len(files), _MOST_IMAGES)
        for path in (files[i * len(files) // most] for i in range(most)):
            prepared = PreparedVolume.of(read_volume(path), segmenter.preparation)
            count = min(len(prepared), max(1, _MOST_IMAGES // len(files)))
            chosen = np.linspace(0, len(prepared) - 1, count + 2).round().astype(int)[1:-1]
            images += [prepared.image(int(s)) for s in chosen]
            low, high, box = prepared.levels.low, prepared.levels.high, prepared.levels.box
            found[str(path)] = {"levels": [low, high], "box": list(box)}
        return cls(images, found)


def export(
    segmenter: Segmenter, run: Path, out: Path, format: str, precision: str = "f32", files: Sequence[Path] = ()
) -> Parity:
    """Write the model into the folder `out` and compare it with the one in memory.

    run: the folder of the segmenter. format: merged, onnx or openvino. precision: f32, or int8 for openvino, which needs
    files to calibrate with; the graph is then also kept for `predict --engine openvino --precision int8`. files: images, on
    which both are compared; none: made ones.
    Raises UsageError for what does not go together or is not installed.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if precision not in ("f32", "int8") or (precision == "int8" and format != "openvino"):
        raise UsageError(f"precision {precision} with format {format}: known are f32, and int8 with openvino")
    if precision == "int8" and not files:
        raise UsageError("int8 is calibrated on images such as those that it will see: give some with --images")
    if format in ENGINES:
        require(format)
    seen = Seen.of(segmenter, files)
    out.mkdir(parents=True, exist_ok=True)
    if format == "merged":
        save_whole(out, segmenter.model, segmenter.description)
        side = segmenter.preparation.side
        other = load_whole(out, read_description(out), segmenter.labels)
        parity = Parity.between(inferred(segmenter.model.cpu()), inferred(other), side, seen.images)
    else:
        parity = _write_graph(segmenter, run, out, format, precision, seen)
    record = {**parity.to_json(), "passes": parity.passes(precision), "precision": precision}
    record["looked_at"] = sorted(seen.files) or "made images"
    write_atomically(out / "parity.json", json_text(record))
    return parity


def _write_graph(segmenter: Segmenter, run: Path, out: Path, format: str, precision: str, seen: Seen) -> Parity:
    model, side, path = segmenter.model.cpu(), segmenter.preparation.side, out / _FILES[format]
    whole = ClassMap(model).eval()
    if format == "onnx":
        onnx.export(whole, path, side, [CLASSES, LOGITS], None)
    else:
        graph = openvino.convert(whole, side, [CLASSES, LOGITS], None)
        openvino.save(openvino.quantise(graph, seen.images) if precision == "int8" else graph, path)
    write_atomically(out / "model.json", json_text(about(segmenter, path.name, format, precision, seen)))
    write_atomically(out / "predict.py", program(format))
    parity = Parity.between(lambda images: inferred(whole)(images)[1], opened(path, format), side, seen.images)
    if precision == "int8":
        _keep(Kept.of(format, Identity.of(run, segmenter.description), precision), path, parity)
    return parity


def _keep(kept: Kept, path: Path, parity: Parity) -> None:
    """Keep a calibrated graph for prediction, in place of an older one."""

    def write(folder: Path) -> None:
        for suffix in (".xml", ".bin"):
            shutil.copy(path.with_suffix(suffix), (folder / openvino.FILE).with_suffix(suffix))

    if kept.is_whole():
        shutil.rmtree(kept.folder)
    kept.make(write)
    kept.keep_parity(parity)


def inferred(model: torch.nn.Module) -> Any:
    """The model without gradients."""

    def run(images: torch.Tensor) -> Any:
        with torch.inference_mode():
            return model(images)

    return run


def opened(path: Path, format: str) -> Run:
    """An exported graph as another program would run it: images -> logits (B, K, side, side). Raises DataError when its
    class map is not that of its logits."""
    graph: Any
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        graph = partial(_by_onnx, session)
    else:
        graph = partial(_by_openvino, openvino.compiled(path, "f32", torch.get_num_threads()))

    def run(images: torch.Tensor) -> torch.Tensor:
        classes, logits = (torch.from_numpy(np.array(value)) for value in graph(images.numpy()))
        chosen = logits.gather(1, classes[:, None].long())[:, 0]
        if classes.dtype != torch.uint8 or bool((chosen < logits.amax(dim=1)).any()):
            raise DataError(
                f"{path}: its class map is not that of its logits; report this with the versions in model.json"
            )
        return logits

    return run


def _by_onnx(session: Any, images: Any) -> Any:
    return session.run([CLASSES, LOGITS], {INPUT: images})


def _by_openvino(compiled: Any, images: Any) -> Any:
    made = compiled([images])
    return made[CLASSES], made[LOGITS]


def about(segmenter: Segmenter, file: str, format: str, precision: str, seen: Seen) -> dict[str, Any]:
    """What a program must know to use the graph: the content of model.json."""
    labels, side = segmenter.labels, segmenter.preparation.side
    described = segmenter.description
    return {
        "file": file,
        "runtime": format,
        "precision": precision,
        "side": side,
        "input": {
            "name": INPUT,
            "shape": ["batch", 3, side, side],
            "type": "float32",
            "range": [0.0, 1.0],
            "prepared": [
                "the bands of `preparation.intensity.bands`, if there are any, in that order",
                "stored values low..high become 0..1, those beyond are cut off; of kind `window` low and high are the "
                "recipe's own, of kind `percentile` percentiles of the file's pixels that are not 0 (crop `body`: of those of "
                "the body)",
                "crop `body`: only the box of the largest bright object, with a margin, is looked at",
                "the longer side of what is looked at is scaled to the square (bilinear, antialiased), the rest of the square, "
                "below or on the right, is 0",
                "a grey slice is repeated three times; context `neighbours`: the slice before, itself, the slice after",
            ],
        },
        "outputs": {
            CLASSES: {"shape": ["batch", side, side], "type": "uint8", "holds": "channel of the class, see labels"},
            LOGITS: {"shape": ["batch", len(labels), side, side], "type": "float32", "holds": "before softmax"},
        },
        "labels": [
            {"channel": k, "id": id, "name": name, "color": list(color)}
            for k, (name, id, color) in enumerate(zip(labels.names, labels.ids, labels.colors, strict=True))
        ],
        "preparation": segmenter.preparation.to_json(),
        "model": {
            key: described.get(key) for key in ("backbone", "weights_sha256", "method", "options", "data", "trained")
        },
        "images": seen.files,
        "versions": {"sampeft": version("sampeft"), "torch": torch.__version__},
        "notice": "Research software, not a medical device.",
    }
