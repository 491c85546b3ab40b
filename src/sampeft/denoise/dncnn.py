"""DnCNN: subtract the noise that a trained network sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sampeft.errors import UsageError, WeightsError
from sampeft.io import sha256

if TYPE_CHECKING:
    import torch

    from sampeft.denoise.network import DnCnn

FILE = "denoiser.safetensors"
"""Name of the weights in a run folder."""


@dataclass(frozen=True)
class DnCnnFilter:
    """DnCNN on each channel (Zhang et al., IEEE TIP 2017), trained by `sampeft train --task denoise`.

    weights: its .safetensors file, or the folder of the run that trained it. sha256: of that file; None: of what is there.
    Raises UsageError without weights, WeightsError when the file is missing or another one than sha256 says.
    """

    weights: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.weights is None:
            raise UsageError(
                "the denoiser dncnn needs weights: train them with `sampeft train --task denoise --data DATASET --out RUN`, "
                "then give --denoise_weights RUN"
            )
        path = Path(self.weights).expanduser().resolve()
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise WeightsError(
                f"{path}: no such file of a denoiser's weights; give the --out of `sampeft train --task denoise`"
            )
        digest = sha256(path)
        if self.sha256 not in (None, digest):
            raise WeightsError(
                f"{path}: is another denoiser than the model was trained with (sha256 {digest[:12]}..., wanted "
                f"{str(self.sha256)[:12]}...); put the right {FILE} there"
            )
        object.__setattr__(self, "weights", str(path))
        object.__setattr__(self, "sha256", digest)
        _network(str(path), digest)  # a file of something else is told now

    def __call__(self, levels_CHW: torch.Tensor) -> torch.Tensor:
        """(C, H, W) in 0..1 -> the same, on the CPU; worked out on the GPU where there is one."""
        import torch

        assert self.weights is not None
        assert self.sha256 is not None
        network = _network(self.weights, self.sha256)
        with torch.inference_mode():
            found: torch.Tensor = network(levels_CHW[:, None].to(next(network.parameters()).device))[:, 0].clamp(0, 1)
        return found.cpu().clone()  # an ordinary tensor again


@lru_cache(maxsize=4)
def _network(path: str, digest: str) -> DnCnn:
    """The network of a file with that content, ready to use."""
    import torch

    from sampeft.denoise.network import read_network

    return read_network(Path(path)).to("cuda" if torch.cuda.is_available() else "cpu")
