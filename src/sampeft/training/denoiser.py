"""Train a DnCNN on clean pictures with synthetic noise; its weights and metrics.jsonl go to the run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sampeft.console import bar
from sampeft.denoise.dncnn import FILE
from sampeft.denoise.network import DnCnn, write_network
from sampeft.denoise.scores import Picture, Spoil, psnr, with_noise
from sampeft.denoise.settings import Denoising
from sampeft.errors import SampeftError
from sampeft.stopping import stop_noted
from sampeft.training.log import append_metrics
from sampeft.training.settings import validations_by


@dataclass(frozen=True)
class Trained:
    """Outcome of a training run. psnr: of the best, mean over the pictures it was tried on, in dB; before: of the noise.

    stopped: before its end, by Ctrl-C or SIGTERM, whose number is `signal`; the best so far is kept all the same.
    """

    steps: int
    minutes: float
    psnr: float
    before: float
    best_step: int
    stopped: bool
    signal: int = 0


def train_network(
    pictures: Sequence[Picture],
    trial: Sequence[Picture],
    spoil: Spoil,
    strengths: tuple[float, float],
    config: Denoising,
    progress: Callable[[int, float], float],
    seed: int,
    out: Path,
) -> Trained:
    """Train on pictures (H, W) of levels in 0..1, try on others, write the best into `out`.

    strengths: lowest and highest; it is tried at their middle. progress: (step, seconds) -> 0..1, at 1 it ends.
    Raises SampeftError when the loss is no number any more; what was saved before stays.
    """
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = DnCnn(config.depth, config.width).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    middle = sum(strengths) / 2
    pairs = [(clean, with_noise(clean, spoil, middle, seed + i)) for i, clean in enumerate(trial)]
    before = float(np.mean([psnr(*pair) for pair in pairs]))
    notes = {"noise": config.noise, "low": f"{strengths[0]:g}", "high": f"{strengths[1]:g}"}
    best, best_step, step, tried = -math.inf, 0, 0, 0
    log = out / "metrics.jsonl"
    log.write_text("")
    start = time.monotonic()
    with stop_noted() as stop, bar("training") as shown:
        while not stop:
            seconds = time.monotonic() - start
            done = progress(step, seconds)
            if validations_by(done, config.validations) > tried:
                tried = validations_by(done, config.validations)
                found = _try(network, pairs)
                append_metrics(log, step, seconds / 60, psnr=found)
                if found > best:
                    best, best_step = found, step
                    write_network(out / FILE, network, notes)
                shown.update(done, f"step {step}  {best:.2f} dB, noisy {before:.2f} dB")
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = config.lr * (1 + math.cos(math.pi * done)) / 2
            generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
            clean, spoilt = (part.to(device) for part in _batch(pictures, spoil, strengths, config, generator))
            loss = _loss(network(spoilt), clean, spoilt)
            if not torch.isfinite(loss):
                raise SampeftError(
                    f"training stopped at step {step}: the loss is no number; what was saved before, if any, is kept "
                    f"in {out}; lower --denoising.lr (now {config.lr:g})"
                )
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            shown.update(done, f"step {step}" + (f"  {best:.2f} dB, noisy {before:.2f} dB" if tried else ""))
    if best == -math.inf:  # stopped before the first trial
        best, best_step = _try(network, pairs), step
        write_network(out / FILE, network, notes)
    minutes = round((time.monotonic() - start) / 60, 2)
    return Trained(step, minutes, best, before, best_step, bool(stop), max(stop, default=0))


def _loss(found_B1HW: torch.Tensor, clean_B1HW: torch.Tensor, spoilt_B1HW: torch.Tensor) -> torch.Tensor:
    """Mean squared error, of each patch in proportion to its noise's root mean square.

    Departure from the paper, which has one strength or weighs all alike: then the strong noise is nearly all of the sum,
    and weak noise is made worse (after 240 steps 29.5 dB at strength 0.02, with the weights 31.4, at 0.1 the same 26.2).
    """
    amplitude = (spoilt_B1HW - clean_B1HW).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return ((found_B1HW - clean_B1HW).square() / (amplitude + 1e-3)).mean()


def _try(network: DnCnn, pairs: Sequence[tuple[Picture, Picture]]) -> float:
    """Mean PSNR in dB over (clean, noisy) pictures."""
    device = next(network.parameters()).device
    values = []
    with torch.inference_mode():
        for clean, spoilt in pairs:
            found = network(torch.from_numpy(spoilt)[None, None].to(device))[0, 0].clamp(0, 1)
            values.append(psnr(clean, found.cpu().numpy()))
    return float(np.mean(values))


def _batch(
    pictures: Sequence[Picture],
    spoil: Spoil,
    strengths: tuple[float, float],
    config: Denoising,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and noisy patches (B, 1, patch, patch), some of them mirrored; a smaller picture is reflected at its ends."""

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    clean: list[torch.Tensor] = []
    spoilt: list[torch.Tensor] = []
    while len(clean) < config.batch:
        picture = torch.from_numpy(pictures[below(len(pictures))].astype(np.float32))[None, None]
        strength = strengths[0] + float(torch.rand((), generator=generator)) * (strengths[1] - strengths[0])
        both = torch.cat([picture, spoil(picture, strength, below(2**31))])
        while (short := [max(0, config.patch - side) for side in both.shape[-2:]]) != [0, 0]:
            rows, columns = (min(gap, side - 1) for gap, side in zip(short, both.shape[-2:], strict=True))
            both = F.pad(both, (0, columns, 0, rows), mode="reflect")
        for _ in range(min(config.per_picture, config.batch - len(clean))):
            top, left = (below(side - config.patch + 1) for side in both.shape[-2:])
            patch = both[..., top : top + config.patch, left : left + config.patch]
            if flips := [axis for axis in (-2, -1) if below(2)]:
                patch = patch.flip(flips)
            clean.append(patch[:1])
            spoilt.append(patch[1:])
    return torch.cat(clean), torch.cat(spoilt)
