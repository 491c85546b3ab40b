"""Export a trained run as a whole, prompt-free model: merged weights, ONNX or OpenVINO, with a parity report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sampeft.configs.export import Config
from sampeft.errors import UsageError
from sampeft.export import export
from sampeft.one_writer import one_writer
from sampeft.options import check_paths
from sampeft.prediction.loading import load
from sampeft.workflows.inputs import all_files


def run(config: Config) -> int:
    check_paths(config)
    folder = config.run / "last" if config.last else config.run
    if config.out.resolve() == folder.resolve():
        raise UsageError(f"{config.out}: is the run itself; choose another --out")
    if not config.force and config.out.is_dir() and any(config.out.iterdir()):
        raise UsageError(f"{config.out}: is not empty; choose another --out or overwrite with --force")
    given = [config.images] if isinstance(config.images, str) else config.images or []
    files = all_files([Path(name) for name in given]) if given else []
    segmenter = load(config.run, weights=config.weights, last=config.last)
    for caution in segmenter.cautions:
        print(f"warning: {caution}", file=sys.stderr)
    with one_writer(config.out):
        parity = export(segmenter, folder, config.out, config.format, config.precision, files)
    passes = parity.passes(config.precision)
    if config.json:
        print(json.dumps({**parity.to_json(), "passes": passes, "out": str(config.out)}))
    else:
        print(
            f"{config.out}: {config.format}, {config.precision}, against the model in torch on "
            f"{'your' if files else 'made'} images"
        )
        print(f"{parity}\n")
        print("| class | DSC of both maps |\n|---|---:|")
        for k, dsc in parity.dsc.items():
            print(f"| {segmenter.labels.names[k]} | {dsc:.4f} |")
    if not passes:
        print("error: the exported model is not equal to the run; do not use it", file=sys.stderr)
    elif segmenter.preparation.denoise:
        print("warning: this run denoises images first; predict.py and model.json leave that to you", file=sys.stderr)
    return 0 if passes else 1
