"""BACKBONES: weights are found and identified by content, any side works, every size of input and wrong file is named."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from fabricate.backbones import architectures, make_tiny, tiny
from sampeft.backbones import BACKBONES, RANDOM, Backbone, load_backbone, set_side, sketch_backbone
from sampeft.backbones.checkpoints import content_digest, from_transformers
from sampeft.errors import UsageError, WeightsError
from sampeft.heads import HEADS
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import attach

LABELS = LabelSet(("background", "target"), (0, 1))
ALL = architectures()


@pytest.fixture(params=ALL)
def spec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A registered tiny backbone of every architecture, whose weights are nowhere yet."""
    found = ALL[request.param]
    small = replace(found, weights=replace(found.weights, package="", sha256=None))
    monkeypatch.setitem(BACKBONES, small.name, small)
    return small


@pytest.fixture(autouse=True)
def _nothing_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("SAMPEFT_WEIGHTS", raising=False)


def saved(spec: Backbone, path: Path, **content: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(11)
    state = spec.build().state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**state, **content}, path)
    return state


def test_weights_are_found_by_path_environment_fetched_folder(
    spec: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        WeightsError, match=rf"weights of {spec.name.replace('+', '.')} not found: get .* --weights FILE"
    ):
        load_backbone(spec.name)
    name = Path(spec.weights.file).name
    state = saved(spec, tmp_path / "cache/weights" / name)
    fetched = load_backbone(spec.name)
    assert fetched.source == str(tmp_path / "cache/weights" / name)
    assert all(torch.equal(value, fetched.sam.state_dict()[key]) for key, value in state.items())
    saved(spec, tmp_path / "mine" / name)
    monkeypatch.setenv("SAMPEFT_WEIGHTS", str(tmp_path / "mine"))
    assert load_backbone(spec.name).source == str(tmp_path / "mine" / name)
    monkeypatch.setenv("SAMPEFT_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="nowhere: no such file or folder"):
        load_backbone(spec.name)
    other = tmp_path / "other.pth"
    saved(spec, other)
    assert load_backbone(spec.name, str(other)).source == str(other)


def test_one_content_has_one_digest_in_any_file_format(spec: Backbone, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = saved(spec, tmp_path / "a.pth")
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "a.safetensors")
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "wrapped.pth")
    digests = {load_backbone(spec.name, str(tmp_path / f)).digest for f in ("a.pth", "a.safetensors", "wrapped.pth")}
    assert digests == {content_digest(state)}
    state[next(iter(state))] = next(iter(state.values())) + 1
    assert content_digest(state) not in digests


def test_a_transformers_folder_is_read_and_a_hub_cache_is_searched(
    spec: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(11)
    model = spec.build()
    if "vision_encoder.trunk" in dict(model.named_modules()):
        (tmp_path / "folder").mkdir()
        with pytest.raises(WeightsError, match="is a folder; this backbone has the authors' checkpoint only"):
            load_backbone(spec.name, str(tmp_path / "folder"))
        return
    folder = tmp_path / "hub" / f"models--{spec.weights.hub.replace('/', '--')}" / "snapshots/abc"
    folder.mkdir(parents=True)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs/main").write_text("abc")
    model.save_pretrained(folder)  # type: ignore[operator]
    loaded = load_backbone(spec.name, str(folder))
    assert all(torch.equal(v, loaded.sam.state_dict()[k]) for k, v in model.state_dict().items())
    by_name = load_backbone(spec.name)
    assert (by_name.source, by_name.digest) == (str(folder), loaded.digest)
    assert load_backbone(spec.name, spec.weights.hub).source == str(folder)


def test_another_models_weights_are_refused_by_name_with_counts(spec: Backbone, tmp_path: Path) -> None:
    other = next(small for name, small in ALL.items() if small.family is not spec.family)
    torch.save(other.build().state_dict(), tmp_path / "other.pth")
    wanted = rf"other\.pth: is not {spec.name.replace('+', '.')}: \d+ tensors missing, \d+ unexpected"
    with pytest.raises(WeightsError, match=wanted):
        load_backbone(spec.name, str(tmp_path / "other.pth"))


def test_a_hub_that_does_not_answer_is_one_line(spec: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(WeightsError, match=r"someone/model: is no file or folder here, .* \(no route\); download"):
        load_backbone(spec.name, "someone/model")


def test_any_side_that_fits_works_and_the_way_back_changes_nothing(spec: Backbone) -> None:
    model = make_tiny(spec.name, LABELS)
    image = torch.rand(1, 3, spec.family.TINY_SIDE, spec.family.TINY_SIDE)
    with torch.no_grad():
        before = model(image)
        for side in (32, 96, 160):
            set_side(model.loaded, side)
            got = model(torch.rand(1, 3, side, side))
            fine = before.shape[-1] * side // spec.family.TINY_SIDE
            assert got.shape == (1, 2, fine, fine)
            assert torch.isfinite(got).all()
        set_side(model.loaded, spec.family.TINY_SIDE)
        assert torch.equal(before, model(image))


@pytest.mark.parametrize(
    ("name", "side", "near"),
    [
        ("sam-vit-b", 500, "a multiple of 16, such as 496, or 448, which"),
        ("sam2.1-hiera-t", 500, "a multiple of 32, such as 512, or 448, which"),
        ("sam2.1-hiera-l", 400, "a multiple of 32, such as 384, or 512, which"),
        ("lite-medsam", 170, "a multiple of 4, such as 168"),
        ("sam-vit-b", 8, "a multiple of 16, such as 16, or 224"),
    ],
)
def test_a_side_that_does_not_fit_names_the_nearest_that_does(name: str, side: int, near: str) -> None:
    with pytest.raises(UsageError, match=rf"input side {side} does not fit {name}: it must be {near}"):
        BACKBONES[name].check_side(side)


@pytest.mark.parametrize("name", [name for name, spec in BACKBONES.items() if spec.is_sam])
def test_every_backbone_states_its_weights_and_sides(name: str) -> None:
    spec = BACKBONES[name]
    spec.check_side(spec.side)
    spec.check_side(spec.native_side)
    assert spec.side % spec.good_multiple == 0 or name == "lite-medsam"  # that one's native side pads its windows
    assert Path(spec.weights.file).name in spec.where
    assert spec.weights.licence in spec.where
    sites = sketch_backbone(name).sites
    assert sum(site.part == "decoder" for site in sites) == 9  # three attentions and an MLP twice, one attention last


def test_512_resamples_the_position_table_of_sam_to_32() -> None:
    """Case D43: 64 x 64 becomes 32 x 32, and a table that is linear in x stays linear."""
    spec = replace(tiny(BACKBONES["sam-vit-b"]), name="ramp")
    sam = spec.build()
    ramp = torch.linspace(-1, 1, 64)[None, None, :, None].expand(1, 64, 64, 32)
    sam.vision_encoder.pos_embed.data.copy_(ramp)  # type: ignore[union-attr,operator]
    spec.family.resize(sam, 512)
    table = sam.vision_encoder.pos_embed  # type: ignore[union-attr]
    assert table.shape == (1, 32, 32, 32)
    centres = ramp[0, 0, :, 0].reshape(32, 2).mean(dim=1)
    assert torch.allclose(table[0, 5, 2:-2, 3], centres[2:-2], atol=2e-3)  # type: ignore[index]


@pytest.mark.parametrize("foreground", [1, 13, 117])
def test_as_many_channels_as_classes_and_all_begin_equal(spec: Backbone, foreground: int) -> None:
    names = ("background", *(f"c{k}" for k in range(1, foreground + 1)))
    model = make_tiny(spec.name, LabelSet(names, tuple(range(len(names)))))
    with torch.no_grad():
        logits = model(torch.rand(1, 3, model.side, model.side))
    assert logits.shape[:2] == (1, foreground + 1)
    assert torch.allclose(logits, logits[:, :1].expand_as(logits), atol=1e-4)


def test_finer_maps_of_sam_2_reach_the_class_head(spec: Backbone) -> None:
    model = make_tiny(spec.name, LABELS)
    with torch.no_grad():
        features = model.encode(torch.rand(1, 3, model.side, model.side))
        if len(features) == 1:
            assert not spec.name.startswith("tiny sam2")
            return
        embedding, finer, finest = features
        assert finer.shape[-1] == 2 * embedding.shape[-1]
        assert finest.shape[-1] == 4 * embedding.shape[-1]
        whole = model.decode(features).logits_BKHW
        for other in ((torch.randn_like(finer), finest), (finer, torch.randn_like(finest))):
            moved = model.decode((embedding, *other)).logits_BKHW - whole
            assert float(moved.abs().max()) > 1e-2 * float(whole.abs().max())


def test_a_head_that_reads_them_gets_the_encoders_maps_as_the_family_lists_them(spec: Backbone) -> None:
    """After what the mask head reads, which is the same as without; the picture is last, one channel where all are one."""
    plain, reading = make_tiny(spec.name, LABELS), make_tiny(spec.name, LABELS, "pixel")
    side = reading.side
    colours = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    listed = spec.family.encoder_maps(reading.sam)
    for picture, channels in ((colours, 3), (colours[:, :1].expand(-1, 3, -1, -1), 1)):
        with torch.no_grad():
            known = plain.encode(picture)
            *features, last = reading.encode(picture)
        assert len(known) == 1 + spec.family.FINER_MAPS
        assert all(torch.equal(a, b) for a, b in zip(known, features, strict=False))
        assert torch.equal(last, picture[:, :channels])
        maps = features[len(known) :]
        assert [m.shape for m in maps] == [(2, m.width, side // m.stride, side // m.stride) for m in listed]
        assert all(float(m.std()) > 0 for m in maps)
        assert not any(torch.equal(a, b) for a, b in pairwise(maps) if a.shape == b.shape)


def test_the_last_of_the_encoders_maps_is_what_enters_its_neck(spec: Backbone) -> None:
    model = make_tiny(spec.name, LABELS, "pixel")
    entering: list[Any] = []
    model.sam.vision_encoder.neck.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    with torch.no_grad():
        features = model.encode(torch.rand(1, 3, model.side, model.side))
    (tokens,) = entering
    tokens = tokens[-1] if isinstance(tokens, tuple) else tokens  # Hiera's neck takes all of its stages
    assert torch.equal(features[-2], tokens.permute(0, 3, 1, 2))


def test_a_backbone_of_ones_own_is_a_dict_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {**BACKBONES["sam-vit-b"].family.TINY, "hidden_size": 48, "num_attention_heads": 6}
    mine = replace(BACKBONES["sam-vit-b"], name="my-sam", shape=shape, side=64)
    monkeypatch.setitem(BACKBONES, "my-sam", mine)
    model = SemanticSam(load_backbone("my-sam", RANDOM), LABELS)
    attached = attach(model, "lora", {"rank": 2})
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 2, 16, 16)
    assert attached.trainable < attached.total


def test_names_of_transformers_are_told_from_the_authors() -> None:
    assert from_transformers({"module.vision_encoder.x": torch.zeros(1)})
    assert not from_transformers({"image_encoder.x": torch.zeros(1), "prompt_encoder.y": torch.zeros(1)})


@pytest.mark.parametrize("head", HEADS)
def test_an_encoder_stopped_at_any_block_goes_on_bit_for_bit(spec: Backbone, head: str) -> None:
    model = make_tiny(spec.name, LABELS, head)
    picture = torch.rand(2, 3, model.side, model.side, generator=torch.Generator().manual_seed(3))
    blocks = 1 + max(site.block for site in model.sites if site.part == "encoder")
    with torch.no_grad():
        whole = model.encode(picture)
        library = model.sam.vision_encoder((picture - model.mean) / model.std)
        levels = getattr(library, "fpn_hidden_states", None)
        known = whole[: 1 + spec.family.FINER_MAPS]
        assert torch.equal(whole[0], library.last_hidden_state) if levels is None else len(levels) == len(known)
        for block in range(blocks + 1):
            started = model.encode_start(picture, block)
            again = model.encode_rest(started, block)
            assert len(again) == len(whole)
            assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True)), f"from block {block}"
        assert not torch.equal(model.encode_start(picture, 0)[0], model.encode_start(picture, 1)[0])
