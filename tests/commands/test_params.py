"""`sampeft params`: golden integers, the paper's table 3, and the size of the saved file to the byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sampeft.commands.params import Config, run
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft import METHODS, attach
from sampeft.peft.state import save_trained, saved_bytes
from sampeft.workflows.params import count

GOLDEN = Path(__file__).parents[1] / "golden/params.json"


def table3(method: str, **options: object) -> dict[str, object]:
    """The paper has 13 organs and counts 15 tokens, as SAMed does: one more than classes with background."""
    return count(Config(backbone="sam-vit-b", classes=14, head="mask"), method, dict(options))


@pytest.mark.parametrize(("rank", "total", "trainable"), [(1, 95.3, 2.4), (4, 95.5, 2.5), (8, 95.6, 2.7)])
def test_lora_rows_of_the_papers_table_3_within_a_fifth_of_a_million(rank: int, total: float, trainable: float) -> None:
    """Ours is a little below: SAMed also trains SAM's quality head and the prompt encoder's unused embeddings."""
    counted = table3("lora", rank=rank)
    assert counted["total_without_prompts"] / 1e6 == pytest.approx(total, abs=0.2)  # type: ignore[operator]
    assert counted["trainable"] / 1e6 == pytest.approx(trainable, abs=0.2)  # type: ignore[operator]
    assert counted["parts"]["added"]["total"] == rank * (36_864 + 5_888)  # type: ignore[index]


def test_adapter_has_the_two_adapters_per_block_of_the_text() -> None:
    one = 768 * 192 + 192 + 192 * 768 + 768
    assert one == 295_872
    in_decoder = 256 * 64 + 64 + 64 * 256 + 256
    assert table3("adapter")["parts"]["added"]["total"] == 24 * one + 4 * in_decoder  # type: ignore[index]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_golden_counts(name: str) -> None:
    counted = count(Config(backbone="sam-vit-b", classes=13, head="mask"), name, {})
    golden = json.loads(GOLDEN.read_text())[name]
    assert {key: counted[key] for key in golden} == golden


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_size_of_the_saved_file_is_told_to_the_byte(name: str, make_model: object, tmp_path: Path) -> None:
    model: SemanticSam = make_model()  # type: ignore[operator]
    attach(model, name)
    save_trained(tmp_path, model, {})
    assert saved_bytes(model) == (tmp_path / "adapter.safetensors").stat().st_size


def test_lora_of_rank_4_is_below_a_twentieth_of_sam_vit_b() -> None:
    counted = table3("lora", rank=4)
    assert counted["saved_bytes"] < 0.05 * 4 * 93_735_472  # type: ignore[operator]


def test_sam_vit_b_has_as_many_parameters_as_published() -> None:
    parts = count(Config(backbone="sam-vit-b"), "decoder", {})["parts"]
    pretrained = ("image encoder", "prompt encoder", "decoder transformer", "promptable mask head")
    table = 2 * 128  # of point positions: a buffer with the authors, a parameter in `transformers`
    assert sum(parts[part]["total"] for part in pretrained) - table == 93_735_472


def test_a_head_counts_where_its_weights_are_and_nowhere_else() -> None:
    """Its options, too; without a Segment Anything model it is all there is."""
    mask, pixel, bare = (
        count(Config(backbone="sam-vit-b", head=head, head_options=options), "decoder", {})["parts"]
        for head, options in (("mask", {}), ("pixel", {}), ("pixel", {"widths": [8]}))
    )
    assert {part: mask[part] for part in mask if part != "class head"} == {
        part: pixel[part] for part in pixel if part != "class head"
    }
    assert mask["class head"]["total"] < bare["class head"]["total"] < pixel["class head"]["total"]
    alone = count(Config(backbone="none"), "lora", {})
    assert alone["total"] == alone["trainable"] == alone["parts"]["class head"]["total"] > 0


def test_several_methods_make_one_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Config(method="lora,decoder,bitfit", options={"rank": 8})) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert rows == ["| method", "| lora", "| decoder", "| bitfit"]
    run(Config(method="all", json=True))
    assert [c["method"] for c in json.loads(capsys.readouterr().out)["counts"]] == list(METHODS)


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="did you mean 'sam-vit-b'"):
        run(Config(backbone="sam_vit_b"))
    with pytest.raises(UsageError, match="--classes is 0; give 1 to 65534"):
        run(Config(classes=0))
    with pytest.raises(UsageError, match="unknown option of decoder 'rank'"):
        run(Config(method="decoder", options={"rank": 4}))


def test_counting_makes_no_values() -> None:
    from sampeft.backbones import sketch_backbone

    model = SemanticSam(sketch_backbone("sam-vit-h"), LabelSet(("background", "a"), (0, 1)))
    assert {p.device for p in model.parameters()} == {torch.device("meta")}
