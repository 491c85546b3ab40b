"""Full-size SAM and SAM 2 at their native side: equal to the authors' packages, with the same weights and one image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fabricate import authors
from sampeft.backbones import BACKBONES, load_backbone, set_side
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam

BOX = torch.tensor([[[300.0, 280.0, 620.0, 700.0], [100.0, 500.0, 260.0, 640.0]]])


def image() -> torch.Tensor:
    """Smooth blobs in 0..1, as natural as noise gets."""
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (1024, 1024), mode="bicubic").clamp(0, 1)


def ours(name: str, theirs: torch.nn.Module, folder: Path) -> SemanticSam:
    """Our model with the authors' weights by way of their checkpoint file."""
    path = folder / Path(BACKBONES[name].weights.file).name
    state = theirs.state_dict()
    torch.save({"model": state} if name.startswith("sam2") else state, path)
    loaded = load_backbone(name, str(path))
    return SemanticSam(loaded, LabelSet(("background", "a"), (0, 1)), loaded.spec.native_side).eval()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


def test_sam_vit_b(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = authors.with_full_tables(authors.build("sam-vit-b"))
    model = ours("sam-vit-b", theirs, tmp_path)
    picture = image()
    with torch.no_grad():
        embedding = theirs.image_encoder(theirs.preprocess(picture[0] * 255)[None])
        features = model.encode(picture)
        assert relative(embedding, features[0]) < 1e-3
        sparse, dense = theirs.prompt_encoder(points=None, boxes=BOX[0], masks=None)
        masks, _ = theirs.mask_decoder(
            image_embeddings=embedding,
            image_pe=theirs.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        got = model.segment_prompted(features=features, boxes_BN4=BOX)
    assert relative(masks[:, 0], got[0]) < 1e-3
    assert float(((masks[:, 0] > 0) == (got[0] > 0)).float().mean()) > 0.999
    assert not torch.allclose(masks[0], masks[1])  # two boxes are two masks


def test_sam2_1_hiera_tiny(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = authors.with_full_tables(authors.build("sam2.1-hiera-t"))
    model = ours("sam2.1-hiera-t", theirs, tmp_path)
    picture = image()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        output = theirs.forward_image((picture - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        _, maps, _, sizes = theirs._prepare_backbone_features(output)
        maps[-1] = maps[-1] + theirs.no_mem_embed
        fine, finer, embedding = (m.permute(1, 2, 0).reshape(1, -1, *size) for m, size in zip(maps, sizes, strict=True))
        features = model.encode(picture)
        for wanted, got in zip((embedding, finer, fine), features, strict=True):
            assert relative(wanted, got) < 1e-3
        # The authors' predictor gives a box as two corner points of kinds 2 and 3.
        corners, kinds = BOX[0].reshape(2, 2, 2), torch.tensor([[2, 3], [2, 3]])
        sparse, dense = theirs.sam_prompt_encoder(points=(corners, kinds), boxes=None, masks=None)
        masks, _, _, _ = theirs.sam_mask_decoder(
            image_embeddings=embedding,
            image_pe=theirs.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=True,
            high_res_features=[fine, finer],
        )
        got = model.segment_prompted(features=features, boxes_BN4=BOX)
    assert relative(masks[:, 0], got[0]) < 1e-3
    assert float(((masks[:, 0] > 0) == (got[0] > 0)).float().mean()) > 0.999


@pytest.mark.parametrize("name", ["sam-vit-b", "sam2.1-hiera-t", "lite-medsam"])
def test_the_native_side_changes_no_weight(name: str) -> None:
    loaded = load_backbone(name, "random")
    before = {key: value.clone() for key, value in loaded.sam.state_dict().items()}
    set_side(loaded, loaded.spec.side)
    set_side(loaded, loaded.spec.native_side)
    after = loaded.sam.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
