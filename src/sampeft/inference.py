"""A trained run and a volume in, the class map on the volume's own grid out; slices are streamed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import RANDOM, load_backbone
from sampeft.backbones.checkpoints import load_state
from sampeft.data.cache import Preparation, PreparedVolume
from sampeft.errors import UsageError, WeightsError
from sampeft.io import file_stem, label_suffix, read_volume, write_labels
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.state import load_trained, merge, read_description
from sampeft.volume import Volume

Progress = Callable[[int, int], None]


def predict_slices(
    model: torch.nn.Module, prepared: PreparedVolume, batch: int = 4
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """(slice index, class channels (H, W)) of one slice after another; at most `batch` slices are held at a time."""
    device = next(model.parameters()).device
    for start in range(0, len(prepared), batch):
        index = range(start, min(start + batch, len(prepared)))
        images = torch.stack([prepared.image(s) for s in index]).to(device)
        with torch.inference_mode():
            logits = model(images).float().cpu()
        for s, logits_Khw in zip(index, logits, strict=True):
            yield s, prepared.frame.class_map(logits_Khw)


def predict_volume(
    model: torch.nn.Module, volume: Volume, preparation: Preparation, batch: int = 4, progress: Progress | None = None
) -> npt.NDArray[np.uint8]:
    """Class channels (I, J, K) on the grid of the volume. No labels needed; memory holds one class map and a batch."""
    prepared = PreparedVolume.of(volume, preparation)
    result = np.zeros(prepared.slices.shape[:3], dtype=np.uint8)
    for s, channels_HW in predict_slices(model.eval(), prepared, batch):
        result[s] = channels_HW
        if progress:
            progress(s + 1, len(prepared))
    return prepared.view.restore(result)


def output_stem(image: Path) -> str:
    """Name of the label map of an image; the channel number of nnU-Net's and FLARE's names is left out, as they do."""
    return file_stem(image).removesuffix("_0000")


@dataclass(frozen=True)
class Segmenter:
    """A trained model with all that belongs to it. description: the content of its adapter.json."""

    model: SemanticSam
    labels: LabelSet
    preparation: Preparation
    description: dict[str, Any]

    @property
    def name(self) -> str:
        """What tables call it, such as `lite-medsam lora r=4`."""
        rank = self.description["options"].get("rank")
        return " ".join([self.description["backbone"], self.description["method"], *([f"r={rank}"] if rank else [])])

    @property
    def has_random_weights(self) -> bool:
        return bool(self.description["weights_sha256"] == RANDOM)

    def predict(
        self, image: Path | str | Volume, batch: int = 4, progress: Progress | None = None
    ) -> npt.NDArray[np.uint8]:
        """Class channels on the grid of an image file or volume; `labels.to_ids` turns them into file ids."""
        volume = image if isinstance(image, Volume) else read_volume(Path(image))
        return predict_volume(self.model, volume, self.preparation, batch, progress)

    def segment(
        self,
        image: Path | str | Volume,
        *,
        boxes: Sequence[Sequence[float]] = (),
        points: Sequence[Sequence[Sequence[float]]] = (),
        slice: int = 0,
        adapted: bool = False,
    ) -> npt.NDArray[np.bool_]:
        """Masks (N, H, W) of one slice by prompts in its pixels: one mask per box and per list of points.

        boxes: (x0, y0, x1, y1) each. points: lists of (x, y, inside), inside 1 or 0. With as many boxes as lists of points,
        each pair makes one mask. slice: number of the slice, 0 for a picture. adapted: with the trained adapter in place;
        else by the pretrained model, which knows any object. Raises UsageError for prompts that fit neither.
        """
        if not (boxes or points) or (boxes and points and len(boxes) != len(points)):
            raise UsageError(f"give boxes, lists of points or as many of both, got {len(boxes)} and {len(points)}")
        volume = image if isinstance(image, Volume) else read_volume(Path(image))
        prepared = PreparedVolume.of(volume, self.preparation)
        if not 0 <= slice < len(prepared):
            raise UsageError(f"{volume.path}: has slices 0..{len(prepared) - 1}, not {slice}")
        device = next(self.model.parameters()).device
        frame = prepared.frame

        def placed(corners: Any) -> torch.Tensor:
            return (
                torch.from_numpy(frame.points(np.asarray(corners, dtype=np.float64).reshape(-1, 2))).float().to(device)
            )

        prompt: dict[str, Any] = {}
        if boxes:
            prompt["boxes_BN4"] = placed(boxes).reshape(1, len(boxes), 4)
        if points:
            most = max(map(len, points))
            # -10 is the kind of a point that is only there to make lists equally long.
            full = np.array([[*map(tuple, p), *[(0, 0, -10)] * (most - len(p))] for p in points], dtype=np.float64)
            prompt["points_BNP2"] = placed(full[..., :2]).reshape(1, len(points), most, 2)
            prompt["point_labels_BNP"] = torch.from_numpy(full[..., 2]).to(torch.int32)[None].to(device)
        with nullcontext() if adapted else self.model.original(), torch.inference_mode():
            pixels = prepared.image(slice)[None].to(device)
            logits_NHW = frame.logits(self.model.segment_prompted(pixels, **prompt)[0].float().cpu())
        masks = np.zeros((len(logits_NHW), *frame.size), dtype=bool)
        top, left, bottom, right = frame.box
        masks[:, top:bottom, left:right] = (logits_NHW > 0).numpy()
        return masks

    def predict_file(
        self,
        image: Path | str,
        out: Path | str,
        batch: int = 4,
        progress: Progress | None = None,
        nifti: bool = False,
    ) -> Path:
        """Segment an image file or series; the label map goes to the folder `out` under its name. Returns its path.

        nifti: write NIfTI for DICOM, too. It is written as well when nothing was found, of which no DICOM SEG can tell.
        """
        volume = read_volume(Path(image))
        channels = self.predict(volume, batch, progress)
        suffix = label_suffix(volume)
        if suffix == ".dcm" and (nifti or not np.isin(channels, self.labels.foreground).any()):
            suffix = ".nii.gz"
            if not nifti:
                warnings.warn(
                    f"{volume.path}: nothing was found in it; written as NIfTI, not as DICOM SEG", stacklevel=2
                )
        return write_labels(Path(out) / f"{output_stem(Path(image))}{suffix}", channels, self.labels, volume)


def load(
    run: Path | str,
    *,
    weights: str | None = None,
    last: bool = False,
    merged: bool = True,
    beside: Segmenter | None = None,
) -> Segmenter:
    """Load a trained run: its best model, or its `last`.

    weights: base weights, when they are not where they were at training; they must have the same sha256.
    merged: fold the adapter into the weights (no extra cost at prediction).
    beside: a loaded run of the same base, whose weights are then shared; whichever of the two is used puts its own adapter
    in place, so that several runs take the memory of one.
    Raises WeightsError when something is missing or belongs to another base.
    """
    folder = Path(run) / "last" if last else Path(run)
    description = read_description(folder)
    wanted = description["weights_sha256"]
    if beside is not None:
        loaded = beside.model.loaded
    else:
        if wanted == RANDOM:
            torch.manual_seed(description["seed"])
        loaded = load_backbone(description["backbone"], RANDOM if wanted == RANDOM else weights)
    same_seed = beside is None or wanted != RANDOM or beside.description["seed"] == description["seed"]
    if (loaded.spec.name, loaded.digest) != (description["backbone"], wanted) or not same_seed:
        raise WeightsError(
            f"{folder}: trained on {description['backbone']} with content {wanted[:8]}..., but {loaded.source} is "
            f"{loaded.spec.name} with {loaded.digest[:8]}...; give the right weights with --weights"
        )
    labels = LabelSet.from_json(description["label_map"], folder / "adapter.json")
    preparation = Preparation.from_json(description["preparation"])
    model = SemanticSam(loaded, labels, preparation.side, description.get("detail", False))
    attach(model, description["method"], description["options"])
    path = folder / "adapter.safetensors"
    load_trained(model, load_state(path), path)
    if merged:
        merge(model)
    if torch.cuda.is_available():
        model.cuda()
    return Segmenter(model.eval(), labels, preparation, description)
