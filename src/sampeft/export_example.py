"""The text of an example program that runs an exported graph with NumPy and Pillow, and nibabel for volumes."""

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

_TEXT = '''"""Image file in, map of label ids on its grid out.

Needs numpy, pillow and PACKAGE, and nibabel for NIfTI. It does what model.json says; two things of a run it does not:
a denoiser, and cutting pictures larger than those of the training into windows.
Research software, not a medical device.
"""
import argparse
import json
import sys
from math import floor
from pathlib import Path

import numpy as np
IMPORT
from PIL import Image

HERE = Path(__file__).parent
SPEC = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
RECIPE = SPEC["preparation"]["intensity"]
LOAD


def levels_of(slices):
    """(low, high): the stored values that become 0 and 1, of the slices (S, H, W) or (S, H, W, bands) of one file."""
    if RECIPE["kind"] == "window":
        return RECIPE["low"], RECIPE["high"]
    if RECIPE["crop"] == "body":
        raise ValueError("the run looks at the body alone, which is not searched for here; give --levels and --box")
    sample = slices[:: max(1, len(slices) // 24)].astype(np.float64)
    known = np.isfinite(sample) if sample.ndim == 3 else np.isfinite(sample).all(axis=-1)
    grey = sample if sample.ndim == 3 else sample.mean(axis=-1)
    values = sample if sample.ndim == 4 and RECIPE["bands"] else grey
    inside = known & (grey != 0)
    return np.percentile(values[inside if inside.any() else known], (RECIPE["low"], RECIPE["high"]), axis=0)


def resized(plane, height, width):
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))


def class_map(planes):
    """(3, H, W) in 0..1 -> channels of classes (H, W)."""
    side, (height, width) = SPEC["side"], planes.shape[1:]
    scale = side / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    square = np.zeros((1, 3, side, side), np.float32)
    for channel, plane in enumerate(planes):
        square[0, channel, :rows, :columns] = resized(np.ascontiguousarray(plane), rows, columns)
    logits = RUN
    return np.stack([resized(np.ascontiguousarray(k[:rows, :columns]), height, width) for k in logits]).argmax(axis=0)


def segment(slices, levels=None, box=None, spacing_mm=1.0):
    """(S, H, W) or (S, H, W, bands) of stored values -> ids (S, H, W).

    levels: (low, high). box: (top, left, bottom, right) that is looked at. spacing_mm: from slice to slice.
    """
    if RECIPE["bands"]:
        if slices.ndim < 4 or slices.shape[-1] < max(RECIPE["bands"]):
            raise ValueError(f"the run looks at the bands {RECIPE['bands']}, which the image does not have")
        slices = slices[..., [band - 1 for band in RECIPE["bands"]]]
    if slices.ndim == 4 and slices.shape[-1] == 1:
        slices = slices[..., 0]
    if slices.ndim == 4 and slices.shape[-1] != 3:
        raise ValueError(f"the image has {slices.shape[-1]} bands; the run looks at one or three")
    if box is None and RECIPE["crop"] == "body":
        raise ValueError("the run looks at the body alone, which is not searched for here; give --levels and --box")
    top, left, bottom, right = box or (0, 0, *slices.shape[1:3])
    if not (0 <= top < bottom <= slices.shape[1] and 0 <= left < right <= slices.shape[2]):
        raise ValueError(f"the box {top} {left} {bottom} {right} is not in slices of {slices.shape[1]} x {slices.shape[2]}")
    low, high = (np.float32(level) for level in (levels_of(slices) if levels is None else levels))

    def planes(number):
        stored = slices[min(max(number, 0), len(slices) - 1), top:bottom, left:right].astype(np.float32)
        shown = np.clip((stored - low) / np.maximum(high - low, np.float32(1e-6)), 0, 1)
        shown[~np.isfinite(stored)] = 0
        return np.moveaxis(np.atleast_3d(shown), -1, 0)

    reach, wanted = 0, SPEC["preparation"].get("context_mm")
    if SPEC["preparation"].get("context") == "neighbours":
        reach = 1 if wanted is None else floor(wanted / spacing_mm + 0.5)
    if reach and slices.ndim == 4:
        raise ValueError("the run puts neighbouring slices into the three channels, but the image has colours")
    ids = np.array([label["id"] for label in SPEC["labels"]])
    found = np.full(slices.shape[:3], ids[0], np.uint8 if ids.max() < 256 else np.uint16)
    for s in range(len(slices)):
        around = [planes(s + by) for by in ((-reach, 0, reach) if reach else (0,))]
        shown = np.concatenate(around)
        found[s, top:bottom, left:right] = ids[class_map(shown if len(shown) == 3 else shown.repeat(3, axis=0))]
    return found


def segment_picture(source, target, **options):
    with Image.open(source) as picture:
        if picture.mode in ("P", "RGBA", "LA", "CMYK"):
            raise ValueError(f"{source}: a picture of mode {picture.mode}; convert it to grey or RGB first")
        if getattr(picture, "n_frames", 1) > 1:
            raise ValueError(f"{source}: holds {picture.n_frames} pictures; give one of them, or a volume as NIfTI")
        array = np.asarray(picture)
    Image.fromarray(segment(array[None], **options)[0]).save(target)


def upright(affine, spacing):
    """((slice, row, column axis), which of them run backwards): axial as radiologists look at it, others head up."""
    from nibabel import io_orientation

    orientation = io_orientation(affine)
    world = [int(np.flatnonzero(orientation[:, 0] == w)[0]) for w in range(3)]
    names = ("sagittal", "coronal", "axial")
    plane = SPEC["preparation"].get("plane", "auto")
    thickest = [w for w in range(3) if spacing[world[w]] >= 0.99 * max(spacing)]
    across = thickest[-1] if plane == "auto" else names.index(plane)
    axes = tuple(world[w] for w in ((0, 2, 1), (1, 2, 0), (2, 1, 0))[across])
    grows = [orientation[axis, 1] > 0 for axis in axes]
    return axes, (not grows[0], grows[1], grows[2])


def segment_nifti(source, target, **options):
    import nibabel

    image = nibabel.load(source)
    stored = np.asanyarray(image.dataobj)
    while stored.ndim > 3 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    if stored.ndim != 3 or stored.dtype.kind not in "iuf":
        raise ValueError(f"{source}: no grey volume of three axes; its shape is {stored.shape}, its type {stored.dtype}")
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    axes, backwards = upright(image.affine, spacing)
    turned = tuple(slice(None, None, -1 if back else 1) for back in backwards)
    ids = segment(np.moveaxis(stored, axes, (0, 1, 2))[turned], spacing_mm=spacing[axes[0]], **options)
    found = nibabel.Nifti1Image(np.moveaxis(ids[turned], (0, 1, 2), axes), image.affine)
    found.set_qform(image.affine, 2)
    found.set_sform(image.affine, 2)
    found.header.set_xyzt_units(*image.header.get_xyzt_units())
    nibabel.save(found, target)


def main():
    parser = argparse.ArgumentParser(
        description="Image file in, map of label ids on its grid out, with NumPy and PACKAGE alone. Classes: "
        + ", ".join(f"{label['id']} {label['name']}" for label in SPEC["labels"]) + ".",
        epilog="Research software, not a medical device.",
    )
    parser.add_argument("image", metavar="IMAGE", help="a picture (PNG, JPEG, TIFF), or a volume (.nii, .nii.gz) with nibabel")
    parser.add_argument("map", metavar="MAP", help="file to write: PNG or TIFF for a picture, .nii or .nii.gz for a volume")
    parser.add_argument("--levels", nargs=2, type=float, metavar=("LOW", "HIGH"),
                        help="stored values that become 0 and 1; else by the recipe in model.json")
    parser.add_argument("--box", nargs=4, type=int, metavar=("TOP", "LEFT", "BOTTOM", "RIGHT"),
                        help="pixels of a slice that are looked at; else all of it")
    given = parser.parse_args()
    volume = given.image.lower().endswith((".nii", ".nii.gz"))
    if volume != given.map.lower().endswith((".nii", ".nii.gz")):
        parser.error(f"the map of {given.image} is a {'NIfTI' if volume else 'picture'} as well; MAP is {given.map}")
    if SPEC["preparation"].get("denoise"):
        print("warning: the run denoises images first, which is not done here", file=sys.stderr)
    try:
        (segment_nifti if volume else segment_picture)(given.image, given.map, levels=given.levels, box=given.box)
    except ModuleNotFoundError as error:
        parser.error(f"a volume needs {error.name}: pip install {error.name}")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
'''


def program(runtime: str) -> str:
    """runtime: openvino or onnx."""
    package, imported, load, run = _RUNTIMES[runtime]
    text = _TEXT
    for word, meaning in {"PACKAGE": package, "IMPORT": imported, "LOAD": load, "RUN": run}.items():
        text = text.replace(word, meaning)
    return text
