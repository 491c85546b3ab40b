"""A trained run and a volume in, the class map on the volume's own grid out; slices are streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sampeft.backbones import RANDOM, load_backbone
from sampeft.backbones.checkpoints import load_state
from sampeft.data.cache import Preparation, PreparedVolume
from sampeft.data.intensity import Intensity
from sampeft.errors import WeightsError
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

    def predict_file(
        self, image: Path | str, out: Path | str, batch: int = 4, progress: Progress | None = None
    ) -> Path:
        """Segment an image file; the label map goes to the folder `out` under the image's name. Returns its path."""
        volume = read_volume(Path(image))
        channels = self.predict(volume, batch, progress)
        return write_labels(
            Path(out) / f"{output_stem(Path(image))}{label_suffix(volume)}", channels, self.labels, volume
        )


def load(run: Path | str, *, weights: str | None = None, last: bool = False, merged: bool = True) -> Segmenter:
    """Load a trained run: its best model, or its `last`.

    weights: base weights, when they are not where they were at training; they must have the same sha256.
    merged: fold the adapter into the weights (no extra cost at prediction); False keeps it switchable.
    Raises WeightsError when something is missing or belongs to another base.
    """
    folder = Path(run) / "last" if last else Path(run)
    description = read_description(folder)
    wanted = description["weights_sha256"]
    if wanted == RANDOM:
        torch.manual_seed(description["seed"])
    loaded = load_backbone(description["backbone"], RANDOM if wanted == RANDOM else weights)
    if loaded.digest != wanted:
        raise WeightsError(
            f"{folder}: trained on {description['backbone']} with sha256 {wanted[:8]}..., but {loaded.source} has "
            f"{loaded.digest[:8]}...; give the right file with --weights"
        )
    labels = LabelSet.from_json(description["label_map"], folder / "adapter.json")
    stored = description["preparation"]
    preparation = Preparation(Intensity(**stored["intensity"]), stored["side"], stored["plane"])
    model = SemanticSam(loaded, labels, preparation.side)
    attach(model, description["method"], description["options"])
    path = folder / "adapter.safetensors"
    load_trained(model, load_state(path), path)
    if merged:
        merge(model)
    if torch.cuda.is_available():
        model.cuda()
    return Segmenter(model.eval(), labels, preparation, description)
