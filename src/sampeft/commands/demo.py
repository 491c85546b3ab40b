"""`sampeft demo`: the main job end to end, in minutes: data, training, scores beside zero-shot, label maps, report."""

from __future__ import annotations

import json
import time
from pathlib import Path

from sampeft.backbones import load_backbone
from sampeft.configs.demo import PHANTOM, Config
from sampeft.configs.train import Config as TrainConfig
from sampeft.console import bar, clock, say
from sampeft.data import open_dataset
from sampeft.model import SemanticSam
from sampeft.options import check_paths
from sampeft.oracle.protocols import NAME
from sampeft.phantom.ct import PhantomConfig, write_phantom
from sampeft.prediction.loading import load
from sampeft.report.results import write_results
from sampeft.stopping import unless_stopped
from sampeft.training.loop import Training
from sampeft.workflows.evaluate import checked_cases, evaluate_segmenter
from sampeft.workflows.oracle import score_oracle
from sampeft.workflows.train import train


def run(config: Config) -> int:
    check_paths(config)
    started = time.monotonic()
    out = config.out
    notes = ["Research software, not a medical device."]
    say("sampeft demo: the promptable LiteMedSAM becomes an automatic segmenter of 13 abdominal organs\n")

    data = Path(config.data)
    if config.data == PHANTOM:
        data = out / "phantom"
        say("1/5  making synthetic abdominal CT, a stand-in for patients: no real scan can be shipped")
        notes.append("SYNTHETIC DATA: scores on phantoms say that the machinery works, not how good it is on patients.")
        with bar("phantom") as shown:
            write_phantom(data, PhantomConfig(patients=12, test_patients=3, slices=32, seed=config.seed), shown)
    else:
        say(f"1/5  data from {data}")

    say(f"\n2/5  training for {config.minutes:g} minutes")
    run_folder = out / "run"
    training = Training(
        minutes=config.minutes,
        seed=config.seed,
        lr=4e-3,
        head_first=1.0,  # all on kept views, of which three minutes need few
        head_bank=192,
        head_batch=6,
        patch=config.side // 2 if config.side % 224 == 0 else 0,  # where the maps of the encoder can be halved
        forced=1.0,
        whole_weight=1.0,
        ema=0.99,
        validations=1,
    )
    result = train(
        TrainConfig(
            data=data,
            out=run_folder,
            method="decoder",
            side=config.side,
            encoder_side=config.side // 2,
            held_out=0,
            training=training,
            plan=False,
            force=True,
        )
    )
    unless_stopped(result)

    say("\n3/5  scoring on cases that training never saw")
    segmenter = load(run_folder)
    dataset = open_dataset(data)
    cases = checked_cases(dataset, "test")
    evaluation, looks = evaluate_segmenter(segmenter, dataset, cases, "test", out / "labels")

    say(
        "\n4/5  zero-shot for comparison: the untouched LiteMedSAM, given boxes drawn round the true organs (an oracle)"
    )
    promptable = SemanticSam(load_backbone(segmenter.description["backbone"]), dataset.labels, config.side)
    oracle, _ = score_oracle(promptable, dataset, cases, segmenter.preparation, "test")

    say("\n5/5  report")
    write_results(out, {segmenter.name: evaluation, NAME: oracle}, looks, segmenter, run_folder, notes)

    ours, theirs = evaluation.headline(), oracle.headline()
    text = (
        f"\nforeground DSC, {len(cases)} test cases, mean over {len(dataset.labels.foreground)} classes of the mean over cases\n"
        f"  {segmenter.name:<34} {ours.mean:.3f}  [{ours.low:.3f}, {ours.high:.3f}]   automatic\n"
        f"  {NAME:<34} {theirs.mean:.3f}  [{theirs.low:.3f}, {theirs.high:.3f}]   the truth drew its boxes\n\n"
        f"  report        {out / 'report.html'}\n"
        f"  table         {out / 'table.md'}\n"
        f"  label maps    {out / 'labels'}\n"
        f"  trained model {run_folder}   (sampeft predict {run_folder} IMAGE --out DIR)\n\n"
        f"done in {clock(time.monotonic() - started)}. {' '.join(notes)}"
    )
    if config.json:
        print(json.dumps({"out": str(out), "dsc": ours.mean, "oracle_dsc": theirs.mean, "steps": result.steps}))
    else:
        print(text)
    return 0
