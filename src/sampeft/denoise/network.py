"""Denoise by a trained network; read and write its one file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from sampeft.errors import UsageError, WeightsError
from sampeft.io import write_atomically

FORMAT = "sampeft-dncnn-1"


class DnCnn(nn.Module):
    """DnCNN: a chain of 3 x 3 convolutions tells the noise, which is taken from the picture (Zhang, Zuo, Chen, Meng and
    Zhang, "Beyond a Gaussian Denoiser", IEEE TIP 2017).

    (B, 1, H, W) levels in 0..1 -> the same, not clipped; of any size. The last convolution starts at zero: an untrained
    network changes nothing, bit for bit. depth: number of convolutions, 2 or more. width: channels between them; the
    paper has 17 or 20 and 64. Departure from the paper: no batch normalisation, without which a short training with small
    batches learns faster (25.1 against 23.7 dB after 2 minutes on one slow core).
    """

    def __init__(self, depth: int = 8, width: int = 32) -> None:
        super().__init__()
        if depth < 2 or width < 1:
            raise UsageError(f"a DnCNN has a depth of 2 and a width of 1 or more, got depth {depth}, width {width}")
        self.depth, self.width = depth, width
        widths = [1, *[width] * (depth - 1), 1]
        layers = [nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths)]
        for layer in layers[:-1]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layers[-1].weight)
        for layer in layers:
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, levels_B1HW: torch.Tensor) -> torch.Tensor:
        *inner, last = self.layers
        found = levels_B1HW
        for layer in inner:
            found = F.relu(layer(found), inplace=True)
        residual: torch.Tensor = last(found)
        return levels_B1HW - residual


def write_network(path: Path, network: DnCnn, notes: Mapping[str, str]) -> None:
    """A .safetensors file that says what it is; whole or not at all. notes: kept with it, such as the noise."""
    from safetensors.torch import save

    own = {"format": FORMAT, "depth": str(network.depth), "width": str(network.width)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_atomically(path, save(tensors, metadata={**notes, **own}))


def read_network(path: Path) -> DnCnn:
    """What `write_network` wrote. Raises WeightsError for any other file."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except Exception as error:  # safetensors has its own, beside OSError
        raise WeightsError(
            f"{path}: cannot be read as weights of a denoiser ({error}); give the --out of `sampeft train --task denoise`"
        ) from None
    if notes.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: format {notes.get('format')}, wanted {FORMAT}; give the --out of `sampeft train --task denoise`"
        )
    try:
        network = DnCnn(int(notes["depth"]), int(notes["width"]))
        network.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError, UsageError) as error:
        raise WeightsError(
            f"{path}: its weights are not those of the network it names ({str(error).splitlines()[0]}); copy it again"
        ) from None
    return network.eval().requires_grad_(False)
