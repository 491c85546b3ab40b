"""Laws that every head keeps on every architecture: start, frozen base, saving, merging, windows, kept features, presence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from fabricate.backbones import architectures, make_tiny, stirred
from sampeft.backbones import BACKBONES, NONE, RANDOM, load_backbone
from sampeft.backbones.checkpoints import load_state
from sampeft.data.augment import Augmentation
from sampeft.data.slice_cache import Slices
from sampeft.errors import UsageError, WeightsError
from sampeft.heads import HEADS
from sampeft.heads.given import ABSENT, Output, cut, without_small
from sampeft.heads.mask import MaskHead
from sampeft.heads.pixel import PixelHead
from sampeft.heads.probe import ProbeHead
from sampeft.labels import LabelSet
from sampeft.losses import Objective
from sampeft.model import SemanticSam
from sampeft.peft import METHODS, attach
from sampeft.peft.run_files import WEIGHTS
from sampeft.peft.state import load_trained, merge, save_trained, trained_state, unmerge
from sampeft.training.loop import Training, fit
from sampeft.training.views import Views

LABELS = LabelSet(("background", "liver", "spleen"), (0, 1, 2))
READING = [name for name in HEADS if name != "mask"]
"""Heads that do with a picture alone."""
PAIRS = [(name, head) for name in architectures() for head in HEADS] + [(NONE, head) for head in READING]
of_every_pair = pytest.mark.parametrize(("architecture", "head"), PAIRS, ids=lambda p: p)


pytestmark = pytest.mark.usefixtures("tiny_backbones")


def make(architecture: str, head: str, **other: Any) -> SemanticSam:
    return make_tiny(architecture if architecture == NONE else f"tiny {architecture}", LABELS, head, **other)


def pictures(model: SemanticSam, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, model.side, model.side, generator=torch.Generator().manual_seed(1))


def logits(model: SemanticSam, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


def prompted(model: SemanticSam, images: torch.Tensor) -> torch.Tensor:
    boxes = torch.tensor([[[5.0, 6.0, 30.0, 40.0], [10.0, 10.0, 20.0, 20.0]]]).repeat(len(images), 1, 1)
    with torch.no_grad():
        return model.segment_prompted(images, boxes_BN4=boxes)


def train(model: SemanticSam, images: torch.Tensor, steps: int = 3) -> None:
    side = images.shape[-1]
    truth = torch.randint(0, 3, (len(images), 4, 4), generator=torch.Generator().manual_seed(2))
    truth = truth.repeat_interleave(side // 4, 1).repeat_interleave(side // 4, 2)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        Objective()(model(images, in_full=True), truth).total.backward()
        optimizer.step()
    model.eval()


# --- the registry -----------------------------------------------------------------------------------------------------


def test_unknown_heads_and_options_are_told() -> None:
    with pytest.raises(UsageError, match="unknown head 'pixl'; did you mean 'pixel'"):
        make("sam-vit-b", "pixl")
    with pytest.raises(UsageError, match="unknown option of pixel 'width'; did you mean 'widths'"):
        make("sam-vit-b", "pixel", head_options={"width": (8,)})
    with pytest.raises(UsageError, match="the encoder's side is 128, that of the picture 64"):
        make("sam-vit-b", "pixel", side=64, encoder_side=128)


def test_options_shape_the_pixel_head() -> None:
    plain = make("sam-vit-b", "pixel").train()
    output = plain(pictures(plain), in_full=True)
    assert output.logits_BKHW.shape == (2, 3, 64, 64)
    assert output.presence_BK.shape == (2, 3)
    assert [m.shape for m in output.coarser] == [(2, 3, 32, 32), (2, 3, 16, 16), (2, 3, 8, 8)]
    assert plain.eval()(pictures(plain), in_full=True).coarser == ()
    options = {"presence": False, "deep_supervision": False, "encoder_maps": False, "widths": [8, 16]}
    bare = make("sam-vit-b", "pixel", head_options=options).train()
    output = bare(pictures(bare), in_full=True)
    assert (output.presence_BK, output.coarser, bare.head.tells_presence) == (None, (), False)
    assert sum(p.numel() for p in bare.head.parameters()) < sum(p.numel() for p in plain.head.parameters())


def test_a_run_with_detail_is_refused_and_one_without_a_head_is_of_the_mask_head() -> None:
    loaded = make("sam-vit-b", "mask").loaded
    old: dict[str, Any] = {"preparation": {"side": 64}}
    with pytest.raises(WeightsError, match="trained with --detail, which --head pixel has replaced"):
        SemanticSam.described(loaded, LABELS, {**old, "detail": True})
    assert isinstance(SemanticSam.described(loaded, LABELS, {**old, "detail": False}).head, MaskHead)
    described = {
        **old,
        "head": "pixel",
        "head_options": {"widths": [8, 16]},
        "encoder_side": 32,
        "least_share": 0.1,
    }
    model = SemanticSam.described(loaded, LABELS, described)
    assert (model.side, model.encoder_side, model.least_share, len(model.head.down)) == (64, 32, 0.1, 2)


# --- the start --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1, 2], ids=["whole", "half"])
@pytest.mark.parametrize("architecture", architectures())
def test_a_new_pixel_head_gives_the_mask_heads_logits_drawn_up(architecture: str, share: int) -> None:
    """Whatever mask head it is put on; an encoder that sees half of the side changes nothing in that."""
    seen = architectures()[architecture].family.TINY_SIDE
    plain, fine = (make(architecture, head, side=share * seen, encoder_side=seen) for head in ("mask", "pixel"))
    assert plain.head.is_untrained()
    assert fine.head.is_untrained()
    stirred(plain)
    fine.head.mask.load_state_dict(plain.head.state_dict())
    assert not fine.head.is_untrained()
    images = pictures(fine)
    wanted = F.interpolate(logits(plain, images), images.shape[-2:], mode="bilinear", align_corners=False)
    found = logits(fine, images)
    assert float(wanted.log_softmax(1).std()) > 0.01
    torch.testing.assert_close(found.log_softmax(1), wanted.log_softmax(1), rtol=0, atol=1e-5)
    with torch.no_grad():
        presence_BK = fine(images, in_full=True).presence_BK
    assert torch.equal(presence_BK, torch.zeros(2, 3))


@of_every_pair
def test_all_classes_begin_equal(architecture: str, head: str) -> None:
    model = make(architecture, head)
    assert model.head.is_untrained()
    found = logits(model, pictures(model))
    assert torch.allclose(found, found[:, :1].expand_as(found), atol=1e-4)


# --- training, saving, merging ----------------------------------------------------------------------------------------


@dataclass
class Story:
    """A tiny model with LoRA before and after three steps. Tests leave it as they find it."""

    architecture: str
    head: str
    model: SemanticSam
    images: torch.Tensor
    frozen: dict[str, torch.Tensor]
    before: torch.Tensor
    after: torch.Tensor
    prompted_before: torch.Tensor | None


@pytest.fixture(scope="module", params=PAIRS, ids=lambda p: f"{p[0]}: {p[1]}")
def story(request: pytest.FixtureRequest, tiny_backbones: None) -> Story:
    architecture, head = request.param
    model = make(architecture, head)
    images = pictures(model)
    prompts = prompted(model, images) if model.spec.is_sam else None
    attach(model, "lora")
    before = logits(model, images)
    with torch.no_grad():
        model.standardise([model.encode(images)])
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: t.clone() for name, t in model.state_dict().items() if name not in learned}
    train(model, images)
    return Story(architecture, head, model, images, frozen, before, logits(model, images), prompts)


def test_frozen_weights_and_the_promptable_path_are_bit_equal_after_training(story: Story) -> None:
    now = story.model.state_dict()
    assert not [name for name, value in story.frozen.items() if not torch.equal(value, now[name])]
    assert any(name.startswith("sam.") for name in story.frozen) == story.model.spec.is_sam
    assert float((story.after - story.before).abs().max()) > 1e-3
    if story.prompted_before is not None:
        with story.model.original():
            assert torch.equal(prompted(story.model, story.images), story.prompted_before)
        assert torch.equal(logits(story.model, story.images), story.after)


def test_every_weight_of_the_head_learns(story: Story) -> None:
    """Without a gradient it would break distributed training (case D29)."""
    assert not [name for name, p in story.model.head.named_parameters() if p.grad is None]
    assert not story.model.head.is_untrained()


def test_saved_and_loaded_into_a_fresh_model_it_gives_the_same_logits(story: Story, tmp_path: Path) -> None:
    save_trained(tmp_path, story.model, {})
    other = make(story.architecture, story.head)
    attach(other, "lora")
    logits(other, story.images)  # anything derived from the untrained weights must not survive the loading
    load_trained(other, load_state(tmp_path / WEIGHTS), tmp_path)
    assert torch.equal(logits(other, story.images), story.after)


def test_a_run_of_before_features_were_standardised_loads_as_it_was_trained(tmp_path: Path) -> None:
    model = stirred(make(NONE, "probe"))
    state = {name: value for name, value in trained_state(model).items() if ".standard." not in name}
    state = {name: value for name, value in state.items() if "pooled_standard" not in name}
    other = make(NONE, "probe")
    load_trained(other, state, tmp_path)
    assert torch.equal(logits(other, pictures(other)), logits(model, pictures(model)))


def test_merged_is_unmerged(story: Story) -> None:
    merge(story.model)
    once = logits(story.model, story.images)
    assert float((once - story.after).abs().max()) <= 1e-5 * max(1.0, float(story.after.abs().max()))
    unmerge(story.model)
    assert torch.equal(logits(story.model, story.images), story.after)


# --- standardising ----------------------------------------------------------------------------------------------------


def probe_of(model: SemanticSam) -> ProbeHead:
    return model.head if isinstance(model.head, ProbeHead) else model.head.probe


@pytest.mark.parametrize(("architecture", "head"), [pair for pair in PAIRS if pair[1] != "mask"], ids=lambda p: p)
def test_what_the_probe_reads_has_mean_0_and_spread_1_over_the_pictures_it_was_shown(
    architecture: str, head: str
) -> None:
    model = make(architecture, head)
    probe, read = probe_of(model), []
    features = [model.encode(image[None]) for image in pictures(model, 5)]
    model.standardise(features)
    for layer in (probe.standard, probe.pooled_standard):
        layer.register_forward_hook(lambda *given: read.append(given[-1]))
    with torch.no_grad():
        for one in features:
            model.decode(one)
    here_ND = torch.cat([r[0].flatten(1).T for r in read if r.dim() == 4])
    pooled_ND = torch.cat([r for r in read if r.dim() == 2])
    for values_ND in (here_ND, pooled_ND):
        spread_D = values_ND.std(dim=0, correction=0)
        varies_D = spread_D > 0.5  # a feature that is the same everywhere has none
        assert varies_D.sum() > len(varies_D) / 2
        assert float(values_ND.mean(dim=0).abs().max()) < 1e-2
        torch.testing.assert_close(spread_D[varies_D], torch.ones(int(varies_D.sum())), rtol=0.02, atol=0)


def test_a_head_that_has_learned_keeps_the_scales_it_learned_with() -> None:
    model = make(NONE, "probe")
    probe = probe_of(model)
    model.standardise([model.encode(pictures(model))])
    before = probe.standard.mean.clone()
    with torch.no_grad():
        probe.here.weight.fill_(0.1)
    model.standardise([model.encode(1 - pictures(model))])
    assert torch.equal(probe.standard.mean, before)
    assert float(before.abs().max()) > 0


def test_of_no_pictures_scales_stay_as_they_are() -> None:
    model = make(NONE, "probe")
    model.standardise(iter(()))
    assert torch.equal(probe_of(model).standard.spread, torch.ones(6))


def test_dropout_leaves_features_out_in_training_alone() -> None:
    """Logits are linear in the features: their mean over many draws is what the whole of them gives."""
    model = stirred(make(NONE, "probe", head_options={"presence": False, "dropout": 0.5}))
    features = model.encode(pictures(model, 1))
    with torch.no_grad():
        whole = model.decode(features).logits_BKHW
        assert torch.equal(model.decode(features).logits_BKHW, whole)
        model.train()
        torch.manual_seed(0)
        draws = torch.cat([model.decode(features).logits_BKHW for _ in range(2000)])
    spread = draws.std(dim=0)
    assert float(spread.median()) > 0.1 * float(whole.std())
    # Of 2,000 draws the mean is off by a 45th of their spread; five times that is never reached by chance.
    assert bool(((draws.mean(dim=0) - whole[0]).abs() < 5 / 45 * spread + 1e-5).all())


# --- windows ----------------------------------------------------------------------------------------------------------


def reach(model: SemanticSam) -> int:
    """Pixels from a window's border within which what lies beyond it may matter, counted generously.

    Half a cell of the coarsest map, between whose middles values are drawn (without any: of the colours' 8 pixels). A 3 x 3
    convolution reaches one cell of its input further, and where it halves the grid up to a whole new cell is touched;
    drawing up reaches one coarse cell further.
    """
    scale = model.side // model.encoder_side
    coarsest = max((scale * m.stride for m in model.spec.family.encoder_maps(model.sam)), default=8)
    levels = len(model.head.down)
    down = 1 + sum(2 ** (level - 1) + 2 * 2**level for level in range(1, levels))
    up = sum((2 if level == 0 else 2**level) + 2 ** (level + 1) for level in range(levels - 1))
    return coarsest // 2 + down + up


def assert_windows_are_parts_of_the_whole(model: SemanticSam, size: int, corners: list[tuple[int, int]]) -> None:
    images = pictures(stirred(model), len(corners))
    with torch.no_grad():
        features = model.encode(images)
        whole = model.decode(features).logits_BKHW
        found = model.decode(features, corners, size).logits_BKHW
    cell = model.side // whole.shape[-1]
    assert found.shape[-1] == size // cell
    wanted = cut(whole, [(top // cell, left // cell) for top, left in corners], size // cell)
    edge = -(-reach(model) // cell) if isinstance(model.head, PixelHead) else 0
    inside = slice(edge, size // cell - edge)
    assert inside.stop - inside.start >= size // cell // 8
    spread = float(whole.std())
    assert spread > 1e-3
    assert float((wanted - found)[..., inside, inside].abs().max()) < 1e-4 * max(1.0, float(whole.abs().max()))
    if edge:  # the law says something: at the border it does not hold
        assert float((wanted - found).abs().max()) > 1e-3 * spread


CORNERS = [(0, 64), (64, 64), (64, 0)]


@pytest.mark.parametrize("share", [1, 2], ids=["whole", "half"])
@pytest.mark.parametrize("architecture", architectures())
def test_a_window_of_the_pixel_head_is_that_of_the_whole_but_for_its_border(architecture: str, share: int) -> None:
    """With three levels, of which the border is narrow enough."""
    model = make(architecture, "pixel", head_options={"widths": (8, 8, 8)}, side=256, encoder_side=256 // share)
    assert 64 % model.window_unit() == 0
    assert_windows_are_parts_of_the_whole(model, 192, CORNERS)


def test_so_is_one_of_all_five_levels_where_there_is_no_encoder() -> None:
    assert_windows_are_parts_of_the_whole(
        make(NONE, "pixel", head_options={"widths": (8,) * 5}, side=512), 384, [(0, 128), (128, 64)]
    )


@pytest.mark.parametrize(("architecture", "head"), [pair for pair in PAIRS if pair[1] != "pixel"], ids=lambda p: p)
def test_a_window_of_a_head_that_looks_at_each_cell_alone_is_that_of_the_whole(architecture: str, head: str) -> None:
    assert_windows_are_parts_of_the_whole(make(architecture, head, side=256), 192, CORNERS)


@pytest.mark.parametrize(("architecture", "head"), [pair for pair in PAIRS if pair[1] in READING], ids=lambda p: p)
def test_presence_is_that_of_the_whole_picture_whatever_is_drawn_of_it(architecture: str, head: str) -> None:
    model = stirred(make(architecture, head, side=128))
    with torch.no_grad():
        features = model.encode(pictures(model))
        whole, part = model.decode(features), model.decode(features, [(0, 64), (64, 0)], 64)
    assert float(whole.presence_BK.std()) > 1e-2
    torch.testing.assert_close(part.presence_BK, whole.presence_BK, rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", ["mask", "pixel"])
def test_beside_windows_the_mask_head_draws_the_whole(head: str) -> None:
    """In training they have a loss of their own (`training.whole_weight`)."""
    model = stirred(make("mobile-sam", head, side=128))
    with torch.no_grad():
        features = model.encode(pictures(model))
        found = model.decode(features, [(0, 64), (64, 0)], 64)
        mask = model.decode(features).logits_BKHW if head == "mask" else None
    assert found.whole_BKHW is not None
    assert found.whole_BKHW.shape[:2] == (2, 3)
    assert mask is None or torch.equal(found.whole_BKHW, mask)
    assert model.decode(features).whole_BKHW is None


def test_the_unit_of_windows_is_whole_cells_of_every_map() -> None:
    """Of 64 pixels LiteMedSAM has grids of 32 and 16, SAM one of 4, Hiera the coarsest of 2; half as many for half a side."""
    units = {name: make(name, "pixel").window_unit() for name in ("lite-medsam", "sam-vit-b", "sam2-hiera-t")}
    assert units == {"lite-medsam": 4, "sam-vit-b": 16, "sam2-hiera-t": 32}
    halved = {name: make(name, "pixel", side=128, encoder_side=64).window_unit() for name in units}
    assert halved == {name: 2 * unit for name, unit in units.items()}


# --- kept features ----------------------------------------------------------------------------------------------------


def grey_slices(side: int, channels: int = 1) -> Slices:
    """Three pictures that tell their classes, in squares of 16 pixels."""
    random = np.random.default_rng(0)
    truth = np.kron(random.integers(0, 3, (3, side // 16, side // 16)), np.ones((16, 16), np.int64)).astype(np.int16)
    images = 80 * truth[:, None] + random.integers(0, 40, (3, channels, side, side))
    return Slices(images.astype(np.uint8), truth, np.arange(3, dtype=np.int32))


def kept(model: SemanticSam, slices: Slices, block: int | None, room: int = 1 << 30) -> tuple[Any, torch.Tensor]:
    """Each slice as it is, read twice, so that what was written is read."""
    accelerator = Accelerator(cpu=True)
    views = Views(model, slices, np.arange(len(slices)), Augmentation(unchanged=1.0), accelerator, block, "", room)
    views.get([0, 1, 2])
    return views.get([0, 1, 2])


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colours"])
@of_every_pair
def test_kept_features_give_the_logits_of_fresh_ones_rounded_to_bfloat16(
    architecture: str, head: str, channels: int
) -> None:
    model = stirred(make(architecture, head))
    slices = grey_slices(model.side, channels)
    images, channels_BHW = slices.batch([0, 1, 2])
    for block in (None, 1 if model.spec.is_sam else 0):
        found, truth = kept(model, slices, block)
        with torch.no_grad():  # one after the other: together some sums are of another order
            alone = [model.encode(x[None]) if block is None else model.encode_start(x[None], block) for x in images]
            fresh = [torch.cat(maps) for maps in zip(*alone, strict=True)]
            exact, again = model(images), model(None, found, block)
        if model.head.reads_encoder_maps:
            *found, picture = found
            *fresh, shown = fresh
            assert picture.dtype == torch.uint8
            assert torch.equal(picture, torch.from_numpy(slices.images))
            assert torch.equal(picture.float() / 255, shown)
        assert all(torch.equal(a, b.to(torch.bfloat16).float()) for a, b in zip(found, fresh, strict=True))
        assert float((again - exact).abs().max()) <= 0.05 * float(exact.std()) + 1e-5
        assert torch.equal(truth.long(), channels_BHW)


@pytest.mark.parametrize(("architecture", "head"), [("sam-vit-b", "pixel"), (NONE, "pixel")], ids=lambda p: p)
def test_without_room_for_them_features_are_the_same(architecture: str, head: str) -> None:
    model = make(architecture, head)
    roomy, none = (kept(model, grey_slices(model.side), None, room) for room in (1 << 30, 0))
    assert all(torch.equal(a, b) for a, b in zip(roomy[0], none[0], strict=True))
    assert torch.equal(roomy[1], none[1])


# --- presence ---------------------------------------------------------------------------------------------------------


def odds(*shares: float) -> torch.Tensor:
    """Logits (1, K) of these presences."""
    return torch.tensor([[math.log(share / (1 - share)) for share in shares]])


def test_presence_adds_its_logarithm() -> None:
    """Of each picture of a batch its own."""
    drawn = torch.arange(12.0).reshape(2, 3, 1, 2)
    output = Output(drawn, torch.cat([odds(0.5, 0.8, 0.05), odds(0.1, 0.2, 0.9)]))
    added = torch.tensor([[0.5, 0.8, 0.05], [0.1, 0.2, 0.9]]).log()
    torch.testing.assert_close(output.decided(), drawn + added[:, :, None, None], rtol=1e-6, atol=1e-5)
    assert Output(drawn).decided() is drawn


def test_a_class_that_would_fill_too_little_gives_way_to_the_next_likeliest_but_the_largest_stays() -> None:
    """Ten pixels: six of class 0, three of class 1, one of class 2, whose next likeliest is class 1."""
    first = torch.tensor([0] * 6 + [1] * 3 + [2])
    drawn = torch.nn.functional.one_hot(first, 3).T.reshape(1, 3, 2, 5).float()
    drawn[0, 1, 1, 4] = 0.5
    for share, counts in ((0.0, [6, 3, 1]), (0.1, [6, 3, 1]), (0.11, [6, 4, 0]), (0.31, [10, 0, 0]), (0.9, [10, 0, 0])):
        found = without_small(drawn, share)
        assert found.argmax(1).flatten().bincount(minlength=3).tolist() == counts
        assert bool((found == ABSENT).any()) is (share > 0.1)


def test_each_picture_of_a_batch_leaves_out_its_own_and_of_equals_none() -> None:
    halves = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]).reshape(2, 1, 4)
    quarter = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]).reshape(2, 1, 4)
    found = without_small(torch.stack([halves, quarter]), 0.6).argmax(1)
    assert found.tolist() == [[[1, 1, 0, 0]], [[0, 0, 0, 0]]]


def test_padding_is_no_part_of_the_picture_of_which_a_class_must_fill_a_share() -> None:
    """Squares of 4 x 4 whose upper half is the picture, one of its eight pixels of class 1: an eighth, not a sixteenth, where
    the padding is drawn as class 0, and not nine sixteenths where it is drawn as class 1."""
    drawn = torch.zeros(2, 4, 4, dtype=torch.int64)
    drawn[:, 0, 0] = 1
    drawn[1, 2:] = 1
    logits = torch.nn.functional.one_hot(drawn, 2).movedim(-1, 1).float()
    upper = [(0.5, 1.0)] * 2
    assert torch.equal(without_small(logits, 0.12, upper), logits)
    assert not without_small(logits, 0.13, upper).argmax(1)[:, :2].any()
    assert without_small(logits, 0.13).argmax(1)[:, 0, 0].tolist() == [0, 1]
    narrow = without_small(logits[:1].movedim(2, 3), 0.13, [(1.0, 0.5)])  # the same of columns
    assert not narrow.argmax(1).any()
    assert torch.equal(without_small(logits[:1].movedim(2, 3), 0.12, [(1.0, 0.5)]), logits[:1].movedim(2, 3))


# --- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", architectures())
def test_prompts_are_in_pixels_of_the_picture_whatever_the_encoder_sees(architecture: str, head: str) -> None:
    seen = architectures()[architecture].family.TINY_SIDE
    large, small = make(architecture, head, side=2 * seen, encoder_side=seen), make(architecture, head, side=seen)
    images = pictures(large)
    shrunk = F.interpolate(images, (seen, seen), mode="bilinear", align_corners=False, antialias=True)
    boxes = torch.tensor([[[10.0, 12.0, 90.0, 100.0], [60.0, 20.0, 110.0, 50.0]]]).repeat(2, 1, 1)
    points, inside = torch.tensor([30.0, 80.0]).expand(2, 1, 1, 2), torch.ones(2, 1, 1, dtype=torch.int)
    with torch.no_grad():
        by_box = large.segment_prompted(images, boxes_BN4=boxes)
        assert torch.equal(by_box, small.segment_prompted(shrunk, boxes_BN4=boxes / 2))
        assert torch.equal(by_box, large.segment_prompted(features=large.encode(images), boxes_BN4=boxes))
        assert not torch.allclose(by_box, small.segment_prompted(shrunk, boxes_BN4=boxes / 4), atol=1e-5)
        by_point = large.segment_prompted(images, points_BNP2=points, point_labels_BNP=inside)
        wanted = small.segment_prompted(shrunk, points_BNP2=points / 2, point_labels_BNP=inside)
    assert torch.equal(by_point, wanted)


# --- without a Segment Anything model ---------------------------------------------------------------------------------


def test_the_backbone_none_has_neither_weights_nor_sites() -> None:
    for weights in (None, RANDOM):
        loaded = load_backbone(NONE, weights)
        assert (loaded.digest, loaded.sites, list(loaded.sam.parameters())) == (NONE, (), [])
    with pytest.raises(WeightsError, match="backbone none has no weights; leave --weights out"):
        load_backbone(NONE, "some.pth")
    assert not loaded.spec.is_sam
    assert all(spec.is_sam for name, spec in BACKBONES.items() if name != NONE)


def test_it_has_no_mask_head_and_cannot_be_prompted() -> None:
    with pytest.raises(UsageError, match="with --backbone none take --head pixel"):
        make(NONE, "mask")
    model = make(NONE, "pixel")
    with pytest.raises(UsageError, match="cannot be prompted"):
        model.segment_prompted(pictures(model), boxes_BN4=torch.tensor([[[1.0, 2.0, 3.0, 4.0]]] * 2))


@pytest.mark.parametrize("method", METHODS)
def test_any_method_attaches_to_it_as_nothing(method: str) -> None:
    model = make(NONE, "pixel")
    before = logits(model, pictures(model))
    attached = attach(model, method)
    assert attached.sites == ()
    assert attached.trainable == attached.total == sum(p.numel() for p in model.head.parameters())
    assert all(name.startswith("head.") and p.requires_grad for name, p in model.named_parameters())
    assert torch.equal(logits(model, pictures(model)), before)


def test_without_a_base_several_models_share_it_all_the_same() -> None:
    loaded = load_backbone(NONE)
    first = SemanticSam(loaded, LABELS, 64, "pixel").eval()
    second = SemanticSam(loaded, LABELS, 64, "pixel").eval()
    images = pictures(first)
    once = logits(first, images)
    logits(second, images)
    assert torch.equal(logits(first, images), once)
    unmerge(merge(attach_lora(second)))
    with second.original():
        pass


def attach_lora(model: SemanticSam) -> SemanticSam:
    attach(model, "lora")
    return model


@pytest.mark.parametrize("head", READING)
def test_it_learns(head: str, tmp_path: Path) -> None:
    model = attach_lora(make(NONE, head))
    slices, no_dataset = grey_slices(model.side), None
    images, truth = slices.batch([0, 1, 2])

    def loss() -> float:
        with torch.no_grad():
            return float(Objective()(model(images, in_full=True), truth).total)

    before = loss()
    config = Training(steps=30, batch=3, head_first=0.5, head_batch=3, head_bank=6, validations=1, lr=2e-2)
    fit(model, slices, config, tmp_path, {}, no_dataset)  # type: ignore[arg-type]
    model.eval()
    assert loss() < 0.7 * before
