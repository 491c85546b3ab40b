"""Runs, data sets and recipes with one fault each: refused in one line that names the file, or as good as whole.

SAMPEFT_MUTATIONS: how many faults of each kind of file are tried, drawn from one seed; few by default.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load as read
from safetensors.torch import save

from fabricate import folder_dataset, write_png
from fabricate.backbones import make_tiny, stirred, tiny_sam
from fabricate.mutations import mutated, mutated_text
from fabricate.runs import description_of
from sampeft import strict_json
from sampeft.cli import main
from sampeft.data import open_dataset
from sampeft.data.check import check_dataset
from sampeft.errors import DataError, FormError, SampeftError, UsageError, WeightsError
from sampeft.evaluation import score
from sampeft.labels import LabelSet
from sampeft.peft import attach
from sampeft.peft.run_files import DESCRIPTION, WEIGHTS, read_description
from sampeft.peft.state import save_trained
from sampeft.prediction.loading import load
from sampeft.workflows import train as train_module

COUNT = int(os.environ.get("SAMPEFT_MUTATIONS", "25"))
LABELS = LabelSet(("background", "liver", "spleen"), (0, 3, 7))
SIDE = 64
DATASET = {
    "ignore": 255, "pairs": [], "images": "images", "masks": "labels", "mask_values": {"254": 1}, "exclude": [],
    "colors": {"background": [0, 0, 0], "c1": [10, 20, 30], "c2": [20, 20, 30]},
}  # fmt: skip
RECIPE: dict[str, Any] = {
    "backbone": "lite-medsam", "method": "lora", "options": {"rank": 4, "alpha": None, "targets": ["q", "v"]},
    "head": "pixel", "head_options": {"presence": True, "widths": [8, 16]}, "side": 256, "held_out": 0.15,
    "intensity": "auto", "plane": "auto", "denoise": "gaussian", "denoise_options": {"sigma": 1.5},
    "training": {
        "lr": 0.001, "steps": 100, "minutes": None, "seed": 0, "batch": 2, "loss_weights": [0.3, 0.7],
        "loss": "ce+dice", "ema": 0.0, "augmentation": {"scale": 0.15, "noises": []},
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with tiny_sam(SIDE, tmp_path_factory.mktemp("cache")):
        yield


REFUSED, UNCLEAR, TRACEBACK = "refused in one line", "refused in other words", "traceback"
EQUAL, TOLD, MEANT, SILENT = (f"accepted, {how}" for how in ("equal", "told", "may be meant", "other and silent"))


class Outcomes:
    """What became of each mutation."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {}

    def add(self, what: str, outcome: str) -> None:
        self.of.setdefault(outcome, []).append(what)

    def check(self, kind: str) -> None:
        """Print the counts, which `pytest -s` shows; some are refused, none goes wrong."""
        counts = (REFUSED, EQUAL, TOLD, MEANT, SILENT, UNCLEAR, TRACEBACK)
        print(f"\n{kind}: " + "; ".join(f"{name} {len(self.of.get(name, ()))}" for name in counts))
        assert self.of[REFUSED]
        assert {name: self.of[name] for name in (SILENT, UNCLEAR, TRACEBACK) if name in self.of} == {}


def outcome_of(read: Callable[[], Any], is_same: Callable[[Any], bool], path: Path, meant: bool) -> str:
    """What becomes of a file with a mutation. path: that a refusal and a warning name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = read()
        except SampeftError as error:
            return REFUSED if str(path) in str(error) and "\n" not in str(error) else UNCLEAR
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
            return TRACEBACK
    if is_same(found):
        return EQUAL
    if any(str(path) in str(one.message) for one in caught):
        return TOLD
    return MEANT if meant else SILENT


def save_run(folder: Path, seed: int = 3, **changes: Any) -> Path:
    model = make_tiny("tiny", LABELS, "pixel", side=SIDE)
    attached = attach(model, "lora", {"rank": 2})
    more = {
        "head": "pixel", "head_options": {}, "encoder_side": None, "least_share": 0.05, "symmetries": 1,
        "trainable": attached.trainable, "total": attached.total, "pixels": 64, "gsd": None, "most_pixels": 64,
        "data": {"name": "x", "cases": 2}, "versions": {"sampeft": "0.1.0"}, "trained": {"step": 3, "val_dsc": 0.5},
    }  # fmt: skip
    save_trained(folder, stirred(model, seed), description_of(model, "lora", attached.options, **{**more, **changes}))
    return folder


def rewritten(run: Path, change: Callable[[dict[str, Any]], None], old: bool = False) -> None:
    """adapter.json changed by hand; old: as it was before there were digests."""
    content = json.loads((run / DESCRIPTION).read_text())
    change(content)
    if old:
        content = {key: value for key, value in content.items() if key not in ("tensors_sha256", "description_sha256")}
    (run / DESCRIPTION).write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_run(tmp_path / "run")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_png(tmp_path / "in/p.png", np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8))


@pytest.mark.parametrize("old", [False, True], ids=["with digests", "of an older version"])
def test_a_changed_description_is_refused_or_told_or_changes_nothing(old: bool, run: Path, picture: Path) -> None:
    """Without digests no one can know that another window was not meant."""
    rewritten(run, lambda _: None, old)
    content = json.loads((run / DESCRIPTION).read_text())
    good, rng, outcomes = load(run, merged=False).predict(picture), random.Random(0), Outcomes()
    for _ in range(COUNT):
        what, _, text = mutated_text(content, rng)
        (run / DESCRIPTION).write_text(text)
        outcomes.add(
            what,
            outcome_of(
                lambda: load(run, merged=False).predict(picture), lambda found: np.array_equal(found, good), run, old
            ),
        )
    outcomes.check(f"adapter.json {'without' if old else 'with'} digests")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format=3), "format 3, this version reads format 2"),
        (lambda c: c["options"].update(rnak=2), "unknown option of lora 'rnak'; did you mean 'rank'"),
        (lambda c: c["options"].update(rank=10**9), "rank is 1000000000; give 1 to 4096"),
        (lambda c: c.update(method="lorra"), "unknown method 'lorra'; did you mean 'lora'"),
        (
            lambda c: c["preparation"]["intensity"].update(kind="windw"),
            "kind of intensity of .* is 'windw'; give one of",
        ),
        (lambda c: c["preparation"]["intensity"].update(crop="bdy"), "crop of intensity of .* give one of body, none"),
        (lambda c: c["preparation"]["intensity"].update(low=300), "window 300..255; give two numbers, the lower one"),
        (lambda c: c["preparation"].pop("side"), "the stored preparation lacks side"),
        (lambda c: c["preparation"].update(plane="axail"), "unknown slice plane 'axail'; did you mean 'axial'"),
        (lambda c: c.update(least_share=1.5), "least_share is 1.5; give 0 to 1"),
        (lambda c: c.update(trainable="many"), "trainable of the run is 'many'; give a whole number"),
        (lambda c: c.update(lest_share=0.1), "unknown option of the run 'lest_share'; did you mean 'least_share'"),
        (lambda c: c["label_map"]["labels"].update(liver=2.5), "is 2.5; expected a whole number"),
        (lambda c: c.update(seed=None), "seed is missing"),
        (lambda c: c.update(versions={"sampeft": "9.0"}, method="new"), "written by sampeft 9.0, and this is"),
    ],
)
def test_what_a_description_may_not_say(change: Callable[[dict[str, Any]], None], said: str, run: Path) -> None:
    """As of an older version, so that the schema alone decides."""
    rewritten(run, change, old=True)
    with pytest.raises(WeightsError, match=said):
        read_description(run)


def test_texts_that_are_no_json_are_told(run: Path, tmp_path: Path) -> None:
    for text, said in (
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": 1' + "0" * 400 + "}", "is too large"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "expected a JSON object, found a list"),
    ):
        with pytest.raises(FormError, match=said):
            strict_json.parse_object(text, "it")
    (run / DESCRIPTION).write_bytes(b"{" + b" " * (2 << 20) + b"}")
    with pytest.raises(FormError, match="is 2 MiB large, and 1 MiB are the most"):
        read_description(run)
    (run / DESCRIPTION).unlink()
    os.mkfifo(run / DESCRIPTION)
    with pytest.raises(FormError, match="is no regular file"):
        read_description(run)


def test_a_changed_description_is_warned_of_and_an_older_one_is_not(run: Path) -> None:
    rewritten(run, lambda c: c["preparation"]["intensity"].update(low=10))
    with pytest.warns(UserWarning, match=r"adapter\.json: was changed after it was written"):
        read_description(run)
    rewritten(run, lambda _: None, old=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_description(run)["preparation"]["intensity"]["low"] == 10


def tensors(run: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = read((run / WEIGHTS).read_bytes())
    change(state)
    (run / WEIGHTS).write_bytes(save(state))


def nan_in_tokens(state: dict[str, torch.Tensor]) -> None:
    state["head.mask.tokens"][0, 0] = torch.nan


def test_tensors_are_those_of_the_description(run: Path, tmp_path: Path) -> None:
    whole = (run / WEIGHTS).read_bytes()
    for position in (0, 100, len(whole) // 2, len(whole) - 1):
        (run / WEIGHTS).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(WeightsError, match=r"adapter\.safetensors: is not the file that adapter\.json describes"):
            load(run)
    (run / WEIGHTS).write_bytes((save_run(tmp_path / "other", seed=4) / WEIGHTS).read_bytes())
    with pytest.raises(WeightsError, match="is damaged or of another run"):
        load(run)


def test_tensors_of_an_older_run_are_whole_finite_fractions(run: Path) -> None:
    rewritten(run, lambda _: None, old=True)
    whole = (run / WEIGHTS).read_bytes()
    for part in (b"", whole[:6], whole[:1000], whole[:-1]):
        (run / WEIGHTS).write_bytes(part)
        with pytest.raises(WeightsError, match=r"adapter\.safetensors: is torn or no weights file"):
            load(run)
    for change, said in (
        (nan_in_tokens, r"head\.mask\.tokens holds values that are not finite"),
        (lambda s: s.update({"head.mask.tokens": s["head.mask.tokens"].int()}), r"holds torch\.int32"),
        (lambda s: s.update({"head.mask.tokens": s["head.mask.tokens"][:2].clone()}), "1 of another shape"),
        (lambda s: s.pop("head.mask.tokens"), "1 tensors missing"),
    ):
        (run / WEIGHTS).write_bytes(whole)
        tensors(run, change)
        with pytest.raises(WeightsError, match=said):
            load(run)


@pytest.mark.parametrize("writes", [1, 2])
def test_a_kill_between_the_files_leaves_one_pair_or_the_other(
    writes: int, run: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after so many files of the newer model were written: before the tensors it is the older pair, then the newer."""

    class KilledError(BaseException):
        pass

    of = {1: load(run).predict(picture), 2: load(save_run(tmp_path / "new", 9, least_share=0.2)).predict(picture)}
    assert not np.array_equal(of[1], of[2])
    done: list[Path] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if len(done) == writes:
            raise KilledError
        done.append(target)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        patch.setattr(Path, "unlink", lambda self, **_: None)  # who is killed does not clear up
        with pytest.raises(KilledError):
            save_run(run, 9, least_share=0.2)
    assert np.array_equal(load(run).predict(picture), of[writes])
    assert read_description(run)["least_share"] == {1: 0.05, 2: 0.2}[writes]
    save_run(run, 9, least_share=0.2)
    assert np.array_equal(load(run).predict(picture), of[2])
    assert sorted(path.name for path in run.iterdir() if not path.name.endswith(".tmp")) == [DESCRIPTION, WEIGHTS]


@pytest.mark.parametrize("fault", ["an option", "torn weights"])
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_run_is_refused_once_before_the_first_picture(
    fault: str, engine: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """N14."""
    data = folder_dataset(tmp_path / "data")
    if fault == "an option":
        rewritten(run, lambda c: c["options"].update(rank_of_tomorrow=4))
        said = f"{run}/adapter.json: unknown option of lora 'rank_of_tomorrow'"
    else:
        (run / WEIGHTS).write_bytes((run / WEIGHTS).read_bytes()[:-100])
        said = f"{run}/adapter.safetensors: is not the file"
    commands = [
        ["predict", str(run), str(data / "images"), "--out", str(tmp_path / "p"), "--engine", engine],
        ["evaluate", str(run), "--data", str(data), "--out", str(tmp_path / "e")],
        ["serve", str(run), "--port", "0"],
    ]
    for command in commands if engine == "auto" else commands[:1]:
        assert main(command) in (1, 2)
        told = capsys.readouterr()
        assert said in told.err, command[0]
        assert len(told.err.strip().splitlines()) == 1, told.err
        assert told.out == ""
    assert not (tmp_path / "p").exists()


def test_a_changed_data_set_description_is_refused_or_told_or_changes_nothing(tmp_path: Path) -> None:
    root = folder_dataset(tmp_path / "data", described=DATASET)
    content = json.loads((root / "dataset.json").read_text())
    good, rng, outcomes = open_dataset(root), random.Random(1), Outcomes()
    for _ in range(COUNT):
        what, meant, text = mutated_text(content, rng)
        (root / "dataset.json").write_text(text)
        outcome = outcome_of(lambda: open_dataset(root), good.__eq__, root, meant)
        if outcome == SILENT and check_dataset(open_dataset(root)).faults:
            outcome = TOLD
        outcomes.add(what, outcome)
    outcomes.check("dataset.json")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("ignore", 3.5, "ignore is 3.5; expected a whole number"),
        ("ignore", True, "ignore is True; expected a whole number"),
        ("pairs", {"c1": "c2"}, "pairs is .*; expected names of classes"),
        ("colors", {"c1": [1, 2, 3]}, "colors has none for 'background'"),
        ("ignore", -1, "the ignore id must lie in 0..65535, got -1"),
        ("ignore", "none", "ignore is 'none'; expected a whole number of 0..65535"),
        ("labels", {"background": 0, "c1": 1.7}, "the id of 'c1' is 1.7; expected a whole number"),
        ("labels", {"background": 0, "c1": 10**30}, "is too large"),
        ("colors", 0, "colors is 0; expected names and values"),
        ("mask_values", [], r"mask_values is \[\]; expected names and values"),
        ("splits", "train.txt", "splits is 'train.txt'; expected names and values"),
        ("exclude", 5, "exclude is 5; expected a list of names"),
        ("group_regex", 1, "group_regex is 1; expected a text"),
        ("group_regex", "(", "group_regex '.' is no regular expression"),
        ("group_regex", "c", "group_regex 'c' has no group"),
        ("group_regex", "(zz)", "does not fit the file"),
        ("images", "pictures", "images is 'pictures', and there is no such folder"),
        ("masks", "../labels", "masks: the path '../labels' leads out of"),
        ("splits", {"train": ["zz"]}, "split 'train': 1 of 1 name without an image .zz."),
        ("splits", {"train": "../train.txt"}, "split 'train': the path '../train.txt' leads out of"),
        ("exclude", ["zz"], "'exclude' names zz, of which there is no image"),
    ],
)
def test_what_a_data_set_description_may_not_say(key: str, value: Any, said: str, tmp_path: Path) -> None:
    root = folder_dataset(tmp_path / "data", cases=1, test_cases=0, described={"splits": None, key: value})
    with pytest.raises(FormError, match=rf"dataset\.json: .*{said}"):
        open_dataset(root)
    assert main(["check", str(root)]) == 2


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"image_suffix": "_t1"}, "images: no image here; looked for <name>_t1 with"),
        ({"mask_suffix": "_seg"}, "labels: none of its 4 labels ends in '_seg'"),
        ({"exclude": ["P01_1", "P01_2", "P02_1", "P02_2"]}, "'exclude' names every image; leave one in"),
    ],
)
def test_names_that_leave_nothing_of_a_data_set_are_told(described: dict[str, Any], said: str, tmp_path: Path) -> None:
    root = folder_dataset(tmp_path / "data", cases=2, test_cases=0, described={"splits": None, **described})
    with pytest.raises(UsageError, match=said):
        open_dataset(root)
    assert main(["check", str(root)]) == 2


def test_a_path_with_a_nul_is_refused(tmp_path: Path) -> None:
    root = folder_dataset(tmp_path / "data", cases=1, test_cases=0, described={"images": "\0"})
    with pytest.raises(DataError, match=r"dataset\.json: images: the path '\\x00' holds a NUL character"):
        open_dataset(root)


def test_misspelt_keys_of_a_data_set_description_are_warned_of(tmp_path: Path) -> None:
    root = folder_dataset(tmp_path / "data", described={"mask_value": {"254": 1}, "licence": "CC0"})
    with pytest.warns(UserWarning, match="has the key 'mask_value'; did you mean 'mask_values'") as caught:
        open_dataset(root)
    assert len(caught) == 1


def trained_by(recipe: str, folder: Path) -> tuple[int, str]:
    """Exit code and what is said by `sampeft train` with a recipe and a folder that holds no data set."""
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(recipe)
    words = ["--config", str(folder / "recipe.yaml"), "--data", str(folder / "empty"), "--out", str(folder / "run")]
    with redirect_stderr(io.StringIO()) as told:
        return main(["train", *words]), told.getvalue()


def test_a_changed_recipe_is_refused_before_any_data_are_read_or_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not refused gets to the data, of which there are none."""
    configs: list[Any] = []
    denoiser, open_data = train_module.chosen_denoiser, train_module.open_dataset
    chosen: list[Any] = []
    monkeypatch.setattr(train_module, "chosen_denoiser", lambda config: (chosen.append(config), denoiser(config))[1])
    monkeypatch.setattr(train_module, "open_dataset", lambda *where: (configs.append(chosen[-1]), open_data(*where))[1])
    trained_by(yaml.safe_dump(RECIPE), tmp_path)
    good, rng, outcomes = configs[0], random.Random(2), Outcomes()
    for _ in range(COUNT):
        configs.clear()
        what, meant, changed = mutated(RECIPE, rng)
        try:
            code, told = trained_by(yaml.safe_dump(changed), tmp_path)
        except Exception as error:
            outcomes.add(f"{what}: {error!r}", TRACEBACK)
            continue
        one_line = code == 2 and len(told.strip().splitlines()) == 1
        accepted = EQUAL if configs == [good] else MEANT if meant else SILENT
        outcomes.add(what, accepted if configs else REFUSED if one_line else UNCLEAR)
    outcomes.check("recipe")


def test_recipes_that_could_mean_two_things_or_everything_end_at_once(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    for recipe, said in (
        (bomb, "line 2 repeats '&a0' by an alias, which recipes have not; write it out"),
        ("side: 256\nside: 512\n", "'side' is there twice"),
        ("options: " + "{a: " * 40 + "1" + "}" * 40, "is more than 20 levels deep"),
        ('training: {loss: "a\\0b"}', "line 1 holds a NUL character; no option does"),
        ("training: {lr: .nan}", "training.lr is nan; give above 0"),
        ("training: {patience: null}", "training.patience has no value; give one or leave it out"),
        ("training: {augmentation: []}", "training.augmentation is []; give names and values"),
        ("held_out: -1", "held_out is -1; give a share of 0 to below 1, or a whole number of cases"),
        ("held_out: .nan", "held_out is nan; give a share of 0 to below 1, or a whole number of cases"),
        ("training: {seed: 4294967296}", "training.seed is 4294967296; give 0 to 4294967295"),
        ("plane: axail", "unknown slice plane 'axail'; did you mean 'axial'"),
    ):
        code, told = trained_by(recipe, tmp_path)
        assert (code, said in told, len(told.strip().splitlines())) == (2, True, 1), told


def test_a_case_that_fails_unforeseen_is_in_no_score_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are scored as they are without it; the exit code says that not all is well."""
    root = folder_dataset(tmp_path / "data", cases=2, files_per_case=1, test_cases=0)
    real = score._tally

    def faulty(protocol: Any, prediction: Any, truth: Any, image: Any, dataset: Any) -> Any:
        if "P01" in image.path.name:
            raise ZeroDivisionError("by hand")
        return real(protocol, prediction, truth, image, dataset)

    monkeypatch.setattr(score, "_tally", faulty)
    pred = Path(shutil.copytree(root / "labels", tmp_path / "pred"))
    folders = ["--pred", str(pred), "--truth", str(root / "labels"), "--labels", str(root / "dataset.json")]
    with pytest.warns(
        UserWarning, match=r"P01_1: failed in a way that was not foreseen \(ZeroDivisionError: by hand\)"
    ):
        assert main(["evaluate", *folders, "--out", str(tmp_path / "e")]) == 1
    assert json.loads((tmp_path / "e/summary.json").read_text())["meta"]["failed"].keys() == {"P01_1"}
    assert "P01_1" not in (tmp_path / "e/scores.csv").read_text()
    assert "P02_1" in (tmp_path / "e/scores.csv").read_text()
    for folder in (pred, root / "labels"):
        (folder / "P02_1.png").unlink()
    assert main(["evaluate", *folders, "--out", str(tmp_path / "none")]) == 1
    assert "none of 1 cases could be scored; P01_1 failed in a way" in capsys.readouterr().err
