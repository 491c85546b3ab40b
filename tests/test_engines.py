"""Engines: equal to the model on every architecture, made once, made again when damaged, and left when they differ."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from fabricate.backbones import make_tiny, presence_bias, stirred
from sampeft import engines
from sampeft.backbones import NONE
from sampeft.engines import ENGINES, TorchEngine, engine_for, onnx, openvino
from sampeft.engines.graph import CLASSES, INPUT, LOGITS, ClassMap, Identity
from sampeft.engines.kept import Kept
from sampeft.engines.parity import Parity, pictures
from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.store import MAKING

LABELS = LabelSet(("background", "liver", "spleen"), (0, 1, 2))


@pytest.fixture(scope="module")
def make(tiny_backbones: None) -> Callable[..., SemanticSam]:
    """Makes tiny models whose classes differ."""

    def made(architecture: str, head: str = "mask") -> SemanticSam:
        name = architecture if architecture == NONE else f"tiny {architecture}"
        model = make_tiny(name, LABELS, head)
        if head != "mask":
            stirred(model)
        if model.head.tokens is not None:
            with torch.no_grad():
                shape = model.head.tokens.shape
                model.head.tokens.add_(torch.randn(shape, generator=torch.Generator().manual_seed(3)))
        return model

    return made


class Shifted(TorchEngine):
    """The model's logits, those of class 1 raised."""

    name = "shifted"

    def __init__(self, model: SemanticSam, by: float) -> None:
        super().__init__(model)
        self.by = by

    def __call__(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        return super().__call__(images_B3HW) + self.by * torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1)


class Kind:
    """An engine whose graph is a file that tells how wrong it is. written, opened: how often."""

    PACKAGES: tuple[str, ...] = ()
    FILE = "graph.txt"

    def __init__(self, by: float = 0.0) -> None:
        self.by, self.written, self.opened = by, 0, 0
        self.model: Any = None

    def check(self, precision: str) -> None:
        pass

    def write(self, model: SemanticSam, folder: Path) -> None:
        self.written += 1
        self.model = model
        (folder / self.FILE).write_text(str(self.by))

    def open(self, file: Path, precision: str, threads: int, cache: Path) -> Shifted:
        self.opened += 1
        return Shifted(self.model, float(file.read_text()))


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kind:
    kind = Kind()
    monkeypatch.setitem(ENGINES, "shifted", kind)
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path))
    return kind


@pytest.fixture
def model(make: Callable[..., SemanticSam]) -> SemanticSam:
    return make("sam-vit-b")


IDENTITY = Identity("content", 64)


def skip_without(kind: Any) -> None:
    """Without importing: that is for the engine to do, quietly."""
    if missing := [package for package in kind.PACKAGES if find_spec(package) is None]:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'sampeft[export]'")


def quiet(text: str) -> None:
    pass


@pytest.mark.parametrize("kind", [openvino, onnx], ids=["openvino", "onnx"])
@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("lite-medsam", "mask"),
        ("sam2-hiera-t", "mask"),
        ("mobile-sam", "pixel"),
        ("sam-vit-b", "pixel"),
        ("sam2-hiera-t", "pixel"),
        (NONE, "pixel"),
        ("sam-vit-b", "probe"),
    ],
)
def test_an_exported_graph_of_every_architecture_is_its_model_at_any_batch(
    make: Callable[..., SemanticSam], architecture: str, head: str, kind: Any, tmp_path: Path
) -> None:
    """With presence, where the head tells it, and without the class that would fill too little."""
    skip_without(kind)
    whole = ClassMap(make(architecture, head)).eval()
    if whole.model.head.tells_presence:
        with torch.no_grad():
            presence_bias(whole.model).copy_(torch.tensor([50.0, 50.0, -50.0]))
    side = whole.model.side
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        drawn, _ = whole(images)
        assert drawn.unique().tolist() == ([0, 1] if whole.model.head.tells_presence else [0, 1, 2])
        whole.model.least_share = 0.9  # of none of these pictures so much is of one class: the largest alone stays
        wanted_classes, wanted = whole(images)
    assert [len(classes.unique()) for classes in wanted_classes] == [1, 1, 1]
    if kind is onnx:
        import onnxruntime

        onnx.export(whole, tmp_path / onnx.FILE, side, [CLASSES, LOGITS], None)
        session = onnxruntime.InferenceSession(tmp_path / onnx.FILE, providers=["CPUExecutionProvider"])

        def run(part: torch.Tensor) -> Any:
            return session.run([CLASSES, LOGITS], {INPUT: part.numpy()})
    else:
        openvino.save(openvino.convert(whole, side, [CLASSES, LOGITS], None), tmp_path / openvino.FILE)
        compiled = openvino.compiled(tmp_path / openvino.FILE, "f32", 1)

        def run(part: torch.Tensor) -> Any:
            made = compiled([part.numpy()])
            return made[CLASSES], made[LOGITS]

    for first, last in ((0, 3), (1, 2)):
        classes, logits = map(torch.tensor, run(images[first:last]))
        assert (logits - wanted[first:last]).abs().max() <= 1e-4 * wanted.std()
        assert (classes == wanted_classes[first:last]).float().mean() > 0.999


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_a_real_engine_is_used_from_the_cache_without_its_model(
    model: SemanticSam, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without(ENGINES[name])
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path))
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    wanted = TorchEngine(model)(images)
    said: list[str] = []
    first = engine_for(name, model, IDENTITY, say=said.append)
    assert said == [f"making the {name} graph of this model, once"]

    def never() -> SemanticSam:
        raise AssertionError("the graph is there and was compared; the model is not needed")

    again = engine_for(name, never, IDENTITY, say=never)  # type: ignore[arg-type]
    for engine in (first, again):
        assert engine.name == name
        assert (engine(images) - wanted).abs().max() <= 1e-4 * wanted.std()
    assert torch.equal(again(images)[1:2], again(images[1:2]))  # a batch changes nothing, to the bit


@pytest.mark.parametrize(("architecture", "head"), [("lite-medsam", "mask"), ("sam2-hiera-t", "pixel")])
def test_an_encoder_by_openvino_is_that_of_the_model(
    make: Callable[..., SemanticSam], architecture: str, head: str
) -> None:
    """For one picture, which comes back untouched behind the maps where the head reads it."""
    skip_without(openvino)
    model = make(architecture, head)
    encode = openvino.encoder_of(model, 1)
    assert encode is not None
    grey = torch.rand(1, 1, model.side, model.side, generator=torch.Generator().manual_seed(2))
    for image in (grey.expand(-1, 3, -1, -1), torch.rand(1, 3, model.side, model.side)):
        with torch.no_grad():
            wanted, found = model.encode(image), encode(image)
        assert [m.shape for m in found] == [m.shape for m in wanted]
        assert all(float((a - b).abs().max()) <= 1e-3 * float(a.std()) for a, b in zip(wanted, found, strict=True))
        if head == "pixel":
            assert torch.equal(found[-1], wanted[-1])


def test_a_graph_is_made_and_compared_once(kind: Kind, model: SemanticSam, tmp_path: Path) -> None:
    for _ in range(2):
        assert engine_for("shifted", model, IDENTITY, say=quiet).name == "shifted"
    assert (kind.written, kind.opened) == (1, 2)
    folder = next(p for p in (tmp_path / "engines").iterdir())
    assert not folder.name.startswith(MAKING)
    assert json.loads((folder / "parity.json").read_text())["agreement"] == 1.0
    assert json.loads((folder / "graph.json").read_text())["engine"] == "shifted"


@pytest.mark.parametrize("damage", ["shorter", "other", "gone", "record"])
def test_a_damaged_graph_is_made_again(kind: Kind, model: SemanticSam, tmp_path: Path, damage: str) -> None:
    engine_for("shifted", model, IDENTITY, say=quiet)
    folder = next((tmp_path / "engines").iterdir())
    graph = folder / kind.FILE
    if damage == "gone":
        graph.unlink()
    elif damage == "record":
        (folder / "graph.json").write_text("{")
    else:
        graph.write_text({"shorter": "", "other": "9.9"}[damage])
    engine = engine_for("shifted", model, IDENTITY, say=quiet)
    assert kind.written == 2
    assert graph.read_text() == "0.0"
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(engine(images), TorchEngine(model)(images))


@pytest.mark.parametrize("damaged", ["a.blob", "parity.json"])
def test_what_was_computed_from_a_graph_goes_when_it_is_damaged_and_the_graph_stays(
    kind: Kind, model: SemanticSam, damaged: str
) -> None:
    """A compiled form, and the comparison; also a compiled form of which nobody knows whether it is whole."""
    kept = Kept.of("shifted", IDENTITY, "f32")
    kept.make(lambda folder: kind.write(model, folder))
    (kept.folder / "a.blob").write_bytes(b"compiled")
    kept.keep_parity(Parity(0.0, 1.0, 1.0, {}, 3))
    both = {"a.blob", "parity.json"}

    def there() -> set[str]:
        assert Kept.of("shifted", IDENTITY, "f32").is_whole()
        return both & {path.name for path in kept.folder.iterdir()}

    assert there() == both
    content = bytearray((kept.folder / damaged).read_bytes())
    content[3] ^= 1
    (kept.folder / damaged).write_bytes(content)
    assert there() == set()
    (kept.folder / "a.blob").write_bytes(b"half of it")
    assert there() == set()


def test_another_model_side_or_precision_has_another_graph() -> None:
    keys = {
        Identity(content, side).key(engine, precision)
        for content in ("a", "b")
        for side in (64, 128)
        for engine in ("openvino", "onnx")
        for precision in ("f32", "bf16")
    }
    assert len(keys) == 16


def test_a_graph_that_differs_is_left_for_torch_with_the_numbers(kind: Kind, model: SemanticSam) -> None:
    kind.by = 0.05
    for _ in range(2):  # the second time by what was kept
        said: list[str] = []
        engine = engine_for("shifted", model, IDENTITY, say=said.append)
        assert engine.name == "torch"
        assert "WARNING: the shifted graph does not compute what the model does" in said[-1]
        assert "largest logit difference 0.05" in said[-1]
    assert kind.written == 1


def test_what_is_missing_is_named_with_the_command_that_helps(
    kind: Kind, model: SemanticSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="unknown engine 'openvin'; did you mean 'openvino'"):
        engine_for("openvin", model, IDENTITY)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"openvino needs openvino, not installed here: pip install 'sampeft\[export\]'"
    ):
        engine_for("openvino", model, IDENTITY)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said: list[str] = []
    assert engine_for("auto", model, IDENTITY, say=said.append).name == "torch"
    assert said == ["engine torch; OpenVINO is faster on this processor: pip install 'sampeft[export]'"]


def test_auto_takes_a_graph_that_passes_and_torch_otherwise(
    kind: Kind, model: SemanticSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "openvino", kind)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert engine_for("auto", model, IDENTITY, say=quiet, make=False).name == "torch"  # for little work none is made
    assert engine_for("auto", model, IDENTITY, say=quiet).name == "shifted"
    assert engine_for("auto", model, IDENTITY, say=quiet, make=False).name == "shifted"  # and one that is there is used
    kind.by = 1.0
    other = Identity("other", 64)
    assert engine_for("auto", model, other, say=quiet).name == "torch"

    def fails(*_: object) -> None:
        raise RuntimeError("no such operation\nmore")

    monkeypatch.setattr(kind, "write", fails)
    said: list[str] = []
    assert engine_for("auto", model, Identity("third", 64), say=said.append).name == "torch"
    assert said[-1] == "WARNING: OpenVINO cannot run this model (no such operation); torch is used instead"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert engine_for("auto", model, IDENTITY, say=said.append).name == "torch"


def test_int8_is_never_made_on_the_way(kind: Kind, model: SemanticSam) -> None:
    with pytest.raises(UsageError, match="there is no int8 graph of this run yet: make it from your own images"):
        engine_for("shifted", model, IDENTITY, "int8")
    with pytest.raises(UsageError, match="precision int8 goes with --engine openvino"):
        engine_for("torch", model, IDENTITY, "int8")
    with pytest.raises(UsageError, match="precision bf16 goes with --engine openvino"):
        engine_for("onnx", model, IDENTITY, "bf16")


def test_a_graph_in_use_is_not_removed_for_want_of_room(
    kind: Kind, model: SemanticSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept.of("shifted", IDENTITY, "f32")
    kept.make(lambda folder: kind.write(model, folder))
    assert kept.is_whole()
    monkeypatch.setenv("SAMPEFT_CACHE_GIB", "0")
    Kept.of("shifted", Identity("b", 64), "f32").make(lambda folder: kind.write(model, folder))
    assert (kept.folder / kind.FILE).is_file()


def test_openvino_tells_its_makers_nothing() -> None:
    skip_without(openvino)
    program = (
        "import sys; from sampeft.engines import openvino; openvino._library(); "
        "from openvino.tools.ovc import convert_impl; "
        "print(sys.modules['openvino_telemetry'], convert_impl.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "openvino.tools.ovc.telemetry_stub"]


def test_parity_by_hand() -> None:
    """Two of four pixels differ: class 0 is chosen three times by one and once by the other, once together."""
    wanted = torch.tensor([[[[3.0, 3.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]]])
    found = torch.tensor([[[[3.0, 0.0], [0.0, 0.0]], [[0.0, 3.0], [3.0, 3.5]]]])
    parity = Parity.between(lambda _: wanted, lambda _: found, 2, [torch.zeros(3, 2, 2)])
    assert parity.agreement == 0.5
    assert parity.difference == 3.0
    assert parity.spread == 1.5
    assert parity.dsc == {0: 2 * 1 / 4, 1: 2 * 1 / 4}
    assert not parity.passes()
    assert Parity.from_json(json.loads(json.dumps(parity.to_json()))) == parity


def test_where_the_model_has_two_highest_logits_either_agrees() -> None:
    wanted = torch.full((1, 2, 2, 2), 5.0)
    found = wanted + torch.tensor([0.0, 1e-7]).reshape(1, 2, 1, 1)
    assert Parity.between(lambda _: wanted, lambda _: found, 2, [torch.zeros(3, 2, 2)]).passes()
    off = wanted + torch.tensor([0.0, 1e-3]).reshape(1, 2, 1, 1)
    parity = Parity.between(lambda _: wanted, lambda _: off, 2, [torch.zeros(3, 2, 2)])
    assert not parity.passes()
    assert parity.passes("int8")  # of which only the class map is asked


def test_made_pictures_are_the_same_and_differ_in_coarseness() -> None:
    first, again = pictures(32), pictures(32)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    rough = [float(image.diff(dim=-1).abs().mean()) for image in first]
    assert rough[0] < rough[1] < rough[2]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_whose_graphs_went_in_any_order_still_hears_signals() -> None:
    """The first of two went first: with a core each that left the thread without its signal stack, and a Ctrl-C was a
    segmentation fault."""
    skip_without(openvino)
    script = """
import gc, os, signal
import numpy, openvino, torch
from sampeft.engines.openvino import _core

def graph():
    made = openvino.convert_model(torch.nn.AvgPool2d(2), example_input=torch.rand(1, 3, 8, 8), input=[1, 3, 8, 8])
    request = _core().compile_model(made, "CPU", {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
    request.infer([numpy.zeros((1, 3, 8, 8), numpy.float32)])
    return request

first, second = graph(), graph()
del first
gc.collect()
del second
gc.collect()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: print("heard", flush=True))
    os.kill(os.getpid(), number)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, ["heard", "heard"]), done.stderr
