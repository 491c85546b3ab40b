"""One training step of LoRA r=4 on SAM ViT-B at 512 pixels: the usual design, ours, and ours with the last 4 blocks cached.

    python benchmarks/train_step.py [--steps 2] [--batch 1]

The usual design, as research scripts have it, is written here on the pip package `segment-anything`: LoRA on the fused
qkv of all blocks, eager fp32, mask tokens for the classes, all through the whole encoder every step. Random weights, one
process each, one after the other; CPU seconds of one thread a step, and peak memory of the process, and of the steps over
what it held before them. The first step of each is not counted. Ratios are what counts; the steps are the same work for a
slice, not the same result.

The floor says what no code in fp32 can go below: the step's multiplications and additions, counted by torch, at the rate at
which this machine does a large matrix product in the same process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

SIDE, CLASSES = 512, 14


def usual(batch: int) -> Callable[[], None]:
    """A step of the usual design."""
    import torch
    import torch.nn.functional as F
    from segment_anything import sam_model_registry
    from segment_anything.modeling.image_encoder import ImageEncoderViT
    from torch import nn

    sam = sam_model_registry["vit_b"]()
    old = sam.image_encoder
    # The package builds its ViT for 1024 pixels; position tables follow the side.
    encoder = ImageEncoderViT(
        img_size=SIDE, depth=12, embed_dim=768, num_heads=12, out_chans=256, use_rel_pos=True, window_size=14,
        global_attn_indexes=(2, 5, 8, 11), norm_layer=type(old.blocks[0].norm1),
    )  # fmt: skip
    sam.image_encoder = encoder
    grid = SIDE // 16
    sam.prompt_encoder.image_embedding_size = (grid, grid)
    sam.prompt_encoder.input_image_size = (SIDE, SIDE)
    decoder = sam.mask_decoder
    decoder.num_mask_tokens = CLASSES + 1
    decoder.mask_tokens = nn.Embedding(CLASSES + 1, 256)
    decoder.output_hypernetworks_mlps = nn.ModuleList(
        type(decoder.output_hypernetworks_mlps[0])(256, 256, 32, 3) for _ in range(CLASSES + 1)
    )
    for parameter in sam.image_encoder.parameters():
        parameter.requires_grad_(False)

    class Path(nn.Module):
        """Low-rank paths added to the q and v thirds of a fused projection."""

        def __init__(self, qkv: nn.Linear) -> None:
            super().__init__()
            self.qkv = qkv
            self.down_q, self.down_v = (nn.Linear(768, 4, bias=False) for _ in range(2))
            self.up_q, self.up_v = (nn.Linear(4, 768, bias=False) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            qkv = self.qkv(x)
            qkv[..., :768] += self.up_q(self.down_q(x))
            qkv[..., -768:] += self.up_v(self.down_v(x))
            return qkv

    for block in encoder.blocks:
        block.attn.qkv = Path(block.attn.qkv)
    trained = [p for p in sam.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    images, truth = _batch(batch)

    def step() -> None:
        embedding = encoder(images)
        sparse, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        masks, _ = decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse.expand(1, -1, -1),
            dense_prompt_embeddings=dense,
        )
        logits = F.interpolate(masks[:, :CLASSES], truth.shape[-2:], mode="bilinear")
        _loss(logits, truth).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(batch: int, last: int | None, recompute: bool = False, compiled: bool = False) -> Callable[[], None]:
    """A step of ours; with `last` on what the frozen start of the encoder gave before."""
    import torch
    import torch.nn.functional as F

    from sampeft.backbones import RANDOM, load_backbone
    from sampeft.labels import LabelSet
    from sampeft.model import SemanticSam
    from sampeft.peft import attach

    labels = LabelSet(("background", *(f"organ {k}" for k in range(1, CLASSES))), tuple(range(CLASSES)))
    model = SemanticSam(load_backbone("sam-vit-b", RANDOM), labels, SIDE)
    attach(model, "lora", {"rank": 4, "last": last, "whole_decoder": True})
    model.train()
    if recompute:
        model.recompute_blocks()
    if compiled:
        model.compile_encoder()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    images, truth = _batch(batch)
    block, started = None, None
    if last:
        block = model.frozen_blocks()
        with torch.no_grad():
            started = model.encode_start(images, block)

    def step() -> None:
        logits = model(None if last else images, started, block)
        _loss(F.interpolate(logits, truth.shape[-2:], mode="bilinear"), truth).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _batch(batch: int) -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return (
        torch.rand(batch, 3, SIDE, SIDE, generator=generator),
        torch.randint(CLASSES, (batch, SIDE, SIDE), generator=generator),
    )


def _loss(logits: Any, truth: Any) -> Any:
    from sampeft.losses import segmentation_loss

    return segmentation_loss(logits, truth).total


SIDES: dict[str, Callable[[int], Callable[[], None]]] = {
    "usual design on segment-anything, all blocks": usual,
    "sampeft, all blocks": lambda batch: ours(batch, None),
    "sampeft, all blocks, recompute": lambda batch: ours(batch, None, recompute=True),
    "sampeft, all blocks, compile": lambda batch: ours(batch, None, compiled=True),
    "sampeft, last 4 blocks, start of the encoder kept": lambda batch: ours(batch, 4),
    "sampeft, last 4 blocks, start kept, recompute": lambda batch: ours(batch, 4, recompute=True),
    "sampeft, last 4 blocks, start kept, compile": lambda batch: ours(batch, 4, compiled=True),
}


def measure(name: str, batch: int, steps: int, results: Any) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    torch.set_num_threads(1)
    step = SIDES[name](batch)
    before = _resident("VmRSS")
    building = _resident("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew
    step()
    started = time.process_time()
    for _ in range(steps):
        step()
    seconds = (time.process_time() - started) / steps / batch
    peak = _resident("VmHWM")
    with FlopCounterMode(display=False) as counter:
        step()
    results.put((seconds, max(peak, building), peak - before, counter.get_total_flops() / batch / 1e9 / rate()))


def rate() -> float:
    """GFLOP/s of a matrix product of the encoder's MLP at 1024 tokens."""
    import torch

    a, b = torch.rand(1024, 768), torch.rand(768, 3072)
    best = 0.0
    for _ in range(5):
        started = time.process_time()
        for _ in range(5):
            a @ b
        best = max(best, 5 * 2 * 1024 * 768 * 3072 / 1e9 / (time.process_time() - started))
    return best


def _resident(what: str) -> int:
    """MiB: VmRSS, what this process holds, or VmHWM, the most that it held."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) >> 10 for line in status if line.startswith(what))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(
        "| side | CPU s a slice | times faster | floor (s) | peak (MiB) | of the first | of the steps (MiB) | of the first |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    first: tuple[float, int, int] | None = None
    for name in SIDES:
        results: Any = context.Queue()
        process = context.Process(target=measure, args=(name, options.batch, options.steps, results))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)
        seconds, peak, grown, floor = results.get()
        first = first or (seconds, peak, grown)
        memory = f"{peak} | {peak / first[1]:.2f} | {grown} | {grown / first[2]:.2f}"
        print(f"| {name} | {seconds:.1f} | {first[0] / seconds:.1f} | {floor:.1f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
