"""`sampeft reproduce`: tables and figures on tiny data, each part done once, nothing of two settings mixed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fabricate.backbones import architectures
from fabricate.layouts import gid_mtl5, small_targets
from sampeft import losses
from sampeft.backbones import BACKBONES
from sampeft.cli import main
from sampeft.experiments import paper as reproduction
from sampeft.experiments import paper_refinement as reproduce_refinement
from sampeft.experiments import paper_robustness as reproduce_robustness
from sampeft.experiments.paper_refinement import change, change_text
from sampeft.metrics.scores import Evaluation
from sampeft.refine import REFINERS

SIDE = 64
TINY = ["--backbone", "tiny", "--weights", "random", "--side", str(SIDE), "--second_weights", "no_such.pth"]
TRAINING = ["--training.steps", "16", "--training.lr", "0.01", "--training.balance", "1", "--training.head_first", "0",
            "--held_out", "2"]  # fmt: skip
MASKS = ["--masks.points_per_side", "2", "--masks.predicted_iou", "0", "--masks.stability", "0"]
REDUCED = ["--subset", "4", "--oracle_subset", "2"]
COMMON = [*TINY, *TRAINING, *MASKS, *REDUCED]


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A SAM small enough for tests, and a cache of our own."""
    small = replace(architectures()["sam-vit-b"], name="tiny", native_side=SIDE, side=SIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", small)
        patch.setenv("SAMPEFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def table6(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data root, out) after `reproduce table6`, whose runs the other tests take."""
    root = tmp_path_factory.mktemp("table6")
    small_targets(root / "data" / "sirst")
    arguments = ["--data_root", str(root / "data"), "--out", str(root / "out"), *COMMON, "--budget", "0.5"]
    assert main(["reproduce", "table6", *arguments]) == 0
    return root / "data", root / "out"


def again(table6: tuple[Path, Path], what: str, *more: str) -> int:
    data, out = table6
    return main(["reproduce", what, "--data_root", str(data), "--out", str(out), *COMMON, "--budget", "0.5", *more])


def forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("what was done before is done again")


def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "score", "evaluate_segmenter"):
        monkeypatch.setattr(reproduction, name, forbidden)


def cells(text: str, start: str) -> list[str]:
    """Cells of the first line of a table that starts so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


# --- table 6, what is kept and what is refused ------------------------------------------------------------------------


def test_table6_has_the_papers_columns_ours_and_the_stamp(table6: tuple[Path, Path]) -> None:
    _, out = table6
    text = (out / "table6.md").read_text()
    assert text.startswith("# Table 6: DSC on SIRST\n")
    oracle = "oracle (uses the truth)"
    header = cells(text, "class")
    assert header[1:] == [
        f"paper: SAM, {oracle}",
        f"ours: zero-shot, best automatic masks, {oracle}",
        "paper: SAM LoRA r=4",
        "ours: LoRA r=4",
        "ours: LoRA r=4, head pixel",
        "ours: head pixel without SAM",
    ]  # SAM 2 is left out for want of weights
    assert cells(text, "background")[1:4:2] == ["0.761", "1.000"]
    assert cells(text, "target")[1:4:2] == ["0.520", "0.887"]
    assert cells(text, "with background, as the paper averages")[1:4:2] == ["0.641", "0.944"]
    stamp = next(line for line in text.splitlines() if line.startswith("- Ours: "))
    assert "4 test cases of sirst (REDUCED: a subset of 5); oracles on 2 of them (REDUCED); 2 seeds" in stamp
    assert "16 steps or 0.5 minutes (REDUCED by --budget) of training each; tiny at side 64; RANDOM WEIGHTS" in stamp
    # Ours are the evaluations' own numbers.
    runs = [Evaluation.read(out / "lora-r-4" / f"seed{seed}" / "eval") for seed in (0, 1)]
    zero_shot = Evaluation.read(out / "zero-shot-best-automatic-masks" / "eval")
    assert [len(e.cases) for e in (*runs, zero_shot)] == [4, 4, 2]
    assert zero_shot.is_oracle
    assert cells(text, "target")[2].startswith(f"{zero_shot.headline().mean:.3f} [")
    each = [run.headline().mean for run in runs]
    assert cells(text, "foreground mean of each seed")[4] == ", ".join(f"{value:.3f}" for value in each)
    assert cells(text, "**foreground mean**")[4].startswith(f"**{np.mean(each):.3f} [")
    assert cells(text, "method")[1:] == [
        "IoU (all pixels)", "nIoU", "Pd", "Fa (1e-6)", "F1 (all pixels)", "DSC (mean over images)",
    ]  # fmt: skip
    for seed, run in enumerate(runs):
        counts, targets = run.pooled(), run.targets()["target"]
        tp, fp, fn = (int(part[1]) for part in (counts.tp, counts.fp, counts.fn))
        assert cells(text, f"LoRA r=4, seed {seed}")[1:] == [
            f"{tp / (tp + fp + fn):.3f}",
            f"{np.nanmean(run.matrix('iou')[:, 1]):.3f}",
            f"{targets.pd:.3f}",
            f"{1e6 * targets.fa:.1f}",
            f"{2 * tp / (2 * tp + fp + fn):.3f}",
            f"{run.headline().mean:.3f}",
        ]
    record = json.loads((out / "table6.json").read_text())
    assert record["numbers"]["undefined left out"]["LoRA r=4"][0]["dsc"]["mean"] == pytest.approx(each[0])
    assert (out / "table6.csv").read_text().count("\n") == 1 + 4 * 2


def test_the_same_command_again_only_reads(
    table6: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = table6
    before = {name: (out / name).read_bytes() for name in ("table6.md", "table6.csv", "table6.json")}
    no_work(monkeypatch)
    assert again(table6, "table6") == 0
    said = capsys.readouterr()
    assert before == {name: (out / name).read_bytes() for name in before}
    assert said.out.strip() == before["table6.md"].decode().strip()
    assert "SAM 2 zero-shot, best automatic masks is left out: " in said.err
    assert "no_such.pth" in said.err
    assert said.err.strip().endswith(f"made      {out / 'table6.md'}")


@pytest.mark.parametrize(
    ("change_of", "named"),
    [
        (["--training.steps", "3"], "training.steps was 16, is 3"),
        (["--side", "32"], "side was 64, is 32"),
        (["--masks.points_per_side", "3"], "automatic_masks.points_per_side was 2, is 3"),
        (["--budget", "1"], "training.minutes was 0.5, is 1.0"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(
    table6: tuple[Path, Path],
    change_of: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    no_work(monkeypatch)
    assert again(table6, "table6", *change_of) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert named in line
    assert "choose another --out" in line


def test_another_subset_is_scored_anew_with_the_same_runs(
    table6: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of other cases must not be taken for those that are asked for."""
    import shutil

    data, out = table6
    shutil.copytree(out, tmp_path / "out")
    monkeypatch.setattr(reproduction, "train", forbidden)
    assert again((data, tmp_path / "out"), "table6", "--subset", "2", "--oracle_subset", "1") == 0
    text = (tmp_path / "out" / "table6.md").read_text()
    assert "2 test cases of sirst (REDUCED: a subset of 5); oracles on 1 of them (REDUCED)" in text
    assert Evaluation.read(tmp_path / "out/lora-r-4/seed0/eval").cases == ("Misc_206", "Misc_210")


def test_a_stopped_training_is_told_and_done_again(
    table6: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = table6[0], tmp_path / "out"
    loss = losses.segmentation_loss
    sent: list[int] = []

    def stopping(*arguments: Any, **named: Any) -> Any:
        if not sent:  # a step may take several losses, and a second Ctrl-C ends the process at once
            sent.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(losses, "segmentation_loss", stopping)
        assert again((data, out), "table6", "--seeds", "1", "--training.steps", "2") == 130
    line = capsys.readouterr().err.strip().splitlines()[-2]
    assert line == f"stopped; what was finished is kept in {out}, the same command again goes on from there"
    assert not (out / "table6.md").exists()
    finished = out / "zero-shot-best-automatic-masks/eval/summary.json"
    assert finished.is_file()
    monkeypatch.setattr(reproduction, "score", forbidden)
    assert again((data, out), "table6", "--seeds", "1", "--training.steps", "2") == 0
    assert "1 seed, 2 steps or 0.5 minutes (REDUCED by --budget) of training;" in (out / "table6.md").read_text()


# --- figures and table 5 ----------------------------------------------------------------------------------------------


def test_figure7_shows_four_cases_and_says_how_they_were_chosen(
    table6: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sampeft.experiments.paper_tables as tables

    _, out = table6
    drawn: list[Any] = []
    real = tables.figure_examples

    def spy(examples: Any, labels: Any, path: Path) -> Any:
        drawn.extend(examples)
        return real(examples, labels, path)

    monkeypatch.setattr(tables, "figure_examples", spy)
    monkeypatch.setattr(reproduction, "train", forbidden)
    assert again(table6, "figure7", "--subset", "5") == 0  # the same --budget is the same training
    assert [example.case for example in drawn] == ["Misc_206", "Misc_207", "Misc_209", "Misc_210"]
    assert [example.title for example in drawn] == [example.case for example in drawn]  # said once
    for example in drawn:
        assert list(example.panels) == ["truth", "zero-shot, best automatic masks (oracle)", "LoRA r=4"]
        assert (example.truth_HW == 1).sum() in (8 * 10, 8 * 9)
    width, height = Image.open(out / "figure7.png").size
    assert 1 < width / height < 2  # four columns and four rows of 32 x 24 pixels
    caption = (out / "figure7.md").read_text()
    assert "4 cases, evenly spread over the test list and not chosen by score" in caption
    assert "REDUCED" in caption
    said = capsys.readouterr().err.strip()
    assert said.startswith("budget    1 training of 0.5 minutes, 0.5 minutes in all, ")
    assert said.endswith("figure7.png")


def test_table5_has_both_readings(tmp_path: Path) -> None:
    gid_mtl5(tmp_path / "data" / "gid_mtl5")
    out = tmp_path / "out"
    arguments = ["--data_root", str(tmp_path / "data"), "--out", str(out), *TINY, *TRAINING, *MASKS, "--seeds", "1"]
    arguments += ["--held_out", "1", "--training.steps", "2"]
    assert main(["reproduce", "table5", *arguments]) == 0
    text = (out / "table5.md").read_text()
    background, foreground = text.split("## Undefined pixels are left out")
    assert "## Undefined pixels are a background class, as in the paper" in background
    assert cells(background, "background")[1:4:2] == ["0.106", "0.805"]
    assert "| background |" not in foreground
    assert cells(foreground, "water")[1:4:2] == ["0.277", "0.452"]
    assert "1 test case of gid_mtl5, undefined as background; 1 seed, 2 steps " in background
    for part, folder, classes in ((background, "undefined", 6), (foreground, "defined", 5)):
        evaluation = Evaluation.read(out / folder / "lora-r-4" / "seed0" / "eval")
        assert len(evaluation.labels) == classes
        accuracy, iou, f1, kappa = evaluation.summary()["all_pixels"].values()
        figures = [f1, iou, accuracy, kappa, evaluation.headline().mean]
        assert cells(part, "method")[1:] == ["F1 (all pixels)", "mIoU", "OA", "kappa", "DSC (mean over images)"]
        assert cells(part, "LoRA r=4, seed 0")[1:] == [f"{value:.3f}" for value in figures]
        assert cells(part, "**foreground mean**")[4] == f"**{evaluation.headline().mean:.3f}**"
    # The figure takes the runs of its reading.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduction, "train", forbidden)
        assert main(["reproduce", "figure6", *arguments]) == 0
    assert (out / "figure6.png").is_file()


# --- robustness and refinement ----------------------------------------------------------------------------------------

DNCNN = ["--denoising.depth", "2", "--denoising.width", "4", "--denoising.patch", "16", "--denoising.batch", "2",
         "--denoising_minutes", "0.01"]  # fmt: skip


def test_robustness_scores_every_way_on_the_same_noise(
    table6: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = table6
    seen: dict[str, set[bytes]] = {}
    real = reproduce_robustness.SliceScene

    def spy(prepared: Any) -> Any:
        noisy = prepared.noise(torch.full((1, 6, 6), 0.5), 0)
        seen.setdefault(prepared.volume.path.name, set()).add(noisy.numpy().tobytes())
        return real(prepared)

    trained: list[Path] = []
    dncnn = reproduce_robustness.train_denoiser

    def once(config: Any) -> Any:
        trained.append(config.out)
        return dncnn(config)

    monkeypatch.setattr(reproduce_robustness, "SliceScene", spy)
    monkeypatch.setattr(reproduce_robustness, "train_denoiser", once)
    arguments = ["--of", "sirst", *DNCNN]
    assert again(table6, "robustness", "--strengths", "[0.1,0]", *arguments) == 0
    assert trained == [out / "dncnn" / "gaussian"]
    # For each picture two noises, none and one, whatever the way; and no two pictures have the same.
    assert [len(noises) for noises in seen.values()] == [2] * 4
    assert len(set.union(*seen.values())) == 1 + 4
    ordinary, plain = (Evaluation.read(out / f) for f in ("lora-r-4/seed0/eval", "noise/plain/gaussian-0"))
    np.testing.assert_array_equal(plain.matrix("dsc"), ordinary.matrix("dsc"))
    text = (out / "robustness-gaussian.md").read_text()
    assert cells(text, "way")[1:] == ["gaussian 0", "gaussian 0.1"]
    ways = ["plain", "gaussian before it", "nlm before it", "dncnn before it", "trained on noise up to 0.1"]
    record = json.loads((out / "robustness-gaussian.json").read_text())
    assert list(record["dsc"]) == ways
    for way in ways:
        for shown, strength in zip(cells(text, way)[1:], ("0", "0.1"), strict=True):
            found = Evaluation.read(out / "noise" / way.replace(" ", "-") / f"gaussian-{strength}").headline()
            assert shown.startswith(f"{found.mean:.3f} [")
            assert record["dsc"][way][strength] == found.mean
    assert "1 seed" in text
    assert Image.open(out / "robustness-gaussian.png").size[0] > 500
    noisy = json.loads((out / "lora-r-4-trained-on-gaussian-noise/seed0/run/config.json").read_text())
    assert noisy["training"]["augmentation"]["noises"] == ["gaussian"]
    assert noisy["training"]["augmentation"]["noise_strength"] == [0.0, 0.1]
    denoise = json.loads((out / "noise/dncnn-before-it/gaussian-0.1/summary.json").read_text())
    assert denoise["meta"]["noise"] == "gaussian 0.1"
    # Again: nothing is scored or trained; with other strengths the networks trained on noise would not fit.
    monkeypatch.setattr(reproduce_robustness, "score_cases", forbidden)
    monkeypatch.setattr(reproduce_robustness, "train_denoiser", forbidden)
    no_work(monkeypatch)
    assert again(table6, "robustness", "--strengths", "[0,0.1]", *arguments) == 0
    assert (out / "robustness-gaussian.md").read_text() == text
    assert again(table6, "robustness", "--strengths", "[0,0.1]", *arguments, "--denoising.width", "5") == 2


def test_refiners_are_fitted_on_held_out_cases_alone(
    table6: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = table6
    seen: list[str] = []
    real = reproduce_refinement.Rough.of

    def spy(segmenter: Any, dataset: Any, cases: Any, progress: Any) -> Any:
        seen.extend(case.id for case in cases)
        return real(segmenter, dataset, cases, progress)

    monkeypatch.setattr(reproduce_refinement.Rough, "of", spy)
    monkeypatch.setattr(reproduce_refinement, "REFINERS", {"components": REFINERS["components"]})
    assert again(table6, "refinement", "--of", "sirst") == 0
    config = json.loads((out / "lora-r-4/seed0/run/config.json").read_text())
    assert len(seen) == 2
    assert seen == config["held_out_cases"]
    before, after = (Evaluation.read(out / "refined" / name) for name in ("none", "components"))
    assert not set(seen) & {*before.cases, *config["training_cases"]}
    text = (out / "refinement.md").read_text()
    assert cells(text, "refiner")[4:] == ["change of DSC", "change of NSD with a tolerance in pixels",
                                          "change of HD95 (px)", "missed", "false"]  # fmt: skip
    assert cells(text, "components")[4] == change_text(*change(before, after, "dsc"))
    assert cells(text, "none")[4] == ""
    assert "fitted by the foreground DSC of 2 held-out cases, never by test cases" in text
    record = json.loads((out / "refinement.json").read_text())["refiners"]["components"]
    assert len(record["tried"]) == 24
    monkeypatch.setattr(reproduce_refinement, "evaluate_segmenter", forbidden)
    assert again(table6, "refinement", "--of", "sirst") == 0
    assert (out / "refinement.md").read_text() == text


# --- what users mistype -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel6"], "unknown table or figure 'tabel6'; did you mean 'table6'?"),
        (["table6", "--data_root", "nowhere"], "nowhere: has none of sirst, SIRST-5K, SIRST, NUAA-SIRST"),
        (["table6", "--seeds", "0"], "--seeds is 0; give 1 to 1000"),
        (["table6", "--oracle_subset", "0"], "--oracle_subset is 0; give 1 to 1000000"),
        (["table6", "--budget", "-3"], "--budget is -3; give above 0 to 525600"),
        (["table6", "--side", "65"], "65"),
        (["table6", "--backbone", "tinny"], "unknown backbone 'tinny'; did you mean 'tiny'?"),
        (["robustness", "--of", "sirts"], "unknown data set 'sirts'; did you mean 'sirst'?"),
        (["robustness", "--strengths", "[]"], "--strengths are none"),
        (["robustness", "--strengths", "[0.1,-1]"], "--strengths is -1; give 0 or more"),
        (["robustness", "--noise", "gausian"], "unknown noise 'gausian'; did you mean 'gaussian'?"),
    ],
)
def test_mistakes_are_told_before_any_work(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--backbone", "tiny"] if "--backbone" not in arguments else []
    assert main(["reproduce", *arguments, *given]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("name", ["params", "table3"])
def test_parameters_stand_beside_the_papers(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", name, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.strip() == (tmp_path / "table3.md").read_text().strip()
    assert cells(text, "LoRA r=4")[1:] == ["95.5", "95.31", "95,308,608", "2.5", "2.35", "2,346,176"]
    assert [cells(text, row)[1] for row in ("LoRA r=1", "LoRA r=8", "Adapter")] == ["95.3", "95.6", "106.1"]
    assert [cells(text, row)[4] for row in ("LoRA r=1", "LoRA r=8", "Adapter")] == ["2.4", "2.7", "10.8"]


def test_info_names_what_each_part_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["noises"]["rician"].startswith("Noise of MR magnitude images")
    assert "standard deviation" in found["noises"]["gaussian"]
    assert found["denoisers"]["nlm"].endswith("[cut, sigma, patch, distance]")
    assert (
        found["refiners"]["components"] == f"{REFINERS['components'].about} [keep, least_size, fill_holes, least_sizes]"
    )
    assert found["oracle protocols"]["union"].startswith("as masks, but more masks are joined")
