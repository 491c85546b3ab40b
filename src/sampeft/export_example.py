"""The runtime of an exported graph in, the text of a program out that uses it with NumPy and Pillow alone."""

from __future__ import annotations

_RUNTIMES = {
    "openvino": (
        "openvino",
        "import openvino",
        'MODEL = openvino.compile_model(HERE / SPEC["file"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        'MODEL(square)["logits"][0]',
    ),
    "onnx": (
        "onnxruntime",
        "import onnxruntime",
        'MODEL = onnxruntime.InferenceSession(HERE / SPEC["file"], providers=["CPUExecutionProvider"])',
        'MODEL.run(["logits"], {"image": square})[0][0]',
    ),
}

_TEXT = '''"""Image file in, map of label ids out: python predict.py IMAGE MAP.png [LOW HIGH [TOP LEFT BOTTOM RIGHT]]

Needs numpy, pillow and PACKAGE. LOW and HIGH are the stored values that become 0 and 1, the box is the part that is looked
at; without them they follow from the recipe in model.json, except that the box of a body is not searched for.
Research software, not a medical device.
"""
import json
import sys
from pathlib import Path

import numpy as np
IMPORT
from PIL import Image

HERE = Path(__file__).parent
SPEC = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
LOAD


def resized(plane, height, width):
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))


def segment(array, levels=None, box=None):
    """(H, W), or (H, W, bands), of stored values -> ids (H, W). levels: (low, high). box: (top, left, bottom, right)."""
    recipe, side = SPEC["preparation"]["intensity"], SPEC["side"]
    if recipe["bands"]:
        array = np.squeeze(np.atleast_3d(array)[..., [band - 1 for band in recipe["bands"]]])
    if levels is None and recipe["kind"] == "window":
        levels = recipe["low"], recipe["high"]
    elif levels is None:
        grey = array.mean(axis=-1) if array.ndim == 3 else array
        values = array if array.ndim == 3 and recipe["bands"] else grey
        levels = np.percentile(values[grey != 0] if grey.any() else values, (recipe["low"], recipe["high"]), axis=0)
    top, left, bottom, right = box or (0, 0, *array.shape[:2])
    low, high = np.float32(levels[0]), np.float32(levels[1])
    scaled = (array[top:bottom, left:right].astype(np.float32) - low) / np.maximum(high - low, np.float32(1e-6))
    planes = np.moveaxis(np.atleast_3d(np.clip(scaled, 0, 1)), -1, 0)
    height, width = bottom - top, right - left
    scale = side / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    square = np.zeros((1, 3, side, side), np.float32)
    for channel in range(3):
        square[0, channel, :rows, :columns] = resized(np.ascontiguousarray(planes[channel % len(planes)]), rows, columns)
    logits = RUN
    classes = np.stack([resized(np.ascontiguousarray(k[:rows, :columns]), height, width) for k in logits]).argmax(axis=0)
    ids = np.array([label["id"] for label in SPEC["labels"]])
    found = np.full(array.shape[:2], ids[0])
    found[top:bottom, left:right] = ids[classes]
    return found


if __name__ == "__main__":
    numbers = [float(text) for text in sys.argv[3:]]
    image = np.asarray(Image.open(sys.argv[1]))
    ids = segment(image, numbers[:2] or None, [int(n) for n in numbers[2:]] or None)
    Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(sys.argv[2])
'''


def program(runtime: str) -> str:
    """runtime: openvino or onnx."""
    package, imported, load, run = _RUNTIMES[runtime]
    text = _TEXT
    for word, meaning in {"PACKAGE": package, "IMPORT": imported, "LOAD": load, "RUN": run}.items():
        text = text.replace(word, meaning)
    return text
