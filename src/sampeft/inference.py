"""A trained run and a volume in, the class map on the volume's own grid out; slices are streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import RANDOM, Features, load_backbone
from sampeft.backbones.checkpoints import load_state
from sampeft.data.cache import Preparation, PreparedVolume
from sampeft.errors import UsageError, WeightsError
from sampeft.io import file_stem, read_volume, write_map
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach
from sampeft.peft.state import WEIGHTS, load_trained, merge, read_description
from sampeft.refine import Evidence, Refiner
from sampeft.volume import Volume

Progress = Callable[[int, int], None]


def slice_logits(
    model: torch.nn.Module, prepared: PreparedVolume, batch: int = 4
) -> Iterator[tuple[int, torch.Tensor]]:
    """(slice index, logits (K, h, w) of the square) of one slice after another; at most `batch` are held at a time."""
    device = next(model.parameters()).device
    for start in range(0, len(prepared), batch):
        index = range(start, min(start + batch, len(prepared)))
        images = torch.stack([prepared.image(s) for s in index]).to(device)
        with torch.inference_mode():
            logits = model(images).float().cpu()
        yield from zip(index, logits, strict=True)


def predict_slices(
    model: torch.nn.Module,
    prepared: PreparedVolume,
    batch: int = 4,
    refiner: Refiner | None = None,
    read: Callable[[int, torch.Tensor], None] | None = None,
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """(slice index, class channels (H, W)) of one slice after another, as `class_maps` makes them."""
    return class_maps(model, prepared, slice_logits(model, prepared, batch), refiner, read)


def class_maps(
    model: torch.nn.Module,
    prepared: PreparedVolume,
    logits: Iterable[tuple[int, torch.Tensor]],
    refiner: Refiner | None = None,
    read: Callable[[int, torch.Tensor], None] | None = None,
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Logits of the square, slice by slice -> (slice index, class channels (H, W)).

    refiner: what mends the maps; one that looks at whole volumes gets all slices before the first is given on.
    read: sees the logits (K, box height, box width) of every slice on the way.
    """

    def mapped() -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        for s, logits_Khw in logits:
            scaled = prepared.frame.logits(logits_Khw)
            if read:
                read(s, scaled)
            channels = prepared.frame.placed(scaled)
            yield s, refiner.refine_slice(evidence(model, prepared, s, scaled, channels)) if refiner else channels

    if refiner is None:
        yield from mapped()
    else:
        whole = np.stack([channels for _, channels in mapped()])
        yield from enumerate(refiner.refine_volume(whole, prepared.view.spacing_mm, cast(SemanticSam, model).labels))


def evidence(
    model: torch.nn.Module, prepared: PreparedVolume, s: int, logits: torch.Tensor, channels: npt.NDArray[np.uint8]
) -> Evidence:
    """What a refiner gets to see of a slice; outside the box that the network saw, channel 0 is certain."""
    top, left, bottom, right = prepared.frame.box
    probabilities = np.zeros((len(logits), *prepared.frame.size), dtype=np.float32)
    probabilities[0] = 1.0
    probabilities[:, top:bottom, left:right] = logits.softmax(dim=0).numpy()
    semantic = cast(SemanticSam, model)
    return Evidence(
        np.moveaxis(prepared.levels.compact(prepared.slices[s]), 0, -1),
        probabilities,
        channels,
        semantic.labels,
        prepared.view.spacing_mm[1:],
        Prompter(semantic, prepared, s),
    )


class Prompter:
    """Boxes and points in pixels of one slice -> mask logits (N, H, W) on its grid, far below 0 outside the box that the
    network sees. The slice is encoded once, when it is first asked for.

    adapted: with the trained adapter in place; else by the pretrained model, which knows any object.
    """

    def __init__(self, model: SemanticSam, prepared: PreparedVolume, index: int, adapted: bool = False) -> None:
        self.model, self.prepared, self.index, self.adapted = model, prepared, index, adapted
        self._features: Features | None = None

    def __call__(
        self,
        boxes: Sequence[Sequence[float]] = (),
        points: Sequence[Sequence[Sequence[float]]] = (),
    ) -> npt.NDArray[np.float32]:
        """boxes: (x0, y0, x1, y1) each. points: lists of (x, y, inside). With as many of both, each pair makes one mask.
        Raises UsageError for others."""
        if not (boxes or points) or (boxes and points and len(boxes) != len(points)):
            raise UsageError(f"give boxes, lists of points or as many of both, got {len(boxes)} and {len(points)}")
        device = next(self.model.parameters()).device
        frame = self.prepared.frame

        def placed(corners: Any) -> torch.Tensor:
            corners_N2 = np.asarray(corners, dtype=np.float64).reshape(-1, 2)
            return torch.from_numpy(frame.points(corners_N2)).float().to(device)

        prompt: dict[str, Any] = {}
        if boxes:
            prompt["boxes_BN4"] = placed(boxes).reshape(1, len(boxes), 4)
        if points:
            most = max(map(len, points))
            # -10 is the kind of a point that is only there to make lists equally long.
            full = np.array([[*map(tuple, p), *[(0, 0, -10)] * (most - len(p))] for p in points], dtype=np.float64)
            prompt["points_BNP2"] = placed(full[..., :2]).reshape(1, len(points), most, 2)
            prompt["point_labels_BNP"] = torch.from_numpy(full[..., 2]).to(torch.int32)[None].to(device)
        with nullcontext() if self.adapted else self.model.original(), torch.inference_mode():
            if self._features is None:
                self._features = self.model.encode(self.prepared.image(self.index)[None].to(device))
            found = self.model.segment_prompted(features=self._features, **prompt)[0].float().cpu()
        logits_NHW = np.full((len(found), *frame.size), -32.0, dtype=np.float32)
        top, left, bottom, right = frame.box
        logits_NHW[:, top:bottom, left:right] = frame.logits(found).numpy()
        return logits_NHW


def predict_volume(
    model: torch.nn.Module,
    volume: Volume,
    preparation: Preparation,
    batch: int = 4,
    progress: Progress | None = None,
    refiner: Refiner | None = None,
) -> npt.NDArray[np.uint8]:
    """Class channels (I, J, K) on the grid of the volume. No labels needed; memory holds one class map and a batch."""
    prepared = PreparedVolume.of(volume, preparation)
    result = np.zeros(prepared.slices.shape[:3], dtype=np.uint8)
    for s, channels_HW in predict_slices(model.eval(), prepared, batch, refiner):
        result[s] = channels_HW
        if progress:
            progress(s + 1, len(prepared))
    return prepared.view.restore(result)


def output_stem(image: Path) -> str:
    """Name of the label map of an image; the channel number of nnU-Net's and FLARE's names is left out, as they do."""
    return file_stem(image).removesuffix("_0000")


@dataclass(frozen=True)
class Segmenter:
    """A trained model with all that belongs to it.

    description: the content of its adapter.json. refiner: what mends its class maps, if anything.
    """

    model: SemanticSam
    labels: LabelSet
    preparation: Preparation
    description: dict[str, Any]
    refiner: Refiner | None = None

    @property
    def name(self) -> str:
        """What tables call it, such as `lite-medsam lora r=4`."""
        rank = self.description["options"].get("rank")
        words = [self.description["backbone"], self.description["method"], *([f"r={rank}"] if rank else [])]
        return " ".join(words + ([f"+ {self.refiner.name}"] if self.refiner else []))

    @property
    def has_random_weights(self) -> bool:
        return bool(self.description["weights_sha256"] == RANDOM)

    def predict(
        self, image: Path | str | Volume, batch: int = 4, progress: Progress | None = None
    ) -> npt.NDArray[np.uint8]:
        """Class channels on the grid of an image file or volume; `labels.to_ids` turns them into file ids."""
        volume = image if isinstance(image, Volume) else read_volume(Path(image))
        return predict_volume(self.model, volume, self.preparation, batch, progress, self.refiner)

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
        volume = image if isinstance(image, Volume) else read_volume(Path(image))
        prepared = PreparedVolume.of(volume, self.preparation)
        if not 0 <= slice < len(prepared):
            raise UsageError(f"{volume.path}: has slices 0..{len(prepared) - 1}, not {slice}")
        return Prompter(self.model, prepared, slice, adapted)(boxes, points) > 0

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
        return write_map(Path(out) / output_stem(Path(image)), channels, self.labels, volume, nifti)


def load(
    run: Path | str,
    *,
    weights: str | None = None,
    last: bool = False,
    merged: bool = True,
    beside: Segmenter | None = None,
    refiner: Refiner | None = None,
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
    preparation = Preparation.from_json(description["preparation"], folder)
    model = SemanticSam(loaded, labels, preparation.side, description.get("detail", False))
    attach(model, description["method"], description["options"])
    path = folder / WEIGHTS
    load_trained(model, load_state(path), path)
    if merged:
        merge(model)
    if torch.cuda.is_available():
        model.cuda()
    return Segmenter(model.eval(), labels, preparation, description, refiner)
